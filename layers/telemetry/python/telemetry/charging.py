"""How a vehicle charged, as it is answered."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from pydantic.alias_generators import to_camel

from telemetry.answers import Answer
from telemetry.comparison import (
    AcUnmatched,
    ComparedKwhAc,
    ComparedKwhDc,
    ComparedMinutes,
    DcElsewhere,
    DcUnmatched,
)

EstimatedKwhAc = Annotated[
    float | None,
    Field(
        description="Of the AC energy, that of intervals of more than an hour, spread evenly over "
        "them: they say how much flowed, and not when (kWh)",
        examples=[0.0],
        json_schema_extra={"unit": "kWh"},
    ),
]
EstimatedKwhDc = Annotated[
    float | None,
    Field(
        description="The same of the DC energy (kWh)",
        examples=[0.0],
        json_schema_extra={"unit": "kWh"},
    ),
]


class Heard(Answer):
    """How much of the time a device was heard from."""

    minutes_heard: int = Field(
        description="Minutes that its intervals covered. One of more than an hour says how much, "
        "and not when: it covers none",
        examples=[1426],
        json_schema_extra={"unit": "min"},
    )
    minutes_expected: int = Field(
        description="Minutes of the window: for a meter those in which it was linked",
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
    efficiency: float | None = Field(
        description="DC / AC of what was compared (ratio)", examples=[0.92]
    )
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
        description="DC / AC × 100 of what was compared (%); where nothing was, of the totals, and "
        "the status is insufficient",
        examples=[92.0],
        json_schema_extra={"unit": "%"},
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
        description="Vehicle readings that ended in the window: 1440 in a day of one a minute",
        examples=[1440],
    )

    meter_id: str | None = Field(
        description="The meter that fed the vehicle; null where there were none or several: see "
        "`pairing`",
        examples=["METER-001"],
    )
    loss_kwh: float | None = Field(
        description="AC - DC of what was compared: energy lost on the way (kWh)",
        examples=[2.796],
        json_schema_extra={"unit": "kWh"},
    )
    compared_kwh_ac: ComparedKwhAc
    compared_kwh_dc: ComparedKwhDc
    ac_unmatched: AcUnmatched
    dc_unmatched: DcUnmatched
    dc_elsewhere: DcElsewhere
    compared_minutes: ComparedMinutes
    estimated_kwh_ac: EstimatedKwhAc
    estimated_kwh_dc: EstimatedKwhDc
    loss_cost: float | None = Field(
        default=None,
        description="What that energy cost, by the tariff of each hour; left out where there is no "
        "tariff, as the next two",
        examples=[0.8388],
    )
    loss_co2_kg: float | None = Field(
        default=None,
        description="The CO2 it stands for (kg)",
        examples=[1.062],
        json_schema_extra={"unit": "kg"},
    )
    currency: str | None = Field(
        default=None, description="Of lossCost (ISO 4217)", examples=["EUR"]
    )
    status: ChargingStatus = Field(
        description="By efficiencyRatio: healthy from 88 %, degraded from 85 %, fault below, "
        "implausible above 100 %; insufficient where too little was compared to tell",
        examples=["healthy"],
    )
    status_reason: str | None = Field(
        description="Why, where it is insufficient or implausible", examples=[None]
    )
    coverage: Coverage
    pairing: list[Pairing] = Field(
        description="The first 100 links in the window, with their whole periods; none where there "
        "are more than 1,440, and 100 for each further day: then none counts",
        examples=[[]],
    )
    pairing_omitted: int = Field(
        description="How many more there are than are listed", examples=[0]
    )
    reasons: dict[str, str] = Field(
        description="Why a field is null, by its name; empty where every number is known",
        examples=[{}],
    )

    @model_serializer(mode="wrap")
    def _leave_out(self, render: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        # Without a return type, so that the documented schema stays that of the fields.
        rendered: dict[str, Any] = render(self)
        if self.currency is None:
            for name in ("loss_cost", "loss_co2_kg", "currency"):
                rendered.pop(name, None)
                rendered.pop(to_camel(name), None)
        return rendered


class Gap(Answer):
    """More than five whole minutes, and 1.5 cadences, that were not heard, (start, end]."""

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
        description="Gaps of more than five minutes, and of more than 1.5 cadences; null for "
        "windows of more than 744 hours",
        examples=[None],
    )


class Dashboard(Answer):
    """How each of many vehicles charged."""

    vehicles: list[Vehicle] = Field(description="In the order asked for", examples=[[]])
    unknown: list[str] = Field(
        description="Ids of which no reading was ever received", examples=[["VEH-404"]]
    )
