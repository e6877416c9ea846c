"""Processor time of a reading in a batch, from JSON to the parameters of the SQL statement."""

import json
import random
import time
from datetime import UTC, datetime
from statistics import median
from typing import Any

from bench.workload import BATCH, format_meter, make_readings
from telemetry.batches import parse_batch
from telemetry.database import Database
from telemetry.intake import METERS, VEHICLES, Intake
from telemetry.recognition import Reading

ROUNDS = 15


class _Nowhere(Database):
    """Takes a call and does not make it."""

    def call(self, *_: Any) -> list[bytes | None]:
        return [b"0", b"0"]


def measure_processor() -> dict[str, float]:
    """Return microseconds of processor time a reading in batches of 10,000: median and least."""
    readings = make_readings(range(BATCH // 10), range(10), random.Random(4))
    meters = [format_meter(reading) for reading in readings]
    vehicles = [
        {
            "vehicleId": reading.meter_id.replace("MTR", "VEH"),
            "soc": 50.5,
            "kwhDeliveredDc": reading.kwh_consumed_ac,
            "batteryTemp": 28.3,
            "timestamp": meter["timestamp"],
        }
        for reading, meter in zip(readings, meters, strict=True)
    ]
    return _measure(METERS, json.dumps(meters)) | _measure(VEHICLES, json.dumps(vehicles))


def _measure(stream: Intake[Reading], body: str) -> dict[str, float]:
    database, times = _Nowhere(""), []
    for _ in range(ROUNDS):
        began = time.process_time()
        batch = parse_batch(stream.kind, body)
        stream.store_many(database, batch.readings, datetime.now(UTC))
        times.append((time.process_time() - began) / BATCH * 1e6)
    name = f"cpu_per_reading_{stream.name}"
    return {name: median(times), f"{name}_least": min(times)}
