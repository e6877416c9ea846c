"""One reading a POST to the server of `make run`, sent by wrk over 1, 8 and 32 connections."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench.history import fill_history
from bench.served import WITHOUT_WRK, Load, await_stored, run_wrk, served
from bench.workload import METERS, MINUTE, SHORT, START

CONNECTIONS = (1, 8, 32)
ROUNDS = 3
SECONDS = 4
WARM_UP_SECONDS = 1
# The minutes of device time that a run may use: 20,000 requests a second.
RUN_MINUTES = 10


def measure_http_single(folder: Path, url: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Return requests per second, p50 and p99 (ms) by number of connections, where wrk is there.

    They are medians of interleaved rounds. The server lives in folder; url is of an empty database.
    """
    if shutil.which("wrk") is None:
        return {"http_single": WITHOUT_WRK}
    fill_history(url, METERS, SHORT)
    minutes = itertools.count(SHORT.stop, RUN_MINUTES)
    runs: dict[int, list[Load]] = {connections: [] for connections in CONNECTIONS}
    with served(folder, url) as where:
        for number in range(ROUNDS + 1):
            say(f"http_single, round {number} of {ROUNDS}")
            for connections, loads in runs.items():
                minute = next(minutes)
                first = int((START + minute * MINUTE).timestamp())
                seconds = SECONDS if number else WARM_UP_SECONDS
                target = f"{where}/v1/ingestion/meter"
                load = run_wrk("http_single.lua", target, connections, seconds, first, len(METERS))
                await_stored(url, minute, load["requests"])
                loads.append(load)
    return {
        "http_single": {
            str(connections): {
                "requests_per_second": median(
                    load["requests"] / load["microseconds"] * 1e6 for load in loads[1:]
                ),
                "p50_ms": median(load["p50"] / 1000 for load in loads[1:]),
                "p99_ms": median(load["p99"] / 1000 for load in loads[1:]),
            }
            for connections, loads in runs.items()
        }
    }
