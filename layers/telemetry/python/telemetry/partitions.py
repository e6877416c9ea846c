"""The partitions of history, made ahead of the readings that will need them.

Time that has passed is cut coarsely (decades and years by the first migration, then months), the
current month and what follows into days.
"""

from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import sql

from telemetry.database import Row

HISTORIES = ("meter_telemetry_history", "vehicle_telemetry_history")
DAYS_AHEAD = 14
LOCK_KEY = 0x656E6572_70617274  # "enerpart"

# The instant up to which the explicit partitions of all the history tables asked for reach; null
# where one of them has none.
END_OF_PARTITIONS = """
    SELECT CASE WHEN count(*) = count(reach) THEN min(reach) END
    FROM unnest(%s::text[]) AS asked (name)
    LEFT JOIN LATERAL (
        SELECT max((regexp_match(pg_get_expr(part.relpartbound, part.oid),
                                 $re$TO \\('([^']+)'\\)$re$))[1]::timestamptz) AS reach
        FROM pg_inherits JOIN pg_class part ON part.oid = inhrelid
        WHERE inhparent = to_regclass(asked.name)
    ) AS history ON true
"""


def make_partitions(
    connection: psycopg.Connection[Row], now: datetime, days_ahead: int = DAYS_AHEAD
) -> list[str]:
    """Make the partitions that are missing until days_ahead days after now; return their names.

    Safe to run twice, and twice at once: a second run waits for the first and finds nothing to do.
    """
    made = []
    for history in HISTORIES:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
            [(end,)] = connection.execute(END_OF_PARTITIONS, ([history],)).fetchall()
            start: datetime = end.astimezone(UTC)
            while start < now + timedelta(days=days_ahead):
                name, end = _next_partition(history, start, now)
                connection.execute(
                    sql.SQL("CREATE TABLE {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})").format(
                        sql.Identifier(name), sql.Identifier(history), start, end
                    )
                )
                made.append(name)
                start = end
    return made


def _next_partition(history: str, start: datetime, now: datetime) -> tuple[str, datetime]:
    if start.day == 1:
        month_end = (start + timedelta(days=31)).replace(day=1)
        if month_end <= now:
            return f"{history}_{start:%Y_%m}", month_end
    return f"{history}_{start:%Y_%m_%d}", start + timedelta(days=1)
