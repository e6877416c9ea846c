"""Batches of 10,000 readings through the store, against COPY of the same rows into history."""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import psycopg

from bench.history import fill_history
from bench.workload import BATCH, copy_readings, make_readings, split
from telemetry.database import Database, connect
from telemetry.readings import MeterReading
from telemetry.store import store_meter_readings

ROUNDS = 5
BATCHES = 5
# Each round has ten hours of its own, after those of the round before.
ROUND_MINUTES = 600

_FRESH = range(BATCH)
_BUFFERED = range(100_000, 100_000 + BATCH * BATCHES // 100)
_QUARTERS = range(300_000, 300_000 + BATCH)
# Devices with 59 readings in the first hour of each round, and a live row that is ahead of them.
_KNOWN = range(200_000, 200_000 + BATCH)


class Clock:
    """Receipt times that never repeat."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)

    def tick(self) -> datetime:
        """Return the next one."""
        self._now += timedelta(seconds=1)
        return self._now


def measure_bulk(limit_url: str, url: str, say: Callable[[str], None]) -> dict[str, float]:
    """Return readings per second, the median of interleaved rounds, by name.

    The URLs are of the databases that COPY and the store write to.
    """
    say("history of late readings")
    hours = range(0, (ROUNDS + 1) * ROUND_MINUTES, ROUND_MINUTES)
    known = [hour + minute for hour in hours for minute in range(1, 60)]
    fill_history(url, _KNOWN, [*known, hours.stop])
    rates: dict[str, list[float]] = {}
    order, clock = random.Random(1), Clock()
    with connect(limit_url) as limit, closing(Database(url)) as ours:
        for number in range(ROUNDS + 1):
            say(f"bulk, round {number} of {ROUNDS}")
            for name, written in _round(number, order, limit, ours, clock).items():
                if number:  # the first fills caches and plans
                    rates.setdefault(name, []).append(written)
    return {name: median(values) for name, values in rates.items()}


def _round(
    number: int,
    order: random.Random,
    limit: psycopg.Connection[Any],
    ours: Database,
    clock: Clock,
) -> dict[str, float]:
    def through_store(readings: Sequence[MeterReading]) -> float:
        def store(batch: Sequence[MeterReading]) -> None:
            store_meter_readings(ours, batch, clock.tick())

        return _rate(readings, store)

    def by_copy(readings: Sequence[MeterReading]) -> float:
        return _rate(readings, lambda batch: copy_readings(limit, batch, clock.tick()))

    base = number * ROUND_MINUTES
    fresh = [
        reading
        for minute in range(1, BATCHES + 1)
        for reading in make_readings(_FRESH, [base + minute], order)
    ]
    buffered = make_readings(_BUFFERED, range(base + 1, base + 101), order)
    rates = {
        "copy_fresh": by_copy(fresh),
        "bulk_fresh": through_store(fresh),
        "copy_buffered": by_copy(buffered),
        "bulk_buffered": through_store(buffered),
    }
    rates["late"] = through_store(make_readings(_KNOWN, [base + 60], order))
    rates["corrected"] = through_store(make_readings(_KNOWN, [base + 30], order))
    # Seven minutes past each quarter, so that one in four is of two hours.
    quarters = [
        reading
        for quarter in range(1, BATCHES + 1)
        for reading in make_readings(_QUARTERS, [base + 15 * quarter + 7], order, 900)
    ]
    rates["quarters"] = through_store(quarters)
    return rates


def _rate(
    readings: Sequence[MeterReading], write: Callable[[Sequence[MeterReading]], None]
) -> float:
    began = time.perf_counter()
    for batch in split(readings):
        write(batch)
    return len(readings) / (time.perf_counter() - began)
