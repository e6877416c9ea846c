"""What is logged helps, and has nothing in it that is anybody's secret or property."""

import json
import logging
import os
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from local.configuration import read_local_template
from local.databases import DatabaseUrls
from local.postgres import free_port
from local.runtime import Environment
from tests.integration.conftest import Api, logged_text, secrets_of
from tests.integration.test_validation import METER, VEHICLE
from tests.wire import at_port

TOKEN = "Bearer eyJhbGciOiJub25lIn0.c2VjcmV0.c2lnbmVk"
HEADERS = {"Authorization": TOKEN, "Cookie": "session=4d61726b", "X-Api-Key": "k-4d61726b"}
MARK = "mark4d61726b"
embedded = pytest.mark.parametrize("server", ["embedded"], indirect=True, scope="session")


def send_everything(api: Api) -> list[int]:
    """Return the statuses of requests that are taken, refused, and not understood."""
    return [
        api.request(method, target, json.dumps(body).encode() if body else b"", HEADERS).status
        for method, target, body in [
            ("POST", "/ingest/meter", METER),
            ("POST", "/ingest/vehicle", VEHICLE | {"meterId": METER["meterId"]}),
            ("POST", "/ingest/meter", METER | {"meterId": f"{MARK}/{MARK}"}),
            ("POST", "/ingest/meter", METER | {"voltage": MARK}),
            ("POST", "/ingest/vehicle", MARK),
            ("POST", "/v1/ingestion/meter/batch", [METER, METER | {"timestamp": MARK}]),
            ("PUT", "/v1/links/VEH-001", {"meterId": "METER-001", "validFrom": MARK}),
            ("PUT", "/v1/links/VEH-001", {"meterId": "METER-001"}),
            ("GET", f"/v1/analytics/performance/VEH-001?end={MARK}", None),
            ("GET", f"/v1/live/meters?cursor={MARK}", None),
            ("GET", "/v1/live/meters", None),
            ("GET", "/v1/meters/METER-001/readings", None),
            ("GET", "/health", None),
        ]
    ]


def check_logged(logged: str, urls: DatabaseUrls) -> None:
    for secret in (*secrets_of(urls), TOKEN, *HEADERS.values(), MARK):
        assert secret not in logged
    for reading in (METER, VEHICLE):
        assert json.dumps(reading) not in logged


@embedded
def test_requests_leave_no_secret_and_no_value_in_the_log(
    api: Api, urls: DatabaseUrls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    statuses = send_everything(api)
    assert {200, 201, 400} <= set(statuses)
    assert max(statuses) < 500
    logged = logged_text(caplog)
    assert "request refused" in logged
    check_logged(logged, urls)


@embedded
def test_a_database_that_cannot_be_reached_is_logged_without_its_url(
    urls: DatabaseUrls, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    away = replace(urls, ingest=at_port(urls.ingest, port), read=at_port(urls.read, port))
    check_unavailable(away, caplog, f"port {port}")


@embedded
def test_a_password_that_is_refused_is_not_logged(
    urls: DatabaseUrls, caplog: pytest.LogCaptureFixture
) -> None:
    def changed(url: str) -> str:
        return url.replace(urlsplit(url).password or "", f"{MARK}-password")

    refused = replace(urls, ingest=changed(urls.ingest), read=changed(urls.read))
    check_unavailable(refused, caplog, "password authentication failed")


def check_unavailable(urls: DatabaseUrls, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    caplog.set_level(logging.DEBUG)
    api = Api(urls)
    try:
        statuses = send_everything(api)
    finally:
        api.close()
    assert 503 in statuses
    logged = logged_text(caplog)
    assert reason in logged  # whoever is on call has to know
    check_logged(logged, urls)


@embedded
def test_a_message_that_cannot_be_stored_is_logged_by_its_fields(
    urls: DatabaseUrls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    template = read_local_template({**os.environ, **urls.environment})
    worker = Environment(template.functions["MeterWorkerFunction"])
    message = {
        "stream": "meter",
        "receivedAt": "2026-02-10T10:00:00Z",
        "readings": {name: [value] for name, value in (METER | {"voltage": MARK}).items()},
    }
    record: dict[str, Any] = {
        "messageId": "1",
        "body": json.dumps(message),
        "attributes": {"ApproximateReceiveCount": "1"},
    }
    for body in (record["body"], MARK, json.dumps(message | {"stream": "vehicle"})):
        answer = worker.invoke({"Records": [record | {"body": body}]}, "request-1")
        assert answer["batchItemFailures"] == [{"itemIdentifier": "1"}]
    logged = logged_text(caplog)
    assert "a dead letter stays in the queue" in logged
    check_logged(logged, urls)
