"""How the texts of query parameters are read."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic_core import PydanticCustomError

from telemetry.parameters import parse_instant


def test_an_instant_is_now_or_a_time_of_this_century() -> None:
    assert parse_instant("2026-02-10T15:30:00+05:30") == datetime(2026, 2, 10, 10, tzinfo=UTC)
    assert abs(datetime.now(UTC) - parse_instant("now")) < timedelta(seconds=10)
    for text in ("", "NOW", "2026-02-10", "1999-12-31T23:59:59Z", "2100-01-01T00:00:00Z"):
        with pytest.raises(PydanticCustomError):
            parse_instant(text)


def test_a_space_before_an_offset_is_the_plus_that_was_not_encoded() -> None:
    midnight = datetime(2026, 10, 26, 23, tzinfo=UTC)
    for text in ("2026-10-27T00:00:00 01:00", "2026-10-27 00:00:00.000 01:00"):
        assert parse_instant(text) == midnight
    for text in ("2026-10-27 00:00", "2026-10-27T00:00:00  01:00", "2026-10-27T00:00:00 01:00\n"):
        with pytest.raises(PydanticCustomError):
            parse_instant(text)
