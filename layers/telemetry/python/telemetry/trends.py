"""How a vehicle charged, hour by hour or day by day."""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal, NamedTuple

from pydantic import Field

from telemetry.answers import Answer
from telemetry.charging import ChargingStatus, EstimatedKwhAc, EstimatedKwhDc
from telemetry.comparison import (
    AcUnmatched,
    ComparedKwhAc,
    ComparedKwhDc,
    ComparedMinutes,
    DcElsewhere,
    DcUnmatched,
)
from telemetry.database import Database
from telemetry.errors import VehicleNotFound
from telemetry.reports import describe_vehicle, fetch_charging
from telemetry.rules import Rules

Bucket = Literal["hour", "day"]
DEFAULT_BUCKETS = {"hour": 24, "day": 30}
MOST_BUCKETS = 744

_LENGTHS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
# A zone that changed sides of the date line left a day out: its 24 hours begin at one instant.
_MOST_LEFT_OUT = 25
# How many beginnings after the end's own may be before the end, where clocks went back since.
_MOST_REPEATED = 3
_LATEST = "SELECT last_timestamp FROM vehicle_live_status WHERE vehicle_id = %s"


class TrendBucket(Answer):
    """How the vehicle charged in (start, end]; what is not known is null."""

    start: datetime = Field(examples=["2024-02-09T00:00:00Z"])
    end: datetime = Field(examples=["2024-02-10T00:00:00Z"])
    total_energy_consumed_ac: float | None = Field(
        examples=[34.946], json_schema_extra={"unit": "kWh"}
    )
    total_energy_delivered_dc: float | None = Field(
        examples=[32.15], json_schema_extra={"unit": "kWh"}
    )
    loss_kwh: float | None = Field(examples=[2.796], json_schema_extra={"unit": "kWh"})
    loss_cost: float | None = Field(
        description="What that cost; null also where there is no tariff", examples=[0.8388]
    )
    loss_co2_kg: float | None = Field(
        description="The CO2 it stands for (kg); null also where there is no tariff",
        examples=[1.062],
        json_schema_extra={"unit": "kg"},
    )
    currency: str | None = Field(
        description="Of lossCost; null where there is no tariff", examples=["EUR"]
    )
    efficiency_ratio: float | None = Field(examples=[92.0], json_schema_extra={"unit": "%"})
    compared_kwh_ac: ComparedKwhAc
    compared_kwh_dc: ComparedKwhDc
    ac_unmatched: AcUnmatched
    dc_unmatched: DcUnmatched
    dc_elsewhere: DcElsewhere
    compared_minutes: ComparedMinutes
    estimated_kwh_ac: EstimatedKwhAc
    estimated_kwh_dc: EstimatedKwhDc
    average_battery_temp: float | None = Field(examples=[28.3], json_schema_extra={"unit": "°C"})
    data_points: int = Field(description="Vehicle readings counted", examples=[1440])
    vehicle_coverage: float | None = Field(
        description="Minutes heard from / expected", examples=[0.99]
    )
    meter_coverage: float | None = Field(
        description="The same of the meters, while they were linked", examples=[0.99]
    )
    status: ChargingStatus = Field(examples=["healthy"])


class Trend(Answer):
    """Consecutive buckets, the last of which holds the end asked for."""

    vehicle_id: str = Field(examples=["VEH-001"])
    bucket: Bucket = Field(examples=["day"])
    items: list[TrendBucket] = Field(examples=[[]])


class TrendSelection(NamedTuple):
    """Which buckets: how long each is, how many, the last by an instant in it, in which zone."""

    bucket: Bucket
    buckets: int | None = None
    end: datetime | None = None
    zone: tzinfo = UTC


def report_trend(
    database: Database, vehicle_id: str, rules: Rules, selection: TrendSelection
) -> Trend:
    """Report a vehicle's hours or days. Raises VehicleNotFound and DatabaseUnavailable."""
    rows = database.fetch(_LATEST, (vehicle_id,))
    if not rows:
        raise VehicleNotFound
    bounds = bucket_bounds(
        selection.bucket,
        selection.buckets or DEFAULT_BUCKETS[selection.bucket],
        selection.end or rows[0][0],
        selection.zone,
    )
    found = fetch_charging(
        database, [vehicle_id] * (len(bounds) - 1), rules, starts=bounds[:-1], ends=bounds[1:]
    )
    items = [
        TrendBucket(
            start=start.astimezone(selection.zone),
            end=end.astimezone(selection.zone),
            total_energy_consumed_ac=vehicle.total_energy_consumed_ac,
            total_energy_delivered_dc=vehicle.total_energy_delivered_dc,
            loss_kwh=vehicle.loss_kwh,
            compared_kwh_ac=vehicle.compared_kwh_ac,
            compared_kwh_dc=vehicle.compared_kwh_dc,
            ac_unmatched=vehicle.ac_unmatched,
            dc_unmatched=vehicle.dc_unmatched,
            dc_elsewhere=vehicle.dc_elsewhere,
            compared_minutes=vehicle.compared_minutes,
            estimated_kwh_ac=vehicle.estimated_kwh_ac,
            estimated_kwh_dc=vehicle.estimated_kwh_dc,
            loss_cost=vehicle.loss_cost,
            loss_co2_kg=vehicle.loss_co2_kg,
            currency=vehicle.currency,
            efficiency_ratio=vehicle.efficiency_ratio,
            average_battery_temp=vehicle.average_battery_temp,
            data_points=vehicle.data_points,
            vehicle_coverage=vehicle.coverage.vehicle.ratio,
            meter_coverage=vehicle.coverage.meter.ratio,
            status=vehicle.status,
        )
        for start, end, vehicle in zip(
            bounds, bounds[1:], (describe_vehicle(row, rules) for row in found), strict=False
        )
    ]
    return Trend(vehicle_id=vehicle_id, bucket=selection.bucket, items=items)


def bucket_bounds(bucket: Bucket, count: int, end: datetime, zone: tzinfo) -> Sequence[datetime]:
    """Return the bounds (UTC) of consecutive buckets, one more than there are buckets.

    The last bucket is the one whose (start, end] holds `end`. A bucket begins where the zone's
    clocks begin an hour or a day: so a day may have 23 or 25 hours, an hour half an hour more or
    less where clocks change by that, and what clocks leave out altogether has no bucket.
    """
    length = _LENGTHS[bucket]
    local = end.astimezone(zone).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    if bucket == "day":
        local = local.replace(hour=0)
    found = set()
    for number in range(-count - _MOST_LEFT_OUT, _MOST_REPEATED + 1):
        begins = (local + number * length).replace(tzinfo=zone)
        first = begins.astimezone(UTC)
        found.add(first)
        if bucket == "hour":
            # Of what clocks repeat, the second hour of a name begins later than the first.
            found.add(max(first, begins.replace(fold=1).astimezone(UTC)))
    bounds = sorted(found)
    last = bisect_left(bounds, end)
    return bounds[last - count : last + 1]
