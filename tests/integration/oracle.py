"""What the store has to hold after any sequence of calls, computed in plain Python."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from telemetry.database import Database
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
        return (kwh, 230.0) if self.is_meter else (kwh, Decimal(self.device), self.soc)


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
        )
        for event in call.events
        if event.is_meter
    ]
    vehicles = [
        VehicleReading.model_construct(
            vehicle_id=event.id,
            soc=None if event.soc is None else float(event.soc),
            kwh_delivered_dc=event.watt_hours / 1000,
            battery_temp=float(event.device),
            timestamp=event.time,
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
            key[0]: history[key][2]
            for key in sorted(history)
            if key[0].startswith("VEH") and history[key][2] is not None
        }
        return {device: (*shown, charge.get(device)) for device, shown in newest.items()}

    def rollup(self) -> dict[tuple[str, datetime], tuple[Any, ...]]:
        sums: dict[tuple[str, datetime], tuple[Any, ...]] = {}
        for (device, time), values in self.counted().items():
            seconds = (time - START) // MICROSECOND - 1
            hour = START + timedelta(hours=seconds // 3_600_000_000)
            minute = seconds % 3_600_000_000 // 60_000_000
            readings, minutes, kwh, temp = sums.get((device, hour), (0, 0, Decimal(0), Decimal(0)))
            temp += Decimal(0) if device.startswith("MTR") else values[1]
            sums[device, hour] = (readings + 1, minutes | 1 << minute, kwh + values[0], temp)
        return sums
