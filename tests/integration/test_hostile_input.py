"""Whatever is sent: no 5xx, nothing of the inside in an answer, and nothing stored by halves.

`make hostile CASES=60000` sends so many; without it these are enough to notice a regression.
"""

import io
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck, event, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from werkzeug.test import Client, TestResponse
from werkzeug.wrappers import Response

from local.openapi import DOCUMENT
from telemetry.database import Row
from tests.integration.conftest import Api
from tests.integration.hostile import (
    LEAK,
    Sent,
    Undecided,
    expected_readings,
    posts,
    questions,
)

# Split among the tests: two fifths each for bodies and for questions, the rest for the contract.
CASES = int(os.environ.get("HOSTILE_CASES", "1500"))


def cases(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize="HOSTILE_CASES" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )


CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]

# What is sent does not depend on the server's version.
embedded = pytest.mark.parametrize("server", ["embedded"], indirect=True, scope="session")
pytestmark = [embedded]


@dataclass
class Target:
    """The API, what it stored, and what its functions logged."""

    client: Client
    connection: psycopg.Connection[Row]
    log: io.StringIO

    def send(self, sent: Sent) -> TestResponse:
        return self.client.open(
            sent.path,
            method=sent.method,
            query_string=sent.query,
            data=sent.body,
            headers=list(sent.headers.items()),
        )

    def stored(self) -> tuple[Any, ...]:
        """Return how many receipts there are of meters and of vehicles, and the rest as a hash."""
        [row] = self.connection.execute(
            """SELECT (SELECT count(*) FROM meter_telemetry_history),
                      (SELECT count(*) FROM vehicle_telemetry_history),
                      (SELECT sum(hashtext(each::text)) FROM meter_live_status AS each),
                      (SELECT sum(hashtext(each::text)) FROM vehicle_live_status AS each),
                      (SELECT sum(hashtext(each::text)) FROM links AS each),
                      (SELECT sum(hashtext(each::text)) FROM tariff AS each)"""
        )
        return tuple(row)


@pytest.fixture
def target(api: Api, connection: psycopg.Connection[Row]) -> Iterator[Target]:
    log = io.StringIO()
    for service in (
        *("ingest_meter", "ingest_vehicle", "links", "devices", "tariffs", "corrections"),
        *("alerts", "analytics"),
    ):
        for handler in logging.getLogger(service).handlers:
            assert isinstance(handler, logging.StreamHandler)
            handler.setStream(log)
    # As a server passes a request on: percent-encoding undone.
    yield Target(Client(api.gateway, Response), connection, log)
    assert "unhandled error" not in log.getvalue()


def check_answer(answer: TestResponse) -> Any:
    """Return the answer's JSON; it is no server error, and shows nothing of the inside."""
    text = answer.get_data(as_text=True)
    assert answer.status_code < 500, text
    said = json.loads(text) if answer.mimetype == "application/json" and text else {}
    shown = said.copy() if isinstance(said, dict) else {}
    for own in ("path", "service"):  # the client's own words
        shown.pop(own, None)
    for error in [*(shown.get("errors") or []), *rejected_errors(shown)]:
        error.pop("field", None)
    assert not LEAK.search(json.dumps(shown)), text
    if answer.status_code >= 400 and answer.mimetype == "application/json" and said:
        assert said.keys() >= {"message"}
    return said


def rejected_errors(said: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for rejection in said.get("rejections") or []:
        yield from rejection["errors"]


def test_a_body_is_taken_whole_or_leaves_nothing(target: Target) -> None:
    @cases(CASES * 2 // 5)
    @given(posts())
    def check(sent: Sent) -> None:
        rows = target.stored()
        answer = target.send(sent)
        said = check_answer(answer)
        event(f"{answer.status_code}")
        now = target.stored()
        assert not sent.query or answer.status_code >= 400
        if answer.status_code >= 400:
            assert now == rows
        elif "/ingest" in sent.path:
            meters, vehicles = now[0] - rows[0], now[1] - rows[1]
            count = said.get("accepted", 1)
            assert answer.status_code in (201, 207)
            assert (meters, vehicles) == ((count, 0) if "meter" in sent.path else (0, count))
        if sent.meant is not None and not sent.query and "/ingest" in sent.path:
            compare_with_reference(sent, answer.status_code, said)

    check()


def compare_with_reference(sent: Sent, status: int, said: dict[str, Any]) -> None:
    """Compare what was taken with what docs/openapi.json says is a reading."""
    assert sent.meant is not None
    many = sent.path.endswith("/batch")
    stream = "meter" if "meter" in sent.path else "vehicle"
    try:
        expected = expected_readings(stream, sent.meant, many=many)
    except Undecided:
        return
    if expected is None or not any(expected):
        assert status in (400, 413), sent.meant
    elif not many:
        assert status == 201, sent.meant
    else:
        assert said["accepted"] == sum(expected), sent.meant
        assert status == (201 if all(expected) else 207)
        if not said["rejectionsOmitted"]:
            rejected = [index for index, valid in enumerate(expected) if not valid]
            assert [rejection["index"] for rejection in said["rejections"]] == rejected


def test_a_question_is_answered_or_refused(target: Target) -> None:
    for kind, name in (("meter", "kwhConsumedAc"), ("vehicle", "kwhDeliveredDc")):
        reading = {
            f"{kind}Id": f"{kind[0].upper()}-1",
            name: 1,
            "timestamp": "2024-02-09T15:30:00Z",
        }
        more = {"voltage": 230} if kind == "meter" else {"batteryTemp": 20, "meterId": "M-1"}
        posted = target.client.post(f"/ingest/{kind}", json=reading | more)
        assert posted.status_code == 201

    @cases(CASES * 2 // 5)
    @given(questions())
    def check(sent: Sent) -> None:
        rows = target.stored()
        answer = target.send(sent)
        check_answer(answer)
        event(f"{sent.method} {answer.status_code}")
        if (sent.method, answer.status_code) != ("DELETE", 200):
            assert target.stored() == rows

    check()


def test_answers_are_those_of_the_document(target: Target) -> None:
    document: Any = schemathesis.openapi.from_path(str(DOCUMENT))
    operations = [each for result in document.get_all_operations() if (each := result.ok())]
    modes = [
        (operation, mode)
        for operation in operations
        for mode in GenerationMode
        if mode == GenerationMode.POSITIVE
        or any((operation.path_parameters, operation.query, operation.body))
    ]
    for operation, mode in modes:

        @cases(max(3, CASES // 5 // len(modes)))
        @given(operation.as_strategy(mode))
        def check(case: Any) -> None:
            answer = case.call(app=target.client.application)
            assert answer.status_code < 500, answer.text
            by_gateway = "x-request-id" not in answer.headers
            if by_gateway or (answer.status_code == 404 and '"Not Found"' in answer.text):
                return  # what no route takes is in no route's document
            case.validate_response(answer, checks=CHECKS)

        check()
