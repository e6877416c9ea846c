"""What is refused: every failing field is named, and nothing of the request is stored."""

import base64
import io
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from telemetry.answers import FAULT_ID
from telemetry.database import Database, Row
from telemetry.readings import MeterReading
from telemetry.recognition import MOST_MESSAGE_BYTES
from telemetry.store import store_meter_reading
from tests.integration.conftest import Api

METER: dict[str, Any] = {
    "meterId": "METER-001",
    "kwhConsumedAc": 0.5,
    "voltage": 230,
    "timestamp": "2024-02-09T15:30:00Z",
}
VEHICLE: dict[str, Any] = {
    "vehicleId": "VEH-001",
    "soc": 85.5,
    "kwhDeliveredDc": 0.4,
    "batteryTemp": -12.5,
    "timestamp": "2024-02-09T15:30:00+05:30",
}

WRONG_VALUES: list[tuple[str, Any]] = [
    *[("meterId", value) for value in ("", "a" * 65, "a b", "ü", "a/b", "a\n", "a\0", 7)],
    *[("meterId", value) for value in (".", "..")],
    ("meterId", None),
    *[("kwhConsumedAc", value) for value in (-0.001, 1_000_000_001, "1", True, 1e308)],
    ("kwhConsumedAc", None),
    ("kwhConsumedAc", []),
    ("kwhConsumedAc", {}),
    *[("voltage", value) for value in (-1, 1000.1, "220", False)],
    *[("soc", value) for value in (-0.1, 100.1, 900, "85", True)],
    *[("batteryTemp", value) for value in (-60.1, 150.1, "28")],
    *[
        ("timestamp", value)
        for value in (
            "",
            "now",
            "2024-02-09",
            "2024-02-09T15:30:00",
            "2024-02-09T15:30Z",
            "2024-02-30T15:30:00Z",
            "2024-02-09T24:30:00Z",
            "2024-02-09T15:30:00+25:00",
            "1707492600",
            "1707492600000",
            1707492600,
            1707492600.5,
            True,
            "1970-01-01T00:00:00Z",
            "1999-12-31T23:59:59Z",
            "1999-12-31T23:59:60Z",
            "2000-01-01T00:00:00Z",
            "2000-01-01T05:30:00.0+05:30",
            "2024-02-09T15:30:60Z",
            "2024-02-09T15:30:00 01:00",
            "2036-02-07T06:28:16Z",
            "0001-01-01T00:00:00+14:00",
            "2024-02-09T15:30:00+02:60",
            "9999-12-31T23:59:59-14:00",
        )
    ],
    *[("colour", value) for value in ("red", None)],
]


def stored(connection: psycopg.Connection[Row]) -> int:
    [(count,)] = connection.execute(
        """SELECT (SELECT count(*) FROM meter_telemetry_history)
                + (SELECT count(*) FROM vehicle_telemetry_history)
                + (SELECT count(*) FROM meter_live_status)
                + (SELECT count(*) FROM vehicle_live_status)"""
    )
    assert isinstance(count, int)
    return count


def test_every_wrong_value_is_refused_by_name(
    api: Api, connection: psycopg.Connection[Row]
) -> None:
    for field, value in WRONG_VALUES:
        for target, reading in (("meter", METER), ("vehicle", VEHICLE)):
            if field in reading or field == "colour":
                answer = api.post(f"/v1/ingestion/{target}", reading | {field: value})
                assert answer.status == 400, (field, value)
                assert [error["field"] for error in answer.body["errors"]] == [field]
                assert all(error["message"] for error in answer.body["errors"])
    assert stored(connection) == 0


def test_all_failing_fields_are_named_at_once(api: Api) -> None:
    answer = api.post("/ingest/vehicle", {"vehicleId": "?", "soc": 101, "batteryTemp": "x", "y": 1})
    timestamp = answer.body.pop("timestamp")
    assert datetime.fromisoformat(timestamp) <= datetime.now(UTC)
    errors = answer.body.pop("errors")
    assert answer.body == {
        "statusCode": 400,
        "path": "/ingest/vehicle",
        "message": "Validation failed",
    }
    assert {error["field"] for error in errors} == {
        "vehicleId",
        "soc",
        "kwhDeliveredDc",
        "batteryTemp",
        "timestamp",
        "y",
    }


