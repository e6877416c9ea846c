"""What was measured beside its goals: tables, and .local/bench.json."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

# name, ours, limit, goal
RATIOS = (
    ("bulk_fresh", "bulk_fresh", "copy_fresh", 0.30),
    ("bulk_buffered", "bulk_buffered", "copy_buffered", 0.50),
    ("late", "late", "bulk_fresh", 0.40),
    ("corrected", "corrected", "bulk_fresh", 0.25),
    ("quarters", "quarters", "late", 1.00),
    ("backfill", "backfill", "backfill_beside", 0.80),
    ("backfill_late", "backfill_late", "backfill_beside", None),
    ("single", "single", "bare_insert", 0.75),
    ("single_sql", "single_sql", "bare_insert", None),
    ("growth", "single_grown", "single", 0.90),
)
# name, ours, beside what, at most
TIMES = (
    ("performance_24h", "performance_24h_ms", "bare_select_ms", 2.5),
    ("performance_lossy", "performance_lossy_ms", "performance_24h_ms", 1.5),
    ("performance_year", "performance_year_ms", "performance_24h_ms", 5),
    ("dashboard_100", "dashboard_100_ms", "performance_24h_ms", 12),
    ("fleet_10000", "fleet_10000_ms", "bare_select_ms", 60),
)
SIZES = (("bytes_meter", 150), ("bytes_vehicle", 160))
_SPREAD = "{0_lowest:,.0f} to {0_highest:,.0f}, p99 {0_p99_ms:.0f} ms, {0_queued:.0%} queued"
# name, how it is shown, goal, what belongs to it
FIGURES = (
    *[
        (name, "{:,.0f} readings/s", "> 40,000", _SPREAD.replace("0_", f"{name}_"))
        for name in ("http_batch_100", "http_batch_1000")
    ],
    ("drain", "{:,.0f} readings/s", "≥ 667", "while {drain_arrival:,.0f}/s arrive"),
    ("burst_answered", "{:.1%}", "100 %", "2xx of {burst_rate:,.0f}/s; the cap: {burst_cap:.0f}/s"),
    ("burst_drain_seconds", "{:.0f} s", "", "until the burst was stored, from its end"),
    *[
        (name, "{:.2f} µs", "< 6", f"least {{{name}_least:.2f}}")
        for name in ("cpu_per_reading_meter", "cpu_per_reading_vehicle")
    ],
    (
        "archive_bytes",
        "{:.1f} B",
        "≤ 20",
        "in history {history_bytes:.0f}; {archive_readings_per_second:,.0f} readings/s moved",
    ),
)


def print_report(console: Console, measured: Mapping[str, Any]) -> None:
    """Print tables of what was measured, and what was skipped."""
    for table in (_ratios(measured), _times(measured), _figures(measured), _http_single(measured)):
        if table.row_count:
            console.print(table)
    for name, value in measured.items():
        if isinstance(value, str):
            console.print(f"{name}: {value.upper()}")


def _ratios(measured: Mapping[str, Any]) -> Table:
    table = Table("ratio", "ours/s", "limit/s", "ours / limit", "goal")
    for name, ours, limit, goal in RATIOS:
        if ours in measured:
            table.add_row(
                name,
                f"{measured[ours]:,.0f}",
                f"{measured[limit]:,.0f}",
                f"{measured[ours] / measured[limit]:.2f}",
                f"≥ {goal:.2f}" if goal else "",
            )
    for name, most in SIZES:
        if name in measured:
            closed = f"{measured[f'{name}_closed']:.0f} B closed"
            table.add_row(name, f"{measured[name]:.0f} B", "", closed, f"≤ {most}")
    return table


def _times(measured: Mapping[str, Any]) -> Table:
    table = Table("ratio", "ours", "beside", "ours / beside", "goal")
    if "bare_select_ms" not in measured:
        return table
    for name, ours, beside, most in TIMES:
        table.add_row(
            name,
            f"{measured[ours]:.2f} ms",
            f"{measured[beside]:.2f} ms",
            f"{measured[ours] / measured[beside]:.1f}",
            f"≤ {most:g}",
        )
    before, after = (
        measured[f"performance_24h{grown}_ms"] / measured[f"bare_select{grown}_ms"]
        for grown in ("", "_grown")
    )
    table.add_row(
        "performance_growth", f"{after:.2f}", f"{before:.2f}", f"{after / before:.2f}", "≤ 1.1"
    )
    before, after = (measured[f"performance_24h_buffers{grown}"] for grown in ("", "_grown"))
    table.add_row(
        "the same in pages touched", f"{after}", f"{before}", f"{after / before:.2f}", "≤ 1.1"
    )
    return table


def _figures(measured: Mapping[str, Any]) -> Table:
    table = Table("figure", "measured", "goal", "")
    for name, shown, goal, more in FIGURES:
        if name in measured:
            table.add_row(name, shown.format(measured[name]), goal, more.format_map(measured))
    return table


def _http_single(measured: Mapping[str, Any]) -> Table:
    table = Table("http_single", "requests/s", "p50", "p99")
    loads = measured.get("http_single", "")
    if not isinstance(loads, str):
        for connections, load in loads.items():
            table.add_row(
                f"{connections} connection{'s' if connections != '1' else ''}",
                f"{load['requests_per_second']:,.0f}",
                f"{load['p50_ms']:.1f} ms",
                f"{load['p99_ms']:.1f} ms",
            )
    return table


def write_report(
    path: Path, measured: Mapping[str, Any], settings: Sequence[str], postgresql: str
) -> None:
    """Write everything that was measured, and on what, as JSON."""
    report = {
        "ratios": {name: measured[ours] / measured[limit] for name, ours, limit, _ in RATIOS},
        "measured": {
            name: value for name, value in measured.items() if isinstance(value, int | float)
        },
        # By the number of connections; or why something was skipped.
        **{name: value for name, value in measured.items() if isinstance(value, dict | str)},
        "settings": settings,
        "postgresql": postgresql,
        "psycopg": psycopg.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
