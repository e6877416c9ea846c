"""Silence: the runs of minutes in which nothing was heard from a device."""

import functools
import re
from collections.abc import Iterable
from datetime import UTC, datetime

from telemetry.charging import Gap

LONGEST_SILENCE = 5  # minutes that are no gap yet
_MINUTE = 60
_SILENCE = re.compile(f"0{{{LONGEST_SILENCE + 1},}}")


def find_gaps(hours: Iterable[tuple[int, int]] | None, start: datetime, end: datetime) -> list[Gap]:
    """Return the gaps between two instants, in order.

    hours are those heard from: epoch seconds of their start, and a mask with bit n set where a
    reading ended in minute n. Minutes that are not whole between start and end count as heard.
    """
    first = -int(-start.timestamp() // _MINUTE)
    last = int(end.timestamp() // _MINUTE)
    length = max(0, last - first)
    heard = 0
    for hour, minutes in hours or ():
        offset = hour // _MINUTE - first
        heard |= minutes << offset if offset >= 0 else minutes >> -offset
    silent = ~heard & ((1 << length) - 1)
    # Bit n stays where the minutes from n on are too many: mostly nowhere, and that is all.
    if not functools.reduce(int.__and__, (silent >> n for n in range(LONGEST_SILENCE + 1))):
        return []
    # The lowest bit is the first minute.
    bits = f"{heard & ((1 << length) - 1):0{length}b}"[::-1]
    return [
        Gap(
            start=datetime.fromtimestamp((first + silence.start()) * _MINUTE, UTC),
            end=datetime.fromtimestamp((first + silence.end()) * _MINUTE, UTC),
            minutes=silence.end() - silence.start(),
        )
        for silence in _SILENCE.finditer(bits)
    ]
