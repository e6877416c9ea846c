"""Readings stored again, whose devices were declared otherwise after they had come: devices.sql."""

from collections.abc import Callable

import psycopg

from telemetry.database import Row
from telemetry.streams import STREAMS

# Readings of a device that are looked at in one transaction.
_MOST = 2000


def store_again(connection: psycopg.Connection[Row], go: Callable[[], bool]) -> int:
    """Store what devices told again, where they are declared otherwise since; return how many.

    Ends early where go says so. A run that is killed anywhere is repeated by the next. Raises
    psycopg.Error.
    """
    changed = connection.execute(
        """SELECT device_id, changed_after, xmin::text FROM devices
           WHERE changed_after IS NOT NULL ORDER BY changed_after"""
    ).fetchall()
    for done, (device_id, accepted_after, as_read) in enumerate(changed):
        for stream in STREAMS:
            statement = f"SELECT store_{stream}_again(%s, %s, %s, {_MOST})".encode()
            last: object = "-infinity"
            while last is not None:
                if not go():
                    return done
                [(last,)] = connection.execute(statement, (device_id, accepted_after, last))
        connection.execute("SELECT finish_declaration(%s, %s::xid)", (device_id, as_read))
    return len(changed)


def count_changed(connection: psycopg.Connection[Row]) -> int:
    """Return how many devices' readings are to be stored again. Raises psycopg.Error."""
    [(found,)] = connection.execute(
        "SELECT count(*) FROM devices WHERE changed_after IS NOT NULL"
    ).fetchall()
    return int(found)
