"""How readings of each stream come in: what they are recognised as, and how they are stored."""

from collections.abc import Callable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Generic, NamedTuple

from telemetry.database import Database
from telemetry.readings import MeterReading, VehicleReading
from telemetry.recognition import Reading
from telemetry.store import (
    Receipts,
    Resent,
    store_meter_reading,
    store_meter_readings,
    store_vehicle_reading,
    store_vehicle_readings,
)


class Intake(NamedTuple, Generic[Reading]):
    """A kind of reading, and how one or many of it are stored."""

    name: str
    kind: type[Reading]
    store_one: Callable[[Database, Reading, datetime], None]
    store_many: Callable[[Database, Sequence[Reading], Receipts], Resent]

    @property
    def order(self) -> Callable[[Reading], Any]:
        """A key to sort readings by device and device time."""
        return attrgetter(f"{self.name}_id", "timestamp")


METERS = Intake("meter", MeterReading, store_meter_reading, store_meter_readings)
VEHICLES = Intake("vehicle", VehicleReading, store_vehicle_reading, store_vehicle_readings)
