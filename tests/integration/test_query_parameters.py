"""A route takes the query parameters that docs/openapi.json gives it, and no others."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from local.openapi import DOCUMENT
from telemetry.answers import FAULT_ID
from telemetry.database import Row
from telemetry.errors import InvalidRequest
from tests.integration.conftest import Answer, Api
from tests.integration.test_validation import METER, stored

IDS = {
    "vehicleId": "VEH-001",
    "meterId": "METER-001",
    "deviceId": "METER-001",
    "faultId": FAULT_ID,
}
# Which parameters there are does not depend on the server's version.
pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True, scope="session")

MONITORED = {("GET", "/"), ("GET", "/health")}


def routes() -> Iterator[tuple[str, str, list[str]]]:
    """Yield method, path and the names of the query parameters of each route."""
    document: dict[str, Any] = json.loads(DOCUMENT.read_bytes())
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parameters = operation.get("parameters", [])
            names = [each["name"] for each in parameters if each["in"] == "query"]
            yield method.upper(), path.format(**IDS), names


def refusals(answer: Answer) -> dict[str, str]:
    return {error["field"]: error["message"] for error in answer.body["errors"]}


def test_a_parameter_that_a_route_does_not_have_is_refused_with_those_that_it_has(
    api: Api,
) -> None:
    for method, path, names in routes():
        answer = api.request(method, f"{path}?Limits=10&_=1", b"{}")
        if (method, path) in MONITORED:
            assert answer.status == 200
            continue
        assert (answer.status, answer.body["message"]) == (400, "Validation failed"), path
        said = f"No such parameter; this route has {', '.join(names) or 'none'}"
        assert {"Limits": said, "_": said}.items() <= refusals(answer).items()
        sent = "&".join(f"{name}=%00" for name in names)
        assert "No such parameter" not in json.dumps(api.request(method, f"{path}?{sent}").body)


def test_parameters_that_are_wrong_are_told_with_those_that_there_are_not(api: Api) -> None:
    answer = api.get("/v1/live/vehicles?state=online&limit=0")
    assert answer.status == 400
    assert set(refusals(answer)) == {"limit", "state"}


def test_nothing_is_stored_of_a_request_with_an_unknown_parameter(
    api: Api, connection: psycopg.Connection[Row]
) -> None:
    for path, body in (("/ingest/meter", METER), ("/v1/ingestion/meter/batch", [METER])):
        assert api.post(f"{path}?dryRun=true", body).status == 400
    assert stored(connection) == 0


def test_a_path_that_no_route_takes_is_unknown_whatever_its_parameters(api: Api) -> None:
    assert api.get("/v1/analytics/performance/\0?limits=10").status == 404


def test_ops_are_told_what_a_question_cannot_have(api: Api) -> None:
    for question, unknown in (
        ({"vehicleId": "VEH-001", "hour": 48}, "hour"),
        ({"vehicleId": "VEH-001", "fleet": {}}, "fleet"),
        ({"vehicleIds": ["VEH-001"], "fleet": {}}, "fleet"),
        ({"fleet": {"hour": 48}}, "hour"),
    ):
        refused = api.ask(question)
        assert [error["field"] for error in refused["errors"]] == [unknown]
    with pytest.raises(InvalidRequest):
        api.ask({"fleet": {"limit": 10}, "hours": 48})
