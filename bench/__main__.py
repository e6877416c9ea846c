"""`make bench`: everything on one server of its own, ours and the limit in turn."""

import json
import os
import platform
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from bench.bulk import measure_bulk
from bench.single import measure_single
from bench.size import measure_size
from local import ROOT
from local.postgres import embedded_binaries, start_postgres
from telemetry.database import Database, connect
from telemetry.migrate import apply_migrations
from telemetry.partitions import make_partitions

SETTINGS = ["shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=30min"]

# name, ours, limit, goal
RATIOS = (
    ("bulk_fresh", "bulk_fresh", "copy_fresh", 0.30),
    ("bulk_buffered", "bulk_buffered", "copy_buffered", 0.50),
    ("late", "late", "bulk_fresh", 0.40),
    ("corrected", "corrected", "bulk_fresh", 0.25),
    ("single", "single", "bare_insert", 0.75),
)
SIZES = (("bytes_meter", 150), ("bytes_vehicle", 160))


def main() -> None:
    """Measure, print a table, and write .local/bench.json."""
    console = Console()
    binaries = embedded_binaries()
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=_local()))
    server = start_postgres(folder / "postgres", binaries, options=SETTINGS)
    try:
        urls = {name: _make_database(server.url, name) for name in ("ours", "copied", "sized")}
        measured: dict[str, float] = {}
        ours, sized = Database(urls["ours"]), Database(urls["sized"])
        with connect(urls["copied"]) as limit, connect(urls["sized"]) as connection:
            measured |= measure_bulk(limit, ours, console.print)
            measured |= measure_single(
                binaries / "pgbench", urls["copied"], urls["ours"], console.print
            )
            console.print("bytes a reading")
            measured |= measure_size(sized, connection)
            [(version,)] = connection.execute("SHOW server_version")
        ours.close()
        sized.close()
    finally:
        server.stop()
        shutil.rmtree(folder)
    ratios = {name: measured[a] / measured[b] for name, a, b, _ in RATIOS}
    _print(measured, ratios, console)
    (_local() / "bench.json").write_text(
        json.dumps(
            {
                "ratios": ratios,
                "measured": measured,
                "settings": SETTINGS,
                "postgresql": version,
                "psycopg": psycopg.__version__,
                "python": platform.python_version(),
                "cpus": os.cpu_count(),
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
            },
            indent=2,
        )
        + "\n",
        encoding="utf-8",
    )
    console.print("Wrote .local/bench.json")


def _local() -> Path:
    folder = ROOT / ".local"
    folder.mkdir(exist_ok=True)
    return folder


def _make_database(url: str, name: str) -> str:
    with connect(url) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    own = url.rsplit("/", 1)[0] + "/" + name
    with connect(own) as connection:
        apply_migrations(connection)
        make_partitions(connection, datetime.now(UTC))
    return own


def _print(measured: dict[str, float], ratios: dict[str, float], console: Console) -> None:
    table = Table("ratio", "ours/s", "limit/s", "ours / limit", "goal")
    for name, ours, limit, goal in RATIOS:
        table.add_row(
            name,
            f"{measured[ours]:,.0f}",
            f"{measured[limit]:,.0f}",
            f"{ratios[name]:.2f}",
            f"≥ {goal:.2f}",
        )
    for name, goal in SIZES:
        table.add_row(
            name,
            f"{measured[name]:.0f} B",
            "",
            f"{measured[f'{name}_closed']:.0f} B closed",
            f"≤ {goal}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
