"""Common ground, computed in plain Python: what of two devices' readings is compared in an hour.

common_ground.sql does the same where reports are made, and shares nothing with this:
telemetry.verification holds one against the other. docs/verdicts.md has the rules.
"""

from collections.abc import Iterable, Iterator, Sequence
from decimal import ROUND_DOWN, Decimal
from math import inf
from typing import NamedTuple

import psycopg

from telemetry.database import Row
from telemetry.streams import METERS, VEHICLES, Stream

SECOND = 1_000_000  # instants are microseconds since 1970
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
_TWELVE = Decimal("1e-12")

Span = tuple[float, float]


class Reading(NamedTuple):
    """What flowed in (begin, end]: kWh."""

    begin: int
    end: int
    kwh: Decimal

    @property
    def length(self) -> int:
        """Microseconds."""
        return self.end - self.begin

    def by(self, instant: float) -> Decimal:
        """Return how much flowed by an instant."""
        if instant >= self.end:
            return self.kwh
        if self.length <= MINUTE or instant <= self.begin:
            return Decimal()
        part = self.kwh * Decimal(int(instant) - self.begin) / Decimal(self.length)
        return part.quantize(_TWELVE, ROUND_DOWN)

    def between(self, after: float, until: float) -> Decimal:
        """Return how much flowed between two instants."""
        return self.by(until) - self.by(after)

    @property
    def is_measured(self) -> bool:
        """Whether it says when it flowed, too."""
        return self.length <= HOUR

    @property
    def most_missing(self) -> float:
        """How much of it the other side may miss, so that it counts whole (µs)."""
        return min(2 * MINUTE, self.length / 10)


def split(
    meter: Sequence[Reading], vehicle: Sequence[Reading], link: Span, piece: Span
) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """Return AC and DC compared, seconds, and the energy that is unsure, of a piece of time.

    link: while the meter fed the vehicle.
    """
    sides = [
        [
            one
            for one in side
            if one.is_measured
            and (
                link[0] < one.end <= link[1]
                if one.length <= MINUTE
                else one.end > link[0] and one.begin < link[1]
            )
        ]
        for side in (meter, vehicle)
    ]
    ground = _intersect(_intersect(_heard(sides[0]), _heard(sides[1])), [link])
    cut = [
        (one.begin, one.end)
        for one in (*sides[0], *sides[1])
        if one.length > 2 * MINUTE
        and 0 < _measure(ground, one.begin, one.end) < one.length - one.most_missing
    ]
    for begin, end in cut:
        ground = _intersect(ground, [(-inf, begin), (end, inf)])
    energies = []
    unsure = Decimal()
    for side in sides:
        total = Decimal()
        for one in side:
            if one.length <= MINUTE and not piece[0] < one.end <= piece[1]:
                continue
            within = _measure(ground, one.begin, one.end)
            here = one.begin, one.end
            if one.length > MINUTE:
                here = max(one.begin, int(piece[0])), min(one.end, int(piece[1]))
            there = _measure(ground, *here)
            part = one.kwh * Decimal(there) / Decimal(one.length)
            total += (
                one.between(*piece)
                if there and there == here[1] - here[0]
                else part.quantize(_TWELVE, ROUND_DOWN)
            )
            ends_here = one.length > 2 * MINUTE and piece[0] < one.end <= piece[1]
            if ends_here and within < one.length - one.most_missing:
                smaller = min(within, one.length - within)
                unsure += one.kwh * Decimal(smaller) / Decimal(one.length)
        energies.append(total)
    return *energies, Decimal(_measure(ground, *piece)) / SECOND, unsure  # type: ignore[return-value]


def _heard(side: Iterable[Reading]) -> list[Span]:
    spans: list[Span] = []
    latest = -inf
    for one in sorted(side, key=lambda one: (one.end, one.begin)):
        slit = max(2 * SECOND, one.length / 10)
        spans.append((latest if latest < one.begin <= latest + slit else one.begin, one.end))
        latest = one.end
    return unite(spans)


def unite(spans: Iterable[Span]) -> list[Span]:
    """Return the same time in spans that do not touch."""
    joined: list[Span] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((begin, end))
    return joined


def _intersect(some: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    pieces = [(max(a, c), min(b, d)) for a, b in some for c, d in others]
    return sorted((begin, end) for begin, end in pieces if begin < end)


def _measure(spans: Iterable[Span], after: float, until: float) -> int:
    return int(sum(max(0, min(end, until) - max(begin, after)) for begin, end in spans))


_KEPT = """
    SELECT vehicle_id, meter_id, hour, hour::text, trim_scale(kwh_ac), trim_scale(kwh_dc),
           trim_scale(seconds), round(kwh_unsure, 9)
    FROM common_hour
    WHERE hour >= (SELECT coalesce(max(archived_to), '-infinity') FROM archive_horizon)
          + interval '4 hours'
    ORDER BY 1, 2, 3
"""
_READINGS = """
    SELECT DISTINCT ON ("timestamp")
           round(extract(epoch FROM "timestamp") * 1000000)::bigint,
           round(coalesce(seconds, 60) * 1000000)::bigint, {energy}
    FROM {history}
    WHERE {device} = %s AND "timestamp" > %s::timestamptz - interval '4 hours'
      AND "timestamp" <= %s::timestamptz + interval '6 hours'
    ORDER BY "timestamp", received_at DESC
"""


def find_wrong_hours(
    connection: psycopg.Connection[Row],
) -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows of common_hour that are not what history says.

    Each as its devices, its hour, what history says, and what is stored.
    """
    for vehicle_id, meter_id, hour, said, *stored in connection.execute(_KEPT).fetchall():
        meter = _fetch(connection, METERS, meter_id, hour)
        vehicle = _fetch(connection, VEHICLES, vehicle_id, hour)
        begins = round(hour.timestamp()) * SECOND
        *exact, unsure = split(meter, vehicle, (-inf, inf), (begins, begins + HOUR))
        expected = [*exact, round(unsure, 9)]
        if expected != stored:
            yield f"{vehicle_id} {meter_id}", said, _tell(expected), _tell(stored)


def _fetch(
    connection: psycopg.Connection[Row], stream: Stream, device_id: str, hour: object
) -> list[Reading]:
    statement = _READINGS.format(
        energy=stream.energy.name, history=stream.history, device=stream.device
    )
    rows = connection.execute(statement.encode(), (device_id, hour, hour)).fetchall()
    return [Reading(end - length, end, kwh) for end, length, kwh in rows]


def _tell(numbers: Iterable[Decimal]) -> str:
    return "({})".format(",".join(f"{number.normalize():f}" for number in numbers))