NO_READINGS = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"{}{}",
    json.dumps(METER).encode().replace(b"0.5", b"NaN"),
    json.dumps(METER).encode().replace(b"0.5", b"Infinity"),
    json.dumps(METER).encode().replace(b"0.5", b"1e999"),
    json.dumps(METER).encode().replace(b"METER", b"\\ud800"),
    json.dumps(METER).encode().replace(b"METER", b"\xff"),
    b"[" * 10_000,
    json.dumps([METER]).encode(),
]

EDGE_VALUES: list[tuple[str, Any]] = [
    *[("soc", value) for value in (0, 100, 71.99, None)],
    *[("kwhDeliveredDc", value) for value in (0, 10_000)],
    *[("batteryTemp", value) for value in (-60, 150)],
    *[("vehicleId", value) for value in ("a" * 64, "A.b_c:d-9", "a", "-", ".a", "a.", "...")],
    *[
        ("timestamp", value)
        for value in (
            "2000-01-01T00:00:00.000001Z",
            "2024-02-29T23:59:59.999999-11:30",
            "2016-12-31T23:59:60Z",
            "2024-02-09T15:30:00+23:59",
            "2024-02-09T15:30:00-23:59",
            "2024-02-09t15:30:00z",
            "2024-02-09T15:30:00.1234567Z",
        )
    ],
]


def test_what_is_no_reading_is_refused(api: Api, connection: psycopg.Connection[Row]) -> None:
    for body in NO_READINGS:
        status = 413 if len(body) > MOST_MESSAGE_BYTES else 400
        assert api.post("/ingest/meter", body).status == status, body[:100]
    assert stored(connection) == 0


def test_values_on_the_edge_are_taken(api: Api) -> None:
    for field, value in EDGE_VALUES:
        answer = api.post("/v1/ingestion/vehicle", VEHICLE | {field: value})
        assert answer.status == 201, (field, value)


def test_a_clock_may_be_five_minutes_ahead(api: Api) -> None:
    now = datetime.now(UTC)
    near = (now + timedelta(minutes=4, seconds=50)).isoformat()
    far = (now + timedelta(minutes=5, seconds=10)).isoformat()
    assert api.post("/ingest/meter", METER | {"timestamp": near}).status == 201
    refused = api.post("/ingest/meter", METER | {"timestamp": far})
    assert refused.status == 400
    assert "5 minutes ahead" in refused.body["errors"][0]["message"]


SAID = {"by": "Ada Lovelace", "why": "a test"}
TARIFF = {
    "currency": "EUR",
    "timeZone": "UTC",
    "pricePerKwh": 1,
    "validFrom": "2026-01-01T00:00:00Z",
}
NAMING: list[tuple[str, str, Any, str]] = [
    ("POST", "/ingest/vehicle", VEHICLE | {"vehicleId": ".."}, "vehicleId"),
    ("POST", "/ingest/vehicle", VEHICLE | {"meterId": "."}, "meterId"),
    ("PUT", "/v1/links/VEH-001", {"meterId": ".."}, "meterId"),
    ("PUT", "/v1/links/..", {"meterId": "METER-001"}, "vehicleId"),
    ("PUT", "/v1/devices/.", {"energy": "interval"}, "deviceId"),
    ("PUT", "/v1/tariffs/meters/.", TARIFF, "meterId"),
    ("POST", "/v1/voids", SAID | {"meterId": ".", "timestamp": METER["timestamp"]}, "meterId"),
    ("POST", "/v1/erasures", SAID | {"vehicleId": ".."}, "vehicleId"),
    ("GET", "/v1/live/meters/.", None, "meterId"),
    ("GET", "/v1/voids?vehicleId=.", None, "vehicleId"),
    ("GET", "/v1/analytics/performance?vehicleIds=VEH-001,..", None, "vehicleIds"),
]


