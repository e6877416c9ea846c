"""One reading a call, 32 writers, through the store, against pgbench's bare INSERT into history."""

import itertools
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.workload import make_readings
from local import ROOT
from telemetry.database import Database
from telemetry.store import store_meter_reading

ROUNDS = 5
SECONDS = 4
WRITERS = 32
PROCESSES = 2
# Each writer has its own; 20,000 readings a second for four seconds are less than what is prepared.
DEVICES = 20

# Every row has a key of its own, in the hour that the store writes to: what is measured is a commit
# of one row, its index entry and its journey there and back.
_BARE_INSERT = """\
\\set device random(1, 20000)
INSERT INTO meter_telemetry_history (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage)
VALUES ('PGB_' || lpad((:device)::text, 6, '0'), clock_timestamp(), clock_timestamp(), 0.125, 230);
"""


def measure_single(
    pgbench: Path, limit_url: str, url: str, say: Callable[[str], None]
) -> dict[str, float]:
    """Return calls per second, the median of interleaved rounds: `bare_insert` and `single`."""
    bare, ours = [], []
    for number in range(1, ROUNDS + 1):
        say(f"single, round {number} of {ROUNDS}")
        bare.append(_run_pgbench(pgbench, limit_url))
        ours.append(_run_writers(url, number))
    return {"bare_insert": median(bare), "single": median(ours)}


def _run_pgbench(pgbench: Path, url: str) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_BARE_INSERT)
        script.flush()
        command = [str(pgbench), "-n", "-c", str(WRITERS), "-j", str(PROCESSES), "-M", "prepared"]
        done = subprocess.run(
            [*command, "-T", str(SECONDS), "-f", script.name, url],
            capture_output=True,
            text=True,
            check=True,
        )
    [line] = [line for line in done.stdout.splitlines() if line.startswith("tps = ")]
    return float(line.split()[2])


def _run_writers(url: str, number: int) -> float:
    command = [sys.executable, "-m", "bench.single", url, str(number)]
    processes = [
        subprocess.Popen([*command, str(process)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for process in range(PROCESSES)
    ]
    return sum(float(process.communicate()[0]) for process in processes)


def write(url: str, number: int, process: int) -> float:
    """Write with this process' share of the writers; return calls per second."""
    writers = WRITERS // PROCESSES
    counts = [0] * writers
    deadline = 0.0

    def begin() -> None:
        nonlocal deadline
        deadline = time.perf_counter() + SECONDS

    ready = threading.Barrier(writers, begin)

    def run(writer: int) -> None:
        database = Database(url)
        first = (process * writers + writer) * DEVICES
        order = random.Random(writer)
        minutes = [
            make_readings(DEVICES, [minute], order, first)
            for minute in range(number * 600, number * 600 + 500)
        ]
        for reading in minutes.pop(0):  # the first of a device is not what a day is made of
            store_meter_reading(database, reading, datetime.now(UTC))
        ready.wait()
        for reading in itertools.chain.from_iterable(minutes):
            if time.perf_counter() > deadline:
                break
            store_meter_reading(database, reading, datetime.now(UTC))
            counts[writer] += 1
        else:
            raise AssertionError("there were too few readings to write")
        database.close()

    threads = [threading.Thread(target=run, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / SECONDS


if __name__ == "__main__":
    print(write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
