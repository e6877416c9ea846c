"""What the environment may say."""

from datetime import timedelta

import pytest

from telemetry.errors import SettingInvalid
from telemetry.settings import Settings
from telemetry.targets import open_target


def test_limits_of_age_are_whole_seconds() -> None:
    settings = Settings({"ONLINE_SECONDS": "90", "STALE_SECONDS": "86400"})
    assert (settings.online_for, settings.stale_for) == (timedelta(seconds=90), timedelta(days=1))


@pytest.mark.parametrize("value", ["", "0", "-5", "1.5", "5m", "٣", "9" * 12])
def test_other_limits_of_age_are_refused(value: str) -> None:
    with pytest.raises(SettingInvalid, match=r"ONLINE_SECONDS is .*a whole number of seconds"):
        _ = Settings({"ONLINE_SECONDS": value}).online_for


@pytest.mark.parametrize("arn", ["", "topic", "arn:aws:sqs:eu-central-1:000000000000:Queue"])
def test_alerts_go_to_a_topic_or_a_bus(arn: str) -> None:
    with pytest.raises(SettingInvalid, match="SNS topic or of an EventBridge bus"):
        open_target(arn)


@pytest.mark.parametrize("hours", ["0", "745", "1.5", "-1", "", "٣"])
def test_faults_are_looked_for_in_an_hour_to_a_month(hours: str) -> None:
    with pytest.raises(SettingInvalid, match="1 to 744"):
        _ = Settings({"FAULT_WINDOW_HOURS": hours}).fault_window
    assert Settings({"FAULT_WINDOW_HOURS": "24"}).fault_window == timedelta(hours=24)
