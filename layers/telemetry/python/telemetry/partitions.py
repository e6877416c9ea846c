"""The partitions of history, made ahead of the readings that will need them.

Time that has passed is cut coarsely (decades and years by the first migration, then months), the
current month and what follows into days. Where they were not made in time, readings went to the
default partition: it becomes a partition like the others, and a new one takes its place.

No lock taken here holds up writers for longer than LOCK_LIMIT: what cannot be had within it is let
go of and tried again.
"""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.errors import CheckViolation, LockNotAvailable, UndefinedObject

from telemetry.database import Row
from telemetry.errors import DefaultPartitionMixed
from telemetry.streams import STREAMS

HISTORIES = tuple(stream.history for stream in STREAMS.values())
DAYS_AHEAD = 14
# How far ahead a default partition reaches that is made a partition of its own. Meanwhile it takes
# nothing beyond: a run that was killed has to be repeated within these days.
ADOPTED_DAYS_AHEAD = 7
LOCK_KEY = 0x656E6572_70617274  # "enerpart"
LOCK_LIMIT = "500ms"
LOCK_TRIES = 20
LOCK_PAUSE = 0.2

# Partitions of whatever is partitioned by ranges; the bounds of a default partition are null.
RANGES: LiteralString = """
    SELECT inhparent, part.oid, part.relname AS name,
           bound[1]::timestamptz AS range_start, bound[2]::timestamptz AS range_end
    FROM pg_inherits JOIN pg_class part ON part.oid = inhrelid
    LEFT JOIN LATERAL regexp_match(
        pg_get_expr(part.relpartbound, part.oid), $re$FROM \\('([^']+)'\\) TO \\('([^']+)'\\)$re$
    ) AS bound ON true
"""

# The instant up to which the explicit partitions of all the history tables asked for reach; null
# where one of them has none.
END_OF_PARTITIONS = f"""
    SELECT CASE WHEN count(*) = count(reach) THEN min(reach) END
    FROM unnest(%s::text[]) AS asked (name)
    LEFT JOIN LATERAL (
        SELECT max(range_end) AS reach FROM ({RANGES}) AS part
        WHERE inhparent = to_regclass(asked.name)
    ) AS history ON true
"""


def make_partitions(
    connection: psycopg.Connection[Row], now: datetime, days_ahead: int = DAYS_AHEAD
) -> list[str]:
    """Make the partitions that are missing until days_ahead days after now; return their names.

    Safe to run twice, twice at once, and again after it was killed. Takes a connection of the
    owner's or the maintenance's, to the database itself. Raises DefaultPartitionMixed, and
    psycopg.errors.LockNotAvailable where other transactions hold a history table for many seconds.
    """
    target = now + timedelta(days=days_ahead)
    made = []
    for history in HISTORIES:
        default = _Default(connection, history)
        while default.is_occupied() or _end_of_partitions(connection, history) < target:
            if default.is_occupied():
                name = default.adopt(now)
            else:
                name = change_locked(
                    connection, partial(_make_next, connection, history, now, target)
                )
            if name:
                made.append(name)
    return made


def count_strays(connection: psycopg.Connection[Row]) -> int:
    """Return how many readings are in the default partitions, for want of a partition."""
    counts = [
        sql.SQL("(SELECT count(*) FROM {})").format(sql.Identifier(f"{history}_default"))
        for history in HISTORIES
    ]
    [(count,)] = connection.execute(sql.SQL("SELECT {}").format(sql.SQL(" + ").join(counts)))
    return int(count)


def change_locked(
    connection: psycopg.Connection[Row], change: Callable[[], str | None]
) -> str | None:
    """Make a change in one transaction, alone among those who change partitions.

    Return what it returns: the name of the partition made. None where there was nothing to do any
    more, or where the default partition holds a reading that does not let it be done this way.
    Raises psycopg.errors.LockNotAvailable after many tries.
    """
    for left in reversed(range(LOCK_TRIES)):
        try:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
                connection.execute(f"SET LOCAL lock_timeout = '{LOCK_LIMIT}'")
                return change()
        except CheckViolation:
            return None
        except LockNotAvailable:
            if not left:
                raise
            time.sleep(random.uniform(0.5, 1) * LOCK_PAUSE)  # noqa: S311 - lets writers through
    raise AssertionError


def _end_of_partitions(connection: psycopg.Connection[Row], history: str) -> datetime:
    [(end,)] = connection.execute(END_OF_PARTITIONS, ([history],))
    assert isinstance(end, datetime)
    return end.astimezone(UTC)


