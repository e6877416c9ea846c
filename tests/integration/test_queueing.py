"""Readings that PostgreSQL could not take wait in the queue, and are stored from there once."""

import json
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from faults.relay import Relay
from local.configuration import queue_url, read_local_template
from local.databases import DatabaseUrls
from local.runtime import Environment
from telemetry.database import Database, Row
from telemetry.errors import QueueUnavailable
from telemetry.ingestion import TIME_LIMIT
from telemetry.queue import Queue
from telemetry.worker import MOST_RECEIVES
from tests.integration.conftest import PATIENCE, Api, Queues
from tests.wire import Wire

METER: dict[str, Any] = {
    "meterId": "METER-001",
    "kwhConsumedAc": 5.5,
    "voltage": 240.5,
    "timestamp": "2026-02-10T10:00:00Z",
}
VEHICLE: dict[str, Any] = {
    "vehicleId": "VEH-001",
    "kwhDeliveredDc": 5.06,
    "batteryTemp": 28.3,
    "timestamp": "2026-02-10T10:00:00Z",
}


class Workers:
    """The worker functions, invoked with what is in the queues."""

    def __init__(self, urls: DatabaseUrls, endpoint: str) -> None:
        template = read_local_template({**urls.environment, "AWS_ENDPOINT_URL_SQS": endpoint})
        self._environments = {
            name: Environment(template.functions[name])
            for name in ("MeterWorkerFunction", "VehicleWorkerFunction")
        }

    def handle(self, records: list[dict[str, Any]], stream: str = "Meter") -> list[str]:
        """Return the ids of the messages that shall come again."""
        environment = self._environments[f"{stream}WorkerFunction"]
        answer = environment.invoke({"Records": records}, "request-1")
        return [entry["itemIdentifier"] for entry in answer["batchItemFailures"]]

    def close(self) -> None:
        """End the execution environments, whose connections would outlive the test."""
        for name in ("ingest_meter_worker", "ingest_vehicle_worker"):
            sys.modules.pop(name).database.close()


@pytest.fixture
def workers(urls: DatabaseUrls, queues: Queues) -> Iterator[Workers]:
    opened = Workers(urls, queues.endpoint)
    yield opened
    opened.close()


UNREACHABLE = DatabaseUrls(*["postgresql://telemetry_ingest:x@127.0.0.1:1/telemetry"] * 6)


@pytest.fixture
def long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a circuit that opens stay open for the test."""
    for pause in ("FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(f"telemetry.breaker.{pause}", 2 * PATIENCE)


def wait_at_most(seconds: float) -> None:
    """Have meters' readings wait so long for the database that the API has opened."""
    sys.modules["ingest_meter_api"].database._time_limit = seconds


@pytest.fixture
def cut_off(queues: Queues) -> Iterator[Api]:
    """The API, whose database refuses connections."""
    assert queues
    api = Api(UNREACHABLE)
    yield api
    api.close()


def receipts(connection: psycopg.Connection[Row]) -> list[Row]:
    return connection.execute(
        """SELECT meter_id, "timestamp", received_at FROM meter_telemetry_history
           ORDER BY 1, 2, 3"""
    ).fetchall()


def test_a_reading_that_the_database_refuses_is_queued_and_stored_later(
    cut_off: Api, queues: Queues, workers: Workers, connection: psycopg.Connection[Row]
) -> None:
    answer = cut_off.post("/v1/ingestion/meter", METER)
    assert answer.status == 202
    assert answer.body == {
        "success": True,
        "status": "queued",
        "message": "Meter METER-001 data queued",
    }
    assert cut_off.post("/ingest/vehicle", VEHICLE).status == 202

    [record] = queues.receive()
    message = json.loads(record["body"])
    assert workers.handle([record]) == []
    assert workers.handle(queues.receive("VehicleQueue"), "Vehicle") == []
    [(meter_id, _, received_at)] = receipts(connection)
    assert meter_id == "METER-001"
    assert f"{received_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}" == message["receivedAt"][:19]
    vehicles = connection.execute("SELECT vehicle_id, soc FROM vehicle_live_status").fetchall()
    assert vehicles == [("VEH-001", None)]

    # Delivered again, it is the same receipt.
    assert workers.handle([record, record]) == []
    assert len(receipts(connection)) == 1


@pytest.mark.usefixtures("long_pause")
def test_a_write_that_a_frozen_database_makes_later_is_the_same_receipt(
    wire: Wire,
    urls: DatabaseUrls,
    queues: Queues,
    workers: Workers,
    connection: psycopg.Connection[Row],
) -> None:
    api = Api(replace(urls, ingest=wire.url))
    assert api.post("/ingest/meter", METER).status == 201
    wire.freeze()
    wait_at_most(TIME_LIMIT)
    assert api.post("/ingest/meter", METER | {"kwhConsumedAc": 6}).status == 202
    # The circuit is open: nothing goes to the database.
    sent = len(wire.messages)
    assert api.post("/ingest/meter", METER | {"kwhConsumedAc": 7}).status == 202
    assert len(wire.messages) == sent
    wire.thaw()
    assert workers.handle(queues.receive()) == []
    assert workers.handle(queues.receive()) == []
    stored = connection.execute("SELECT kwh_consumed_ac FROM meter_telemetry_history ORDER BY 1")
    assert stored.fetchall() == [(5.5,), (6,), (7,)]
    api.close()


