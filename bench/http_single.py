"""One reading a POST to the server of `make run`, sent by wrk over 1, 8 and 32 connections."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median

from bench.workload import METERS, MINUTE, START
from local import ROOT
from local.postgres import free_port
from local.server import get_health
from local.stack import READY_SECONDS
from telemetry.database import connect

CONNECTIONS = (1, 8, 32)
ROUNDS = 3
SECONDS = 5
WARM_UP_SECONDS = 1
# The minutes of device time that a run may use: 20,000 requests a second.
RUN_MINUTES = 10

Load = dict[str, float]


def measure_http_single(
    folder: Path, url: str, first_minute: int, say: Callable[[str], None]
) -> dict[int, Load] | None:
    """Return requests per second, p50 and p99 (ms) by number of connections; None without wrk.

    They are medians of interleaved rounds. The server lives in folder; url is of a database whose
    history was filled and has nothing from first_minute on.
    """
    if shutil.which("wrk") is None:
        return None
    minutes = itertools.count(first_minute, RUN_MINUTES)
    runs: dict[int, list[Load]] = {connections: [] for connections in CONNECTIONS}
    with _served(folder, url) as served:
        for number in range(ROUNDS + 1):
            say(f"http_single, round {number} of {ROUNDS}")
            for connections, loads in runs.items():
                first = START + next(minutes) * MINUTE
                seconds = SECONDS if number else WARM_UP_SECONDS
                loads.append(_run_wrk(served, connections, seconds, first))
    answered = sum(load["requests"] for loads in runs.values() for load in loads)
    _check_stored(url, first_minute, answered)
    return {
        connections: {
            "requests_per_second": median(
                load["requests"] / load["microseconds"] * 1e6 for load in loads[1:]
            ),
            "p50_ms": median(load["p50"] / 1000 for load in loads[1:]),
            "p99_ms": median(load["p99"] / 1000 for load in loads[1:]),
        }
        for connections, loads in runs.items()
    }


@contextmanager
def _served(folder: Path, url: str) -> Iterator[str]:
    """Run what `make run` runs, on the database given; yield where it serves."""
    port = free_port()
    served = f"http://127.0.0.1:{port}"
    environ = {**os.environ, "LOCAL_DIR": str(folder), "PORT": str(port), "DATABASE_URL": url}
    with subprocess.Popen(
        [sys.executable, "-m", "local", "run"],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # it is in server.log, too
    ) as server:
        try:
            deadline = time.monotonic() + READY_SECONDS
            while get_health(served)[0] != 200:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the server does not become healthy")
                time.sleep(0.1)
            yield served
        finally:
            server.terminate()


def _run_wrk(served: str, connections: int, seconds: int, first: datetime) -> Load:
    script = Path(__file__).with_name("http_single.lua")
    done = subprocess.run(
        ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "10s"]
        + ["-s", str(script), f"{served}/v1/ingestion/meter"]
        + ["--", str(int(first.timestamp())), str(len(METERS))],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        load: Load = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise RuntimeError(f"wrk failed: {done.stdout}{done.stderr}") from None
    if load["failed"] or not load["requests"]:
        raise RuntimeError(f"requests failed:\n{done.stdout}")
    return load


def _check_stored(url: str, first_minute: int, answered: float) -> None:
    """Raise RuntimeError where fewer readings are stored than requests were answered."""
    statement = 'SELECT count(*) FROM meter_telemetry_history WHERE "timestamp" >= %s'
    with connect(url) as connection:
        [(stored,)] = connection.execute(statement, (START + first_minute * MINUTE,))
    if stored < answered:
        raise RuntimeError(f"{answered:.0f} requests were answered, {stored} readings are stored")
