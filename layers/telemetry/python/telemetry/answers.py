"""What the API answers with, field by field, as JSON in camelCase."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from telemetry.errors import FieldError


class Answer(BaseModel):
    """A JSON body that the API answers with."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)


class ErrorAnswer(Answer):
    """What every refused or failed request is answered with."""

    status_code: int = Field(description="The HTTP status", examples=[400])
    path: str = Field(description="The path of the request", examples=["/v1/ingestion/meter"])
    message: str = Field(description="What went wrong", examples=["Validation failed"])
    timestamp: datetime = Field(
        description="When it was answered", examples=["2026-02-10T10:30:00Z"]
    )
    errors: list[FieldError] | None = Field(
        default=None,
        exclude_if=lambda errors: errors is None,
        description="Every field that was refused, and why; only where fields were refused",
        examples=[[{"field": "voltage", "message": "Field required"}]],
    )


class Ingested(Answer):
    """A reading is committed in PostgreSQL."""

    success: Literal[True] = Field(default=True, examples=[True])
    message: str = Field(examples=["Meter METER-001 data ingested successfully"])


class Queued(Answer):
    """The reading is durable in the queue, and will be committed in PostgreSQL."""

    success: Literal[True] = Field(default=True, examples=[True])
    status: Literal["queued"] = Field(default="queued", examples=["queued"])
    message: str = Field(examples=["Meter METER-001 data queued"])


class RejectedItem(Answer):
    """An item of a batch that was not taken."""

    index: int = Field(description="Its position in the array, from 0", examples=[2])
    status: int = Field(
        description="As for a single reading: 400 not valid, 503 send it again", examples=[400]
    )
    errors: list[FieldError] = Field(
        description="Every field that was refused, and why",
        examples=[[{"field": "voltage", "message": "Field required"}]],
    )


class BatchIngested(Answer):
    """What became of the items of a batch; what was accepted is durable."""

    success: bool = Field(description="Whether every item was accepted", examples=[True])
    status: Literal["stored", "queued", "refused"] = Field(
        description="Where the accepted readings are: committed in PostgreSQL, in the queue, or "
        "there are none",
        examples=["stored"],
    )
    message: str = Field(examples=["100 readings stored"])
    accepted: int = Field(description="Items that were taken", examples=[100])
    duplicate: int | None = Field(
        description="Of the accepted, those known already with the same values; null while they "
        "are in the queue",
        examples=[0],
    )
    corrected: int | None = Field(
        description="Of the accepted, those known already with other values; null while they are "
        "in the queue",
        examples=[0],
    )
    rejected: int = Field(description="Items that were not taken", examples=[0])
    rejections: list[RejectedItem] = Field(
        description="The first of the items that were not taken", examples=[[]]
    )
    rejections_omitted: int = Field(
        description="How many more were not taken than are listed", examples=[0]
    )


class BatchRefused(ErrorAnswer, BatchIngested):
    """Not one item of a batch was taken."""


class Service(Answer):
    """Which service this is."""

    service: str = Field(default="Energy Ingestion Engine", examples=["Energy Ingestion Engine"])
    status: str = Field(default="running", examples=["running"])
    version: str = Field(examples=["1.0.0"])


class Check(Answer):
    """One thing that has to hold for the system to be healthy."""

    ok: bool = Field(examples=[True])
    detail: str = Field(description="What was found", examples=["reachable"])


class Health(Answer):
    """Whether the system can take readings and answer for them."""

    status: Literal["ok", "unavailable"] = Field(examples=["ok"])
    database: Check = Field(description="PostgreSQL answers")
    migrations: Check = Field(description="The schema is the one this version needs")
    partitions: Check = Field(description="History has partitions ahead of the readings to come")


