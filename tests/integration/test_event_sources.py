"""Queues on a real SQS server, and what polls them: deleted is what a handler is done with."""

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from local.configuration import queue_arn, queue_url
from local.mapping import Poller, run_environment
from local.queues import Depth, Queues, connect, make_queues
from local.runtime import Environment
from local.sqs import QueueServer
from local.template import EventSource, Function, Queue

QUEUES = (
    Queue(
        "Jobs",
        {
            "VisibilityTimeout": "1",
            "RedrivePolicy": json.dumps(
                {"deadLetterTargetArn": queue_arn("Dead"), "maxReceiveCount": 3}
            ),
        },
    ),
    Queue("Dead", {"MaximumMessageSize": "1048576"}),
)
SOURCE = EventSource("Work", queue_arn("Jobs"), 10, 0, 2, partial_failures=True)

# Does what a message tells it to, and notes its events.
HANDLER = """
import json, os, time
def handler(event, context):
    with open({notes!r}, "a") as notes:
        notes.write(json.dumps(event) + "\\n")
    failed = []
    for record in event["Records"]:
        match record["body"]:
            case "raise":
                raise ValueError("raised")
            case "hang":
                time.sleep(60)
            case "fail":
                failed.append({{"itemIdentifier": record["messageId"]}})
            case "unknown":
                failed.append({{"itemIdentifier": "unknown"}})
    return {{"batchItemFailures": failed}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueServer]:
    running = QueueServer(tmp_path_factory.mktemp("system"))
    running.start(QUEUES)
    running.await_queues()
    yield running
    running.stop()


@pytest.fixture
def client(server: QueueServer) -> Iterator[Any]:
    """A client of queues that are empty and as they were made."""
    connected = connect(server.environment)
    for url in make_queues(connected, QUEUES).values():
        connected.purge_queue(QueueUrl=url)
    yield connected
    connected.close()


@dataclass
class Work:
    """A function that handles the queue Jobs."""

    folder: Path
    client: Any

    @property
    def function(self) -> Function:
        file = self.folder / "worker.py"
        file.write_text(HANDLER.format(notes=str(self.folder / "events")), encoding="utf-8")
        return Function("Work", file, "handler", {}, timeout=1, memory=128)

    @property
    def queues(self) -> Queues:
        endpoint = self.client.meta.endpoint_url
        return Queues(self.client, {name: queue_url(endpoint, name) for name in ("Jobs", "Dead")})

    @property
    def depth(self) -> Depth:
        [depth] = self.queues.depths()
        return depth

    @property
    def events(self) -> list[list[str]]:
        """The bodies of the messages in each event so far."""
        return [[record["body"] for record in event] for event in self.records_of_events()]

    def records_of_events(self) -> list[list[dict[str, Any]]]:
        lines = (self.folder / "events").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["Records"] for line in lines]

    def send(self, *bodies: str, **attributes: str) -> None:
        for body in bodies:
            self.client.send_message(
                QueueUrl=queue_url(self.client.meta.endpoint_url, "Jobs"),
                MessageBody=body,
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value}
                    for name, value in attributes.items()
                },
            )

    def hide_for(self, seconds: int) -> None:
        self.client.set_queue_attributes(
            QueueUrl=queue_url(self.client.meta.endpoint_url, "Jobs"),
            Attributes={"VisibilityTimeout": str(seconds)},
        )

    def show(self, record: dict[str, Any]) -> None:
        """Have a message come again now."""
        self.client.change_message_visibility(
            QueueUrl=queue_url(self.client.meta.endpoint_url, "Jobs"),
            ReceiptHandle=record["receiptHandle"],
            VisibilityTimeout=0,
        )

    def poller(self, **changes: Any) -> Poller:
        return Poller(replace(SOURCE, **changes), Environment(self.function), self.client)


@pytest.fixture
def work(tmp_path: Path, client: Any) -> Work:
    return Work(tmp_path, client)


def test_an_event_is_what_lambda_makes_of_messages(work: Work) -> None:
    work.send("ä", colour="red")
    work.poller().poll()
    [[record]] = work.records_of_events()
    assert record["body"] == "ä"
    assert record["messageAttributes"]["colour"]["stringValue"] == "red"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert int(record["attributes"]["SentTimestamp"]) > 1_700_000_000_000
    assert record["eventSource"] == "aws:sqs"
    assert record["eventSourceARN"] == SOURCE.queue_arn
    assert record["awsRegion"] == "eu-central-1"
    assert work.depth == Depth("Jobs", 0, 0, 0)


def test_what_the_handler_names_comes_again_until_it_is_a_dead_letter(work: Work) -> None:
    work.hide_for(60)
    work.send("good", "fail")
    poller = work.poller()
    poller.poll()
    assert work.depth == Depth("Jobs", 0, 1, 0)
    work.hide_for(0)
    [[_, hidden]] = work.records_of_events()
    work.show(hidden)
    while work.depth.dead == 0:  # ends by the test run's time limit if it stays
        poller.poll()
    assert work.events == [["good", "fail"], ["fail"], ["fail"]]
    [letter] = work.queues.dead_letters()
    assert (letter.queue, letter.body) == ("Jobs", "fail")
    assert letter.reason == "received 4 times, never stored"


@pytest.mark.parametrize("body", ["raise", "unknown"])
def test_a_handler_that_fails_gets_all_messages_again(work: Work, body: str) -> None:
    work.hide_for(60)
    work.send("good", body)
    work.poller().poll()
    assert work.depth == Depth("Jobs", 0, 2, 0)


def test_without_partial_responses_all_messages_are_done(work: Work) -> None:
    work.send("good", "fail")
    work.poller(partial_failures=False).poll()
    assert work.depth == Depth("Jobs", 0, 0, 0)


def test_a_batch_gathers_messages_for_as_long_as_its_window(work: Work) -> None:
    bodies = [str(number) for number in range(25)]
    work.hide_for(60)
    work.send(*bodies)
    work.poller(batch_size=23, window=60).poll()  # which it does not need to wait for
    work.poller(batch_size=23, window=1).poll()
    assert work.events == [bodies[:23], bodies[23:]]


def test_a_worker_past_its_timeout_is_ended_and_its_messages_come_again(
    work: Work, server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    work.send("hang")
    process = multiprocessing.get_context("spawn").Process(
        target=run_environment, args=(SOURCE, work.function)
    )
    process.start()
    process.join(120)
    assert process.exitcode == 1
    while work.depth.waiting == 0:  # ends by the test run's time limit if it is lost
        pass
    assert work.events == [["hang"]]


def test_dead_letters_are_sent_back_once_each(work: Work) -> None:
    for number in range(12):
        work.client.send_message(
            QueueUrl=queue_url(work.client.meta.endpoint_url, "Dead"),
            MessageBody=str(number),
            MessageAttributes={"reason": {"DataType": "String", "StringValue": f"reason {number}"}},
        )
    expected = [(str(number), f"reason {number}") for number in range(12)]
    for _ in range(2):  # to look at them changes nothing
        letters = list(work.queues.dead_letters())
        assert [(letter.body, letter.reason) for letter in letters] == expected
    assert work.queues.redrive() == {"Jobs": 12}
    assert work.depth == Depth("Jobs", 12, 0, 0)
    assert work.queues.redrive() == {"Jobs": 0}
    work.hide_for(60)
    work.poller(batch_size=12, window=60).poll()
    assert work.events == [[body for body, _ in expected]]


def test_messages_outlast_a_stop_and_queues_follow_the_template(tmp_path: Path) -> None:
    first = QueueServer(tmp_path)
    first.start(QUEUES)
    first.await_queues()
    work = Work(tmp_path, connect(first.environment))
    work.send("good")
    first.stop()

    longer = replace(QUEUES[0], attributes={**QUEUES[0].attributes, "VisibilityTimeout": "77"})
    second = QueueServer(tmp_path)
    second.start((longer, QUEUES[1]))
    second.await_queues()
    try:
        assert second.endpoint != first.endpoint
        work = Work(tmp_path, connect(second.environment))
        assert work.depth == Depth("Jobs", 1, 0, 0)
        found = work.client.get_queue_attributes(
            QueueUrl=queue_url(second.endpoint, "Jobs"), AttributeNames=["All"]
        )["Attributes"]
        assert found["VisibilityTimeout"] == "77"
        work.poller().poll()
        assert work.events == [["good"]]
        assert work.depth == Depth("Jobs", 0, 0, 0)
    finally:
        second.stop()


def test_a_killed_server_is_started_again_with_its_queues(tmp_path: Path) -> None:
    server = QueueServer(tmp_path)
    server.start(QUEUES)
    server.await_queues()
    try:
        [process] = processes_of(tmp_path)
        os.kill(process, signal.SIGKILL)
        client = connect(server.environment)
        while True:  # ends by the test run's time limit if it stays away
            try:
                url = queue_url(server.endpoint, "Jobs")
                client.send_message(QueueUrl=url, MessageBody="good")
                break
            except (BotoCoreError, ClientError):
                continue
    finally:
        server.stop()
    assert processes_of(tmp_path) == []


def test_strangers_are_refused(server: QueueServer) -> None:
    stranger = connect({**server.environment, "AWS_ACCESS_KEY_ID": "stranger"})
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        stranger.receive_message(QueueUrl=queue_url(server.endpoint, "Jobs"))


def processes_of(folder: Path) -> list[int]:
    """Return the processes whose environment names the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder / "sqs").encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found
