"""Times are read in one way, whatever form they have."""

from datetime import UTC, datetime

import pytest
from pydantic_core import PydanticCustomError

from telemetry.recognition import parse_time

TIME = "2026-02-10T10:00:00Z"
# Digits, what stands between them in this form or in others of ISO 8601, and what is neither.
CHARACTERS = "01234569-:TtZz+.,Ww /_\0\n²٣５é\ud800"


def read(text: str) -> datetime | None:
    try:
        return parse_time(text)
    except PydanticCustomError:
        return None


@pytest.mark.parametrize("place", range(len(TIME)))
def test_the_short_form_is_read_as_the_same_time_with_a_fraction_is(place: int) -> None:
    for character in CHARACTERS:
        text = TIME[:place] + character + TIME[place + 1 :]
        assert read(text) == read(text[:-1] + ".0" + text[-1]), text


def test_a_time_is_in_utc() -> None:
    for text in (TIME, "2026-02-10T10:00:00.0Z", "2026-02-10T15:30:00+05:30"):
        time = parse_time(text)
        assert time.isoformat() == "2026-02-10T10:00:00+00:00"


def test_a_leap_second_is_the_second_after_it() -> None:
    midnight = datetime(2017, 1, 1, tzinfo=UTC)
    for text in (
        "2016-12-31T23:59:60Z",
        "2016-12-31t23:59:60z",
        "2016-12-31T15:59:60-08:00",
        "2017-01-01T05:29:60+05:30",
    ):
        assert read(text) == midnight, text
    assert read("2016-12-31T23:59:60.25Z") == midnight.replace(microsecond=250_000)
    for text in (
        "2016-12-31T23:59:61Z",
        "2016-12-31T23:58:60Z",
        "2016-12-31T22:59:60Z",
        "2016-12-31T23:59:60+01:00",
        "9999-12-31T23:59:60Z",
    ):
        assert read(text) is None, text
