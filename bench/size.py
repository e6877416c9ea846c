"""Bytes a reading takes in history, heap and index, written minute by minute in random order."""

import random
from datetime import UTC, datetime
from typing import Any

import psycopg

from bench.workload import make_readings
from telemetry.database import Database
from telemetry.readings import VehicleReading
from telemetry.store import store_meter_readings, store_vehicle_readings

DEVICES = 5_000
MINUTES = 60


def measure_size(ours: Database, connection: psycopg.Connection[Any]) -> dict[str, float]:
    """Return bytes a reading: while written, and after a partition is closed and reindexed."""
    order = random.Random(3)
    for minute in range(1, MINUTES + 1):
        readings = make_readings(DEVICES, [20_000 + minute], order)
        store_meter_readings(ours, readings, datetime.now(UTC))
        vehicles = [
            VehicleReading.model_construct(
                vehicle_id=reading.meter_id.replace("MTR", "VEH"),
                soc=50.5,
                kwh_delivered_dc=reading.kwh_consumed_ac,
                battery_temp=28.3,
                timestamp=reading.timestamp,
            )
            for reading in readings
        ]
        store_vehicle_readings(ours, vehicles, datetime.now(UTC))
    sizes = {}
    for stream in ("meter", "vehicle"):
        # The month that these readings, and no others, are in.
        part = f"{stream}_telemetry_history_2026_01"
        size = "SELECT pg_total_relation_size(%s::text::regclass)"
        [(written,)] = connection.execute(size, (part,))
        connection.execute(f"REINDEX TABLE {part}".encode())
        [(closed,)] = connection.execute(size, (part,))
        [(rows,)] = connection.execute(f"SELECT count(*) FROM {part}".encode())
        sizes[f"bytes_{stream}"] = written / rows
        sizes[f"bytes_{stream}_closed"] = closed / rows
    return sizes
