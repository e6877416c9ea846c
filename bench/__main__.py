"""`make bench`: everything on one server of its own, ours and the limit in turn."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from rich.console import Console

from bench.analytics import measure_analytics
from bench.archive import measure_archive
from bench.backfill import measure_backfill
from bench.bulk import measure_bulk
from bench.cold_import import measure_cold_import, print_cold_import
from bench.http_batch import measure_http_batch
from bench.http_single import measure_http_single
from bench.processor import measure_processor
from bench.queues import measure_burst, measure_drain
from bench.report import print_report, write_report
from bench.single import measure_single
from bench.size import measure_size
from local import ROOT
from local.console import CommandParser
from local.databases import admit_users, database_urls, make_database
from local.postgres import RunningPostgres, embedded_binaries, start_postgres
from telemetry.database import connect
from telemetry.migrate import apply_migrations
from telemetry.partitions import make_partitions

# Half of it on a machine that has nothing else to do.
MOST_SECONDS = 1_200
# No checkpoint before the end: what came after it would write whole pages into the log, and what
# came before would not.
SETTINGS = ["shared_buffers=1GB", "max_wal_size=32GB", "checkpoint_timeout=30min"]


@dataclass(frozen=True)
class Site:
    """Where a part is measured."""

    server: RunningPostgres
    binaries: Path
    folder: Path
    say: Callable[[str], None]

    def make_database(self, name: str) -> str:
        """Make a database with tables and partitions; return its owner's URL."""
        make_database(self.server, name)
        url = database_urls(self.server, name).owner
        with connect(url) as connection:
            apply_migrations(connection)
            make_partitions(connection, datetime.now(UTC))
        return url

    def measure_single(self) -> dict[str, float]:
        """Measure with the databases that it needs."""
        names = ("inserted", "called", "small", "grown")
        urls = {name: self.make_database(name) for name in names}
        return measure_single(self.binaries / "pgbench", urls, self.say)

    def measure_analytics(self) -> dict[str, float]:
        """Measure as the role that reads."""
        owner = self.make_database("reported")
        admit_users(self.server)
        return measure_analytics(owner, database_urls(self.server, "reported").read, self.say)

    def measure_served(
        self, measure: Callable[[Path, str, Callable[[str], None]], dict[str, Any]]
    ) -> dict[str, Any]:
        """Measure what is served from a folder and on a database of its own."""
        name = measure.__name__
        return measure(self.folder / name, self.make_database(name), self.say)


PARTS: dict[str, Callable[[Site], dict[str, Any]]] = {
    "cpu_per_reading": lambda _: measure_processor(),
    "bulk": lambda site: measure_bulk(
        site.make_database("copied"), site.make_database("ours"), site.say
    ),
    "backfill": lambda site: measure_backfill(site.make_database("backfilled"), site.say),
    "single": Site.measure_single,
    "http_single": lambda site: site.measure_served(measure_http_single),
    "http_batch": lambda site: site.measure_served(measure_http_batch),
    "drain": lambda site: site.measure_served(measure_drain),
    "burst": lambda site: site.measure_served(measure_burst),
    "analytics": Site.measure_analytics,
    "size": lambda site: measure_size(site.make_database("sized")),
    "archive": lambda site: site.measure_served(measure_archive),
    "cold_import": lambda site: measure_cold_import(site.say),
}


def main() -> None:
    """Measure, print tables, and write .local/bench.json.

    `ONLY`, the names of some parts, measures these alone, and writes nothing.
    """
    CommandParser(prog="python -m bench", description=__doc__).parse_args()
    only = os.environ.get("ONLY", "").split()
    if unknown := set(only) - PARTS.keys():
        sys.exit(f"bench: no part is called {', '.join(unknown)}: they are {', '.join(PARTS)}")
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, _give_up)
    signal.alarm(MOST_SECONDS)
    console, began = Console(), time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:4.0f} s  {text}")

    local = ROOT / ".local"
    local.mkdir(exist_ok=True)
    binaries = embedded_binaries()
    measured: dict[str, Any] = {}
    try:
        with ExitStack() as undo:
            folder = Path(undo.enter_context(TemporaryDirectory(prefix="bench-", dir=local)))
            server = start_postgres(folder / "postgres", binaries, options=SETTINGS)
            undo.callback(server.stop)
            site = Site(server, binaries, folder, say)
            for name in only or PARTS:
                say(name)
                measured |= PARTS[name](site)
            with connect(server.url) as connection:
                [(version,)] = connection.execute("SHOW server_version")
    finally:  # also where a part failed, or all of them took too long
        print_report(console, measured)
        if "import_packages" in measured:
            print_cold_import(console, measured)
    if not only:
        write_report(local / "bench.json", measured, SETTINGS, version)
        say("Wrote .local/bench.json")


def _give_up(number: int, _frame: FrameType | None) -> None:
    took = f"it took more than {MOST_SECONDS} seconds"
    sys.exit("bench: " + (took if number == signal.SIGALRM else "it was ended"))


if __name__ == "__main__":
    main()
