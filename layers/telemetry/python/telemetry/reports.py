"""How vehicles charged: what the analytics function answers, from rollups and bounded edges."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from telemetry.binary import (
    BOOL,
    FLOAT8,
    INTERVAL,
    TEXT_ARRAY,
    TIMESTAMPTZ_ARRAY,
    encode_bool,
    encode_float,
    encode_ids,
    encode_interval,
    encode_optional_times,
)
from telemetry.charging import Coverage, Dashboard, Heard, Pairing, Performance, Silence, Vehicle
from telemetry.comparison import describe_comparison, efficiency_of
from telemetry.database import Database
from telemetry.errors import VehicleNotFound
from telemetry.figures import (
    coverage_ratio,
    divide,
    rounded_cost,
    rounded_energy,
    rounded_part,
    rounded_percentage,
    rounded_ratio,
)
from telemetry.gaps import find_gaps
from telemetry.reasons import (
    explain_cadences,
    explain_efficiency,
    explain_missing_meter,
    explain_missing_prices,
    explain_no_loss,
    explain_no_meter,
    explain_silent_meters,
    explain_status,
    explain_whole_hours,
)
from telemetry.rules import Rules

DAY = timedelta(hours=24)
LONGEST_WINDOW = 366 * DAY
# Gaps are looked for in windows of up to a month.
LONGEST_WITH_GAPS = timedelta(hours=744)
MOST_GAPS = 100
# Of the links in a window that are listed.
MOST_PAIRINGS = 100

_CHARGING = b"SELECT report_charging($1, $2, $3, $4, $5, $6, $7, $8)"
_CHARGING_TYPES = (
    *(TEXT_ARRAY, TIMESTAMPTZ_ARRAY, TIMESTAMPTZ_ARRAY, INTERVAL),
    *(BOOL, BOOL, FLOAT8, FLOAT8),
)


def report_performance(
    database: Database,
    vehicle_id: str,
    rules: Rules,
    end: datetime | None = None,
    length: timedelta = DAY,
) -> Performance:
    """Report how a vehicle charged up to end, or up to its latest reading where end is None.

    Raises VehicleNotFound and DatabaseUnavailable.
    """
    with_gaps = length <= LONGEST_WITH_GAPS
    found = fetch_charging(
        database, [vehicle_id], rules, ends=[end], length=length, with_hours=with_gaps
    )
    if not found:
        raise VehicleNotFound
    [charging] = found
    [vehicle] = explain_cadences(database, found, [describe_vehicle(charging, rules)])
    paired = charging["meter_ids"] or charging["too_many_links"]
    missing = {} if paired else explain_missing_meter(database, vehicle_id, rules)
    known = vehicle.reasons
    fields = dict(vehicle) | {
        "reasons": known | {field: why for field, why in missing.items() if field in known}
    }
    if with_gaps:
        return Performance(**fields, gaps=_silence(charging))
    return Performance(**fields, gaps=None)


def report_dashboard(
    database: Database,
    vehicle_ids: Sequence[str],
    rules: Rules,
    end: datetime | None = None,
    length: timedelta = DAY,
) -> Dashboard:
    """Report how each of many vehicles charged; ids that are not known are listed apart."""
    wanted = list(dict.fromkeys(vehicle_ids))
    found = fetch_charging(database, wanted, rules, ends=[end] * len(wanted), length=length)
    vehicles = explain_cadences(
        database, found, [describe_vehicle(charging, rules) for charging in found]
    )
    known = {vehicle.vehicle_id for vehicle in vehicles}
    return Dashboard(vehicles=vehicles, unknown=[each for each in wanted if each not in known])


def fetch_charging(
    database: Database,
    vehicle_ids: Sequence[str],
    rules: Rules,
    *,
    starts: Sequence[datetime | None] | None = None,
    ends: Sequence[datetime | None],
    length: timedelta = DAY,
    with_hours: bool = False,
) -> list[dict[str, Any]]:
    """Return the rows of report_charging (performance.sql), numbers exact, times as text.

    Those of prices are there where there is a tariff.

    One round trip for any number of windows. Raises DatabaseUnavailable.
    """
    [found] = database.call(
        _CHARGING,
        _CHARGING_TYPES,
        (
            encode_ids(vehicle_ids),
            encode_optional_times(starts or [None] * len(vehicle_ids)),
            encode_optional_times(ends),
            encode_interval(length),
            encode_bool(rules.by_name),
            encode_bool(with_hours),
            encode_float(rules.least_kwh),
            encode_float(rules.least_coverage),
        ),
    )
    rows: list[dict[str, Any]] = json.loads(found, parse_float=Decimal) if found else []
    return rows


def describe_vehicle(charging: dict[str, Any], rules: Rules) -> Vehicle:
    """Return a row of fetch_charging as answered: rounded, and a reason for each null."""
    vehicle_id = charging["vehicle_id"]
    start, end = window_bounds(charging)
    ac, dc, readings = (charging[name] for name in ("kwh_ac", "kwh_dc", "readings"))
    pairing = [
        Pairing(
            meter_id=meter_id,
            valid_from=valid_from and datetime.fromisoformat(valid_from).astimezone(UTC),
            valid_to=valid_to and datetime.fromisoformat(valid_to).astimezone(UTC),
            source=source,
            ac_energy_consumed=rounded_energy(kwh),
        )
        for meter_id, valid_from, valid_to, source, kwh in zip(
            *(
                charging[name] or ()
                for name in ("meter_ids", "valid_froms", "valid_tos", "sources", "kwhs")
            ),
            strict=True,
        )
    ]
    meters = list(dict.fromkeys(link.meter_id for link in pairing))
    efficiency = efficiency_of(charging)
    temperature = divide(charging["battery_temp_sum"], charging["battery_temps"])
    no_meter = None if meters else explain_no_meter(charging)
    no_ac = no_meter or (explain_silent_meters(meters) if ac is None else None)
    no_dc = f"{vehicle_id} has no readings in the window" if dc is None else None
    no_efficiency = no_ac or no_dc or explain_efficiency(charging, efficiency)
    no_loss = no_ac or no_dc or explain_no_loss(charging)
    no_temperature = (
        f"no reading of {vehicle_id} in the window has a temperature"
        if temperature is None
        else None
    )
    several = f"{len(meters)} meters fed {vehicle_id}: see pairing" if len(meters) > 1 else None
    reasons = {
        "acEnergyConsumed": no_ac,
        "dcEnergyDelivered": no_dc,
        "efficiency": no_efficiency,
        "avgBatteryTemp": no_temperature,
        "totalEnergyConsumedAc": no_ac,
        "totalEnergyDeliveredDc": no_dc,
        "efficiencyRatio": no_efficiency,
        "averageBatteryTemp": no_temperature,
        "lossKwh": no_loss,
        "comparedKwhAc": no_ac,
        "comparedKwhDc": no_dc,
        "acUnmatched": no_ac,
        "dcUnmatched": no_dc,
        "dcElsewhere": no_dc,
        "estimatedKwhAc": no_ac,
        "estimatedKwhDc": no_dc,
        "meterId": no_meter or several,
        **explain_missing_prices(charging, no_loss),
        "timeWindowStart": explain_whole_hours(charging["archived_to"]),
    }
    coverage = Coverage(
        vehicle=_heard(charging["minutes_heard"], (end - start) // timedelta(minutes=1)),
        meter=_heard(charging["meter_minutes"], charging["linked_minutes"]),
    )
    return Vehicle(
        vehicle_id=vehicle_id,
        ac_energy_consumed=rounded_energy(ac),
        dc_energy_delivered=rounded_energy(dc),
        efficiency=rounded_ratio(efficiency),
        avg_battery_temp=rounded_ratio(temperature),
        total_energy_consumed_ac=rounded_energy(ac),
        total_energy_delivered_dc=rounded_energy(dc),
        efficiency_ratio=rounded_percentage(efficiency),
        average_battery_temp=rounded_ratio(temperature),
        time_window_start=start.astimezone(UTC),
        time_window_end=end.astimezone(UTC),
        data_points=readings,
        meter_id=meters[0] if len(meters) == 1 else None,
        **describe_comparison(charging),
        loss_kwh=rounded_energy(charging["kwh_lost"]),
        estimated_kwh_ac=rounded_part(charging["kwh_ac_estimated"], ac),
        estimated_kwh_dc=rounded_part(charging["kwh_dc_estimated"], dc),
        loss_cost=rounded_cost(charging.get("loss_cost")),
        loss_co2_kg=rounded_energy(charging.get("loss_co2_kg")),
        currency=charging.get("currency"),
        status=charging["status"],
        status_reason=explain_status(charging, no_loss, coverage, rules),
        coverage=coverage,
        pairing=pairing[:MOST_PAIRINGS],
        pairing_omitted=max(0, len(pairing) - MOST_PAIRINGS),
        reasons={field: reason for field, reason in reasons.items() if reason},
    )


def window_bounds(report: dict[str, Any]) -> tuple[datetime, datetime]:
    """Return where the window of a report begins and ends."""
    return (
        datetime.fromisoformat(report["window_start"]),
        datetime.fromisoformat(report["window_end"]),
    )


def _heard(minutes: int, expected: int) -> Heard:
    return Heard(
        minutes_heard=minutes, minutes_expected=expected, ratio=coverage_ratio(minutes, expected)
    )


def _silence(charging: dict[str, Any]) -> Silence:
    start, end = window_bounds(charging)
    of_vehicle = find_gaps(charging["vehicle_hours"], start, end)
    of_meters = [
        gap
        for valid_from, valid_to, hours in zip(
            *(charging[name] or () for name in ("valid_froms", "valid_tos", "meter_hours")),
            strict=True,
        )
        for gap in find_gaps(
            hours,
            max(start, datetime.fromisoformat(valid_from)) if valid_from else start,
            min(end, datetime.fromisoformat(valid_to)) if valid_to else end,
        )
    ]
    return Silence(
        vehicle=of_vehicle[:MOST_GAPS],
        vehicle_omitted=max(0, len(of_vehicle) - MOST_GAPS),
        meter=of_meters[:MOST_GAPS],
        meter_omitted=max(0, len(of_meters) - MOST_GAPS),
    )
