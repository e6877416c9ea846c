"""How vehicles charged: what the analytics function answers, from rollups and bounded edges."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
from telemetry.database import Database
from telemetry.errors import VehicleNotFound
from telemetry.gaps import find_gaps
from telemetry.settings import Settings

DAY = timedelta(hours=24)
LONGEST_WINDOW = 366 * DAY
ENERGY_DECIMALS = 3
RATIO_DECIMALS = 2
COST_DECIMALS = 4
# Gaps are looked for in windows of up to a month.
LONGEST_WITH_GAPS = timedelta(hours=744)
MOST_GAPS = 100

# Both contracts name a vehicle VEH and its meter MTR or METER, with one separator and suffix.
_VEHICLE_NAME = re.compile(r"VEH([._:-].+)")

_CHARGING = b"SELECT report_charging($1, $2, $3, $4, $5, $6, $7, $8)"
_CHARGING_TYPES = (
    *(TEXT_ARRAY, TIMESTAMPTZ_ARRAY, TIMESTAMPTZ_ARRAY, INTERVAL),
    *(BOOL, BOOL, FLOAT8, FLOAT8),
)
_UNPAIRED = """
    SELECT EXISTS (SELECT FROM links WHERE vehicle_id = %(vehicle_id)s),
           array(SELECT meter_id FROM meter_live_status
                 WHERE meter_id = ANY (%(meter_ids)s::text[]) ORDER BY meter_id)
"""


@dataclass(frozen=True)
class Rules:
    """How vehicles are paired with meters and when their charging can be judged.

    by_name: a vehicle that was never linked is fed by the meter of the same suffix. least_kwh:
    energy at the meter (kWh), and least_coverage: the part of the minutes heard from (0 to 1),
    below which nothing is said of a charger.
    """

    by_name: bool = True
    least_kwh: float = 1.0
    least_coverage: float = 0.5

    @classmethod
    def of(cls, settings: Settings) -> "Rules":
        """Return what the environment tells. Raises SettingMissing and SettingInvalid."""
        return cls(settings.pairs_by_name, settings.least_kwh, settings.least_coverage)


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
    vehicle = describe_vehicle(charging, rules)
    missing = {} if charging["meter_ids"] else _why_unpaired(database, vehicle_id, rules)
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
    vehicles = [describe_vehicle(charging, rules) for charging in found]
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
    """Return the rows of report_charging (migration 0004), numbers exact, times as text.

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
    ac, dc, readings = (
        charging[name] for name in ("kwh_consumed_ac", "kwh_delivered_dc", "readings")
    )
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
    efficiency = divide(dc, ac)
    temperature = divide(charging["battery_temp_sum"], readings)
    no_meter = None if meters else f"no meter was linked to {vehicle_id} in the window"
    no_ac = no_meter or (
        f"{' and '.join(meters)} has no readings in the window" if ac is None else None
    )
    no_dc = f"{vehicle_id} has no readings in the window" if dc is None else None
    no_efficiency = no_ac or no_dc or ("no AC energy was consumed" if not ac else None)
    several = f"{len(meters)} meters fed {vehicle_id}: see pairing" if len(meters) > 1 else None
    reasons = {
        "acEnergyConsumed": no_ac,
        "dcEnergyDelivered": no_dc,
        "efficiency": no_efficiency,
        "avgBatteryTemp": no_dc,
        "totalEnergyConsumedAc": no_ac,
        "totalEnergyDeliveredDc": no_dc,
        "efficiencyRatio": no_efficiency,
        "averageBatteryTemp": no_dc,
        "lossKwh": no_ac or no_dc,
        "meterId": no_meter or several,
        **_why_unpriced(charging, no_ac or no_dc),
        "timeWindowStart": _why_whole_hours(charging["archived_to"]),
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
        efficiency_ratio=efficiency_ratio(ac, dc),
        average_battery_temp=rounded_ratio(temperature),
        time_window_start=start.astimezone(UTC),
        time_window_end=end.astimezone(UTC),
        data_points=readings,
        meter_id=meters[0] if len(meters) == 1 else None,
        loss_kwh=rounded_energy(None if ac is None or dc is None else ac - dc),
        loss_cost=rounded_cost(charging.get("loss_cost")),
        loss_co2_kg=rounded_energy(charging.get("loss_co2_kg")),
        currency=charging.get("currency"),
        status=charging["status"],
        status_reason=_why_status(charging["status"], no_ac or no_dc, ac, coverage, rules),
        coverage=coverage,
        pairing=pairing,
        reasons={field: reason for field, reason in reasons.items() if reason},
    )


