"""Which interval suits history's partitions: `python -m bench.partitions`, about five minutes.

10,000 devices a minute are 14.4 million rows a day a table. Two questions: does a partition get
slower to write to as it grows, and what do many partitions cost the statements that look at few?
"""

import random
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import psycopg
from psycopg import sql

from bench.workload import make_vehicle_reading
from local import ROOT
from local.databases import database_urls, make_database
from local.postgres import RunningPostgres, embedded_binaries, start_postgres
from telemetry.database import Database, connect
from telemetry.migrate import apply_migrations
from telemetry.readings import MeterReading
from telemetry.reports import report_performance
from telemetry.rules import Rules
from telemetry.store import (
    store_meter_reading,
    store_meter_readings,
    store_vehicle_reading,
)

DEVICES = 10_000
FILLS = {"an hour": 60, "six hours": 360, "a day": 1440}
COUNTS = (30, 100, 400, 1600)
START = datetime(2001, 1, 1, tzinfo=UTC)
SETTINGS = ["shared_buffers=1GB", "max_wal_size=8GB"]
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def main() -> None:
    """Measure and print."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / ".local"))
    server = start_postgres(
        folder / "postgres", embedded_binaries(), options=["shared_buffers=1GB", "max_wal_size=8GB"]
    )
    try:
        for name, minutes in FILLS.items():
            _measure_fill(_make_database(server, f"fill_{minutes}"), name, minutes)
        for count in COUNTS:
            _measure_count(_make_database(server, f"count_{count}"), count)
    finally:
        server.stop()
        shutil.rmtree(folder)


def _make_database(server: RunningPostgres, name: str) -> str:
    make_database(server, name)
    url = database_urls(server, name).owner
    with connect(url) as connection:
        apply_migrations(connection)
    return url


def _measure_fill(url: str, name: str, minutes: int) -> None:
    """Write the last minutes of a partition that holds all before, every device once a minute."""
    last = START + minutes * MINUTE
    store, order = Database(url), random.Random(1)
    with connect(url) as connection:
        _cut(connection, [(START, last + HOUR)])
        connection.execute(
            """INSERT INTO meter_telemetry_history
                   (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage)
               SELECT 'MTR_' || lpad(device::text, 6, '0'), minute, minute, 0.125, 230
               FROM generate_series(%s::timestamptz, %s::timestamptz, '1 minute') AS minute,
                    generate_series(1, %s) AS device""",
            (START + MINUTE, last, DEVICES),
        )
        connection.execute("VACUUM (ANALYZE) part_0")
        rates = []
        for number in range(1, 16):
            time = last + number * MINUTE
            readings = [_reading(device, time) for device in range(1, 1 + DEVICES)]
            order.shuffle(readings)
            rates.append(DEVICES / _seconds(store_meter_readings, store, readings, last))
        [(size,)] = connection.execute("SELECT pg_size_pretty(pg_total_relation_size('part_0'))")
    store.close()
    print(f"{name} ({minutes * DEVICES / 1e6:.1f} M rows, {size}): {median(rates[5:]):,.0f} rows/s")


def _measure_count(url: str, count: int) -> None:
    store = Database(url)
    with connect(url) as connection:
        days = [START + timedelta(days=number) for number in range(count + 1)]
        _cut(connection, list(pairwise(days)))
    now = START + timedelta(days=count / 2)
    # The report is of a vehicle, which the meter feeds by its name.
    store_vehicle_reading(store, make_vehicle_reading("VEH_000001", now, 0.1), now)
    times: dict[str, list[float]] = {"in order": [], "late": [], "report": []}
    for number in range(60):
        newest = _reading(1, now + number * MINUTE)
        late = _reading(1, now - number * MINUTE - timedelta(seconds=30))
        times["in order"].append(_seconds(store_meter_reading, store, newest, now))
        times["late"].append(_seconds(store_meter_reading, store, late, now))
        end = now + MINUTE / 2
        times["report"].append(_seconds(report_performance, store, "VEH_000001", Rules(), end))
    store.close()
    shown = ", ".join(f"{name} {median(each[5:]) * 1000:.2f} ms" for name, each in times.items())
    print(f"{count} partitions: {shown}")


def _cut(connection: psycopg.Connection[Any], ranges: list[tuple[datetime, datetime]]) -> None:
    """Replace meter history's partitions by others."""
    old = connection.execute(
        "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = %s::text::regclass",
        ("meter_telemetry_history",),
    ).fetchall()
    for (name,) in old:
        connection.execute(f"DROP TABLE {name}".encode())
    for number, (start, end) in enumerate(ranges):
        connection.execute(
            sql.SQL(
                "CREATE TABLE {} PARTITION OF meter_telemetry_history FOR VALUES FROM ({}) TO ({})"
            ).format(sql.Identifier(f"part_{number}"), start, end)
        )
    connection.execute("CREATE TABLE part_rest PARTITION OF meter_telemetry_history DEFAULT")


def _reading(device: int, time: datetime) -> MeterReading:
    return MeterReading.model_construct(
        meter_id=f"MTR_{device:06}", kwh_consumed_ac=0.125, voltage=230.0, timestamp=time
    )


def _seconds(call: Callable[..., object], *arguments: object) -> float:
    began = perf_counter()
    call(*arguments)
    return perf_counter() - began


if __name__ == "__main__":
    main()
