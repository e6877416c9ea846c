"""Where the hours and days of a trend begin, whatever the clocks of a zone do."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from telemetry.trends import Bucket, bucket_bounds
from telemetry.zones import parse_zone, utc_offsets

# Clocks that change by an hour, by half of one, by two, at midnight, a minute after it, by a day.
NAMES = (
    *("UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Pyongyang"),
    *("America/Caracas", "Antarctica/Troll", "America/Havana", "America/St_Johns"),
    *("Pacific/Apia", "Antarctica/Casey"),
)
MICROSECOND = timedelta(microseconds=1)
LORD_HOWE, APIA = "Australia/Lord_Howe", "Pacific/Apia"


@pytest.mark.parametrize("bucket", ["hour", "day"])
@pytest.mark.parametrize("name", NAMES)
def test_buckets_follow_each_other_and_the_last_holds_the_end(name: str, bucket: Bucket) -> None:
    zone = parse_zone(name)

    def label(instant: datetime) -> object:
        local = instant.astimezone(zone)
        return (local.date(), local.hour, local.utcoffset()) if bucket == "hour" else local.date()

    for change, _ in utc_offsets(name)[:40]:
        for minutes in (-1441, -61, -15, 0, 15, 45, 75, 121, 1441):
            end = change + timedelta(minutes=minutes)
            bounds = bucket_bounds(bucket, 30, end, zone)
            assert len(bounds) == 31
            assert all(start < after for start, after in pairwise(bounds)), end
            assert bounds[-2] < end <= bounds[-1]
            assert all(label(bound - MICROSECOND) != label(bound) for bound in bounds), end


@pytest.mark.parametrize(
    ("name", "bucket", "end", "bounds"),
    [
        # Clocks go back from 2:00 to 1:30: the hour of one takes 90 minutes.
        (LORD_HOWE, "hour", "2026-04-04T15:15:00Z", ["13:00Z", "14:00Z", "15:30Z"]),
        # They go on from 2:00 to 2:30: the hour of two takes 30 minutes.
        (LORD_HOWE, "hour", "2026-10-03T15:45:00Z", ["14:30Z", "15:30Z", "16:00Z"]),
        ("Europe/Berlin", "hour", "2026-10-25T01:30:00Z", ["00:00Z", "01:00Z", "02:00Z"]),
        ("Asia/Kolkata", "hour", "2026-10-25T01:30:00Z", ["23:30Z", "00:30Z", "01:30Z"]),
    ],
)
def test_hours_are_those_of_the_clock(
    name: str, bucket: Bucket, end: str, bounds: list[str]
) -> None:
    found = bucket_bounds(bucket, 2, datetime.fromisoformat(end), parse_zone(name))
    assert [f"{bound:%H:%MZ}" for bound in found] == bounds


def test_a_day_that_clocks_left_out_has_no_bucket() -> None:
    """Samoa went from the 29th of December 2011 to the 31st."""
    zone = parse_zone(APIA)
    found = bucket_bounds("day", 3, datetime(2011, 12, 31, 12, tzinfo=UTC), zone)
    days = [bound.astimezone(zone).date().day for bound in found]
    assert days == [29, 31, 1, 2]
    assert {after - start for start, after in pairwise(found)} == {timedelta(days=1)}
