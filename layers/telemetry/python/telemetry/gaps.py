"""Silence: the runs of minutes in which nothing was heard from a device."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from telemetry.charging import Gap

LONGEST_SILENCE = 300  # seconds that are no gap yet,
CADENCES = 1.5  # nor are so many cadences
_MINUTE = 60

# A device's cadence (s), and the hours that it was heard from: epoch seconds of their start, and a
# mask with bit n set where minute n was heard.
Heard = tuple[float, Iterable[tuple[int, int]] | None]


def find_gaps(heard_minutes: Heard | None, start: datetime, end: datetime) -> list[Gap]:
    """Return the gaps between two instants, in order.

    Minutes that are not whole between start and end count as heard.
    """
    first = -int(-start.timestamp() // _MINUTE)
    last = int(end.timestamp() // _MINUTE)
    length = max(0, last - first)
    cadence, hours = heard_minutes or (_MINUTE, ())
    heard = 0
    for hour, minutes in hours or ():
        offset = hour // _MINUTE - first
        heard |= minutes << offset if offset >= 0 else minutes >> -offset
    silent = ~heard & ((1 << length) - 1)
    longest = int(max(LONGEST_SILENCE, CADENCES * float(cadence)) // _MINUTE)
    if not _has_run(silent, longest + 1):  # mostly
        return []
    # The lowest bit is the first minute.
    bits = f"{heard & ((1 << length) - 1):0{length}b}"[::-1]
    return [
        Gap(
            start=datetime.fromtimestamp((first + silence.start()) * _MINUTE, UTC),
            end=datetime.fromtimestamp((first + silence.end()) * _MINUTE, UTC),
            minutes=silence.end() - silence.start(),
        )
        for silence in re.finditer(f"0{{{longest + 1},}}", bits)
    ]


def _has_run(bits: int, length: int) -> bool:
    """Tell whether so many bits follow each other."""
    found = 1  # a bit stays where so many begin
    while found < length:
        more = min(found, length - found)
        bits &= bits >> more
        found += more
    return bits != 0
