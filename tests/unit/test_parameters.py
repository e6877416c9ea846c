"""How the texts of query parameters are read."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from pydantic_core import PydanticCustomError

from telemetry.parameters import parse_instant
from telemetry.zones import parse_zone


def test_an_instant_is_now_or_a_time_of_this_century() -> None:
    assert parse_instant("2026-02-10T15:30:00+05:30") == datetime(2026, 2, 10, 10, tzinfo=UTC)
    assert abs(datetime.now(UTC) - parse_instant("now")) < timedelta(seconds=10)
    for text in ("", "NOW", "2026-02-10", "1999-12-31T23:59:59Z", "2100-01-01T00:00:00Z"):
        with pytest.raises(PydanticCustomError):
            parse_instant(text)


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


def test_zones_are_known_where_the_system_has_none() -> None:
    script = """
from datetime import UTC, datetime
from telemetry.zones import parse_zone
print(datetime(2026, 1, 15, tzinfo=UTC).astimezone(parse_zone("Asia/Kolkata")).isoformat())
"""
    environment = {**os.environ, "PYTHONTZPATH": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "2026-01-15T05:30:00+05:30\n"
