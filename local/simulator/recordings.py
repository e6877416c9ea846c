"""Reads recorded telemetry from CSV files and turns it into the readings of devices."""

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar

from local import LocalError
from local.simulator.fleet import METERS, VEHICLES, VOLTAGE
from local.simulator.sender import Reading

HOUSEHOLD = "household AC"
HOUSEHOLD_ID = "HOUSEHOLD-1"
# The recordings have no temperature: that of a battery which charges in mild weather.
BATTERY_TEMP = 30.0

_HOUSEHOLD_COLUMNS = ("timestamp_utc", "active_power_kw", "voltage_v")
_SESSION_COLUMNS = (
    "session",
    "arrival_utc",
    "departure_utc",
    "energy_wh",
    "soc_arrival_pct",
    "soc_departure_pct",
)
_SESSION_ID = re.compile(r"[A-Za-z0-9._:-]{1,50}")

Row = TypeVar("Row")


class Minute(NamedTuple):
    """One row of a household's file: mean power over the minute (kW) and voltage (V)."""

    time: datetime
    power_kw: float
    voltage: float


class Session(NamedTuple):
    """One charging session: energy (Wh, DC) and state of charge at both ends (%)."""

    name: str
    arrival: datetime
    departure: datetime
    energy_wh: float
    soc_arrival: float
    soc_departure: float

    @property
    def vehicle_id(self) -> str:
        """The id of the vehicle that this session has to itself."""
        return f"VEH-S{self.name}"

    @property
    def meter_id(self) -> str:
        """The id of the meter that measures this session's AC side."""
        return f"METER-S{self.name}"

    @property
    def minutes(self) -> int:
        """How many minutes it lasted, a begun one included."""
        return math.ceil((self.departure - self.arrival) / timedelta(minutes=1))

    @property
    def times(self) -> list[datetime]:
        """The ends of its minutes; at least its departure."""
        within = range(1, self.minutes)
        return [*(self.arrival + timedelta(minutes=n) for n in within), self.departure]


def read_household(path: Path) -> list[Minute]:
    """Read a household's file; raise LocalError with the line that is wrong."""
    seen: set[datetime] = set()

    def parse(row: dict[str, str]) -> Minute:
        minute = Minute(
            _time(row, "timestamp_utc"),
            _number(row, "active_power_kw"),
            _number(row, "voltage_v"),
        )
        if minute.time in seen:
            raise ValueError(f"timestamp_utc {row['timestamp_utc']} occurs twice")
        seen.add(minute.time)
        return minute

    return _read(path, _HOUSEHOLD_COLUMNS, parse)


def read_sessions(path: Path) -> list[Session]:
    """Read a file of charging sessions; raise LocalError with the line that is wrong."""
    seen: set[str] = set()

    def parse(row: dict[str, str]) -> Session:
        session = Session(
            row["session"],
            _time(row, "arrival_utc"),
            _time(row, "departure_utc"),
            _number(row, "energy_wh"),
            _number(row, "soc_arrival_pct"),
            _number(row, "soc_departure_pct"),
        )
        if not _SESSION_ID.fullmatch(session.name):
            raise ValueError(f"session {session.name!r} cannot be part of a device id")
        if session.name in seen:
            raise ValueError(f"session {session.name} occurs twice")
        if session.departure < session.arrival:
            raise ValueError(f"session {session.name} departs before it arrives")
        seen.add(session.name)
        return session

    return _read(path, _SESSION_COLUMNS, parse)


def household_readings(minutes: Sequence[Minute]) -> Iterator[Reading]:
    """Yield a meter reading for each row, at the time that was recorded."""
    for minute in minutes:
        yield Reading(
            HOUSEHOLD,
            "meter",
            HOUSEHOLD_ID,
            minute.time,
            minute.power_kw / 60,
            {"voltage": minute.voltage},
        )


def vehicle_readings(session: Session) -> Iterator[Reading]:
    """Yield a reading for each minute; their energy adds up to the session's."""
    times = session.times
    kwhs = _shares(session.energy_wh / 1000, len(times))
    rise = session.soc_departure - session.soc_arrival
    for number, (time, kwh) in enumerate(zip(times, kwhs, strict=True), 1):
        soc = session.soc_arrival + rise * number / len(times)
        others = {"soc": min(100.0, max(0.0, soc)), "batteryTemp": BATTERY_TEMP}
        yield Reading(VEHICLES, "vehicle", session.vehicle_id, time, kwh, others)


def meter_readings(session: Session, efficiency: float) -> Iterator[Reading]:
    """Yield the AC side of each vehicle reading; the efficiency is a ratio up to 1."""
    for reading in vehicle_readings(session):
        kwh = reading.kwh / efficiency
        yield Reading(METERS, "meter", session.meter_id, reading.time, kwh, {"voltage": VOLTAGE})


def _shares(total: float, count: int) -> list[float]:
    equal = [total / count] * (count - 1)
    # The last share takes the rounding errors of the others.
    return [*equal, total - math.fsum(equal)]


def _read(path: Path, columns: Sequence[str], parse: Callable[[dict[str, str]], Row]) -> list[Row]:
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            missing = [name for name in columns if name not in header]
            if missing:
                raise LocalError(f"{path}, line 1: no column {', '.join(missing)}")
            for values in lines:
                if len(values) != len(header):
                    raise LocalError(
                        f"{path}, line {lines.line_num}: "
                        f"{len(values)} columns instead of {len(header)}"
                    )
                try:
                    rows.append(parse(dict(zip(header, values, strict=True))))
                except ValueError as error:
                    raise LocalError(f"{path}, line {lines.line_num}: {error}") from None
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise LocalError(f"{path} is not a CSV file: {error}") from None
    if not rows:
        raise LocalError(f"{path} has no rows")
    return rows


def _time(row: dict[str, str], column: str) -> datetime:
    try:
        time = datetime.fromisoformat(row[column])
        if time.tzinfo:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f"{column} {row[column]!r} is not a time with an offset, such as 2022-04-12T19:27:00Z"
    )


def _number(row: dict[str, str], column: str) -> float:
    try:
        number = float(row[column])
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{column} {row[column]!r} is not a number from 0 on")
    return number
