"""What `make backfill` sends through its worker, against the store with the same in no order.

The worker's part is everything from an event of its queue to the commit. A window of a file, in the
order of devices as the command sends it, is five messages of 10,000 readings.
"""

import random
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from statistics import median
from types import SimpleNamespace

from bench.workload import BATCH, make_readings, split
from telemetry.database import Database
from telemetry.intake import METERS
from telemetry.messages import pack
from telemetry.observability import build_logger
from telemetry.queue import Queue
from telemetry.readings import MeterReading
from telemetry.store import store_meter_readings
from telemetry.worker import Worker

ROUNDS = 5
DEVICES = 500
MINUTES = 100
# name, whether through the worker, first minute, whether the round's devices are known by then
_WAYS = (
    ("backfill", True, 500, False),
    ("backfill_late", True, 0, True),
    ("backfill_beside", False, 500, False),
)


def measure_backfill(url: str, say: Callable[[str], None]) -> dict[str, float]:
    """Return readings per second, the median of interleaved rounds, by name.

    backfill is of new devices, backfill_late of times before everything that is known of devices;
    backfill_beside is what bulk_buffered is, in this run.
    """
    rates: dict[str, list[float]] = {}
    order, received_at, first = random.Random(1), datetime.now(UTC), 0
    logger = build_logger("bench")
    logger.setLevel("WARNING")
    with closing(Database(url)) as database:
        unused = Queue("unused")
        worker = Worker(METERS, database, unused, unused, logger)
        context = SimpleNamespace(
            aws_request_id="bench", get_remaining_time_in_millis=lambda: 120_000
        )
        for number in range(ROUNDS + 1):
            say(f"backfill, round {number} of {ROUNDS}")
            for name, through_worker, minute, known in _WAYS:
                first += 0 if known else DEVICES
                received_at += timedelta(seconds=1)
                devices = range(first, first + DEVICES)
                readings = make_readings(devices, range(minute, minute + MINUTES), order)
                event = _event(readings, received_at) if through_worker else None
                began = time.perf_counter()
                if event:
                    worker.handle(event, context)
                else:
                    for batch in split(readings):
                        store_meter_readings(database, batch, received_at)
                rate = len(readings) / (time.perf_counter() - began)
                if number:  # the first fills caches and plans
                    rates.setdefault(name, []).append(rate)
    return {name: median(values) for name, values in rates.items()}


def _event(readings: list[MeterReading], received_at: datetime) -> dict[str, list[dict[str, str]]]:
    """Return the event of a window of readings, packed as the API does."""
    readings.sort(key=METERS.order)
    bodies = [
        body
        for start in range(0, len(readings), BATCH)
        for _, body in pack(METERS, readings[start : start + BATCH], received_at)
    ]
    return {"Records": [{"body": body} for body in bodies]}
