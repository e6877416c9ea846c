"""What the analytics function answers, computed from rollups and two bounded edges of history."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from telemetry.answers import Performance
from telemetry.database import Database
from telemetry.errors import VehicleNotFound

WINDOW = timedelta(hours=24)
ENERGY_DECIMALS = 3
RATIO_DECIMALS = 2

# Both contracts name a vehicle VEH and its meter MTR or METER, with one separator and suffix.
_VEHICLE_NAME = re.compile(r"VEH([._:-].+)")

# One round trip: the window, the meter (if exactly one of its possible names has ever reported),
# and what both did in the window.
_PERFORMANCE = """
    WITH vehicle AS (
        SELECT coalesce(%(end)s, last_timestamp) AS window_end
        FROM vehicle_live_status
        WHERE vehicle_id = %(vehicle_id)s
    ), paired AS (
        SELECT array_agg(meter_id ORDER BY meter_id) AS meter_ids
        FROM meter_live_status
        WHERE meter_id = ANY (%(meter_ids)s::text[])
    )
    SELECT window_end, meter_ids,
           dc.readings, dc.kwh_delivered_dc, dc.battery_temp_sum, ac.kwh_consumed_ac
    FROM vehicle
    CROSS JOIN paired
    LEFT JOIN LATERAL vehicle_energy(
        %(vehicle_id)s, window_end - %(window)s::interval, window_end) AS dc ON true
    LEFT JOIN LATERAL meter_energy(
        meter_ids[1], window_end - %(window)s::interval, window_end) AS ac
        ON cardinality(meter_ids) = 1
"""


def report_performance(
    database: Database, vehicle_id: str, end: datetime | None = None
) -> Performance:
    """Report a vehicle's 24 hours up to end, or up to its latest reading where end is None.

    Raises VehicleNotFound and DatabaseUnavailable.
    """
    candidates = possible_meters(vehicle_id)
    rows = database.fetch(
        _PERFORMANCE,
        {"vehicle_id": vehicle_id, "meter_ids": candidates, "end": end, "window": WINDOW},
    )
    if not rows:
        raise VehicleNotFound
    [(window_end, meters, readings, dc, battery_temp_sum, ac)] = rows
    meter_id = meters[0] if meters and len(meters) == 1 else None

    efficiency = dc / ac if dc is not None and ac else None
    temperature = battery_temp_sum / readings if readings else None
    no_ac = _why_no_ac(vehicle_id, candidates, meters, ac)
    no_dc = f"{vehicle_id} has no readings in the window" if dc is None else None
    no_efficiency = no_ac or no_dc or ("no AC energy was consumed" if not ac else None)
    reasons = {
        "acEnergyConsumed": no_ac,
        "dcEnergyDelivered": no_dc,
        "efficiency": no_efficiency,
        "avgBatteryTemp": no_dc,
        "totalEnergyConsumedAc": no_ac,
        "totalEnergyDeliveredDc": no_dc,
        "efficiencyRatio": no_efficiency,
        "averageBatteryTemp": no_dc,
        "meterId": no_ac if meter_id is None else None,
    }
    return Performance(
        vehicle_id=vehicle_id,
        ac_energy_consumed=_rounded(ac, ENERGY_DECIMALS),
        dc_energy_delivered=_rounded(dc, ENERGY_DECIMALS),
        efficiency=_rounded(efficiency, RATIO_DECIMALS),
        avg_battery_temp=_rounded(temperature, RATIO_DECIMALS),
        total_energy_consumed_ac=_rounded(ac, ENERGY_DECIMALS),
        total_energy_delivered_dc=_rounded(dc, ENERGY_DECIMALS),
        efficiency_ratio=_rounded(efficiency and efficiency * 100, RATIO_DECIMALS),
        average_battery_temp=_rounded(temperature, RATIO_DECIMALS),
        time_window_start=(window_end - WINDOW).astimezone(UTC),
        time_window_end=window_end.astimezone(UTC),
        data_points=readings or 0,
        meter_id=meter_id,
        reasons={field: reason for field, reason in reasons.items() if reason},
    )


def possible_meters(vehicle_id: str) -> list[str]:
    """Return the ids that a vehicle's meter may have by the naming convention of both contracts."""
    named = _VEHICLE_NAME.fullmatch(vehicle_id)
    return [prefix + named[1] for prefix in ("METER", "MTR")] if named else []


def _why_no_ac(
    vehicle_id: str, candidates: list[str], meters: list[str] | None, ac: Decimal | None
) -> str | None:
    if not candidates:
        return f"no meter is paired with {vehicle_id}: its id is not VEH, a separator and a suffix"
    if not meters:
        return f"no meter is paired with {vehicle_id}: no {' or '.join(candidates)} has reported"
    if len(meters) > 1:
        return f"no meter is paired with {vehicle_id}: both {' and '.join(meters)} have reported"
    if ac is None:
        return f"{meters[0]} has no readings in the window"
    return None


def _rounded(value: Decimal | None, decimals: int) -> float | None:
    return None if value is None else float(round(value, decimals))
