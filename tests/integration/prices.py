"""What a kWh costs by any tariffs at any time, computed in plain Python by zoneinfo's zones."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from telemetry.tariffs import DAYS, FLEET, Day, Period, Tariff
from telemetry.zones import parse_zone

QUARTER = timedelta(minutes=15)
# Offsets of quarters and halves of hours, clocks that change by an hour, by half of one, south of
# the equator, at midnight, and a day that was left out (Samoa's 30th of December 2011).
ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu"),
    *("Australia/Lord_Howe", "Australia/Adelaide", "Pacific/Chatham", "Pacific/Apia"),
    *("America/Santiago", "Africa/Casablanca", "America/St_Johns", "Asia/Tehran"),
)


@dataclass
class PriceBook:
    """Every version of every tariff: (tariff, valid from) → version."""

    versions: dict[tuple[str, datetime], Tariff] = field(default_factory=dict)

    def in_force(self, tariff_id: str, instant: datetime) -> Tariff | None:
        begun = [key for key in self.versions if key[0] == tariff_id and key[1] <= instant]
        if not begun:
            return None
        newest = self.versions[max(begun)]
        return newest if newest.valid_to is None or instant < newest.valid_to else None

    def hour_price(self, tariff_id: str, hour: datetime) -> tuple[Decimal | None, Decimal | None]:
        """Return price and CO2 of a kWh in (hour, hour + 1 h]: the mean of its quarters."""
        quarters = [self._at(tariff_id, hour + number * QUARTER) for number in range(4)]
        price, co2 = (
            None if None in values else sum(values, start=Decimal()) / 4
            for values in zip(*quarters, strict=True)
        )
        return price, co2

    def _at(self, tariff_id: str, instant: datetime) -> tuple[Decimal | None, Decimal | None]:
        own, fleet = self.in_force(tariff_id, instant), self.in_force(FLEET, instant)
        chosen = own or fleet
        if chosen is None:
            return None, None
        co2 = chosen.kg_co2_per_kwh
        if co2 is None and fleet:
            co2 = fleet.kg_co2_per_kwh
        return _price(chosen, instant), None if co2 is None else Decimal(str(co2))


def _price(tariff: Tariff, instant: datetime) -> Decimal:
    local = instant.astimezone(parse_zone(tariff.time_zone))
    clock, today, yesterday = f"{local:%H:%M}", DAYS[local.weekday()], DAYS[local.weekday() - 1]
    for period in tariff.periods:
        if period.begins < period.ends:
            holds = today in period.days and period.begins <= clock < period.ends
        else:
            begun = today in period.days and period.begins <= clock
            holds = begun or (yesterday in period.days and clock < period.ends)
        if holds:
            return Decimal(str(period.price_per_kwh))
    return Decimal(str(tariff.price_per_kwh))


# Multiples of four, so that the mean of four quarters has no more decimals than each.
prices = st.integers(-10, 50).map(lambda number: number * 4 / 10)
clocks = st.integers(0, 95).map(lambda number: f"{number // 4:02}:{number % 4 * 15:02}")
days = st.lists(st.sampled_from(DAYS), min_size=1, max_size=7, unique=True)


@st.composite
def periods(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return periods as they are sent, of which no two overlap."""
    taken: set[int] = set()
    kept: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 4))):
        begins, ends = draw(clocks), draw(clocks | st.just("24:00"))
        on: list[Day] = draw(days)
        if begins == ends:
            continue
        period = Period.model_validate(
            {"days": on, "from": begins, "to": ends, "pricePerKwh": draw(prices)}
        )
        if not taken & set(period.quarters):
            taken |= set(period.quarters)
            kept.append(period.model_dump(by_alias=True))
    return kept


@st.composite
def tariffs(draw: st.DrawFn, start: datetime, hours: int) -> Tariff:
    """Return a version that begins within so many hours after an instant."""
    valid_from = start + draw(st.integers(0, 4 * hours)) * QUARTER
    valid_to = draw(st.none() | st.integers(1, 4 * hours).map(lambda n: valid_from + n * QUARTER))
    body = {
        "currency": "EUR",
        "timeZone": draw(st.sampled_from(ZONES)),
        "pricePerKwh": draw(prices),
        "kgCo2PerKwh": draw(st.none() | st.integers(0, 25).map(lambda number: number * 4)),
        "periods": draw(periods()),
        "validFrom": valid_from.astimezone(UTC).isoformat(),
        "validTo": valid_to and valid_to.astimezone(UTC).isoformat(),
    }
    return Tariff.model_validate_json(json.dumps(body))
