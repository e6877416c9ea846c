"""Summaries made ahead of questions: daily rollups, and the fleet's 24 hours up to a whole hour.

Every hour the maintenance calls this; readings and links that come later mark what they change
(daily_rollups.sql and fleet.sql), so that a summary is never wrong, only computed when asked for.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import LiteralString

import psycopg

from telemetry.database import Row
from telemetry.rules import Rules

HOUR = timedelta(hours=1)
# Live rows that are locked at once: their writers wait while these are summed.
CHUNK = 200

_METERS: LiteralString = """
    SELECT array_agg(meter_id ORDER BY meter_id) FROM (
        SELECT meter_id FROM meter_live_status WHERE meter_id > %s ORDER BY meter_id LIMIT %s
    ) AS next
"""
_VEHICLES: LiteralString = """
    SELECT array_agg(vehicle_id ORDER BY vehicle_id) FROM (
        SELECT vehicle_id FROM vehicle_live_status WHERE vehicle_id > %s
        ORDER BY vehicle_id LIMIT %s
    ) AS next
"""


def refresh_summaries(connection: psycopg.Connection[Row], now: datetime, rules: Rules) -> int:
    """Sum every device up to the last whole hour; return the number of vehicles.

    Needs the owner's rights and autocommit: each chunk is a transaction of its own. Safe to repeat,
    to run twice at once, and to be ended anywhere: the fleet's window moves when all is done.
    The fleet's window serves reports by the same rules; where a refresh by other rules has begun
    since, this one leaves the window to it. Raises psycopg.Error.
    """
    until = last_whole_hour(now)
    window = (until, rules.by_name, rules.least_kwh, rules.least_coverage)
    connection.execute("SELECT begin_fleet_window(%s, %s, %s, %s)", window)
    vehicles = 0
    for meter_ids in _chunks(connection, _METERS):
        connection.execute("SELECT sum_meters(%s, %s)", (meter_ids, until))
    for vehicle_ids in _chunks(connection, _VEHICLES):
        [(ours,)] = connection.execute(
            "SELECT summarize_vehicles(%s, %s, %s, %s, %s)", (vehicle_ids, *window)
        ).fetchall()
        if not ours:
            return vehicles
        vehicles += len(vehicle_ids)
    connection.execute("SELECT finish_fleet_window(%s, %s, %s, %s)", window)
    return vehicles


def keep_ground(
    connection: psycopg.Connection[Row], opened: datetime, closed: datetime, rules: Rules
) -> None:
    """Keep what vehicles and meters have in common in (opened, closed], before it is archived.

    Both are whole hours. Needs the owner's rights and autocommit. Safe to repeat, and to be ended
    anywhere. Raises psycopg.Error.
    """
    until = closed + 2 * HOUR  # the last hour is kept when the two after it are over
    for vehicle_ids in _chunks(connection, _VEHICLES):
        connection.execute(
            "SELECT keep_ground(%s, %s, %s, %s)", (vehicle_ids, opened, until, rules.by_name)
        )


def last_whole_hour(now: datetime) -> datetime:
    """Return where the fleet's window ends that is summarized now."""
    return now.replace(minute=0, second=0, microsecond=0)


def _chunks(connection: psycopg.Connection[Row], statement: LiteralString) -> Iterator[list[str]]:
    last = ""
    while True:
        [(ids,)] = connection.execute(statement, (last, CHUNK)).fetchall()
        if not ids:
            return
        yield ids
        last = ids[-1]