class Link(Answer):
    """A meter feeds a vehicle over the interval (validFrom, validTo]."""

    meter_id: str = Field(examples=["METER-001"])
    valid_from: datetime = Field(
        description="The meter's energy is the vehicle's after this instant",
        examples=["2026-02-10T10:00:00Z"],
    )
    valid_to: datetime | None = Field(
        description="Up to and including this instant: then the vehicle got another link, the "
        "meter another vehicle, or it was ended; null while it goes on. The same as validFrom "
        "where another vehicle was linked to the meter at that very instant.",
        examples=[None],
    )
    source: Literal["api", "reading"] = Field(
        description="Who said so: this API, or a reading of the vehicle that names its meter",
        examples=["api"],
    )


class Links(Answer):
    """The links of a vehicle, the newest first."""

    vehicle_id: str = Field(examples=["VEH-001"])
    links: list[Link] = Field(examples=[[]])
    next_cursor: str | None = Field(
        description="Passed as `cursor`, it gets those before; null where there are none",
        examples=[None],
    )


class Heard(Answer):
    """How much of the time a device was heard from."""

    minutes_heard: int = Field(
        description="Minutes in which a reading ended",
        examples=[1426],
        json_schema_extra={"unit": "min"},
    )
    minutes_expected: int = Field(
        description="Minutes at the cadence of one reading a minute: for a meter those in which it "
        "was linked",
        examples=[1440],
        json_schema_extra={"unit": "min"},
    )
    ratio: float | None = Field(description="Heard / expected", examples=[0.99])


class Coverage(Answer):
    """How complete the readings behind the numbers are."""

    vehicle: Heard
    meter: Heard


class Pairing(Answer):
    """A meter that fed the vehicle, over (validFrom, validTo]."""

    meter_id: str = Field(examples=["METER-001"])
    valid_from: datetime | None = Field(
        description="Null where it always did", examples=["2024-02-01T00:00:00Z"]
    )
    valid_to: datetime | None = Field(description="Null while it goes on", examples=[None])
    source: Literal["api", "reading", "name"] = Field(
        description="The links API, a meterId in the vehicle's readings, or the same separator and "
        "suffix (VEH-001 and METER-001 or MTR-001)",
        examples=["api"],
    )
    ac_energy_consumed: float | None = Field(
        description="What it measured in this part of the window (kWh, AC)",
        examples=[34.946],
        json_schema_extra={"unit": "kWh"},
    )


ChargingStatus = Literal["healthy", "degraded", "fault", "implausible", "insufficient"]


class Vehicle(Answer):
    """How a vehicle charged in the window (timeWindowStart, timeWindowEnd].

    The first fields are those of one earlier API, the next those of another; both are kept. A
    number that is not known is null, and `reasons` says why, by the name of the field.
    """

    vehicle_id: str = Field(examples=["VEH-001"])

    ac_energy_consumed: float | None = Field(
        description="Energy that the vehicle's meter measured (kWh, AC)",
        examples=[34.946],
        json_schema_extra={"unit": "kWh"},
    )
    dc_energy_delivered: float | None = Field(
        description="Energy that reached the battery (kWh, DC)",
        examples=[32.15],
        json_schema_extra={"unit": "kWh"},
    )
    efficiency: float | None = Field(description="DC / AC (ratio)", examples=[0.92])
    avg_battery_temp: float | None = Field(
        description="Mean battery temperature of the readings (°C)",
        examples=[28.3],
        json_schema_extra={"unit": "°C"},
    )

    total_energy_consumed_ac: float | None = Field(
        description="The same as acEnergyConsumed (kWh, AC)",
        examples=[34.946],
        json_schema_extra={"unit": "kWh"},
    )
    total_energy_delivered_dc: float | None = Field(
        description="The same as dcEnergyDelivered (kWh, DC)",
        examples=[32.15],
        json_schema_extra={"unit": "kWh"},
    )
    efficiency_ratio: float | None = Field(
        description="DC / AC × 100 (%)", examples=[92.0], json_schema_extra={"unit": "%"}
    )
    average_battery_temp: float | None = Field(
        description="The same as avgBatteryTemp (°C)",
        examples=[28.3],
        json_schema_extra={"unit": "°C"},
    )
    time_window_start: datetime = Field(
        description="Readings after this instant count", examples=["2024-02-08T15:30:00Z"]
    )
    time_window_end: datetime = Field(
        description="Readings up to and including this instant count",
        examples=["2024-02-09T15:30:00Z"],
    )
    data_points: int = Field(
        description="Vehicle readings in the window; 1440 for a full day", examples=[1440]
    )

    meter_id: str | None = Field(
        description="The meter that fed the vehicle; null where there were none or several: see "
        "`pairing`",
        examples=["METER-001"],
    )
    loss_kwh: float | None = Field(
        description="AC - DC: energy lost on the way (kWh)",
        examples=[2.796],
        json_schema_extra={"unit": "kWh"},
    )
    status: ChargingStatus = Field(
        description="By efficiencyRatio: healthy from 88 %, degraded from 85 %, fault below, "
        "implausible above 100 %; insufficient where energy or coverage are too small to tell",
        examples=["healthy"],
    )
    status_reason: str | None = Field(
        description="Why, where it is insufficient or implausible", examples=[None]
    )
    coverage: Coverage
    pairing: list[Pairing] = Field(
        description="The links in the window, with their whole periods", examples=[[]]
    )
    reasons: dict[str, str] = Field(
        description="Why a field is null, by its name; empty where every number is known",
        examples=[{}],
    )