def test_where_the_queue_fails_too_nothing_is_taken(
    cut_off: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1")
    for path, body in (("meter", METER), ("vehicle", VEHICLE), ("meter/batch", [METER] * 3)):
        answer = cut_off.post(f"/v1/ingestion/{path}", body)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.body["message"] == "Readings cannot be taken now; send the request again"


def test_a_request_does_not_wait_long_though_nothing_answers_it(
    wire: Wire,
    urls: DatabaseUrls,
    queues: Queues,
    monkeypatch: pytest.MonkeyPatch,
    patience: pytest.MonkeyPatch,
) -> None:
    assert queues
    patience.undo()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", f"http://127.0.0.1:{silent.getsockname()[1]}")
        api = Api(replace(urls, ingest=wire.url))
        wire.freeze()
        assert api.post("/ingest/meter", METER).status == 503  # loads the queue's client

        def wait_for_answer() -> float:
            began = time.monotonic()
            answer = api.post("/ingest/meter", METER)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            return time.monotonic() - began

        # 0.9 s of waiting. The rest, and more than one request, is for a machine that has other
        # work: that only adds to what they take.
        assert any(wait_for_answer() < 2 for _ in range(20))
    wire.thaw()
    api.close()


@pytest.mark.usefixtures("long_pause")
def test_the_database_is_tried_before_its_time_where_the_queue_does_not_work(
    wire: Wire, urls: DatabaseUrls, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert queues
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1")
    api = Api(replace(urls, ingest=wire.url))
    wire.freeze()
    wait_at_most(TIME_LIMIT)
    assert api.post("/ingest/meter", METER).status == 503
    wire.thaw()  # the circuit is still open
    wait_at_most(PATIENCE)
    assert api.post("/ingest/meter", METER).status == 201
    api.close()


def test_a_connection_to_the_queue_that_breaks_is_replaced(
    queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(urlsplit(queues.endpoint).port or 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", f"http://127.0.0.1:{relay.port}")
    relay.forbid(b"AmazonSQS.SendMessage", times=1)
    Queue(queue_url(queues.endpoint, "MeterQueue")).send("once")
    assert relay.broken == 1
    assert [record["body"] for record in queues.receive()] == ["once"]
    relay.refuse()


def test_connections_that_rested_for_long_are_opened_anew(
    wire: Wire, urls: DatabaseUrls, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(urlsplit(queues.endpoint).port or 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", f"http://127.0.0.1:{relay.port}")
    queue, opened = Queue(queue_url(queues.endpoint, "MeterQueue")), Database(wire.url)
    for rested, connections in ((False, 1), (False, 1), (True, 2), (True, 3)):
        for module in ("queue", "database"):
            monkeypatch.setattr(f"telemetry.{module}.MOST_IDLE", -1.0 if rested else 240.0)
        queue.send("sent")
        assert opened.fetch("SELECT 1") == [(1,)]
        assert (relay.accepted, len(wire.startups)) == (connections, connections)
    opened.close()
    relay.refuse()


def test_an_environment_connects_before_its_first_request(wire: Wire, urls: DatabaseUrls) -> None:
    template = read_local_template(replace(urls, ingest=wire.url).environment)
    Environment(template.functions["IngestMeterFunction"])
    assert len(wire.startups) == 1
    sys.modules.pop("ingest_meter_api").database.close()


def test_storage_first_sends_everything_through_the_queue(
    urls: DatabaseUrls,
    queues: Queues,
    workers: Workers,
    connection: psycopg.Connection[Row],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INGEST_MODE", "queue")
    api = Api(urls)
    assert api.post("/ingest/meter", METER).status == 202
    assert api.post("/v1/ingestion/meter/batch", [METER, METER | {"voltage": 1}]).status == 202
    api.close()
    assert receipts(connection) == []
    assert workers.handle(queues.receive()) == []
    assert len(receipts(connection)) == 3


def test_a_batch_is_queued_whole_and_told_so(cut_off: Api, queues: Queues) -> None:
    bad = METER | {"voltage": -1}
    answer = cut_off.post("/v1/ingestion/meter/batch", [METER, METER | {"meterId": "M"}])
    assert answer.status == 202
    assert (answer.body["status"], answer.body["accepted"], answer.body["duplicate"]) == (
        "queued",
        2,
        None,
    )
    answer = cut_off.post("/v1/ingestion/meter/batch", [bad, METER])
    assert (answer.status, answer.body["accepted"], answer.body["rejected"]) == (207, 1, 1)
    assert len(queues.receive()) == 2


def test_a_batch_that_is_queued_in_part_is_told_item_by_item(
    cut_off: Api, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends = iter([True, False])
    send = Queue.send

    def send_one(queue: Queue, body: str, attributes: Any = None) -> None:
        if not next(sends):
            raise QueueUnavailable
        send(queue, body, attributes)

    monkeypatch.setattr(Queue, "send", send_one)
    long = {"timestamp": "2026-02-10T10:00:00.123456Z", "kwhDeliveredDc": 0.123456789}
    batch = [VEHICLE | long | {"vehicleId": f"{number:064}"} for number in range(10_000)]
    bad = VEHICLE | {"batteryTemp": -100}
    answer = cut_off.post("/v1/ingestion/vehicle/batch", [bad, *batch[1:]])
    assert answer.status == 207
    [record] = queues.receive("VehicleQueue")
    taken = len(json.loads(record["body"])["readings"]["vehicleId"])
    assert answer.body["accepted"] == taken < len(batch) - 1
    assert answer.body["rejected"] == len(batch) - taken
    assert answer.body["rejectionsOmitted"] == len(batch) - taken - 100
    assert [entry["status"] for entry in answer.body["rejections"]] == [400] + [503] * 99
    assert answer.body["rejections"][1]["index"] == taken + 1


def test_what_can_never_be_stored_is_buried_with_its_reason(
    queues: Queues, workers: Workers, connection: psycopg.Connection[Row], cut_off: Api
) -> None:
    queues.send("noise")
    cut_off.post("/ingest/meter", METER)
    queues.send(queues.receive()[-1]["body"].replace("METER-001", "METER 001"))
    assert workers.handle(queues.receive()) == []
    letters = queues.receive("MeterDeadLetterQueue")
    reasons = sorted(letter["messageAttributes"]["reason"]["stringValue"] for letter in letters)
    assert reasons[0].startswith("1 of 1 readings are not valid; reading 0: meterId: ")
    assert reasons[1].startswith("body: Invalid JSON")
    assert "noise" in {letter["body"] for letter in letters}
    assert len(receipts(connection)) == 1


def test_a_message_whose_data_postgresql_refuses_does_not_hinder_the_others(
    queues: Queues, workers: Workers, connection: psycopg.Connection[Row], cut_off: Api
) -> None:
    connection.execute(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$BEGIN RAISE 'refused' USING ERRCODE = 'data_exception'; END$$"""
    )
    connection.execute(
        """CREATE TRIGGER refuse BEFORE INSERT ON meter_live_status FOR EACH ROW
           WHEN (NEW.meter_id = 'METER-BAD') EXECUTE FUNCTION refuse()"""
    )
    for name in ("METER-001", "METER-BAD", "METER-002"):
        assert cut_off.post("/ingest/meter", METER | {"meterId": name}).status == 202
    assert workers.handle(queues.receive()) == []
    assert [row[0] for row in receipts(connection)] == ["METER-001", "METER-002"]
    [letter] = queues.receive("MeterDeadLetterQueue")
    assert "PostgreSQL refuses it: refused" in letter["messageAttributes"]["reason"]["stringValue"]


def test_while_the_database_is_away_messages_come_again_and_are_renewed_in_time(
    cut_off: Api, queues: Queues
) -> None:
    away = Workers(UNREACHABLE, queues.endpoint)
    cut_off.post("/ingest/meter", METER)
    queues.send("noise")
    for receives in range(1, MOST_RECEIVES):
        good = [record for record in queues.receive() if record["body"] != "noise"]
        assert [int(record["attributes"]["ApproximateReceiveCount"]) for record in good] == [
            receives
        ]
        assert away.handle(good) == [record["messageId"] for record in good]
    [old] = [record for record in queues.receive() if record["body"] != "noise"]
    assert away.handle([old]) == []  # the old one may go: a new one is there
    new = [record for record in queues.receive() if record["messageId"] != old["messageId"]]
    assert [record["body"] for record in new if record["body"] != "noise"] == [old["body"]]
    away.close()


def test_a_worker_that_runs_short_of_time_gives_back_what_it_cannot_store(
    cut_off: Api,
    queues: Queues,
    workers: Workers,
    connection: psycopg.Connection[Row],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_off.post("/ingest/meter", METER)
    [record] = queues.receive()
    with monkeypatch.context() as late:
        late.setattr("telemetry.worker.ENOUGH_TIME", 60_000)  # more than the function has
        assert workers.handle([record]) == [record["messageId"]]
        assert receipts(connection) == []
        record["attributes"]["ApproximateReceiveCount"] = str(MOST_RECEIVES)
        assert workers.handle([record]) == []  # it is on the queue anew
    new = [each for each in queues.receive() if each["messageId"] != record["messageId"]]
    assert [each["body"] for each in new] == [record["body"]]
    assert workers.handle(new) == []
    assert len(receipts(connection)) == 1


def test_a_dead_letter_that_cannot_be_buried_stays(
    queues: Queues, urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues.send("noise")
    [record] = queues.receive()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1")
    alone = Workers(urls, "http://127.0.0.1:1")
    assert alone.handle([record]) == [record["messageId"]]
    alone.close()
