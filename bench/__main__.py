"""`make bench`: everything on one server of its own, ours and the limit in turn."""

import signal
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from rich.console import Console

from bench.bulk import measure_bulk
from bench.cold_import import measure_cold_import, print_cold_import
from bench.http_single import measure_http_single
from bench.report import print_report, write_report
from bench.single import UNUSED_MINUTE, measure_single
from bench.size import measure_size
from local import ROOT
from local.databases import database_urls, make_database
from local.postgres import RunningPostgres, embedded_binaries, start_postgres
from telemetry.database import connect
from telemetry.migrate import apply_migrations
from telemetry.partitions import make_partitions

# With what stopping takes, ten minutes.
MOST_SECONDS = 580
# No checkpoint before the end: what came after it would write whole pages into the log, and what
# came before would not.
SETTINGS = ["shared_buffers=1GB", "max_wal_size=32GB", "checkpoint_timeout=30min"]
DATABASES = ("copied", "ours", "sized", "called", "small", "grown")


def main() -> None:
    """Measure, print tables, and write .local/bench.json."""
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, _give_up)
    signal.alarm(MOST_SECONDS)
    console, began = Console(), time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:4.0f} s  {text}")

    local = ROOT / ".local"
    local.mkdir(exist_ok=True)
    binaries = embedded_binaries()
    with ExitStack() as undo:
        folder = Path(undo.enter_context(TemporaryDirectory(prefix="bench-", dir=local)))
        server = start_postgres(folder / "postgres", binaries, options=SETTINGS)
        undo.callback(server.stop)
        urls = {name: _make_database(server, name) for name in DATABASES}
        measured = measure_bulk(urls["copied"], urls["ours"], say)
        measured |= measure_single(binaries / "pgbench", urls, say)
        served = measure_http_single(folder / "served", urls["small"], UNUSED_MINUTE, say)
        say("bytes a reading")
        measured |= measure_size(urls["sized"])
        measured |= measure_cold_import(say)
        with connect(server.url) as connection:
            [(version,)] = connection.execute("SHOW server_version")
    print_report(console, measured, served)
    print_cold_import(console, measured)
    write_report(local / "bench.json", measured, served, SETTINGS, version)
    say("Wrote .local/bench.json")


def _give_up(number: int, _frame: FrameType | None) -> None:
    took = f"it took more than {MOST_SECONDS} seconds"
    sys.exit("bench: " + (took if number == signal.SIGALRM else "it was ended"))


def _make_database(server: RunningPostgres, name: str) -> str:
    """Make a database with tables and partitions; return its owner's URL."""
    make_database(server, name)
    url = database_urls(server, name).owner
    with connect(url) as connection:
        apply_migrations(connection)
        make_partitions(connection, datetime.now(UTC))
    return url


if __name__ == "__main__":
    main()
