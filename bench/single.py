"""One reading a call by 32 writers: through the store, and by pgbench as a bare INSERT."""

import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from bench.history import fill_history
from bench.workload import METERS, SHORT
from bench.writers import RUN_MINUTES, SECONDS, WRITERS, started_writers

ROUNDS = 5
# The minutes after START that `grown` has before: 10 million readings, against 500,000.
_LONG = range(1, SHORT.stop)

# Every row has a key of its own, in the partition of the day: what is measured is a commit of one
# row, its index entry and its journey there and back.
_BARE_INSERT = """\
\\set device random(1, 20000)
INSERT INTO meter_telemetry_history (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage)
VALUES ('PGB_' || lpad((:device)::text, 6, '0'), clock_timestamp(), clock_timestamp(), 0.125, 230);
"""
# The database's share of a call: what the writers call, without Python. One hour stands for all.
_STORED = f"""\
\\set device random({METERS.start}, {METERS.stop - 1})
SELECT store_meter_reading('MTR_' || lpad((:device)::text, 6, '0'), clock_timestamp(),
                           clock_timestamp(), 0.125, 230, '2026-11-22T00:00:00Z', 1);
"""


def measure_single(
    pgbench: Path, urls: Mapping[str, str], say: Callable[[str], None]
) -> dict[str, float]:
    """Return calls per second, the median of interleaved rounds, by name.

    urls are of databases: `inserted` takes the bare INSERT; empty are `called`, for the stored
    function alone, `small` and `grown`, for the store.
    """
    for name, minutes in (("called", SHORT), ("small", SHORT), ("grown", _LONG)):
        say(f"history of {len(METERS) * len(minutes):,} readings")
        fill_history(urls[name], METERS, minutes)
    rates: dict[str, list[float]] = defaultdict(list)
    databases = (("single", "small"), ("single_grown", "grown"))
    with started_writers() as writers:
        for number in range(ROUNDS):
            say(f"single, round {number + 1} of {ROUNDS}")
            minute = _LONG.stop + number * RUN_MINUTES
            rates["bare_insert"].append(_run_pgbench(pgbench, urls["inserted"], _BARE_INSERT))
            rates["single_sql"].append(_run_pgbench(pgbench, urls["called"], _STORED))
            # Neither is always the one that comes after the other.
            for name, database in databases[:: -1 if number % 2 else 1]:
                rates[name].append(writers.run(urls[database], minute))
    return {name: median(values) for name, values in rates.items()}


def _run_pgbench(pgbench: Path, url: str, transaction: str) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(transaction)
        script.flush()
        command = [str(pgbench), "-n", "-c", str(WRITERS), "-j", "2", "-M", "prepared"]
        done = subprocess.run(
            [*command, "-T", str(SECONDS), "-f", script.name, url],
            capture_output=True,
            text=True,
            check=True,
        )
    [line] = [line for line in done.stdout.splitlines() if line.startswith("tps = ")]
    return float(line.split()[2])
