"""What a reading of a meter or a vehicle is."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from telemetry.recognition import MOST_REGISTER_KWH, DeviceTime, Id, Message

# kWh. Less is rounding in a device, and stored as nothing: who divides by it gets no figure.
LEAST_KWH = 1e-9
# Of an interval: 31 days.
LONGEST_INTERVAL = 2_678_400

# Timestamps are in microseconds, and so are lengths.
IntervalSeconds = Annotated[
    float | None,
    Field(
        ge=1,
        le=LONGEST_INTERVAL,
        description="Length of the interval that ends at the timestamp (s), up to 31 days; left "
        "out, what the device is declared to have, or else 60",
        examples=[None],
        json_schema_extra={"unit": "s"},
    ),
    AfterValidator(lambda seconds: seconds and round(seconds, 6)),
]


def count_hours(readings: Sequence[Any]) -> int:
    """Return how many hours these readings reach into beside those in which they end.

    As far as they tell: each takes a row of a rollup, some 20 µs, where a reading takes 30.
    """
    return sum(
        int(reading.interval_seconds // 3600) for reading in readings if reading.interval_seconds
    )


class MeterReading(Message):
    """One reading of a smart meter, grid side (AC)."""

    TEXTS = 2
    ENERGY: ClassVar[str] = "kwhConsumedAc"

    meter_id: Id = Field(description="Meter id", examples=["METER-001"])
    kwh_consumed_ac: float = Field(
        ge=0,
        le=MOST_REGISTER_KWH,
        description="Energy consumed in the interval that ends at the timestamp (kWh, AC), at most "
        "10,000; or a running register, of a device that is declared to report one",
        examples=[0.125],
        json_schema_extra={"unit": "kWh"},
    )
    voltage: float | None = Field(
        ge=0,
        le=1_000,
        description="Voltage (V); null where it is not known",
        examples=[240.5],
        json_schema_extra={"unit": "V"},
    )
    timestamp: DeviceTime
    interval_seconds: IntervalSeconds = None

    @property
    def device_id(self) -> str:
        """The meter's id."""
        return self.meter_id

    @property
    def kwh(self) -> float:
        """Energy of the interval, or a register (kWh); less than LEAST_KWH is 0."""
        return self.kwh_consumed_ac if self.kwh_consumed_ac >= LEAST_KWH else 0.0


class VehicleReading(Message):
    """One reading of an electric vehicle, battery side (DC)."""

    TEXTS = 3
    ENERGY: ClassVar[str] = "kwhDeliveredDc"
    OPTIONAL_TEXTS = ("meter_id",)

    vehicle_id: Id = Field(description="Vehicle id", examples=["VEH-001"])
    soc: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="State of charge (%); left out, the last known one stays",
        examples=[85],
        json_schema_extra={"unit": "%"},
    )
    kwh_delivered_dc: float = Field(
        ge=0,
        le=MOST_REGISTER_KWH,
        description="Energy delivered in the interval that ends at the timestamp (kWh, DC), at "
        "most 10,000; or a running register, of a device that is declared to report one",
        examples=[0.115],
        json_schema_extra={"unit": "kWh"},
    )
    battery_temp: float | None = Field(
        ge=-60,
        le=150,
        description="Battery temperature (°C); null where it is not known",
        examples=[28.3],
        json_schema_extra={"unit": "°C"},
    )
    meter_id: Id | None = Field(
        default=None,
        description="The meter that feeds the vehicle: links them from where the interval began, "
        "but no earlier than the declared cadence, or else a minute, before the timestamp; left "
        "out, links stay as they are",
        examples=["METER-001"],
    )
    timestamp: DeviceTime
    interval_seconds: IntervalSeconds = None

    @property
    def device_id(self) -> str:
        """The vehicle's id."""
        return self.vehicle_id

    @property
    def kwh(self) -> float:
        """Energy of the interval, or a register (kWh); less than LEAST_KWH is 0."""
        return self.kwh_delivered_dc if self.kwh_delivered_dc >= LEAST_KWH else 0.0
