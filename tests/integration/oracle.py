"""What the store has to hold after any sequence of calls, computed in plain Python."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import ceil
from typing import Any, NamedTuple

import psycopg

from telemetry.database import Database, Row
from telemetry.readings import MeterReading, VehicleReading
from telemetry.store import (
    store_meter_reading,
    store_meter_readings,
    store_vehicle_reading,
    store_vehicle_readings,
)

START = datetime(2026, 2, 10, 12, tzinfo=UTC)
ACCEPTED = datetime(2026, 2, 11, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Event(NamedTuple):
    """A reading of vehicle n, or of meter n where it is of the grid side."""

    device: int
    offset: float  # seconds after START
    watt_hours: int
    soc: int | None
    is_meter: bool
    length: float | None = None  # seconds, as the reading tells it

    @property
    def id(self) -> str:
        return f"{'MTR' if self.is_meter else 'VEH'}_{self.device}"

    @property
    def time(self) -> datetime:
        return START + timedelta(seconds=self.offset)

    @property
    def values(self) -> tuple[Any, ...]:
        """What history holds of it beside its key."""
        kwh = Decimal(self.watt_hours) / 1000
        length = None if self.length is None else Decimal(str(self.length))
        if self.is_meter:
            return (kwh, 230.0, length)
        return (kwh, Decimal(self.device) if self.device < 3 else None, length, self.soc)


@dataclass(frozen=True)
class Call:
    """Events accepted together, the first of them at `accepted`."""

    events: Sequence[Event]
    accepted: datetime


def write(database: Database, call: Call) -> None:
    """Store a call's events as the functions do: meters and vehicles have streams of their own."""
    meters = [
        MeterReading.model_construct(
            meter_id=event.id,
            kwh_consumed_ac=event.watt_hours / 1000,
            voltage=230.0,
            timestamp=event.time,
            interval_seconds=event.length,
        )
        for event in call.events
        if event.is_meter
    ]
    vehicles = [
        VehicleReading.model_construct(
            vehicle_id=event.id,
            soc=None if event.soc is None else float(event.soc),
            kwh_delivered_dc=event.watt_hours / 1000,
            battery_temp=float(event.device) if event.device < 3 else None,
            timestamp=event.time,
            interval_seconds=event.length,
        )
        for event in call.events
        if not event.is_meter
    ]
    if len(meters) == 1:
        store_meter_reading(database, meters[0], call.accepted)
    elif meters:
        store_meter_readings(database, meters, call.accepted)
    if len(vehicles) == 1:
        store_vehicle_reading(database, vehicles[0], call.accepted)
    elif vehicles:
        store_vehicle_readings(database, vehicles, call.accepted)


Held = dict[tuple[str, datetime, datetime], tuple[Any, ...]]


def void(database: Database, reading: tuple[str, datetime]) -> Any:
    """Void a reading, as ops do; return what came of it."""
    stream = "vehicle" if reading[0].startswith("VEH") else "meter"
    statement = f"SELECT outcome FROM void_{stream}_reading(%s, %s, 'Ada', 'a test', NULL)"
    [(outcome,)] = database.fetch(statement, reading)
    return outcome


def withdraw(database: Database, reading: tuple[str, datetime]) -> None:
    """Take a void back."""
    stream = "vehicle" if reading[0].startswith("VEH") else "meter"
    statement = f"SELECT stream FROM withdraw_{stream}_void(%s, %s, 'Ada', 'a test', NULL)"
    assert database.fetch(statement, reading) == [(stream,)]