def test_an_id_that_a_url_takes_for_a_folder_is_refused_wherever_one_comes_in(api: Api) -> None:
    for method, target, body, field in NAMING:
        answer = api.request(method, target, json.dumps(body).encode() if body else b"")
        assert answer.status == 400, target
        errors = {error["field"]: error["message"] for error in answer.body["errors"]}
        assert ".. alone" in errors.pop(field) or field == "vehicleIds", target
        assert errors == {}


def test_devices_that_were_taken_with_such_an_id_break_no_list(api: Api, writer: Database) -> None:
    for name in (".", "..", "METER-001"):
        reading = MeterReading.model_validate(METER).model_copy(update={"meter_id": name})
        store_meter_reading(writer, reading, datetime.now(UTC))
    page = api.get("/v1/live/meters?limit=2").body
    assert [item["meterId"] for item in page["items"]] == [".", ".."]
    last = api.get(f"/v1/live/meters?limit=2&cursor={page['nextCursor']}").body["items"]
    assert [item["meterId"] for item in last] == ["METER-001"]


def test_a_clock_that_was_never_set_is_told_to_be_set(
    api: Api, connection: psycopg.Connection[Row]
) -> None:
    for timestamp in ("2000-01-01T00:00:00Z", "1970-01-01T00:00:07Z"):
        reading = METER | {"timestamp": timestamp}
        refused = api.post("/ingest/meter", reading).body["errors"]
        batch = api.post("/v1/ingestion/meter/batch", [reading]).body["rejections"][0]["errors"]
        assert refused == batch
        assert "set the device's clock" in refused[0]["message"]
    assert stored(connection) == 0


def test_a_leap_second_counts_as_the_second_after_it(api: Api) -> None:
    times = ("2017-01-01T00:59:60+01:00", "2017-01-01T00:00:00Z")
    leap, after = (METER | {"timestamp": time} for time in times)
    assert api.post("/v1/ingestion/meter/batch", [leap, after]).body["duplicate"] == 1


def test_a_body_in_base64_is_read(api: Api) -> None:
    answer = api.request(
        "POST", "/ingest/meter", json.dumps(METER).encode(), {"content-encoding": "identity"}
    )
    assert answer.status == 201


def test_wrong_parameters_of_a_report_are_named(api: Api) -> None:
    for target, field in (
        ("/v1/analytics/performance/VEH-001?end=yesterday", "end"),
        ("/v1/analytics/performance/VEH-001?end=2024-02-09T15:30:00", "end"),
        ("/v1/analytics/performance/VEH-001?end=0001-01-01T00:00:00Z", "end"),
        ("/v1/analytics/performance/VEH-001?end=9999-12-31T23:59:59-23:59", "end"),
        ("/v1/analytics/performance/VEH 001", "vehicleId"),
        ("/v1/analytics/performance/" + "a" * 65, "vehicleId"),
    ):
        answer = api.get(target)
        assert answer.status == 400
        assert [error["field"] for error in answer.body["errors"]] == [field]


TWICE = [
    ("/v1/live/meters?cursor=a&cursor=b", "cursor"),
    ("/v1/vehicles/VEH-001/readings?tz=UTC&tz=UTC", "tz"),
    ("/v1/vehicles/VEH-001/readings?from=now&from=now", "from"),
    ("/v1/analytics/performance?vehicleIds=VEH-001&vehicleIds=VEH-002", "vehicleIds"),
    ("/v1/analytics/fleet?cursor=a&cursor=b", "cursor"),
    ("/v1/analytics/fleet?end=now&end=now", "end"),
    ("/v1/live/vehicles?limit=1&limit=2", "limit"),
]
RANK = {
    "start": "2024-02-08T15:00:00Z",
    "end": "2024-02-09T15:00:00Z",
    "rank": "1",
    "vehicle_id": "VEH-001",
}


def test_a_parameter_that_comes_twice_is_refused(api: Api) -> None:
    for target, field in TWICE:
        answer = api.get(target)
        assert answer.status == 400, target
        assert {error["field"] for error in answer.body["errors"]} == {field}


