"""What was compared of a vehicle's and its meter's energy: see docs/verdicts.md.

Rows are those of report_charging (performance.sql) and report_fleet (fleet.sql), numbers exact.
"""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field

from telemetry.figures import divide_efficiency, rounded_energy

ComparedKwhAc = Annotated[
    float | None,
    Field(
        description="Of the AC energy, what was compared: of the time in which the vehicle and its "
        "meter were both heard (kWh). AC energy = comparedKwhAc + acUnmatched",
        examples=[34.946],
        json_schema_extra={"unit": "kWh"},
    ),
]
ComparedKwhDc = Annotated[
    float | None,
    Field(
        description="The same of the DC energy (kWh). DC energy = comparedKwhDc + dcUnmatched + "
        "dcElsewhere",
        examples=[32.15],
        json_schema_extra={"unit": "kWh"},
    ),
]
AcUnmatched = Annotated[
    float | None,
    Field(
        description="AC energy while the vehicle was not heard, or of which it is not known when "
        "it flowed (kWh)",
        examples=[0.0],
        json_schema_extra={"unit": "kWh"},
    ),
]
DcUnmatched = Annotated[
    float | None,
    Field(
        description="The same of the DC energy, while the meter was not heard (kWh)",
        examples=[0.0],
        json_schema_extra={"unit": "kWh"},
    ),
]
DcElsewhere = Annotated[
    float | None,
    Field(
        description="DC energy while no meter was linked to the vehicle: charged elsewhere (kWh)",
        examples=[0.0],
        json_schema_extra={"unit": "kWh"},
    ),
]
ComparedMinutes = Annotated[
    int,
    Field(
        description="Minutes of the window that were compared",
        examples=[1426],
        json_schema_extra={"unit": "min"},
    ),
]


def describe_comparison(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an answer that say what was compared."""
    ac, dc, linked = (row[name] for name in ("kwh_ac", "kwh_dc", "kwh_dc_linked"))
    of_ac, of_dc = row["kwh_ac_compared"], row["kwh_dc_compared"]
    return {
        "compared_kwh_ac": rounded_energy(of_ac),
        "compared_kwh_dc": rounded_energy(of_dc),
        "ac_unmatched": rounded_energy(None if ac is None else ac - of_ac),
        "dc_unmatched": rounded_energy(None if dc is None else linked - of_dc),
        "dc_elsewhere": rounded_energy(None if dc is None else dc - linked),
        "compared_minutes": row["compared_minutes"] or 0,
    }


def efficiency_of(row: dict[str, Any]) -> Decimal | None:
    """Return DC / AC of what was compared; where nothing was, of all that there is."""
    if row["kwh_lost"] is None:
        return divide_efficiency(row["kwh_ac"], row["kwh_dc"])
    return divide_efficiency(row["kwh_ac_compared"], row["kwh_dc_compared"])
