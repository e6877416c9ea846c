"""docs/openapi.json is what the handlers say."""

import json
from typing import Any

from local.openapi import DOCUMENT, render_document
from telemetry.access import ROUTES, Scope

INGEST = {Scope.INGEST_METER, Scope.INGEST_VEHICLE}
document: dict[str, Any] = json.loads(DOCUMENT.read_bytes())


def test_the_committed_document_is_current() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == render_document(), "make openapi"


def test_every_field_is_described_by_example() -> None:
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name
        for field, described in schema["properties"].items():
            assert "$ref" in described or described.get("examples"), f"{name}.{field}"


def test_every_energy_and_temperature_has_a_unit() -> None:
    for name in (
        "MeterReading",
        "VehicleReading",
        "Performance",
        "MeterState",
        "VehicleState",
        "MeterReceipt",
        "VehicleReceipt",
        "Evidence",
    ):
        for field, described in document["components"]["schemas"][name]["properties"].items():
            measured = ("kwh", "energy", "temp", "voltage", "soc", "seconds")
            if any(word in field.lower() for word in measured) and field != "socTimestamp":
                assert described["unit"], f"{name}.{field}"


def test_every_route_but_one_says_which_scope_it_asks_for() -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scope = ROUTES[f"{method.upper()} {path}"]
            asked = operation.get("security")
            assert asked == ([{"bearer": [scope]}] if scope else None)
            assert ({"401", "403"} <= set(operation["responses"])) == bool(scope)
            assert ("429" in operation["responses"]) == (scope in INGEST)


def test_every_error_has_an_example() -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            for status, response in operation["responses"].items():
                content = response["content"]["application/json"]
                if status == "401":  # API Gateway's own
                    assert content["example"] == {"message": "Unauthorized"}
                elif int(status) >= 400 and (path, status) != ("/health", "503"):
                    assert content["example"]["statusCode"] == int(status)
