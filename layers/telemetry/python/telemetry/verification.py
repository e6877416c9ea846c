"""Proves that what is derived is what history says: live rows and rollups, computed anew.

The computation shares nothing with the stored functions that maintain them. It reads all of
history: for an operator who wants to know, not for the path of a request.
"""

from dataclasses import dataclass

import psycopg

from telemetry.database import Row

# Each statement returns (device, hour or null, what history says, what is stored) of the rows that
# differ; a row that one side lacks is null there.
_LIVE = """
    WITH expected AS (
        SELECT DISTINCT ON ({device}) {device} AS device,
               ROW("timestamp", received_at, {live_values})::text AS state
        FROM {history}
        ORDER BY {device}, "timestamp" DESC, received_at DESC
    ), stored AS (
        SELECT {device} AS device,
               ROW(last_timestamp, updated_at, {live_columns})::text AS state
        FROM {live}
    )
"""
_CHARGE = """
    WITH expected AS (
        SELECT DISTINCT ON (vehicle_id) vehicle_id AS device,
               ROW("timestamp", received_at, soc)::text AS state
        FROM vehicle_telemetry_history
        WHERE soc IS NOT NULL
        ORDER BY vehicle_id, "timestamp" DESC, received_at DESC
    ), stored AS (
        SELECT vehicle_id AS device, ROW(soc_timestamp, soc_received_at, soc)::text AS state
        FROM vehicle_live_status
        WHERE soc IS NOT NULL
    )
"""
_ROLLUP = """
    WITH counted AS (
        SELECT DISTINCT ON ({device}, "timestamp") *, extract(epoch FROM "timestamp") AS seconds
        FROM {history}
        ORDER BY {device}, "timestamp", received_at DESC
    ), expected AS (
        SELECT {device} AS device, to_timestamp((ceil(seconds / 3600) - 1) * 3600) AS hour,
               ROW(count(*)::integer, {sums},
                   bit_or(1::bigint << mod(ceil(seconds / 60) - 1, 60)::integer))::text AS state
        FROM counted
        GROUP BY 1, 2
    ), stored AS (
        SELECT {device} AS device, hour,
               ROW(readings, {rollup_columns}, minutes)::text AS state
        FROM {rollup}
    )
"""
_DIFFERENCES = """
    SELECT device, {hour}, expected.state, stored.state
    FROM expected FULL JOIN stored USING ({key})
    WHERE expected.state IS DISTINCT FROM stored.state
    ORDER BY 1, 2
    LIMIT %s
"""

_METER = {
    "device": "meter_id",
    "history": "meter_telemetry_history",
    "live": "meter_live_status",
    "live_values": "kwh_consumed_ac, voltage",
    "live_columns": "last_kwh_consumed_ac, last_voltage",
    "rollup": "meter_hourly_rollup",
    "sums": "trim_scale(sum(kwh_consumed_ac))",
    "rollup_columns": "trim_scale(kwh_consumed_ac)",
}
_VEHICLE = {
    "device": "vehicle_id",
    "history": "vehicle_telemetry_history",
    "live": "vehicle_live_status",
    "live_values": "kwh_delivered_dc, battery_temp",
    "live_columns": "last_kwh_delivered_dc, last_battery_temp",
    "rollup": "vehicle_hourly_rollup",
    "sums": "trim_scale(sum(kwh_delivered_dc)), trim_scale(sum(battery_temp))",
    "rollup_columns": "trim_scale(kwh_delivered_dc), trim_scale(battery_temp_sum)",
}


@dataclass(frozen=True)
class Difference:
    """A row that is not what history says; None stands for a row that is not there."""

    table: str
    device: str
    hour: str | None
    expected: str | None
    stored: str | None


def find_differences(connection: psycopg.Connection[Row], most: int = 100) -> list[Difference]:
    """Compare every live and rollup row with history; return at most `most` per table."""
    by_hour = _DIFFERENCES.format(hour="hour::text", key="device, hour")
    by_device = _DIFFERENCES.format(hour="NULL::text", key="device")
    statements = [("vehicle_live_status", _CHARGE + by_device)]
    for stream in (_METER, _VEHICLE):
        statements.append((stream["live"], _LIVE.format(**stream) + by_device))
        statements.append((stream["rollup"], _ROLLUP.format(**stream) + by_hour))
    with connection.transaction():
        # One snapshot for all: a write between two statements is no difference.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return [
            Difference(table, *row)
            for table, statement in statements
            for row in connection.execute(statement.encode(), (most,))
        ]
