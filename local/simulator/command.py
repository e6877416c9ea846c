"""`make simulate`: a fleet or recorded telemetry, sent to a running system and read back."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from local import LocalError
from local.server import check_url, get_health
from local.simulator.efficiency import (
    Assumption,
    Performance,
    read_performances,
)
from local.simulator.outcome import report_streams, report_vehicles
from local.simulator.plan import Plan, plan_readings
from local.simulator.sender import System, Tally, send

MOST_READ_BACK = 2000
WIDTH_IN_A_FILE = 100


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `simulate` to its parser."""
    fleet = parser.add_argument_group("an invented fleet")
    fleet.add_argument("--vehicles", type=int, metavar="N", help="how many, each with a meter (10)")
    fleet.add_argument("--minutes", type=int, metavar="M", help="a reading each minute (60)")
    fleet.add_argument(
        "--failing", type=int, metavar="K", help="chargers at 0.80 instead of 0.88 to 0.94 (0)"
    )
    fleet.add_argument(
        "--speed-up",
        type=float,
        metavar="X",
        help="simulated minutes a real minute (as fast as the system takes them)",
    )
    fleet.add_argument(
        "--start", metavar="TIME", help="RFC 3339 (so that the last reading is sent as it is made)"
    )
    fleet.add_argument("--seed", type=int, help="another number invents another fleet (1)")
    recorded = parser.add_argument_group("recorded telemetry, instead of a fleet")
    recorded.add_argument(
        "--meter-csv", type=Path, metavar="FILE", help="timestamp_utc, active_power_kw, voltage_v"
    )
    recorded.add_argument(
        "--sessions-csv",
        type=Path,
        metavar="FILE",
        help="session, arrival_utc, departure_utc, energy_wh, soc_arrival_pct, soc_departure_pct",
    )
    recorded.add_argument(
        "--efficiency",
        type=float,
        default=0.92,
        metavar="RATIO",
        help="assumed of the converter: the AC side of sessions is not recorded (0.92)",
    )
    parser.add_argument("--url", help="of the running system")
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="connections (8)")
    parser.add_argument("--rows", type=int, default=20, metavar="N", help="vehicles shown (20)")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw efficiency over time (.png, .svg, .pdf)"
    )


def simulate(options: argparse.Namespace, url: str, token: str = "") -> None:
    """Send, read back, and print what came of it; with a bearer token where it is not empty.

    Raises LocalError for what the person can mend, and where the system did not take every reading
    or reports something else than it was sent.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH_IN_A_FILE)
    system = System(check_url(options.url or url), token)
    plan = plan_readings(options)
    if options.plot and not plan.assumptions:
        raise LocalError("--plot draws vehicles: add --sessions-csv")
    _find_system(system)

    for note in plan.notes:
        console.print(escape(note))
    began = time.monotonic()
    tally = _send(plan, system, options.clients, console)
    seconds = time.monotonic() - began
    faults = report_streams(tally, plan.sums, seconds, console)
    if tally.gave_up:
        faults.append(f"gave up: {plan.readings - tally.done:,} readings were not sent")

    vehicles = _read_back(plan, system, options.clients, console)
    if vehicles:
        faults += report_vehicles(vehicles, tally.devices, options.rows, console)
        if options.plot:
            _draw(vehicles, options, system, console)
    if faults:
        raise LocalError("; ".join(faults))


def _find_system(system: System) -> None:
    url, token = system
    status, answer = get_health(url, token)
    if status is None:
        raise LocalError(f"nothing answers at {url}: `make run` first")
    if status in {401, 403}:
        raise LocalError(f"{url} asks for another token: set TOKEN to one with all scopes")
    if status not in {200, 503}:
        raise LocalError(f"what answers at {url} is not this system: GET /health is {status}")
    if status == 503:
        print(f"The system is not healthy: {answer}", file=sys.stderr)


def _send(plan: Plan, system: System, clients: int, console: Console) -> Tally:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    if not console.is_terminal:
        console.print(f"Sending {plan.readings:,} readings to {system.url}")
    began = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("Sending", total=plan.readings, rate="")

        def show(done: int) -> None:
            rate = done / max(0.001, time.monotonic() - began)
            progress.update(task, completed=done, rate=f"{rate:,.0f}/s")

        return send(plan.lanes, system, clients, show, plan.due)


def _read_back(
    plan: Plan, system: System, clients: int, console: Console
) -> list[tuple[Assumption, Performance | None]]:
    # Failing chargers are what one looks for: they are among those that are asked after.
    asked = sorted(plan.assumptions, key=lambda assumption: assumption.efficiency)[:MOST_READ_BACK]
    if len(asked) < len(plan.assumptions):
        console.print(f"Reading back {len(asked):,} of {len(plan.assumptions):,} vehicles")
    found = read_performances(
        [(assumption.vehicle_id, assumption.last) for assumption in asked], system, clients
    )
    return list(zip(asked, found, strict=True))


def _draw(
    vehicles: Sequence[tuple[Assumption, Performance | None]],
    options: argparse.Namespace,
    system: System,
    console: Console,
) -> None:
    from local.simulator.picture import draw_lines, draw_points  # noqa: PLC0415 - slow, and seldom wanted

    if options.sessions_csv:
        drawn = draw_points(vehicles, options.plot)
    else:
        drawn = draw_lines(vehicles, system, options.clients, options.plot)
    console.print(f"Drew {escape(str(options.plot))}: {drawn}")
