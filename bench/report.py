"""What was measured, as ratios beside their goals: a table, and .local/bench.json."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from bench.http_single import Load

# name, ours, limit, goal
RATIOS = (
    ("bulk_fresh", "bulk_fresh", "copy_fresh", 0.30),
    ("bulk_buffered", "bulk_buffered", "copy_buffered", 0.50),
    ("late", "late", "bulk_fresh", 0.40),
    ("corrected", "corrected", "bulk_fresh", 0.25),
    ("single", "single", "bare_insert", 0.75),
    ("single_sql", "single_sql", "bare_insert", None),
    ("growth", "single_grown", "single", 0.90),
)
SIZES = (("bytes_meter", 150), ("bytes_vehicle", 160))


def print_report(
    console: Console, measured: Mapping[str, float], served: Mapping[int, Load] | None
) -> None:
    """Print the tables; served is None where wrk is not installed."""
    table = Table("ratio", "ours/s", "limit/s", "ours / limit", "goal")
    for name, ours, limit, goal in RATIOS:
        table.add_row(
            name,
            f"{measured[ours]:,.0f}",
            f"{measured[limit]:,.0f}",
            f"{measured[ours] / measured[limit]:.2f}",
            f"≥ {goal:.2f}" if goal else "",
        )
    for name, most in SIZES:
        table.add_row(
            name,
            f"{measured[name]:.0f} B",
            "",
            f"{measured[f'{name}_closed']:.0f} B closed",
            f"≤ {most}",
        )
    console.print(table)
    if served is None:
        console.print("http_single: SKIPPED, wrk is not installed")
        return
    table = Table("http_single", "requests/s", "p50", "p99", "requests / single")
    for connections, load in served.items():
        table.add_row(
            f"{connections} connections" if connections > 1 else "1 connection",
            f"{load['requests_per_second']:,.0f}",
            f"{load['p50_ms']:.1f} ms",
            f"{load['p99_ms']:.1f} ms",
            f"{load['requests_per_second'] / measured['single']:.2f}",
        )
    console.print(table)


def write_report(
    path: Path,
    measured: Mapping[str, float],
    served: Mapping[int, Load] | None,
    settings: Sequence[str],
    postgresql: str,
) -> None:
    """Write everything that was measured, and on what, as JSON."""
    report = {
        "ratios": {name: measured[ours] / measured[limit] for name, ours, limit, _ in RATIOS},
        "measured": measured,
        "http_single": "skipped: wrk is not installed" if served is None else served,
        "settings": settings,
        "postgresql": postgresql,
        "psycopg": psycopg.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
