"""Faults of chargers raised and published, each change once.

The fleet's last closed hours are judged by a stored function (faults.sql), which writes each
change of a fault's state together with it. What is written is published from there, at least once
whatever ends a run, always with the same id.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import LiteralString, NamedTuple

from psycopg.errors import DataError, QueryCanceled

from telemetry.database import TIME_LIMIT, Connection, Row
from telemetry.errors import AlertsUnpublished
from telemetry.faults import Notice
from telemetry.rules import Rules
from telemetry.summaries import last_whole_hour
from telemetry.targets import MOST_NOTICES, PUBLISH_SECONDS, Target

# Vehicles that are judged in one transaction.
CHUNK = 200

_EVALUATE: LiteralString = "SELECT evaluate_faults(%s, %s, %s, %s, %s, %s, %s, %s, %s)"
_NEXT: LiteralString = "SELECT find_next_vehicle(%s)"
_TAKE: LiteralString = "SELECT * FROM take_notices(%s)"
_MARK: LiteralString = "SELECT mark_fault_changes(%s, %s)"
_COUNT: LiteralString = "SELECT count_fault_changes()"


class Watch(NamedTuple):
    """How far back a charger is judged, and from where on a value is a hint to the reason.

    low_voltage: V on average while energy is drawn; high_battery_temp: °C on average.
    """

    length: timedelta = timedelta(hours=24)
    low_voltage: float = 207.0
    high_battery_temp: float = 45.0


class Judged(NamedTuple):
    """The end of the last window, why which vehicles could not be judged, and whether all were."""

    until: datetime
    failed: dict[str, str]
    is_complete: bool


def evaluate_fleet(
    connection: Connection,
    rules: Rules,
    watch: Watch,
    now: datetime,
    *,
    chunk: int = CHUNK,
    go: Callable[[], bool] = lambda: True,
) -> Judged:
    """Judge each charger in the last two windows that end on a whole hour.

    A vehicle that cannot be judged, or not within the time limit of a statement, keeps its faults
    as they are; the others are judged. Ends early where go says so. Needs autocommit. Safe to
    repeat, to run twice at once, and to be ended anywhere. Raises psycopg.Error.
    """
    until = last_whole_hour(now)
    thresholds = (rules.by_name, rules.least_kwh, rules.least_coverage)
    hints = (watch.low_voltage, watch.high_battery_temp)
    last: str | None = ""
    most = chunk
    failed: dict[str, str] = {}
    while last is not None and go():
        connection.deadline = time.monotonic() + TIME_LIMIT
        try:
            [(last,)] = connection.execute(
                _EVALUATE, (last, most, until, watch.length, *thresholds, *hints)
            ).fetchall()
            most = min(chunk, most * 2)
        except (DataError, QueryCanceled) as error:
            if most == 1:
                [(last,)] = connection.execute(_NEXT, (last,)).fetchall()
                if last is not None:
                    failed[last] = error.diag.message_primary or type(error).__name__
            chunk = min(chunk, 25)  # where there is one, there may be more
            most = max(1, most // 4)
    return Judged(until, failed, is_complete=last is None)


def publish_changes(connection: Connection, target: Target) -> list[Notice]:
    """Publish what was not yet published, the oldest first, and return it.

    Needs autocommit. What another run is publishing just now is left to it. What ends this between
    publishing and marking has the next run publish it again, with its id. Raises AlertsUnpublished
    where some are left that the target does not take, and psycopg.Error.
    """
    published: list[Notice] = []
    while True:
        connection.deadline = time.monotonic() + TIME_LIMIT + PUBLISH_SECONDS
        with connection.transaction():
            rows = connection.execute(_TAKE, (MOST_NOTICES,)).fetchall()
            notices = [_notice(row) for row in rows]
            taken = target.publish(notices) if notices else []
            connection.execute(
                _MARK, ([each.fault_id for each in taken], [each.change for each in taken])
            )
        published += taken
        if not taken:
            if notices:
                raise AlertsUnpublished
            return published


def count_unpublished(connection: Connection) -> int:
    """Return how many changes wait to be published. Raises psycopg.Error."""
    connection.deadline = time.monotonic() + TIME_LIMIT
    [(count,)] = connection.execute(_COUNT).fetchall()
    return int(count)


def _notice(row: Row) -> Notice:
    fault_id, change, changed_at, vehicle_id, meter_id, kind, details = row
    return Notice(
        id=f"{fault_id}-{change}",
        change=change,
        changed_at=changed_at,
        fault_id=fault_id,
        vehicle_id=vehicle_id,
        meter_id=meter_id,
        kind=kind,
        **details,
    )
