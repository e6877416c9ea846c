"""Batches of 100 and 1,000 readings to the server of `make run`, sent by wrk.

Each reading is of a meter drawn at random from 10,000: meters repeat within a batch, and batches
that are sent at once overlap, in random order.
"""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench.history import fill_history
from bench.served import WITHOUT_WRK, Load, await_stored, run_wrk, served
from bench.workload import METERS, MINUTE, SHORT, START

BATCHES = (100, 1_000)
CONNECTIONS = 4
ROUNDS = 3
SECONDS = 3
# The minutes of device time that a run may use: twice of what 100,000 readings a second need.
RUN_MINUTES = 60


def measure_http_batch(folder: Path, url: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Return readings per second answered 201, lowest and highest, p99 (ms) and share of 202.

    Medians of interleaved rounds, by name, where wrk is there. The server lives in folder; url is
    of an empty database. Raises RuntimeError where something acknowledged is not stored.
    """
    if shutil.which("wrk") is None:
        return {"http_batch": WITHOUT_WRK}
    fill_history(url, METERS, SHORT)
    minutes = itertools.count(SHORT.stop, RUN_MINUTES)
    runs: dict[int, list[Load]] = {batch: [] for batch in BATCHES}
    with served(folder, url) as where:
        for number in range(ROUNDS + 1):
            say(f"http_batch, round {number} of {ROUNDS}")
            for batch, loads in runs.items():
                minute = next(minutes)
                first = int((START + minute * MINUTE).timestamp())
                arguments = (first, len(METERS), batch, number)
                target = f"{where}/v1/ingestion/meter/batch"
                load = run_wrk("http_batch.lua", target, CONNECTIONS, SECONDS, *arguments)
                await_stored(url, minute, (load["stored"] + load["queued"]) * batch)
                loads.append(load)
    figures = {}
    for batch, (_, *loads) in runs.items():  # the first fills caches and plans
        name = f"http_batch_{batch}"
        rates = [batch * load["stored"] / load["microseconds"] * 1e6 for load in loads]
        figures[name] = median(rates)
        figures[f"{name}_lowest"], figures[f"{name}_highest"] = min(rates), max(rates)
        figures[f"{name}_p99_ms"] = median(load["p99"] / 1000 for load in loads)
        requests = sum(load["requests"] for load in loads)
        figures[f"{name}_queued"] = sum(load["queued"] for load in loads) / requests
    return figures
