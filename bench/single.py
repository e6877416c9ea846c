"""One reading a call, 32 writers, through the store, against pgbench's bare INSERT into history."""

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
    ready = threading.Barrier(writers + 1)
    deadline = 0.0

    def run(writer: int) -> None:
        database = Database(url)
        first = (process * writers + writer) * 500
        batches = [
            make_readings(500, [minute], random.Random(writer), first)
            for minute in range(number * 60, number * 60 + 10)
        ]
        database.fetch("SELECT 1")
        ready.wait()
        for readings in batches:
            for reading in readings:
                if time.perf_counter() > deadline:
                    return
                store_meter_reading(database, reading, datetime.now(UTC))
                counts[writer] += 1

    threads = [threading.Thread(target=run, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    deadline = time.perf_counter() + 3600
    ready.wait()
    began = time.perf_counter()
    deadline = began + SECONDS
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


if __name__ == "__main__":
    print(write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
