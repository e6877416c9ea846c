"""By which rules the fleet is judged; a deployment sets them."""

from typing import NamedTuple

from telemetry.settings import Settings


class Rules(NamedTuple):
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
