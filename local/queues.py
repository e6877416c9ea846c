"""The queues of template.yaml on a server of this machine: made, counted, brought back.

And its table, which the same server keeps.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local import LocalError
from local.configuration import ARCHIVE, queue_url
from local.folder import read_file, running_pid
from local.template import Queue, Table

# The profile and the files of whoever calls this, a mistake in which would be an error, are not
# looked at: (name in the file, variable, value, conversion).
_NOBODY = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
# The most that SQS gives in one call.
MOST_MESSAGES = 10
# How long a dead letter that somebody looks at is hidden from whoever looks next.
LOOK_SECONDS = 30


def connect(environ: Mapping[str, str], service: str = "sqs") -> Any:
    """Return a client of SQS, or of a neighbour, for the server that the variables name."""
    session = boto3.Session(botocore_session=botocore.session.Session(_NOBODY))
    return session.client(
        service,
        endpoint_url=environ["AWS_ENDPOINT_URL_SQS"],
        region_name=environ["AWS_REGION"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
        # Straight there: a proxy of the environment does not know this machine's ports.
        config=Config(proxies={}, retries={"mode": "standard", "total_max_attempts": 2}),
    )


def make_queues(client: Any, queues: Sequence[Queue]) -> dict[str, str]:
    """Make the queues that do not exist, give all their attributes, and return their URLs."""
    urls = {queue.name: queue_url(client.meta.endpoint_url, queue.name) for queue in queues}
    for name in urls:
        try:
            client.get_queue_url(QueueName=name)
        except client.exceptions.QueueDoesNotExist:
            client.create_queue(QueueName=name)
    for queue in queues:  # when all of them exist: a redrive policy names another
        client.set_queue_attributes(QueueUrl=urls[queue.name], Attributes=dict(queue.attributes))
    return urls


def make_tables(client: Any, tables: Sequence[Table]) -> None:
    """Make the DynamoDB tables that do not exist."""
    for table in tables:
        with suppress(client.exceptions.ResourceInUseException):
            client.create_table(TableName=table.name, **table.definition)


def make_bucket(environ: Mapping[str, str]) -> None:
    """Make the bucket of the archive where there is none; each version of an object stays."""
    client = connect(environ, "s3")
    if ARCHIVE not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(
            Bucket=ARCHIVE, CreateBucketConfiguration={"LocationConstraint": environ["AWS_REGION"]}
        )
    client.put_bucket_versioning(Bucket=ARCHIVE, VersioningConfiguration={"Status": "Enabled"})


@dataclass(frozen=True)
class Depth:
    """How many messages of a queue wait, are with a worker, and are among its dead letters."""

    queue: str
    waiting: int
    in_flight: int
    dead: int


@dataclass(frozen=True)
class DeadLetter:
    """A message that was not stored, and why."""

    message_id: str
    queue: str
    sent_at: datetime
    reason: str
    body: str


class Queues:
    """Queues with dead letters, and who looks after them. All methods raise LocalError."""

    def __init__(self, client: Any, urls: Mapping[str, str]) -> None:
        self._client = client
        self._urls = urls

    @classmethod
    def of_system(cls, folder: Path) -> "Queues":
        """Return the queues of the system that runs in a folder."""
        if running_pid(folder) is None:
            raise LocalError("nothing is running here: `make run`")
        client = connect(json.loads(read_file(folder, "sqs.json")))
        return cls(client, json.loads(read_file(folder, "queues.json")))

    def depths(self) -> list[Depth]:
        """Count the messages of each queue that has dead letters."""
        with _one_line():
            return [
                Depth(source, *self._count(source), sum(self._count(dead)))
                for source, dead in self._pairs()
            ]

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Look at each dead letter, which stays where it is."""
        with _one_line():
            for source, dead in self._pairs():
                for message in self._look(dead):
                    yield _dead_letter(source, message)

    def discard(self, message_id: str) -> DeadLetter:
        """Delete a dead letter for good, and return it."""
        with _one_line():
            for source, dead in self._pairs():
                for message in self._look(dead):
                    if message["MessageId"] == message_id:
                        self._delete(dead, message)
                        return _dead_letter(source, message)
        raise LocalError(f"there is no dead letter {message_id}: `make dead-letters` lists them")

    def redrive(self) -> dict[str, int]:
        """Send the dead letters back to their queues; return how many went to which.

        One that was sent and then cannot be deleted comes twice, which stores its readings once.
        """
        moved = {}
        with _one_line():
            for source, dead in self._pairs():
                moved[source] = 0
                for message in chain.from_iterable(self._receive(dead)):
                    self._client.send_message(
                        QueueUrl=self._urls[source],
                        MessageBody=message["Body"],
                        MessageAttributes=message.get("MessageAttributes", {}),
                    )
                    self._delete(dead, message)
                    moved[source] += 1
        return moved

    def _pairs(self) -> Iterator[tuple[str, str]]:
        """Yield each queue and the one that its dead letters go to, by their names."""
        for name in self._urls:
            policy = json.loads(self._attributes(name).get("RedrivePolicy", "{}"))
            if policy:
                yield name, policy["deadLetterTargetArn"].rpartition(":")[2]

    def _attributes(self, name: str) -> dict[str, str]:
        answer = self._client.get_queue_attributes(
            QueueUrl=self._urls[name], AttributeNames=["All"]
        )
        attributes: dict[str, str] = answer["Attributes"]
        return attributes

    def _count(self, name: str) -> tuple[int, int]:
        found = self._attributes(name)
        waiting, delayed, in_flight = (
            int(found[f"ApproximateNumberOfMessages{kind}"])
            for kind in ("", "Delayed", "NotVisible")
        )
        return waiting + delayed, in_flight

    def _delete(self, name: str, message: Mapping[str, Any]) -> None:
        self._client.delete_message(
            QueueUrl=self._urls[name], ReceiptHandle=message["ReceiptHandle"]
        )

    def _look(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the messages that wait now, and have them wait again afterwards."""
        looked_at = []
        try:
            for messages in self._receive(name):
                looked_at += [message["ReceiptHandle"] for message in messages]
                yield from messages
        finally:
            for handle in looked_at:
                # One that was deleted meanwhile is not there any more.
                with suppress(self._client.exceptions.ClientError):
                    self._client.change_message_visibility(
                        QueueUrl=self._urls[name], ReceiptHandle=handle, VisibilityTimeout=0
                    )

    def _receive(self, name: str) -> Iterator[list[dict[str, Any]]]:
        """Yield the messages that wait now, some at once, and none that arrive in the meantime.

        A worker may bring a dead letter back faster than this goes through all of them.
        """
        left, _ = self._count(name)
        while left > 0:
            received = self._client.receive_message(
                QueueUrl=self._urls[name],
                MaxNumberOfMessages=min(left, MOST_MESSAGES),
                VisibilityTimeout=LOOK_SECONDS,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            ).get("Messages", [])
            if not received:
                return
            yield received
            left -= len(received)


def _dead_letter(queue: str, message: dict[str, Any]) -> DeadLetter:
    system = message["Attributes"]
    unsaid = f"received {system['ApproximateReceiveCount']} times, never stored"
    attribute = message.get("MessageAttributes", {}).get("reason", {})
    return DeadLetter(
        message_id=message["MessageId"],
        queue=queue,
        sent_at=datetime.fromtimestamp(int(system["SentTimestamp"]) / 1000, UTC),
        reason=attribute.get("StringValue", unsaid),
        body=message["Body"],
    )


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise LocalError(f"the queues do not answer: {error}") from None
