"""Local clocks by the package tzdata: which zones there are, and how far ahead of UTC they are."""

import re
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from telemetry.zones import parse_zone, utc_offsets

LAYER = Path("layers/telemetry/python/telemetry")
NAMES = files("tzdata").joinpath("zones").read_text(encoding="utf-8").split()
CENTURY = (datetime(2000, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001 -- what st.datetimes takes


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("UTC", timedelta(0)),
        ("Asia/Kolkata", timedelta(hours=5, minutes=30)),
        ("Asia/Kathmandu", timedelta(hours=5, minutes=45)),
        ("Australia/Lord_Howe", timedelta(hours=11)),
        ("America/Argentina/Buenos_Aires", timedelta(hours=-3)),
    ],
)
def test_a_zone_is_known_by_its_name(name: str, offset: timedelta) -> None:
    january = datetime(2026, 1, 15, tzinfo=UTC)
    assert january.astimezone(parse_zone(name)).utcoffset() == offset


@pytest.mark.parametrize(
    "name",
    ["", "America", "right/UTC", "posix/UTC", "../UTC", "/etc/localtime", "asia/kolkata", "+05:30"]
    + ["IST-5:30", "localtime", "zone.tab", "x" * 5000, "\0", "\ud800"],
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(PydanticCustomError, match="IANA time zone"):
        parse_zone(name)


@given(
    name=st.sampled_from(NAMES), instants=st.lists(st.datetimes(*CENTURY, timezones=st.just(UTC)))
)
def test_offsets_are_those_of_the_zone_at_every_instant(
    name: str, instants: list[datetime]
) -> None:
    starts, offsets = zip(*utc_offsets(name), strict=True)
    zone = parse_zone(name)
    for start in starts[1:]:
        instants += [start - timedelta(seconds=1), start]
    for instant in instants:
        expected = instant.astimezone(zone).utcoffset()
        assert offsets[bisect_right(starts, instant) - 1] == expected


def test_local_times_come_from_one_place() -> None:
    """A system's zones, or PostgreSQL's, would be another source, of another year."""
    sources = [path for path in LAYER.rglob("*") if path.suffix in {".py", ".sql"}]
    sources += Path("functions").rglob("*.py")
    by_system = {path.name for path in sources if "zoneinfo" in path.read_text(encoding="utf-8")}
    assert by_system == {"zones.py"}
    by_server = [
        (path.name, found)
        for path in sources
        for found in re.findall(r"AT TIME ZONE (?!'UTC')\S+", path.read_text(encoding="utf-8"))
    ]
    assert by_server == []
