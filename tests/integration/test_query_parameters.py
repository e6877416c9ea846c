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
from tests.integration.test_validation import METER, VEHICLE, stored

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


NOON = "2024-02-09T12:00:00+01:00"


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


def test_a_plus_that_was_not_encoded_is_a_plus(api: Api) -> None:
    for method, path, names in routes():
        for name in names:
            for value in (NOON, "Etc/GMT+5"):
                encoded = value.replace("+", "%2B")
                plain, meant = (
                    api.request(method, f"{path}?{name}={each}") for each in (value, encoded)
                )
                for answer in (plain, meant):
                    answer.body.pop("timestamp", None)
                assert (plain.status, plain.body) == (meant.status, meant.body), (path, name)


def test_a_time_that_was_answered_can_be_asked_for(api: Api) -> None:
    zone = "tz=Etc/GMT-1"
    assert api.post("/ingest/vehicle", VEHICLE).status == 201
    trend = f"/v1/analytics/vehicles/VEH-001/trend?{zone}"
    found = api.get(trend).body["items"][-1]
    assert found["end"] == "2024-02-09T11:00:00+01:00"
    assert api.get(f"{trend}&end={found['end']}").body["items"][-1] == found
    assert api.get(f"/v1/analytics/performance/VEH-001?end={found['end']}").status == 200
    receipts = f"/v1/vehicles/VEH-001/readings?{zone}"
    first = api.get(receipts).body
    assert len(first["items"]) == 1
    assert api.get(f"{receipts}&from={first['from']}&to={first['to']}").body == first
    linked = {"meterId": "METER-001", "validFrom": NOON}
    assert api.put("/v1/links/VEH-001", linked).status == 201
    ended = api.delete("/v1/links/VEH-001?validTo=2024-02-09T13:00:00+01:00")
    assert ended.body["validTo"] == "2024-02-09T12:00:00Z"
    tariff = {"currency": "EUR", "timeZone": "UTC", "pricePerKwh": 1, "validFrom": NOON}
    assert api.put("/v1/tariffs/fleet", tariff).status == 201
    assert api.delete(f"/v1/tariffs/fleet?validFrom={NOON}").status == 200
