"""Times are read in one way, whatever form they have."""

from datetime import datetime

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
