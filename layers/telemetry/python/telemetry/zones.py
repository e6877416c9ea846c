"""Time zones of the IANA database, by the package tzdata alone.

Clocks change when governments say so, and a system's zone files, PostgreSQL's and the package's can
be of different years. So one of them decides: every local time comes from the package that this
version ships. Days of a trend are computed from it here; tariffs get `utc_offsets` of their zone in
the database (see `zone_offset`).
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

import psycopg
import tzdata
from pydantic_core import PydanticCustomError

from telemetry.database import Row
from telemetry.recognition import FIRST_TIME_TOO_FAR, OLDEST_TIMESTAMP

RELEASE: str = tzdata.IANA_VERSION  # such as 2026f; later ones sort behind

OUTDATED = "SELECT DISTINCT time_zone FROM zone_offset WHERE release < %s ORDER BY time_zone"

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


def parse_zone(value: str) -> ZoneInfo:
    """Read the name of a time zone; raise PydanticCustomError where IANA knows none such."""
    if value not in _zone_names():
        raise PydanticCustomError(
            "zone", "Input should be the name of an IANA time zone, such as Asia/Kolkata"
        )
    return _load(value)


@cache
def utc_offsets(name: str) -> list[tuple[datetime, timedelta]]:
    """Return from when on (UTC) local clocks are how far ahead of UTC, in the years 2000 to 2099.

    The first entry begins with 2000; each holds until the next. A zone's changes are more than six
    days apart, so looking once a day finds each.
    """
    zone = _load(name)

    def ahead(instant: datetime) -> timedelta:
        return instant.astimezone(zone).utcoffset() or timedelta()

    def changes() -> Iterator[tuple[datetime, timedelta]]:
        before, offset = OLDEST_TIMESTAMP, ahead(OLDEST_TIMESTAMP)
        yield before, offset
        while before < FIRST_TIME_TOO_FAR:
            after = before + _DAY
            if ahead(after) != offset:
                low, high = before, after
                while high - low > _SECOND:
                    middle = low + (high - low) // _SECOND // 2 * _SECOND
                    low, high = (middle, high) if ahead(middle) == offset else (low, middle)
                offset = ahead(after)
                yield high, offset
            before = after

    return list(changes())


def refresh_zones(connection: psycopg.Connection[Row]) -> list[str]:
    """Give the database this release's offsets where it has an older one's; return the zones.

    The connection is the owner's. Raises psycopg.Error.
    """
    outdated = [name for (name,) in connection.execute(OUTDATED, (RELEASE,))]
    for name in outdated:
        starts, offsets = zip(*utc_offsets(name), strict=True)
        connection.execute(
            "SELECT put_zone(%s, %s, %s, %s)", (name, RELEASE, list(starts), list(offsets))
        )
    return outdated


@cache
def _load(name: str) -> ZoneInfo:
    # By its file: ZoneInfo(name) would take the system's first.
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())
