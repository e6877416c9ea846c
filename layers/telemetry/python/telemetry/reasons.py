"""Why a number of a report is null, or its status what it is."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from telemetry.charging import Coverage, Vehicle
from telemetry.database import Database
from telemetry.figures import MOST_EFFICIENCY, rounded_energy
from telemetry.rules import Rules

# Both contracts name a vehicle VEH and its meter MTR or METER, with one separator and suffix.
_VEHICLE_NAME = re.compile(r"VEH([._:-].+)")

# Of the meters in a sentence.
_MOST_NAMED = 5

_UNPAIRED = """
    SELECT EXISTS (SELECT FROM links WHERE vehicle_id = %(vehicle_id)s),
           array(SELECT meter_id FROM meter_live_status
                 WHERE meter_id = ANY (%(meter_ids)s::text[]) ORDER BY meter_id)
"""


# How often devices report that say nothing of it, in the last two days of a window.
_SEEN = """
    SELECT place, device_id, seen
    FROM unnest(%s::integer[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[])
        AS asked (place, stream, device_id, opened, closed)
    CROSS JOIN LATERAL (SELECT greatest(opened, closed - interval '48 hours')) AS days (since)
    CROSS JOIN LATERAL (
        SELECT CASE stream WHEN 'meter' THEN meter_cadence_seen(device_id, since, closed)
                           ELSE vehicle_cadence_seen(device_id, since, closed) END
    ) AS reporting (seen)
    WHERE seen IS NOT NULL AND NOT is_declared_now(device_id)
    ORDER BY place, stream DESC
"""


def explain_no_meter(charging: dict[str, Any]) -> str:
    """Say why no meter counts in a window."""
    vehicle_id = charging["vehicle_id"]
    if charging["too_many_links"]:
        return (
            f"{vehicle_id} has more links in the window than may count (1,440, and 100 for each "
            "further day), so none counts: do its readings name the right meter?"
        )
    return f"no meter was linked to {vehicle_id} in the window"


def explain_silent_meters(meters: list[str]) -> str:
    """Say that none of the meters that were linked has readings in a window."""
    if len(meters) > _MOST_NAMED:
        return f"none of {len(meters)} meters has readings in the window"
    return f"{' and '.join(meters)} has no readings in the window"


def explain_no_loss(charging: dict[str, Any]) -> str | None:
    """Say why there is no loss where both energies are known."""
    if charging["kwh_lost"] is not None:
        return None
    return (
        f"nothing was compared: {charging['vehicle_id']} and its meter were not heard at the same "
        "time while energy flowed"
    )


def explain_efficiency(charging: dict[str, Any], efficiency: Decimal | None) -> str | None:
    """Say why there is no efficiency where both energies are known."""
    if efficiency is not None:
        return None
    compared = charging["kwh_ac_compared"] or (
        charging["kwh_ac"] if charging["kwh_lost"] is None else 0
    )
    if compared:
        return f"DC is more than {MOST_EFFICIENCY} times AC"
    return "no AC energy was consumed"


def explain_missing_prices(charging: dict[str, Any], unknown: str | None) -> dict[str, str | None]:
    """Say why costs are null; unknown: why the energies are. Nothing where there is no tariff."""
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


def explain_whole_hours(archived_to: str | None) -> str | None:
    """Say that a window's edges were not counted by the minute, where that is so."""
    if archived_to is None:
        return None
    until = datetime.fromisoformat(archived_to).astimezone(UTC)
    return (
        f"readings before {until:%Y-%m-%dT%H:%M:%SZ} are archived: until then the window, and each "
        "link in it, is counted in whole hours, from and to the end of the hour that an edge is in"
    )


def explain_status(
    charging: dict[str, Any], unknown: str | None, coverage: Coverage, rules: Rules
) -> str | None:
    """Say why a charger is not judged; unknown: why nothing can be said of its loss."""
    if charging["status"] == "implausible":
        return "more energy reached the battery than the meter measured"
    if charging["status"] != "insufficient":
        return None
    return unknown or _explain_evidence(charging, coverage, rules)


def _explain_evidence(charging: dict[str, Any], coverage: Coverage, rules: Rules) -> str | None:
    ac, of_ac = charging["kwh_ac"], charging["kwh_ac_compared"]
    dc, of_dc = charging["kwh_dc_linked"], charging["kwh_dc_compared"]
    least, least_part = f"less than {rules.least_coverage:.0%}", Decimal(str(rules.least_coverage))
    missing = None
    if ac < rules.least_kwh or not ac:
        missing = f"less than {rules.least_kwh:g} kWh was consumed"
    elif of_ac < rules.least_kwh:
        missing = f"{_of(of_ac, ac)} AC could be compared, less than {rules.least_kwh:g} kWh"
    elif of_ac < least_part * ac:
        missing = f"{_of(of_ac, ac)} AC flowed while the vehicle was heard, too, {least}"
    elif of_dc < least_part * dc:
        missing = f"{_of(of_dc, dc)} DC flowed while the meter was heard, too, {least}"
    if missing:
        return missing
    for stream, heard in (("vehicle", coverage.vehicle), ("meter", coverage.meter)):
        if heard.minutes_heard < rules.least_coverage * heard.minutes_expected:
            return (
                f"the {stream} was heard from in {heard.minutes_heard:,} of "
                f"{heard.minutes_expected:,} minutes, {least}"
            )
    if unsure := charging["kwh_unsure"]:
        return (
            f"{rounded_energy(unsure):g} kWh are of intervals that the other side heard in part, "
            f"more than 2% of the {rounded_energy(of_ac):g} kWh AC compared"
        )
    return None


def _of(part: Decimal, whole: Decimal) -> str:
    return f"{rounded_energy(part):g} of {rounded_energy(whole):g} kWh"


def explain_cadences(
    database: Database, charging: Sequence[dict[str, Any]], vehicles: Sequence[Vehicle]
) -> list[Vehicle]:
    """Say of vehicles that are not judged which devices report less often than is declared."""
    asked = [
        (place, stream, device_id, row["window_start"], row["window_end"])
        for place, (row, vehicle) in enumerate(zip(charging, vehicles, strict=True))
        if vehicle.status == "insufficient"
        for stream, ids in (("vehicle", [row["vehicle_id"]]), ("meter", row["meter_ids"] or ()))
        for device_id in list(dict.fromkeys(ids))[:_MOST_NAMED]
    ]
    told = list(vehicles)
    if not asked:
        return told
    for place, device_id, seen in database.fetch(_SEEN, tuple(map(list, zip(*asked, strict=True)))):
        said = told[place].status_reason
        why = (
            f"{device_id} reports every {seen} s and each reading counts for 60 s, because it is "
            f'not declared: PUT /v1/devices/{device_id} {{"energy": "interval", '
            f'"cadenceSeconds": {seen}}}, with a validFrom in the past to count what came as well'
        )
        reason = f"{said}; {why}" if said else why
        told[place] = told[place].model_copy(update={"status_reason": reason})
    return told


def explain_missing_meter(database: Database, vehicle_id: str, rules: Rules) -> dict[str, str]:
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
    fields = (
        *("acEnergyConsumed", "efficiency", "totalEnergyConsumedAc", "efficiencyRatio"),
        *("lossKwh", "lossCost", "lossCo2Kg", "meterId"),
    )
    return dict.fromkeys(fields, reason)


def possible_meters(vehicle_id: str) -> list[str]:
    """Return the ids that a vehicle's meter may have by the naming convention of both contracts."""
    named = _VEHICLE_NAME.fullmatch(vehicle_id)
    return [prefix + named[1] for prefix in ("METER", "MTR")] if named else []