def _why_unpriced(charging: dict[str, Any], unknown: str | None) -> dict[str, str | None]:
    if "currency" not in charging:
        return {}
    return {
        answered: unknown or f"no tariff says {says} for every hour in which energy was counted"
        for answered, field, says in (
            ("lossCost", "loss_cost", "pricePerKwh"),
            ("lossCo2Kg", "loss_co2_kg", "kgCo2PerKwh"),
        )
        if charging[field] is None
    }


def _why_whole_hours(archived_to: str | None) -> str | None:
    if archived_to is None:
        return None
    until = datetime.fromisoformat(archived_to).astimezone(UTC)
    return (
        f"readings before {until:%Y-%m-%dT%H:%M:%SZ} are archived: until then the window, and each "
        "link in it, is counted in whole hours, from and to the end of the hour that an edge is in"
    )


def possible_meters(vehicle_id: str) -> list[str]:
    """Return the ids that a vehicle's meter may have by the naming convention of both contracts."""
    named = _VEHICLE_NAME.fullmatch(vehicle_id)
    return [prefix + named[1] for prefix in ("METER", "MTR")] if named else []


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


def _why_status(
    status: str, unknown: str | None, ac: Decimal | None, coverage: Coverage, rules: Rules
) -> str | None:
    if status == "implausible":
        return "more energy reached the battery than the meter measured"
    if status != "insufficient":
        return None
    if unknown:
        return unknown
    if not ac or ac < rules.least_kwh:
        return f"less than {rules.least_kwh:g} kWh was consumed"
    for stream, heard in (("vehicle", coverage.vehicle), ("meter", coverage.meter)):
        if heard.minutes_heard < rules.least_coverage * heard.minutes_expected:
            return (
                f"the {stream} was heard from in {heard.minutes_heard:,} of "
                f"{heard.minutes_expected:,} minutes, less than {rules.least_coverage:.0%}"
            )
    return None


def _why_unpaired(database: Database, vehicle_id: str, rules: Rules) -> dict[str, str]:
    """Return reasons that say more than that no meter was linked, where names decide."""
    candidates = possible_meters(vehicle_id)
    [(linked, reported)] = database.fetch(
        _UNPAIRED, {"vehicle_id": vehicle_id, "meter_ids": candidates}
    )
    if linked or not rules.by_name:
        return {}
    if not candidates:
        why = "its id is not VEH, a separator and a suffix"
    elif not reported:
        why = f"no {' or '.join(candidates)} has reported"
    elif len(reported) > 1:
        why = f"both {' and '.join(reported)} have reported"
    else:
        why = f"{reported[0]} is linked to another vehicle"
    reason = f"no meter is paired with {vehicle_id}: {why}"
    fields: Iterable[str] = (
        *("acEnergyConsumed", "efficiency", "totalEnergyConsumedAc", "efficiencyRatio"),
        *("lossKwh", "lossCost", "lossCo2Kg", "meterId"),
    )
    return dict.fromkeys(fields, reason)


def divide(part: Decimal | int | None, whole: Decimal | int | None) -> Decimal | None:
    """Return part / whole, None where either is not known or the whole is nothing."""
    return Decimal(part) / whole if part is not None and whole else None


def rounded_energy(kwh: Decimal | int | None) -> float | None:
    """Return an energy as it is answered: three decimals (Wh)."""
    return None if kwh is None else float(round(Decimal(kwh), ENERGY_DECIMALS))


def rounded_cost(cost: Decimal | int | None) -> float | None:
    """Return an amount of money as it is answered: four decimals of its currency."""
    return None if cost is None else float(round(Decimal(cost), COST_DECIMALS))


def rounded_ratio(ratio: Decimal | int | None) -> float | None:
    """Return a ratio, a percentage or a temperature as it is answered: two decimals."""
    return None if ratio is None else float(round(Decimal(ratio), RATIO_DECIMALS))


def efficiency_ratio(ac: Decimal | int | None, dc: Decimal | int | None) -> float | None:
    """Return DC / AC in percent, None where it is not known."""
    ratio = divide(dc, ac)
    return rounded_ratio(ratio and ratio * 100)


def coverage_ratio(heard: int, expected: int) -> float | None:
    """Return the part of the minutes heard from, None where none was expected."""
    return rounded_ratio(divide(min(heard, expected), expected))