class Oracle:
    """What is held: (device, time, receipt time) → values; and which readings are voided."""

    def __init__(self) -> None:
        self.received: Held = {}
        self.voided: set[tuple[str, datetime]] = set()

    @property
    def history(self) -> Held:
        """What history has to hold."""
        return {key: held for key, held in self.received.items() if key[:2] not in self.voided}

    @property
    def set_aside(self) -> Held:
        """What has to be beside it."""
        return {key: held for key, held in self.received.items() if key[:2] in self.voided}

    def take(self, call: Call) -> None:
        for stream in (True, False):
            own = [event for event in call.events if event.is_meter is stream]
            for position, event in enumerate(own):
                accepted = call.accepted + position * MICROSECOND
                while (
                    held := self.received.setdefault((event.id, event.time, accepted), event.values)
                ) != event.values:
                    assert held
                    accepted += MICROSECOND

    def counted(self) -> dict[tuple[str, datetime], tuple[Any, ...]]:
        """Return (device, time) → values of the receipt that counts."""
        return {key[:2]: values for key, values in sorted(self.history.items())}

    def live(self) -> dict[str, tuple[Any, ...]]:
        history = self.history
        newest = {key[0]: (key[1], key[2], *history[key][:2]) for key in sorted(history)}
        charge = {
            key[0]: history[key][3]
            for key in sorted(history)
            if key[0].startswith("VEH") and history[key][3] is not None
        }
        return {device: (*shown, charge.get(device)) for device, shown in newest.items()}

    def rollup(self) -> dict[tuple[str, datetime], "Hour"]:
        """What the hours have to hold: each reading by the microseconds of its interval."""
        hours: dict[tuple[str, datetime], Hour] = {}
        for (device, time), values in self.counted().items():
            kwh, length = values[0], values[2]
            temperature = None if device.startswith("MTR") else values[1]
            end = (time - START) // MICROSECOND
            long = length is not None and length > 60
            seconds = Decimal(60) if length is None else length
            start = end - int(seconds * 1_000_000) if long else end - 1
            for number in range(start // _HOUR, (end - 1) // _HOUR + 1):
                opened, closed = number * _HOUR, (number + 1) * _HOUR
                ends_here = end <= closed
                hour = hours.setdefault((device, START + timedelta(hours=number)), Hour())
                share = flowed(kwh, start, end, closed) - flowed(kwh, start, end, opened)
                if not long:
                    share = kwh
                hour.kwh += share
                if ends_here:
                    hour.readings += 1
                    hour.minutes |= 1 << (end - 1 - opened) // _MINUTE
                    if temperature is not None:
                        hour.temperature += temperature
                        hour.temperatures += 1
                if seconds > 3600:
                    hour.estimated += share
                    continue
                if long:
                    within = min(end, closed) - max(start, opened)
                    hour.seconds += Decimal(within) / 1_000_000
                else:
                    hour.seconds += seconds
                for back in range(ceil(seconds / 60)):
                    minute = (end - 1) // _MINUTE - back
                    if minute // 60 == number:
                        hour.covered |= 1 << minute % 60
        return {key: hour for key, hour in hours.items() if hour != Hour()}


@dataclass
class Hour:
    """What a row of a rollup says."""

    readings: int = 0
    minutes: int = 0
    covered: int = 0
    seconds: Decimal = Decimal(0)
    kwh: Decimal = Decimal(0)
    estimated: Decimal = Decimal(0)
    temperature: Decimal = Decimal(0)
    temperatures: int = 0


def flowed(kwh: Decimal, start: int, end: int, instant: int) -> Decimal:
    """Return how much of a reading's energy flowed by an instant, in microseconds all."""
    if instant >= end:
        return kwh
    if instant <= start:
        return Decimal(0)
    return Decimal(int(kwh * 10**12) * (instant - start) // (end - start)) / 10**12


def read_rollups(connection: psycopg.Connection[Row]) -> dict[tuple[str, datetime], Hour]:
    """Return the rows of the rollups as the oracle has them; one of nothing is as good as none."""
    rows = []
    for stream, kwh, temperature, temperatures in (
        ("meter", "kwh_consumed_ac", "0::numeric", "0"),
        ("vehicle", "kwh_delivered_dc", "battery_temp_sum", "coalesce(battery_temps, readings)"),
    ):
        rows += connection.execute(
            f"""SELECT {stream}_id, hour, readings, minutes, coalesce(covered, minutes),
                       coalesce(seconds, 60 * readings), {kwh}, coalesce(kwh_estimated, 0),
                       {temperature}, {temperatures}
                FROM {stream}_hourly_rollup""".encode()
        ).fetchall()
    found = {(row[0], row[1]): Hour(*row[2:]) for row in rows}
    return {key: hour for key, hour in found.items() if hour != Hour()}


_MINUTE, _HOUR = 60_000_000, 3_600_000_000
