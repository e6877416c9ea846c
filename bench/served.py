"""The server of `make run`, and wrk as its clients."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.workload import MINUTE, START
from local import ROOT
from local.postgres import free_port
from local.server import get_health
from local.stack import READY_SECONDS
from telemetry.database import connect

WITHOUT_WRK = "skipped: wrk is not installed"
# How long what waits in the queue may take.
STORED_SECONDS = 60
# Twice what the server allows itself: its migrations come before.
START_SECONDS = 2 * READY_SECONDS

Load = dict[str, float]


@contextmanager
def served(folder: Path, url: str, **variables: str) -> Iterator[str]:
    """Run what `make run` runs, on the database given; yield where it serves."""
    port = free_port()
    where = f"http://127.0.0.1:{port}"
    environ = {**os.environ, "LOCAL_DIR": str(folder), "PORT": str(port), "DATABASE_URL": url}
    with subprocess.Popen(
        [sys.executable, "-m", "local", "run"],
        cwd=ROOT,
        env=environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # it is in server.log, too
    ) as server:
        try:
            deadline = time.monotonic() + START_SECONDS
            while get_health(where)[0] != 200:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the server does not become healthy: see above")
                time.sleep(0.1)
            yield where
        finally:
            server.terminate()


def run_wrk(script: str, url: str, connections: int, seconds: int, *arguments: object) -> Load:
    """Run one of the Lua scripts; return what its last line says. Raises RuntimeError."""
    done = subprocess.run(
        ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "10s"]
        + ["-s", str(Path(__file__).with_name(script)), url, "--", *map(str, arguments)],
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


def await_stored(url: str, first_minute: int, acknowledged: float) -> None:
    """Return when as many meter readings from that minute on are stored as were acknowledged.

    Raises RuntimeError where some are not after STORED_SECONDS.
    """
    deadline = time.monotonic() + STORED_SECONDS
    while (stored := count_stored(url, first_minute)) < acknowledged:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{acknowledged:,.0f} readings acknowledged, {stored:,} stored")
        time.sleep(0.2)


def count_stored(url: str, first_minute: int) -> int:
    """Return how many meter readings there are, each counted once, from that minute on."""
    with connect(url) as connection:
        [(stored,)] = connection.execute(
            """SELECT count(DISTINCT (meter_id, "timestamp")) FROM meter_telemetry_history
               WHERE "timestamp" >= %s""",
            (START + first_minute * MINUTE,),
        )
    return int(stored)
