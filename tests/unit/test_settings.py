"""What the environment may say."""

from datetime import timedelta

import pytest

from telemetry.errors import SettingInvalid
from telemetry.settings import Settings


def test_limits_of_age_are_whole_seconds() -> None:
    settings = Settings({"ONLINE_SECONDS": "90", "STALE_SECONDS": "86400"})
    assert (settings.online_for, settings.stale_for) == (timedelta(seconds=90), timedelta(days=1))


@pytest.mark.parametrize("value", ["", "0", "-5", "1.5", "5m", "٣", "9" * 12])
def test_other_limits_of_age_are_refused(value: str) -> None:
    with pytest.raises(SettingInvalid, match=r"ONLINE_SECONDS is .*a whole number of seconds"):
        _ = Settings({"ONLINE_SECONDS": value}).online_for
