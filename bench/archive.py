"""Bytes a reading takes in history and in the archive, and how fast it is moved."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from local.configuration import ARCHIVE, read_local_template
from local.sqs import QueueServer
from telemetry.archive import Archive
from telemetry.bucket import Bucket
from telemetry.database import connect
from telemetry.parquet import LAYOUTS
from telemetry.streams import METERS, VEHICLES

DEVICES = 250
# A day that has a partition of its own, whenever this runs.
DAYS_AHEAD = 3

# Minute by minute, as readings arrive: each device has its second, each receipt its latency.
_FILL = """
    INSERT INTO {history} (timestamp, received_at, {columns})
    SELECT at, at + (20000 + random() * 900000)::integer * interval '1 microsecond', {values}
    FROM generate_series(0, 1439) AS minute,
         generate_series(1, {devices}) AS device,
         LATERAL (SELECT %s + minute * interval '1 minute' + device %% 60 * interval '1 second')
             AS reading (at)
"""
_ENERGY = "(1 + floor(random() * 499)) / 1000.0"
_VALUES = {
    "meter": {
        "meter_id": "'MTR_' || lpad(device::text, 6, '0')",
        METERS.energy.name: _ENERGY,
        "voltage": "220 + floor(random() * 200) / 10",
    },
    "vehicle": {
        "vehicle_id": "'VEH_' || lpad(device::text, 6, '0')",
        VEHICLES.energy.name: _ENERGY,
        "battery_temp": "20 + floor(random() * 200) / 10",
        "soc": "minute %% 100",
    },
}


def measure_archive(folder: Path, url: str, say: Callable[[str], None]) -> dict[str, float]:
    """Return bytes a reading and readings a second; url is of the owner of an empty database."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    day += timedelta(days=DAYS_AHEAD)
    with connect(url) as connection, _bucket(folder) as bucket:
        history = _fill(connection, day)
        say(f"{2 * 1440 * DEVICES:,} readings of a day")
        archive = Archive(connection, bucket)
        archive.close_partitions(day + timedelta(days=1))
        began = time.monotonic()
        moved = archive.move_closed(lambda: True)
        seconds = time.monotonic() - began
        sizes = connection.execute(
            "SELECT stream, sum(bytes), sum(readings) FROM archive_files GROUP BY stream"
        ).fetchall()
        found = {stream: (int(size), int(readings)) for stream, size, readings in sizes}
    stored = {f"archive_bytes_{stream}": size / count for stream, (size, count) in found.items()}
    return {
        "archive_bytes": sum(size for size, _ in found.values()) / moved,
        **stored,
        "history_bytes": history / moved,
        "archive_readings_per_second": moved / seconds,
    }


def _fill(connection: psycopg.Connection[Any], day: datetime) -> int:
    """Fill the day's partitions; return their bytes, keys included."""
    total = 0
    for layout in LAYOUTS.values():
        statement = _FILL.format(
            history=layout.history,
            columns=", ".join(_VALUES[layout.stream]),
            values=", ".join(_VALUES[layout.stream].values()),
            devices=DEVICES,
        )
        connection.execute(statement.encode(), (day,))
        size = "SELECT pg_total_relation_size(%s::text::regclass)"
        [(found,)] = connection.execute(size, (f"{layout.history}_{day:%Y_%m_%d}",))
        total += found
    return total


@contextmanager
def _bucket(folder: Path) -> Iterator[Bucket]:
    folder.mkdir()
    server = QueueServer(folder)
    server.start(read_local_template({"DATABASE_URL": "postgresql://"}).queues)
    before = dict(os.environ)
    try:
        server.await_queues()
        os.environ.update(server.environment)
        yield Bucket(ARCHIVE)
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()
