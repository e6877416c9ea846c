"""What a simulation sends, and what the system should report of it."""

import argparse
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from local import LocalError
from local.simulator.efficiency import Assumption
from local.simulator.fleet import METERS, MINUTE, VEHICLES, fleet_lanes, invent_fleet
from local.simulator.recordings import (
    HOUSEHOLD,
    household_readings,
    meter_readings,
    read_household,
    read_sessions,
    vehicle_readings,
)
from local.simulator.sender import Reading

_FLEET_DEFAULTS = {"vehicles": 10, "minutes": 60, "failing": 0, "seed": 1}
_PICTURES = {".png", ".svg", ".pdf"}


class Plan(NamedTuple):
    """What is to be sent, and what the system should report of it."""

    lanes: Sequence[Iterator[Reading]]
    readings: int
    assumptions: Sequence[Assumption]
    sums: dict[str, float]
    due: Callable[[Reading], float] | None
    notes: Sequence[str]


def plan_readings(options: argparse.Namespace) -> Plan:
    """Return what the options ask for; raise LocalError where they cannot be met."""
    _check(options)
    recorded = options.meter_csv or options.sessions_csv
    return _plan_recorded(options) if recorded else _plan_fleet(options)


def _check(options: argparse.Namespace) -> None:
    recorded = options.meter_csv or options.sessions_csv
    for name, default in (*_FLEET_DEFAULTS.items(), ("speed_up", None), ("start", None)):
        if getattr(options, name) is None:
            setattr(options, name, default)
        elif recorded:
            option = name.replace("_", "-")
            raise LocalError(f"--{option} is for an invented fleet, not for recorded files")
    for name, least, most in (
        ("vehicles", 1, 100_000),
        ("minutes", 1, 1_000_000),
        ("failing", 0, options.vehicles),
        ("clients", 1, 256),
        ("rows", 0, 1_000_000),
    ):
        if not least <= getattr(options, name) <= most:
            raise LocalError(
                f"--{name} {getattr(options, name)} is not between {least} and {most:,}"
            )
    if options.speed_up is not None and not 0.001 <= options.speed_up < math.inf:
        raise LocalError(f"--speed-up {options.speed_up} is not a number from 0.001 on")
    if not 0 < options.efficiency <= 1:
        raise LocalError(f"--efficiency {options.efficiency} is not above 0 and at most 1")
    if options.plot:
        _check_plot(options.plot)


def _check_plot(path: Path) -> None:
    if path.suffix not in _PICTURES:
        raise LocalError(f"--plot {path} does not end in {', '.join(sorted(_PICTURES))}")
    if not path.parent.is_dir():
        raise LocalError(f"--plot {path}: there is no folder {path.parent}")
    if importlib.util.find_spec("matplotlib") is None:
        raise LocalError("--plot needs matplotlib, which `make simulate` installs")


def _plan_fleet(options: argparse.Namespace) -> Plan:
    duration: timedelta = options.minutes * MINUTE
    now = datetime.now(UTC)
    # A paced run sends its last reading this much later; that one must not be of the future then.
    sending: timedelta = duration / options.speed_up if options.speed_up else timedelta()
    if options.start is None:
        start = min(now, now + sending - duration).replace(second=0, microsecond=0)
    else:
        start = _parse_start(options.start)
        if start > now or start + duration > now + sending:
            raise LocalError(
                f"--start {options.start}: readings of {options.minutes} minutes from then on "
                "would be of the future when they are sent"
            )
    fleet = invent_fleet(options.vehicles, options.failing, options.minutes, options.seed)
    speed = float(options.speed_up or 0)

    def due(reading: Reading) -> float:
        return (reading.time - start).total_seconds() / speed

    return Plan(
        lanes=fleet_lanes(fleet, start, options.minutes, options.clients),
        readings=2 * options.vehicles * options.minutes,
        assumptions=[
            Assumption(
                charger.vehicle_id,
                charger.meter_id,
                charger.efficiency,
                start + MINUTE,
                start + duration,
            )
            for charger in fleet
        ],
        sums={},
        due=due if speed else None,
        notes=[
            f"{options.vehicles:,} vehicles, each at a charger with a meter",
            f"a reading a minute from {start:%F %H:%M} to {start + duration:%F %H:%M} UTC",
            f"{options.failing:,} of the chargers are failing",
        ],
    )


def _parse_start(text: str) -> datetime:
    try:
        start = datetime.fromisoformat(text)
        if start.tzinfo:
            return start.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise LocalError(f"--start {text} is not a time with an offset, such as 2026-02-10T10:00:00Z")


def _plan_recorded(options: argparse.Namespace) -> Plan:
    lanes: list[Iterator[Reading]] = []
    readings = 0
    assumptions: list[Assumption] = []
    sums: dict[str, float] = {}
    notes: list[str] = []
    if options.meter_csv:
        household = read_household(options.meter_csv)
        lanes.append(household_readings(household))
        readings += len(household)
        sums[HOUSEHOLD] = math.fsum(minute.power_kw for minute in household) / 60
        notes.append(f"{options.meter_csv}: {len(household):,} minutes of one meter")
    if options.sessions_csv:
        sessions = read_sessions(options.sessions_csv)
        for session in sessions:
            lanes += [vehicle_readings(session), meter_readings(session, options.efficiency)]
            times = session.times
            readings += 2 * len(times)
            assumptions.append(
                Assumption(
                    session.vehicle_id, session.meter_id, options.efficiency, times[0], times[-1]
                )
            )
        sums[VEHICLES] = math.fsum(session.energy_wh for session in sessions) / 1000
        sums[METERS] = sums[VEHICLES] / options.efficiency
        minutes = sum(session.minutes for session in sessions)
        notes += [
            f"{options.sessions_csv}: {len(sessions):,} sessions, {minutes:,} minutes",
            f"Assumed, as not recorded: AC energy = DC energy / {options.efficiency:g}",
        ]
        longer = sum(assumption.outlasts_window for assumption in assumptions)
        if longer:
            notes.append(
                f"Of {longer:,} sessions, longer than 24 h, the system reports the last 24 h only"
            )
    return Plan(lanes, readings, assumptions, sums, None, notes)