def _make_next(
    connection: psycopg.Connection[Row], history: str, now: datetime, target: datetime
) -> str | None:
    start = _end_of_partitions(connection, history)
    if start >= target:
        return None
    name, end = _next_partition(history, start, now)
    # Made apart and attached: PARTITION OF would lock out every writer of the history. Attaching
    # locks the default partition, and fails where a reading has come to lie there in between.
    connection.execute(
        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(
            sql.Identifier(name), sql.Identifier(history)
        )
    )
    attach_partition(connection, history, name, start, end)
    return name


def attach_partition(
    connection: psycopg.Connection[Row], history: str, name: str, start: datetime, end: datetime
) -> None:
    """Make a table the partition of a range, and its owner the one of all partitions."""
    _give_to_maintenance(connection, name)
    connection.execute(
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier(history), sql.Identifier(name), start, end
        )
    )


def _give_to_maintenance(connection: psycopg.Connection[Row], name: str) -> None:
    connection.execute(
        sql.SQL("ALTER TABLE {} OWNER TO telemetry_maintain").format(sql.Identifier(name))
    )


def _next_partition(history: str, start: datetime, now: datetime) -> tuple[str, datetime]:
    if start.day == 1:
        month_end = (start + timedelta(days=31)).replace(day=1)
        if month_end <= now:
            return f"{history}_{start:%Y_%m}", month_end
    return f"{history}_{start:%Y_%m_%d}", start + timedelta(days=1)


class _Default:
    """The default partition of a history.

    Rows are never moved, which would take long for a day's worth of readings and hide them from the
    sums in between. The table itself becomes the partition of its rows' range: that they are within
    it is proved beforehand while writers go on, so that the exchange takes milliseconds.
    """

    def __init__(self, connection: psycopg.Connection[Row], history: str) -> None:
        self._connection = connection
        self._history = history
        self._name = f"{history}_default"
        self._table = sql.Identifier(self._name)
        self._bounds = sql.Identifier(f"{self._name}_bounds")

    def is_occupied(self) -> bool:
        """Return whether readings are in it."""
        statement = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(self._table)
        [(occupied,)] = self._connection.execute(statement)
        return bool(occupied)

    def adopt(self, now: datetime) -> str | None:
        """Make it the partition of its range; return the name, None where another run was faster.

        Raises DefaultPartitionMixed.
        """
        start = _end_of_partitions(self._connection, self._history)
        end = now.replace(hour=0, minute=0, second=0, microsecond=0)
        end += timedelta(days=1 + ADOPTED_DAYS_AHEAD)
        bounds = (start, end)
        change_locked(self._connection, partial(self._bound, *bounds))
        try:
            self._execute("ALTER TABLE {table} VALIDATE CONSTRAINT {bounds}")
        except UndefinedObject:
            return None
        except CheckViolation:
            change_locked(self._connection, self._unbound)
            raise DefaultPartitionMixed(self._name, start, end) from None
        return change_locked(self._connection, partial(self._exchange, *bounds))

    def _bound(self, start: datetime, end: datetime) -> None:
        self._unbound()
        if _end_of_partitions(self._connection, self._history) == start:
            self._execute(
                """ALTER TABLE {table} ADD CONSTRAINT {bounds}
                   CHECK ("timestamp" >= {} AND "timestamp" < {}) NOT VALID""",
                start,
                end,
            )

    def _unbound(self) -> None:
        self._execute("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {bounds}")

    def _exchange(self, start: datetime, end: datetime) -> str | None:
        validated = self._connection.execute(
            """SELECT 1 FROM pg_constraint
               WHERE conrelid = to_regclass(%s) AND conname = %s AND convalidated""",
            (self._name, f"{self._name}_bounds"),
        )
        if not validated.fetchone():
            return None
        name = f"{self._history}_{start:%Y_%m_%d}_to_{end:%Y_%m_%d}"
        self._execute("ALTER TABLE {history} DETACH PARTITION {table}")
        self._execute("ALTER TABLE {table} RENAME TO {}", sql.Identifier(name))
        self._execute(
            "ALTER INDEX {} RENAME TO {}",
            sql.Identifier(f"{self._name}_pkey"),
            sql.Identifier(f"{name}_pkey"),
        )
        attach_partition(self._connection, self._history, name, start, end)
        self._execute("ALTER TABLE {} DROP CONSTRAINT {bounds}", sql.Identifier(name))
        self._execute("CREATE TABLE {table} PARTITION OF {history} DEFAULT")
        _give_to_maintenance(self._connection, self._name)
        return name

    def _execute(self, statement: LiteralString, *values: sql.Composable | datetime) -> None:
        self._connection.execute(
            sql.SQL(statement).format(
                *values,
                table=self._table,
                history=sql.Identifier(self._history),
                bounds=self._bounds,
            )
        )
