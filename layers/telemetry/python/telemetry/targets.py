"""Where alerts are published: an SNS topic, or an EventBridge bus."""

from collections.abc import Sequence
from typing import Any, Protocol

from telemetry.clients import open_client
from telemetry.errors import AlertsUnpublished, SettingInvalid
from telemetry.faults import Notice

# The most that both take at once.
MOST_NOTICES = 10
# Seconds, each. A transaction that holds the changes waits meanwhile: no longer than its role's
# idle_in_transaction_session_timeout.
CONNECT_TIMEOUT = 2
READ_TIMEOUT = 5
PUBLISH_SECONDS = CONNECT_TIMEOUT + READ_TIMEOUT


class Target(Protocol):
    """Where changes are published."""

    def publish(self, notices: Sequence[Notice]) -> list[Notice]:
        """Return which of at most MOST_NOTICES were taken. Raises AlertsUnpublished."""


class Topic:
    """An SNS topic: each change a message, with attributes that subscriptions can filter by."""

    def __init__(self, arn: str) -> None:
        self._arn = arn
        self._client: Any = None

    def publish(self, notices: Sequence[Notice]) -> list[Notice]:
        """Return which of the changes the topic took. Raises AlertsUnpublished."""
        from botocore.exceptions import BotoCoreError, ClientError

        self._client = self._client or _connect("sns")
        entries = [
            {
                "Id": str(number),
                "Subject": f"Charger fault {notice.change}: {notice.vehicle_id}",
                "Message": notice.model_dump_json(by_alias=True),
                "MessageAttributes": {
                    name: {"DataType": "String", "StringValue": value}
                    for name, value in (
                        ("change", notice.change),
                        ("kind", notice.kind),
                        ("vehicleId", notice.vehicle_id),
                        ("meterId", notice.meter_id),
                    )
                },
            }
            for number, notice in enumerate(notices)
        ]
        try:
            answer = self._client.publish_batch(
                TopicArn=self._arn, PublishBatchRequestEntries=entries
            )
        except (BotoCoreError, ClientError) as error:
            raise AlertsUnpublished from error
        return [notices[int(entry["Id"])] for entry in answer.get("Successful", [])]


class Bus:
    """An EventBridge bus: each change an event, the change in its detail type."""

    def __init__(self, arn: str) -> None:
        self._arn = arn
        self._client: Any = None

    def publish(self, notices: Sequence[Notice]) -> list[Notice]:
        """Return which of the changes the bus took. Raises AlertsUnpublished."""
        from botocore.exceptions import BotoCoreError, ClientError

        self._client = self._client or _connect("events")
        entries = [
            {
                "EventBusName": self._arn,
                "Source": "energy-ingestion-engine",
                "DetailType": f"Charger fault {notice.change}",
                "Detail": notice.model_dump_json(by_alias=True),
            }
            for notice in notices
        ]
        try:
            results = self._client.put_events(Entries=entries)["Entries"]
        except (BotoCoreError, ClientError) as error:
            raise AlertsUnpublished from error
        return [
            notice for notice, result in zip(notices, results, strict=True) if result.get("EventId")
        ]


def open_target(arn: str) -> Target:
    """Return the SNS topic or the EventBridge bus of an ARN. Raises SettingInvalid."""
    match arn.split(":")[:3]:
        case ["arn", _, "sns"]:
            return Topic(arn)
        case ["arn", _, "events"]:
            return Bus(arn)
    raise SettingInvalid("ALERT_TARGET", arn, "the ARN of an SNS topic or of an EventBridge bus")


def _connect(service: str) -> Any:
    return open_client(service, connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT)
