"""32 writers of one reading a call, each with its own connection, its own meters, and one clock."""

import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

from bench.workload import METERS, make_readings
from telemetry.database import Database
from telemetry.store import store_meter_reading

WRITERS = 32
# Lambda has a process for each writer, and a processor for each. Here they share the server's, and
# the fewer processes, the less a call costs: on two processors one of 32 threads makes twice the
# calls of 32 processes.
PROCESSES = min(WRITERS, max(1, (os.cpu_count() or 1) // 2))
SECONDS = 3
# The minutes of device time that a run may use. 10,000 meters fill them in three seconds only at
# 33,000 readings a second.
RUN_MINUTES = 10
_WARM_UP = 20
_START_SECONDS = 60

_ready: Barrier


class Writers:
    """The processes of the writers; they wait between runs."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def run(self, url: str, first_minute: int) -> float:
        """Write readings of RUN_MINUTES for SECONDS; return calls per second."""
        shares = [range(WRITERS)[process::PROCESSES] for process in range(PROCESSES)]
        counts = [self._pool.submit(_write_together, url, share, first_minute) for share in shares]
        return sum(count.result() for count in counts) / SECONDS


@contextmanager
def started_writers() -> Iterator[Writers]:
    """Start the processes, and end them."""
    context = get_context("spawn")
    ready = context.Barrier(WRITERS)
    with ProcessPoolExecutor(PROCESSES, context, _begin, (ready,)) as pool:
        yield Writers(pool)


def _begin(ready: Barrier) -> None:
    global _ready  # noqa: PLW0603 - a barrier reaches a pool's process only as it starts
    _ready = ready


def _write_together(url: str, writers: range, first_minute: int) -> int:
    """Write in this process, in a thread for each of the writers; return how many in SECONDS."""
    with ThreadPoolExecutor(len(writers)) as threads:
        counts = [threads.submit(_write, url, writer, first_minute) for writer in writers]
    return sum(count.result() for count in counts)


def _write(url: str, writer: int, first_minute: int) -> int:
    order = random.Random(writer)
    readings = [
        reading
        for minute in range(first_minute, first_minute + RUN_MINUTES)
        for reading in make_readings(METERS[writer::WRITERS], [minute], order)
    ]
    database = Database(url)
    try:
        for reading in readings[:_WARM_UP]:
            store_meter_reading(database, reading, datetime.now(UTC))
        _ready.wait(_START_SECONDS)
        deadline = time.perf_counter() + SECONDS
        for count, reading in enumerate(readings[_WARM_UP:]):
            if time.perf_counter() > deadline:
                return count
            store_meter_reading(database, reading, datetime.now(UTC))
        raise AssertionError("there were too few readings to write")
    except BaseException:
        _ready.abort()  # the others would wait for this one
        raise
    finally:
        database.close()
