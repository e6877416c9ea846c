"""Many readings in one request: each item judged alone, all valid ones stored together."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from local.databases import DatabaseUrls
from telemetry.batches import parse_batch
from telemetry.bodies import MOST_BODY_BYTES, MOST_MEMBERS
from telemetry.database import Database, Row
from telemetry.ingestion import Ingestion
from telemetry.intake import METERS
from telemetry.observability import build_logger
from telemetry.queue import Queue
from telemetry.readings import MeterReading
from telemetry.recognition import MOST_MESSAGE_BYTES
from tests.integration.conftest import Answer, Api
from tests.integration.test_validation import METER, VEHICLE

PATHS = {"meter": METER, "vehicle": VEHICLE}


def minutes(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        METER | {"timestamp": f"2024-02-09T{minute // 60:02}:{minute % 60:02}:00Z"} | changes
        for minute in range(count)
    ]


def counts(answer: Answer) -> tuple[Any, ...]:
    names = ("accepted", "duplicate", "corrected", "rejected")
    return (answer.status, *(answer.body[name] for name in names))


@pytest.mark.parametrize("stream", PATHS)
def test_all_stored(api: Api, connection: psycopg.Connection[Row], stream: str) -> None:
    answer = api.post(f"/v1/ingestion/{stream}/batch", [PATHS[stream]] * 2)
    assert answer.status == 201
    assert answer.body == {
        "success": True,
        "status": "stored",
        "message": "2 readings stored",
        "accepted": 2,
        "duplicate": 1,
        "corrected": 0,
        "rejected": 0,
        "rejections": [],
        "rejectionsOmitted": 0,
    }
    stored = connection.execute(f"SELECT count(*) FROM {stream}_telemetry_history".encode())
    assert stored.fetchone() == (2,)


def test_known_readings_are_told_from_new_ones(api: Api) -> None:
    assert counts(api.post("/v1/ingestion/meter/batch", minutes(10))) == (201, 10, 0, 0, 0)
    assert counts(api.post("/v1/ingestion/meter/batch", minutes(12))) == (201, 12, 10, 0, 0)
    corrected = minutes(5, voltage=1)
    assert counts(api.post("/v1/ingestion/meter/batch", corrected)) == (201, 5, 0, 5, 0)


def test_invalid_items_do_not_hinder_the_others(
    api: Api, connection: psycopg.Connection[Row]
) -> None:
    items = [*minutes(2), METER | {"voltage": -1, "meterId": "?"}, 7, *minutes(3)[2:]]
    answer = api.post("/v1/ingestion/meter/batch", items)
    assert counts(answer) == (207, 3, 0, 0, 2)
    assert answer.body["success"] is False
    assert [(item["index"], item["status"]) for item in answer.body["rejections"]] == [
        (2, 400),
        (3, 400),
    ]
    first, second = (item["errors"] for item in answer.body["rejections"])
    assert [error["field"] for error in first] == ["meterId", "voltage"]
    assert second == [{"field": "body", "message": "Input should be an object"}]
    assert connection.execute("SELECT count(*) FROM meter_telemetry_history").fetchone() == (3,)


def test_where_no_item_is_valid_it_is_an_error(api: Api) -> None:
    answer = api.post("/v1/ingestion/meter/batch", [{}] * 150)
    assert counts(answer) == (400, 0, None, None, 150)
    assert answer.body["statusCode"] == 400
    assert answer.body["path"] == "/v1/ingestion/meter/batch"
    assert answer.body["status"] == "refused"
    assert len(answer.body["rejections"]) == 100
    assert answer.body["rejectionsOmitted"] == 50


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[]", b"7", b"[{]"])
def test_what_is_no_array_is_refused_as_a_whole(api: Api, body: bytes) -> None:
    answer = api.post("/v1/ingestion/meter/batch", body)
    assert (answer.status, answer.body["message"]) == (400, "Validation failed")
    assert [error["field"] for error in answer.body["errors"]] == ["body"]


def test_more_readings_than_a_request_may_hold_are_refused(api: Api) -> None:
    answer = api.post("/v1/ingestion/meter/batch", [METER] * 10_001)
    assert answer.status == 400
    assert answer.body["errors"][0]["message"] == (
        "Input should have at most 10,000 readings, not 10,001"
    )
    assert api.post("/v1/ingestion/meter/batch", [METER] * 10_000).status == 201


def send_zipped(api: Api, path: str, body: bytes, encoding: str = "gzip") -> Answer:
    return api.request("POST", path, body, {"Content-Encoding": encoding})


def test_bodies_may_be_compressed(api: Api) -> None:
    batch = gzip.compress(json.dumps(minutes(100)).encode())
    assert send_zipped(api, "/v1/ingestion/meter/batch", batch).status == 201
    one = gzip.compress(json.dumps(METER).encode())
    assert send_zipped(api, "/v1/ingestion/meter", one, "GZIP").status == 201
    two_members = gzip.compress(b"[" + json.dumps(METER).encode()) + gzip.compress(b"]")
    assert send_zipped(api, "/v1/ingestion/meter/batch", two_members).status == 201


def test_what_cannot_be_unpacked_is_refused(api: Api) -> None:
    good = gzip.compress(json.dumps([METER]).encode())
    for bad in (b"", b"no gzip", good[:-9], good[:20] + b"x" + good[21:], good + b"x"):
        answer = send_zipped(api, "/v1/ingestion/meter/batch", bad)
        assert (answer.status, answer.body["errors"][0]["field"]) == (400, "body"), bad
    bomb = gzip.compress(b" " * (MOST_BODY_BYTES + 1))
    answer = send_zipped(api, "/v1/ingestion/meter/batch", bomb)
    assert (answer.status, answer.body["statusCode"]) == (413, 413)
    assert send_zipped(api, "/v1/ingestion/meter/batch", good, "br").status == 415


def test_no_more_is_unpacked_than_a_route_takes(api: Api) -> None:
    """What comes after the limit is broken, which only who unpacks it finds out."""
    for path, limit in (
        ("/v1/ingestion/meter", MOST_MESSAGE_BYTES),
        ("/v1/links/VEH-1", MOST_MESSAGE_BYTES),
        ("/v1/ingestion/meter/batch", MOST_BODY_BYTES),
    ):
        method = "PUT" if "links" in path else "POST"
        broken = gzip.compress(b" " * 2 * limit)[:-8] + b"checksum"
        answer = api.request(method, path, broken, {"Content-Encoding": "gzip"})
        assert answer.status == 413, path
        assert f"at most {limit} bytes" in answer.body["message"]


def test_a_compressed_body_may_have_a_member_for_each_reading_and_no_more(api: Api) -> None:
    nothing = gzip.compress(b"")
    one = gzip.compress(json.dumps([METER]).encode())
    path = "/v1/ingestion/meter/batch"
    assert send_zipped(api, path, nothing * (MOST_MEMBERS - 1) + one).status == 201
    answer = send_zipped(api, path, nothing * MOST_MEMBERS + one)
    assert answer.status == 400
    assert "at most 10,000 members" in answer.body["errors"][0]["message"]
    members = [gzip.compress(json.dumps(reading).encode() + b",") for reading in minutes(999)]
    readings = b"".join([gzip.compress(b"["), *members, gzip.compress(json.dumps(METER).encode())])
    assert send_zipped(api, path, readings + gzip.compress(b"]")).body["accepted"] == 1000
    one = gzip.compress(json.dumps(METER).encode())
    assert send_zipped(api, "/ingest/meter", nothing * 500 + one).status == 201
    assert send_zipped(api, "/ingest/meter", nothing * 1000 + one).status == 413


def test_gateways_with_overlapping_devices_neither_fail_nor_count_twice(
    urls: DatabaseUrls, connection: psycopg.Connection[Row]
) -> None:
    devices, gateways, batches = 20, 4, 5

    def send(gateway: int) -> None:
        database = Database(urls.ingest)
        unused = Queue("unused")
        ingestion = Ingestion(METERS, database, unused, unused, build_logger("gateway"))
        for number in range(batches):
            # Hours of buffered readings, devices in another order each time, all of it sent twice.
            body = json.dumps(
                [
                    reading | {"meterId": f"METER-{(gateway + device * 7 + number) % devices}"}
                    for device in range(devices)
                    for reading in minutes(20)[number * 3 :]
                ]
            )
            for _ in range(2):
                batch = parse_batch(MeterReading, body)
                taken = ingestion.take_batch(batch, datetime.now(UTC))
                assert taken is not None
                assert (taken.status, batch.rejections) == ("stored", [])
        database.close()

    with ThreadPoolExecutor(gateways) as pool:
        list(pool.map(send, range(gateways)))
    summed = connection.execute(
        "SELECT count(*), sum(readings), sum(kwh_consumed_ac) FROM meter_hourly_rollup"
    ).fetchone()
    assert summed == (devices * 2, devices * 20, devices * 20 / 2)  # one ends at midnight