def test_a_cursor_that_was_made_up_is_refused(api: Api) -> None:
    def ask(**changes: object) -> int:
        position = json.dumps(RANK | changes).encode()
        cursor = base64.urlsafe_b64encode(position).rstrip(b"=").decode()
        return api.get(f"/v1/analytics/fleet?cursor={cursor}").status

    for rank in ("1", "0", "-1.5", "Infinity", "5E-324", "1" + "0" * 300):
        assert ask(rank=rank) == 200, rank
    for rank in ("NaN", "sNaN", "1e999999", "1e-999999", ""):
        assert ask(rank=rank) == 400, rank
    for name in ("VEH\0", "V" * 65, "", None):
        assert ask(vehicle_id=name) == 400, name
    for start in ("0001-01-01T00:00:00+14:00", "2023-01-01T00:00:00Z", RANK["end"], 0):
        assert ask(start=start) == 400, start
    assert ask(end="9999-12-31T23:59:59-14:00") == 400


def test_a_made_up_cursor_of_voids_or_erasures_is_refused_or_harmless(api: Api) -> None:
    good: dict[str, object] = {
        "at": "2024-02-08T15:00:00Z",
        "stream": "meter",
        "device_id": "METER-001",
        "timestamp": "2024-02-08T15:00:00Z",
        "erasure_id": FAULT_ID,
    }
    first, last = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"
    for change, status in (
        ({}, 200),
        ({"at": first}, 200),
        ({"at": last, "timestamp": last}, 200),
        ({"timestamp": first}, 200),
        ({"device_id": "METER\0"}, 400),
        ({"stream": "\0"}, 400),
        ({"at": "2024-02-08T15:00:00Z\0"}, 400),
        ({"device_id": "METER\0", "erasure_id": "\0"}, 400),
    ):
        position = json.dumps(good | change).encode()
        cursor = base64.urlsafe_b64encode(position).rstrip(b"=").decode()
        assert api.get(f"/v1/voids?cursor={cursor}").status == status, change
        of_erasures = 400 if {"at", "erasure_id"} & change.keys() and status == 400 else 200
        assert api.get(f"/v1/erasures?cursor={cursor}").status == of_erasures, change


def test_the_gateway_answers_what_no_route_takes(api: Api) -> None:
    for method, target in (("GET", "/nope"), ("GET", "/ingest/meter"), ("POST", "/")):
        answer = api.request(method, target)
        assert (answer.status, answer.body) == (404, {"message": "Not Found"})


def test_a_path_that_no_handler_takes_has_the_same_error_shape(api: Api) -> None:
    answer = api.get("/v1/analytics/performance/\0")
    assert answer.status == 404
    assert answer.body.keys() == {"statusCode", "path", "message", "timestamp"}


def test_the_gateway_refuses_too_large_a_body(
    api: Api, connection: psycopg.Connection[Row]
) -> None:
    answer = api.post("/ingest/meter", b" " * (6 * 1024 * 1024) + json.dumps(METER).encode())
    assert (answer.status, answer.body) == (413, {"message": "Request Entity Too Large"})
    assert stored(connection) == 0


def test_every_answer_carries_the_request_id(api: Api) -> None:
    for answer in (
        api.post("/ingest/meter", METER),
        api.post("/ingest/meter", b"?"),
        api.get("/"),
        api.get("/health"),
        api.get("/v1/analytics/performance/UNKNOWN"),
    ):
        assert answer.headers["x-request-id"] == answer.headers["apigw-requestid"]


def test_every_log_line_carries_the_request_id_and_no_value(api: Api) -> None:
    written = io.StringIO()
    for service in ("ingest_meter", "analytics"):
        for handler in logging.getLogger(service).handlers:
            assert isinstance(handler, logging.StreamHandler)
            handler.setStream(written)
    answers = [
        api.post("/ingest/meter", METER | {"voltage": "secret-1"}),
        api.get("/v1/analytics/performance/VEH-1?end=secret-2"),
    ]
    lines = written.getvalue().splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == [
        answer.headers["x-request-id"] for answer in answers
    ]
    assert "secret" not in "".join(lines)
