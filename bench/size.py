"""Bytes a reading takes in history, heap and index, written minute by minute in random order."""

import random
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg

from bench.workload import PARTITION, make_readings, make_vehicle_reading
from telemetry.database import Database, connect
from telemetry.store import store_meter_readings, store_vehicle_readings

DEVICES = range(5_000)
MINUTES = 60


def measure_size(url: str) -> dict[str, float]:
    """Return bytes a reading: while written, and after a partition is closed and reindexed.

    url is of an empty database.
    """
    with closing(Database(url)) as database:
        _write(database)
    with connect(url) as connection:
        return _sizes(connection, "meter") | _sizes(connection, "vehicle")


def _write(database: Database) -> None:
    order = random.Random(3)
    for minute in range(1, MINUTES + 1):
        readings = make_readings(DEVICES, [20_000 + minute], order)
        store_meter_readings(database, readings, datetime.now(UTC))
        vehicles = [
            make_vehicle_reading(
                reading.meter_id.replace("MTR", "VEH"), reading.timestamp, reading.kwh, 50.5
            )
            for reading in readings
        ]
        store_vehicle_readings(database, vehicles, datetime.now(UTC))


def _sizes(connection: psycopg.Connection[Any], stream: str) -> dict[str, float]:
    part = PARTITION.replace("meter", stream)
    size = "SELECT pg_total_relation_size(%s::text::regclass)"
    [(written,)] = connection.execute(size, (part,))
    connection.execute(f"REINDEX TABLE {part}".encode())
    [(closed,)] = connection.execute(size, (part,))
    [(rows,)] = connection.execute(f"SELECT count(*) FROM {part}".encode())
    return {f"bytes_{stream}": written / rows, f"bytes_{stream}_closed": closed / rows}
