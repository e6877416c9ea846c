"""The two streams, meters and vehicles: their tables, columns, units and sums, described once.

Whatever is the same for both reads it here: stored functions (telemetry.stored_functions fills
`{stream}` and the like in their texts), files of the archive, verification, the audit trail. What a
device may send is `telemetry.readings`.
"""

from typing import NamedTuple


class Column(NamedTuple):
    """A value of readings, as history has it; what is summed is numeric, so that sums are exact."""

    name: str
    kind: str  # in PostgreSQL
    unit: str = ""
    sum: str = ""  # the column of rollups that adds it up
    live: str = ""  # the column of the live row that shows it of the newest reading


class Stream(NamedTuple):
    """A stream's tables and columns; of `values` the first is the energy."""

    name: str
    values: tuple[Column, ...]

    @property
    def device(self) -> str:
        """The column of device ids."""
        return f"{self.name}_id"

    @property
    def history(self) -> str:
        """The partitioned table of receipts."""
        return f"{self.name}_telemetry_history"

    @property
    def live(self) -> str:
        """The table of newest readings."""
        return f"{self.name}_live_status"

    @property
    def energy(self) -> Column:
        """The energy of the interval that ends at a reading's timestamp."""
        return self.values[0]

    @property
    def columns(self) -> tuple[str, ...]:
        """What history has of a receipt, its key first; the attributes of `…_event` likewise."""
        return (self.device, "timestamp", "received_at", *(value.name for value in self.values))

    @property
    def summed(self) -> tuple[Column, ...]:
        """The values that rollups add up."""
        return tuple(value for value in self.values if value.sum)

    @property
    def shown(self) -> tuple[Column, ...]:
        """The values that the live row shows of the newest reading."""
        return tuple(value for value in self.values if value.live)

    @property
    def always_shown(self) -> tuple[Column, ...]:
        """The values that every live row has: what it shows but a register and a length."""
        return tuple(value for value in self.shown if value not in (REGISTER, LENGTH))


REGISTER = Column("register_kwh", "numeric", "kWh", live="last_register_kwh")
# Of the interval that ends at the timestamp: as the reading tells it, and as it counts. Null: 60.
TOLD_LENGTH = Column("told_seconds", "numeric", "s")
LENGTH = Column("seconds", "numeric", "s", live="last_seconds")

METERS = Stream(
    "meter",
    (
        Column("kwh_consumed_ac", "numeric", "kWh", "kwh_consumed_ac", "last_kwh_consumed_ac"),
        Column("voltage", "double precision", "V", live="last_voltage"),
        REGISTER,
        TOLD_LENGTH,
        LENGTH,
    ),
)
VEHICLES = Stream(
    "vehicle",
    (
        Column("kwh_delivered_dc", "numeric", "kWh", "kwh_delivered_dc", "last_kwh_delivered_dc"),
        Column("battery_temp", "numeric", "°C", "battery_temp_sum", "last_battery_temp"),
        # The live row shows that of the newest reading which has one.
        Column("soc", "double precision", "%"),
        REGISTER,
        Column("meter_id", "text"),
        TOLD_LENGTH,
        LENGTH,
    ),
)
STREAMS = {stream.name: stream for stream in (METERS, VEHICLES)}
