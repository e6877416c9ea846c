"""Draws efficiency over time, as the system reports it. Importing it is slow: matplotlib."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from local.simulator.efficiency import FAULT_BELOW, Assumption, Performance, read_performances
from local.simulator.sender import System

HEALTHY_FROM = 88
HEALTHY_TO = 94
INSTANTS = 24
MOST_LINES = 40
MOST_NAMES = 8

_SOUND = "#33658a"
_FAULT = "#d1495b"


def draw_lines(
    vehicles: Sequence[tuple[Assumption, Performance | None]],
    system: System,
    clients: int,
    path: Path,
) -> str:
    """Draw how each vehicle's efficiency went; return what the picture shows.

    Asks the system for at most MOST_LINES vehicles, the least efficient first, at INSTANTS times.
    """
    shown = sorted(vehicles, key=lambda pair: (pair[1] and pair[1].ratio) or math.inf)[:MOST_LINES]
    first, last = shown[0][0].first, shown[0][0].last
    count = min(INSTANTS, 1 + int((last - first) / timedelta(minutes=1)))
    instants = [first + (last - first) * n / max(1, count - 1) for n in range(count)]
    asked = [(assumed.vehicle_id, instant) for assumed, _ in shown for instant in instants]
    found = read_performances(asked, system, clients)
    lines = [
        (
            shown[n][0].vehicle_id,
            instants,
            [answer.ratio if answer else None for answer in found[n * count : (n + 1) * count]],
        )
        for n in range(len(shown))
    ]
    _draw(path, "Efficiency of each vehicle over the 24 h up to each instant", lines, "-")
    return f"{len(lines)} of {len(vehicles)} vehicles at {count} instants"


def draw_points(vehicles: Sequence[tuple[Assumption, Performance | None]], path: Path) -> str:
    """Draw each vehicle's efficiency at its last reading; return what the picture shows."""
    points = [
        (assumed.vehicle_id, [assumed.last], [found.ratio if found else None])
        for assumed, found in vehicles
    ]
    _draw(path, "Efficiency of each charging session, at its departure", points, "o")
    return f"{len(points)} vehicles"


def _draw(
    path: Path,
    title: str,
    series: Sequence[tuple[str, Sequence[datetime], Sequence[float | None]]],
    style: str,
) -> None:
    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    lowest, highest, failing = float(FAULT_BELOW), float(HEALTHY_TO), []
    for name, times, ratios in series:
        known = [(t, ratio) for t, ratio in zip(times, ratios, strict=True) if ratio is not None]
        if not known:
            continue
        values = [ratio for _, ratio in known]
        lowest, highest = min(lowest, *values), max(highest, *values)
        faulty = values[-1] < FAULT_BELOW
        if faulty:
            failing.append(name)
        axes.plot(
            [time for time, _ in known],  # type: ignore[arg-type]
            values,
            style,
            color=_FAULT if faulty else _SOUND,
            lw=2 if faulty else 1.2,
            ms=3.5,
            mew=0,
            alpha=1 if faulty else 0.6,
            zorder=3 if faulty else 2,
        )
    axes.set_ylim(max(0.0, lowest - 3), highest + 1)
    _mark_bands(axes)
    if failing:
        more = len(failing) - MOST_NAMES
        names = ", ".join(failing[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")
        axes.plot([], [], style, color=_FAULT, label=f"below {FAULT_BELOW} %: {names}")
    sound = len(series) - len(failing)
    axes.plot([], [], style, color=_SOUND, label=f"{FAULT_BELOW} % and above: {sound:,} vehicles")
    figure.legend(loc="outside lower left", frameon=False, fontsize=9)
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_ylabel("efficiency, DC / AC (%)")
    axes.set_xlabel("time (UTC)")
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    )
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _mark_bands(axes: Axes) -> None:
    bottom, _ = axes.get_ylim()
    for low, high, color, text in (
        (HEALTHY_FROM, HEALTHY_TO, "#2a9d8f", f"healthy\n{HEALTHY_FROM} to {HEALTHY_TO} %"),
        (bottom, FAULT_BELOW, _FAULT, f"hardware fault\nbelow {FAULT_BELOW} %"),
    ):
        axes.axhspan(low, high, color=color, alpha=0.11, lw=0)
        axes.text(
            1.01,
            (low + high) / 2,
            text,
            transform=axes.get_yaxis_transform(),
            color=color,
            fontsize=9,
            va="center",
        )
