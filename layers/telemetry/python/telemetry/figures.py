"""Numbers as they are answered: divided where they can be, and rounded."""

from decimal import Decimal

ENERGY_DECIMALS = 3
RATIO_DECIMALS = 2
COST_DECIMALS = 4
# Of DC to AC; more says that one of the two is not what it claims to be.
MOST_EFFICIENCY = 100


def divide(part: Decimal | int | None, whole: Decimal | int | None) -> Decimal | None:
    """Return part / whole, None where either is not known or the whole is nothing."""
    return Decimal(part) / whole if part is not None and whole else None


def rounded_energy(kwh: Decimal | int | None) -> float | None:
    """Return an energy as it is answered: three decimals (Wh)."""
    return None if kwh is None else float(round(Decimal(kwh), ENERGY_DECIMALS))


def rounded_part(kwh: Decimal | int | None, whole: Decimal | int | None) -> float | None:
    """Return a part of an energy as it is answered: nothing is 0, of what is not known None."""
    return None if whole is None else rounded_energy(kwh or 0)


def rounded_cost(cost: Decimal | int | None) -> float | None:
    """Return an amount of money as it is answered: four decimals of its currency."""
    return None if cost is None else float(round(Decimal(cost), COST_DECIMALS))


def rounded_ratio(ratio: Decimal | int | None) -> float | None:
    """Return a ratio, a percentage or a temperature as it is answered: two decimals."""
    return None if ratio is None else float(round(Decimal(ratio), RATIO_DECIMALS))


def divide_efficiency(ac: Decimal | int | None, dc: Decimal | int | None) -> Decimal | None:
    """Return DC / AC, None where it is not known or above MOST_EFFICIENCY."""
    efficiency = divide(dc, ac)
    return None if efficiency is None or efficiency > MOST_EFFICIENCY else efficiency


def rounded_percentage(ratio: Decimal | None) -> float | None:
    """Return a ratio in percent."""
    return rounded_ratio(ratio and ratio * 100)


def coverage_ratio(heard: int, expected: int) -> float | None:
    """Return the part of the minutes heard from, None where none was expected."""
    return rounded_ratio(divide(min(heard, expected), expected))