class Gap(Answer):
    """A run of more than five whole minutes without a reading, (start, end]."""

    start: datetime = Field(examples=["2024-02-09T11:02:00Z"])
    end: datetime = Field(examples=["2024-02-09T11:17:00Z"])
    minutes: int = Field(examples=[15], json_schema_extra={"unit": "min"})


class Silence(Answer):
    """The gaps of both streams, and how many more there are than are listed."""

    vehicle: list[Gap] = Field(examples=[[]])
    vehicle_omitted: int = Field(examples=[0])
    meter: list[Gap] = Field(description="While the meter was linked", examples=[[]])
    meter_omitted: int = Field(examples=[0])


class Performance(Vehicle):
    """How a vehicle charged, and when it or its meter was silent."""

    gaps: Silence | None = Field(
        description="Gaps of more than five minutes; null for windows of more than 744 hours",
        examples=[None],
    )


class Dashboard(Answer):
    """How each of many vehicles charged."""

    vehicles: list[Vehicle] = Field(description="In the order asked for", examples=[[]])
    unknown: list[str] = Field(
        description="Ids of which no reading was ever received", examples=[["VEH-404"]]
    )


class MeterValues(Answer):
    """What a meter reading says."""

    meter_id: str = Field(examples=["METER-001"])
    timestamp: datetime = Field(description="Device time", examples=["2026-02-10T10:00:00Z"])
    kwh_consumed_ac: float = Field(
        description="Energy consumed in the interval that ends then (kWh, AC)",
        examples=[0.125],
        json_schema_extra={"unit": "kWh"},
    )
    voltage: float = Field(
        description="Voltage (V)", examples=[240.5], json_schema_extra={"unit": "V"}
    )


class VehicleValues(Answer):
    """What a vehicle reading says."""

    vehicle_id: str = Field(examples=["VEH-001"])
    timestamp: datetime = Field(description="Device time", examples=["2026-02-10T10:00:00Z"])
    kwh_delivered_dc: float = Field(
        description="Energy delivered in the interval that ends then (kWh, DC)",
        examples=[0.115],
        json_schema_extra={"unit": "kWh"},
    )
    battery_temp: float = Field(
        description="Battery temperature (°C)", examples=[28.3], json_schema_extra={"unit": "°C"}
    )
    soc: float | None = Field(
        description="State of charge (%); null where it is not known",
        examples=[85],
        json_schema_extra={"unit": "%"},
    )
