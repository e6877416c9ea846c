"""What of a vehicle's and its meter's energy is compared in a window, hour by hour: the oracle."""

from collections.abc import Sequence
from decimal import Decimal
from math import inf
from typing import NamedTuple

from telemetry.ground_verification import HOUR, MINUTE, SECOND, Reading, split


class Compared(NamedTuple):
    """Of an hour: energies there and compared (kWh), seconds compared, energy that is unsure."""

    hour: int
    ac: Decimal
    dc: Decimal
    compared_ac: Decimal
    compared_dc: Decimal
    seconds: Decimal
    unsure: Decimal


def compare_hours(
    meter: Sequence[Reading],
    vehicle: Sequence[Reading],
    opened: int,
    closed: int,
    longest: int = MINUTE,
) -> list[Compared]:
    """Return what is compared in each hour of (opened, closed], while the one fed the other.

    longest: no reading was ever longer.
    """
    first = opened // HOUR * HOUR
    hours = range(first, -(-closed // HOUR) * HOUR, HOUR)
    full = {
        hour: all(_is_full(side, hour, opened, closed) for side in (meter, vehicle))
        for hour in hours
    }
    found = []
    for hour in hours:
        after, until = max(opened, hour), min(closed, hour + HOUR)
        ac, dc = (
            sum((one.between(after, until) for one in side), Decimal()) for side in (meter, vehicle)
        )
        inner = opened <= hour - HOUR and hour + 2 * HOUR <= closed
        is_short = longest <= 2 * MINUTE
        beside = is_short or (inner and full[hour - HOUR] and full[hour + HOUR])
        both = _minutes(meter, hour) & _minutes(vehicle, hour)
        heard = Decimal(min(60 * len(both), (until - after) / SECOND))
        if (full[hour] and beside) or (not ac and not dc):
            found.append(Compared(hour, ac, dc, ac, dc, heard, Decimal()))
        elif not _minutes(meter, hour) or not _minutes(vehicle, hour):
            found.append(Compared(hour, ac, dc, *(Decimal(),) * 4))
        else:
            whole = until - after == HOUR and (is_short or inner)
            link = (-inf, inf) if whole else (opened, closed)
            found.append(Compared(hour, ac, dc, *split(meter, vehicle, link, (after, until))))
    return found


def _is_full(side: Sequence[Reading], hour: int, opened: int, closed: int) -> bool:
    first = (max(opened, hour) - hour) // MINUTE
    last = -(-(min(closed, hour + HOUR) - hour) // MINUTE)
    there = [one for one in side if _is_in(one, hour)]
    seconds = sum(
        one.length if one.length <= MINUTE else min(one.end, hour + HOUR) - max(one.begin, hour)
        for one in there
        if one.is_measured
    )
    estimated = sum(one.between(hour, hour + HOUR) for one in there if not one.is_measured)
    minutes = _minutes(side, hour)
    return not estimated and minutes >= set(range(first, last)) and seconds >= MINUTE * len(minutes)


def _is_in(one: Reading, hour: int) -> bool:
    begin = one.begin if one.length > MINUTE else one.end - 1
    return begin < hour + HOUR and one.end > hour


def _minutes(side: Sequence[Reading], hour: int) -> set[int]:
    found: set[int] = set()
    for one in side:
        if one.is_measured and _is_in(one, hour):
            ended = -(-(one.end - hour) // MINUTE) - 1
            begun = ended - -(-one.length // MINUTE) + 1
            found |= set(range(max(0, begun), min(59, ended) + 1))
    return found
