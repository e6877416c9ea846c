"""The fleet: which vehicles lose most energy on the way from the meter to the battery."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Self, get_args

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, model_validator

from telemetry.answers import Answer
from telemetry.binary import (
    BOOL,
    FLOAT8,
    INT8,
    INTERVAL,
    TEXT,
    TIMESTAMPTZ,
    encode_bool,
    encode_float,
    encode_integer,
    encode_interval,
    encode_time,
)
from telemetry.charging import ChargingStatus
from telemetry.database import Database
from telemetry.pages import Page, encode_cursor
from telemetry.readings import DEVICE_ID, FIRST_TIME_TOO_FAR, OLDEST_TIMESTAMP
from telemetry.reports import (
    DAY,
    LONGEST_WINDOW,
    Rules,
    coverage_ratio,
    divide,
    efficiency_ratio,
    rounded_energy,
    rounded_ratio,
    window_bounds,
)
from telemetry.summaries import last_whole_hour

MOST_DIGITS = 400

_RANKED = b"SELECT report_fleet($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
_TYPES = (
    *(TIMESTAMPTZ, TIMESTAMPTZ, INTERVAL, TIMESTAMPTZ),
    *(BOOL, FLOAT8, FLOAT8),
    *(TEXT, TEXT, TEXT, INT8),
)


class FleetVehicle(Answer):
    """How one vehicle charged; what is not known is null."""

    vehicle_id: str = Field(examples=["VEH-001"])
    status: ChargingStatus = Field(examples=["fault"])
    loss_kwh: float | None = Field(
        description="AC - DC: energy lost on the way (kWh)",
        examples=[6.1],
        json_schema_extra={"unit": "kWh"},
    )
    efficiency_ratio: float | None = Field(
        description="DC / AC × 100 (%)", examples=[82.4], json_schema_extra={"unit": "%"}
    )
    total_energy_consumed_ac: float | None = Field(
        examples=[34.946], json_schema_extra={"unit": "kWh"}
    )
    total_energy_delivered_dc: float | None = Field(
        examples=[28.8], json_schema_extra={"unit": "kWh"}
    )
    average_battery_temp: float | None = Field(examples=[28.3], json_schema_extra={"unit": "°C"})
    vehicle_coverage: float | None = Field(
        description="Minutes heard from / expected", examples=[0.99]
    )
    meter_coverage: float | None = Field(
        description="The same of the meters, while they were linked", examples=[0.99]
    )
    meter_ids: list[str] = Field(description="The meters that fed it", examples=[["METER-001"]])


class FleetTotals(Answer):
    """The whole fleet, whatever the page shows; energies of vehicles whose AC and DC are known."""

    vehicles: int = Field(examples=[10000])
    total_energy_consumed_ac: float | None = Field(
        examples=[349460.0], json_schema_extra={"unit": "kWh"}
    )
    total_energy_delivered_dc: float | None = Field(
        examples=[321500.0], json_schema_extra={"unit": "kWh"}
    )
    loss_kwh: float | None = Field(examples=[27960.0], json_schema_extra={"unit": "kWh"})
    efficiency_ratio: float | None = Field(examples=[92.0], json_schema_extra={"unit": "%"})
    healthy: int = Field(examples=[9000])
    degraded: int = Field(examples=[700])
    fault: int = Field(examples=[200])
    implausible: int = Field(examples=[3])
    insufficient: int = Field(examples=[97])


class Fleet(Page[FleetVehicle]):
    """Vehicles by the energy they lost in the window (timeWindowStart, timeWindowEnd]."""

    time_window_start: datetime = Field(examples=["2024-02-08T15:00:00Z"])
    time_window_end: datetime = Field(examples=["2024-02-09T15:00:00Z"])
    totals: FleetTotals


def _check_rank(rank: Decimal) -> Decimal:
    # Further than doubles reach PostgreSQL's numeric does not go either.
    if rank.is_nan() or (rank.is_finite() and abs(rank.adjusted()) > MOST_DIGITS):
        raise ValueError
    return rank


class LastRank(BaseModel):
    """Where a page of the fleet ended: window, DC - AC (kWh, Infinity: unknown), vehicle."""

    start: AwareDatetime = Field(ge=OLDEST_TIMESTAMP - LONGEST_WINDOW)
    end: AwareDatetime = Field(lt=FIRST_TIME_TOO_FAR)
    rank: Annotated[Decimal, AfterValidator(_check_rank)] = Field(allow_inf_nan=True)
    vehicle_id: str = Field(pattern=DEVICE_ID)

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if not timedelta(0) < self.end - self.start <= LONGEST_WINDOW:
            raise ValueError
        return self


@dataclass(frozen=True)
class FleetSelection:
    """Which window, which vehicles, how many, after which; no end is the last whole hour summed."""

    length: timedelta = DAY
    end: datetime | None = None
    status: ChargingStatus | None = None
    limit: int = 100
    after: LastRank | None = None


def report_fleet(
    database: Database, rules: Rules, selection: FleetSelection, now: datetime
) -> Fleet:
    """Rank vehicles by energy lost, most first; those of which it is not known come last.

    Raises DatabaseUnavailable.
    """
    after = selection.after
    start, end = (after.start, after.end) if after else (None, selection.end)
    [found] = database.call(
        _RANKED,
        _TYPES,
        (
            encode_time(start) if start else None,
            encode_time(end) if end else None,
            encode_interval(selection.length),
            encode_time(last_whole_hour(now)),
            encode_bool(rules.by_name),
            encode_float(rules.least_kwh),
            encode_float(rules.least_coverage),
            selection.status.encode() if selection.status else None,
            str(after.rank).encode() if after else None,
            after.vehicle_id.encode() if after else None,
            encode_integer(selection.limit + 1),
        ),
    )
    fleet = json.loads(found or b"{}", parse_float=Decimal)
    start, end = window_bounds(fleet)
    rows = fleet["page"] or []
    more = rows[selection.limit - 1] if len(rows) > selection.limit else None
    minutes = (end - start) // timedelta(minutes=1)
    return Fleet(
        time_window_start=start.astimezone(UTC),
        time_window_end=end.astimezone(UTC),
        totals=_totals(fleet["totals"] or []),
        items=[_vehicle(row, minutes) for row in rows[: selection.limit]],
        next_cursor=more
        and encode_cursor(
            LastRank(start=start, end=end, rank=more["rank"], vehicle_id=more["vehicle_id"])
        ),
    )


def _totals(by_status: list[dict[str, Any]]) -> FleetTotals:
    counts = {row["status"]: row["vehicles"] for row in by_status}
    ac, dc = (
        sum((row[name] for row in by_status if row["known"]), start=Decimal())
        if any(row["known"] for row in by_status)
        else None
        for name in ("kwh_consumed_ac", "kwh_delivered_dc")
    )
    return FleetTotals(
        vehicles=sum(counts.values()),
        total_energy_consumed_ac=rounded_energy(ac),
        total_energy_delivered_dc=rounded_energy(dc),
        loss_kwh=rounded_energy(None if ac is None or dc is None else ac - dc),
        efficiency_ratio=efficiency_ratio(ac, dc),
        **{status: counts.get(status, 0) for status in get_args(ChargingStatus)},
    )


def _vehicle(row: dict[str, Any], minutes: int) -> FleetVehicle:
    ac, dc, readings = row["kwh_consumed_ac"], row["kwh_delivered_dc"], row["readings"]
    return FleetVehicle(
        vehicle_id=row["vehicle_id"],
        status=row["status"],
        loss_kwh=rounded_energy(None if ac is None or dc is None else ac - dc),
        efficiency_ratio=efficiency_ratio(ac, dc),
        total_energy_consumed_ac=rounded_energy(ac),
        total_energy_delivered_dc=rounded_energy(dc),
        average_battery_temp=rounded_ratio(divide(row["battery_temp_sum"], readings)),
        vehicle_coverage=coverage_ratio(row["minutes_heard"], minutes),
        meter_coverage=coverage_ratio(row["meter_minutes"], row["linked_minutes"]),
        meter_ids=list(dict.fromkeys(row["meter_ids"] or ())),
    )
