"""The fleet: which vehicles lose most energy, or money, between the meter and the battery."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

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
from telemetry.charging import ChargingStatus, EstimatedKwhAc, EstimatedKwhDc
from telemetry.comparison import (
    AcUnmatched,
    ComparedKwhAc,
    ComparedKwhDc,
    ComparedMinutes,
    DcElsewhere,
    DcUnmatched,
    describe_comparison,
    efficiency_of,
)
from telemetry.database import Database
from telemetry.figures import (
    coverage_ratio,
    divide,
    divide_efficiency,
    rounded_cost,
    rounded_energy,
    rounded_part,
    rounded_percentage,
    rounded_ratio,
)
from telemetry.pages import ITEMS, Page, Position, StoredId, encode_cursor
from telemetry.recognition import FIRST_TIME_TOO_FAR, OLDEST_TIMESTAMP
from telemetry.reports import DAY, LONGEST_WINDOW, window_bounds
from telemetry.rules import Rules
from telemetry.summaries import last_whole_hour

MOST_DIGITS = 400

FleetSort = Literal["energy", "cost"]

_RANKED = b"SELECT report_fleet($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
_TYPES = (
    *(TIMESTAMPTZ, TIMESTAMPTZ, INTERVAL, TIMESTAMPTZ),
    *(BOOL, FLOAT8, FLOAT8),
    *(TEXT, TEXT, TEXT, TEXT, INT8),
)


class FleetVehicle(Answer):
    """How one vehicle charged; what is not known is null."""

    vehicle_id: str = Field(examples=["VEH-001"])
    status: ChargingStatus = Field(examples=["fault"])
    loss_kwh: float | None = Field(
        description="AC - DC of what was compared: energy lost on the way (kWh)",
        examples=[6.1],
        json_schema_extra={"unit": "kWh"},
    )
    loss_cost: float | None = Field(
        description="What that cost; null also where there is no tariff", examples=[1.83]
    )
    loss_co2_kg: float | None = Field(
        description="The CO2 it stands for (kg); null also where there is no tariff",
        examples=[2.318],
        json_schema_extra={"unit": "kg"},
    )
    currency: str | None = Field(
        description="Of lossCost; null where there is no tariff", examples=["EUR"]
    )
    efficiency_ratio: float | None = Field(
        description="DC / AC × 100 of what was compared (%)",
        examples=[82.4],
        json_schema_extra={"unit": "%"},
    )
    total_energy_consumed_ac: float | None = Field(
        examples=[34.946], json_schema_extra={"unit": "kWh"}
    )
    total_energy_delivered_dc: float | None = Field(
        examples=[28.8], json_schema_extra={"unit": "kWh"}
    )
    compared_kwh_ac: ComparedKwhAc
    compared_kwh_dc: ComparedKwhDc
    ac_unmatched: AcUnmatched
    dc_unmatched: DcUnmatched
    dc_elsewhere: DcElsewhere
    compared_minutes: ComparedMinutes
    estimated_kwh_ac: EstimatedKwhAc
    estimated_kwh_dc: EstimatedKwhDc
    average_battery_temp: float | None = Field(examples=[28.3], json_schema_extra={"unit": "°C"})
    vehicle_coverage: float | None = Field(
        description="Minutes heard from / expected", examples=[0.99]
    )
    meter_coverage: float | None = Field(
        description="The same of the meters, while they were linked", examples=[0.99]
    )
    meter_ids: list[str] = Field(description="The meters that fed it", examples=[["METER-001"]])


class FleetTotals(Answer):
    """The whole fleet, whatever the page shows.

    Energies are of vehicles whose loss is known, cost and CO2 of those of which they are. The loss
    and the efficiency are of what was compared.
    """

    vehicles: int = Field(examples=[10000])
    total_energy_consumed_ac: float | None = Field(
        examples=[349460.0], json_schema_extra={"unit": "kWh"}
    )
    total_energy_delivered_dc: float | None = Field(
        examples=[321500.0], json_schema_extra={"unit": "kWh"}
    )
    compared_kwh_ac: float | None = Field(examples=[349460.0], json_schema_extra={"unit": "kWh"})
    compared_kwh_dc: float | None = Field(examples=[321500.0], json_schema_extra={"unit": "kWh"})
    loss_kwh: float | None = Field(examples=[27960.0], json_schema_extra={"unit": "kWh"})
    loss_cost: float | None = Field(examples=[8388.0])
    loss_co2_kg: float | None = Field(examples=[10624.8], json_schema_extra={"unit": "kg"})
    currency: str | None = Field(examples=["EUR"])
    efficiency_ratio: float | None = Field(examples=[92.0], json_schema_extra={"unit": "%"})
    healthy: int = Field(examples=[9000])
    degraded: int = Field(examples=[700])
    fault: int = Field(examples=[200])
    implausible: int = Field(examples=[3])
    insufficient: int = Field(examples=[97])


class Fleet(Page):
    """Vehicles by what they lost in the window (timeWindowStart, timeWindowEnd]."""

    items: list[FleetVehicle] = ITEMS

    time_window_start: datetime = Field(examples=["2024-02-08T15:00:00Z"])
    time_window_end: datetime = Field(examples=["2024-02-09T15:00:00Z"])
    sort: FleetSort = Field(
        description="By the energy lost, or by its cost: most first, unknown last",
        examples=["cost"],
    )
    totals: FleetTotals


def _check_rank(rank: Decimal) -> Decimal:
    # Further than doubles reach PostgreSQL's numeric does not go either.
    if rank.is_nan() or (rank.is_finite() and abs(rank.adjusted()) > MOST_DIGITS):
        raise ValueError
    return rank


class LastRank(Position):
    """Where a page of the fleet ended: window, order, -loss (Infinity: not known), vehicle."""

    start: AwareDatetime = Field(ge=OLDEST_TIMESTAMP - LONGEST_WINDOW)
    end: AwareDatetime = Field(lt=FIRST_TIME_TOO_FAR)
    rank: Annotated[Decimal, AfterValidator(_check_rank)] = Field(allow_inf_nan=True)
    vehicle_id: StoredId
    sort: FleetSort = "energy"

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if not timedelta(0) < self.end - self.start <= LONGEST_WINDOW:
            raise ValueError
        return self


class FleetSelection(NamedTuple):
    """Which window, which vehicles, how many, after which, in which order.

    No end is the last whole hour summed; no sort is by cost where the fleet has a tariff then.
    """

    length: timedelta = DAY
    end: datetime | None = None
    status: ChargingStatus | None = None
    limit: int = 100
    after: LastRank | None = None
    sort: FleetSort | None = None


def report_fleet(
    database: Database, rules: Rules, selection: FleetSelection, now: datetime
) -> Fleet:
    """Rank vehicles by energy or money lost, most first; where it is not known they come last.

    Raises DatabaseUnavailable.
    """
    after = selection.after
    start, end = (after.start, after.end) if after else (None, selection.end)
    sort = after.sort if after else selection.sort
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
            sort.encode() if sort else None,
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
        sort=fleet["sort"],
        totals=_totals(fleet["totals"] or [], fleet["currency"]),
        items=[_vehicle(row, minutes, fleet["currency"]) for row in rows[: selection.limit]],
        next_cursor=more
        and encode_cursor(
            LastRank(
                start=start,
                end=end,
                rank=more["rank"],
                vehicle_id=more["vehicle_id"],
                sort=fleet["sort"],
            )
        ),
    )


def _totals(by_status: list[dict[str, Any]], currency: str | None) -> FleetTotals:
    counts = {row["status"]: row["vehicles"] for row in by_status}
    ac, dc, of_ac, of_dc, cost, co2 = (
        sum((row[name] for row in by_status if row[known]), start=Decimal())
        if any(row[known] for row in by_status)
        else None
        for name, known in (
            *(("kwh_ac", "known"), ("kwh_dc", "known")),
            *(("kwh_ac_compared", "known"), ("kwh_dc_compared", "known")),
            *(("loss_cost", "cost_known"), ("loss_co2_kg", "co2_known")),
        )
    )
    return FleetTotals(
        vehicles=sum(counts.values()),
        total_energy_consumed_ac=rounded_energy(ac),
        total_energy_delivered_dc=rounded_energy(dc),
        compared_kwh_ac=rounded_energy(of_ac),
        compared_kwh_dc=rounded_energy(of_dc),
        loss_kwh=rounded_energy(None if of_ac is None or of_dc is None else of_ac - of_dc),
        loss_cost=rounded_cost(cost),
        loss_co2_kg=rounded_energy(co2),
        currency=currency,
        efficiency_ratio=rounded_percentage(divide_efficiency(of_ac, of_dc)),
        **{status: counts.get(status, 0) for status in get_args(ChargingStatus)},
    )


def _vehicle(row: dict[str, Any], minutes: int, currency: str | None) -> FleetVehicle:
    ac, dc = row["kwh_ac"], row["kwh_dc"]
    return FleetVehicle(
        **describe_comparison(row),
        vehicle_id=row["vehicle_id"],
        status=row["status"],
        loss_kwh=rounded_energy(row["kwh_lost"]),
        loss_cost=rounded_cost(row["loss_cost"]),
        loss_co2_kg=rounded_energy(row["loss_co2_kg"]),
        currency=currency,
        efficiency_ratio=rounded_percentage(efficiency_of(row)),
        total_energy_consumed_ac=rounded_energy(ac),
        total_energy_delivered_dc=rounded_energy(dc),
        estimated_kwh_ac=rounded_part(row["kwh_ac_estimated"], ac),
        estimated_kwh_dc=rounded_part(row["kwh_dc_estimated"], dc),
        average_battery_temp=rounded_ratio(divide(row["battery_temp_sum"], row["battery_temps"])),
        vehicle_coverage=coverage_ratio(row["minutes_heard"], minutes),
        meter_coverage=coverage_ratio(row["meter_minutes"], row["linked_minutes"]),
        meter_ids=list(dict.fromkeys(row["meter_ids"] or ())),
    )
