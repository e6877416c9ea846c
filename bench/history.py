"""A history that is there before the writers come, with its live rows and rollups."""

from collections.abc import Sequence

from psycopg import ClientCursor

from bench.workload import PARTITION, START
from telemetry.database import connect

# The key is made when the rows are there, and as full as it is when it grew with them.
_FILL = f"""
    SET synchronous_commit = off;
    SET maintenance_work_mem = '512MB';
    SET work_mem = '64MB';

    ALTER TABLE meter_telemetry_history DETACH PARTITION {PARTITION};
    ALTER TABLE {PARTITION} DROP CONSTRAINT {PARTITION}_pkey;
    INSERT INTO {PARTITION} ("timestamp", received_at, voltage, meter_id, kwh_consumed_ac)
    SELECT at, at + interval '1 second', 220 + device %% 200 / 10.0,
           'MTR_' || lpad(device::text, 6, '0'), (1 + device %% 499) / 1000.0
    FROM unnest(%(minutes)s::integer[]) AS minute,
         generate_series(%(first_device)s, %(last_device)s) AS device,
         LATERAL (SELECT %(start)s + minute * interval '1 minute') AS reading (at);
    ALTER TABLE {PARTITION}
        ADD PRIMARY KEY (meter_id, "timestamp", received_at) WITH (fillfactor = 55);
    ALTER TABLE meter_telemetry_history
        ATTACH PARTITION {PARTITION} FOR VALUES FROM ('2026-01-01Z') TO ('2026-02-01Z');

    INSERT INTO meter_live_status
        (meter_id, last_timestamp, updated_at, last_kwh_consumed_ac, last_voltage)
    SELECT meter_id, "timestamp", received_at, kwh_consumed_ac, voltage
    FROM {PARTITION}
    WHERE "timestamp" = (SELECT max("timestamp") FROM {PARTITION});
    INSERT INTO meter_hourly_rollup (meter_id, hour, readings, minutes, kwh_consumed_ac)
    SELECT meter_id, hour, count(*), bit_or(minute_bit("timestamp", hour)), sum(kwh_consumed_ac)
    FROM {PARTITION}, rollup_hour("timestamp") AS hour
    GROUP BY meter_id, hour;
"""


def fill_history(url: str, devices: range, minutes: Sequence[int]) -> None:
    """Give an empty database a reading of each device at each of the minutes after START.

    10 million take 40 seconds.
    """
    with connect(url) as connection:
        ClientCursor(connection).execute(
            _FILL,
            {
                "start": START,
                "minutes": list(minutes),
                "first_device": devices.start,
                "last_device": devices.stop - 1,
            },
        )
        # Now, rather than by the server on its own while something is measured.
        connection.execute("VACUUM (ANALYZE)")
