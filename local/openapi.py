"""Writes docs/openapi.json from the handlers that template.yaml routes to."""

import inspect
import json
from typing import Any

from local import ROOT, LocalError
from local.configuration import read_local_template
from local.runtime import load_module
from local.template import Template
from telemetry import __version__
from telemetry.access import ROUTES, Scope
from telemetry.answers import FAULT_ID
from telemetry.bodies import MOST_BODY_BYTES
from telemetry.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    DeviceNotCovered,
    DeviceNotDeclared,
    FaultCleared,
    FaultNotFound,
    InvalidRequest,
    LinkNotFound,
    MeterNotFound,
    NotAcceptable,
    NothingTaken,
    ScopeMissing,
    TariffNotFound,
    TariffRefused,
    TelemetryError,
    TooManyReadings,
    UnsupportedEncoding,
    VehicleNotFound,
)
from telemetry.tables import CSV, JSON

DOCUMENT = ROOT / "docs/openapi.json"

DESCRIPTION = """\
Takes in energy telemetry from smart meters (grid side, AC) and electric vehicles (battery side,
DC), keeps every reading, and answers how a vehicle charged and what each device reported.

Every answer carries the request's id in `apigw-requestid`, those of the functions in `x-request-id`
too. A request that no route takes, that is no text, too large or comes too often is answered by API
Gateway itself, as `{"message": "…"}` with status 404, 400, 413 or 429. An id with characters that
no id has may be answered 404 as well, as an unknown route.

A body of one reading or link has at most 16 KiB, one of a batch 6 MiB and 150,000 commas and
brackets, also where it is compressed. A field or a parameter that is given twice is refused, and so
is one that a route does not have; only `GET /` and `GET /health` take any parameter.

Where it is deployed, each request but `GET /` carries a token: `Authorization: Bearer …`. Without
one API Gateway answers 401 `{"message": "Unauthorized"}`, with one that is not accepted (not signed
by a known key, expired, revoked) 403 `{"message": "Forbidden"}`. A token's scopes say what it is
for; one that may write readings also names its devices.
"""

_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "Scopes: " + ", ".join(f"`{scope}`" for scope in Scope),
}
_GATEWAY_ANSWER = {
    "type": "object",
    "description": "What API Gateway itself answers with",
    "properties": {"message": {"type": "string", "examples": ["Unauthorized"]}},
}

# What each error says, as an example of its answer.
_MESSAGES = {
    400: str(InvalidRequest([])),
    403: str(DeviceNotCovered("meterId")),
    404: str(VehicleNotFound()),
    406: str(NotAcceptable((JSON, CSV))),
    409: str(FaultCleared()),
    413: str(BodyTooLarge(MOST_BODY_BYTES)),
    415: str(UnsupportedEncoding()),
    429: str(TooManyReadings("meterId", 5)),
    500: "Internal Server Error",
    503: str(DatabaseUnavailable()),
}
_HEADERS = {
    "x-request-id": {
        "description": "The request's id, as in the logs",
        "schema": {"type": "string"},
        "example": "JKJaXmPLvHcESHA=",
    },
    "Link": {
        "description": 'The next page (`rel="next"`), relative to this one; not on the last page',
        "schema": {"type": "string"},
        "example": '<?limit=100&cursor=eyJzdGFydCI6>; rel="next"',
    },
    "Retry-After": {
        "description": "Seconds to wait before the request is sent again",
        "schema": {"type": "integer"},
        "example": 1,
    },
}


def build_document() -> dict[str, Any]:
    """Return the OpenAPI document of all routes; raise LocalError where one has no handler."""
    template = read_local_template({"DATABASE_URL": "postgresql://never-used"})
    document: dict[str, Any] = {}
    for name in dict.fromkeys(route.function for route in template.routes):
        schema = load_module(template.functions[name]).app.get_openapi_json_schema(
            title="Energy Ingestion Engine",
            version=__version__,
            description=DESCRIPTION,
        )
        part = json.loads(schema)
        if not document:
            document = part
        document["paths"] |= part["paths"]
        document["components"]["schemas"] |= part["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scope = ROUTES.get(f"{method.upper()} {path}")
            if scope:
                _guard(operation, scope)
            _finish(operation, path, scope)
    document["components"]["securitySchemes"] = {"bearer": _BEARER}
    document["components"]["schemas"]["GatewayAnswer"] = _GATEWAY_ANSWER
    unlink = document["paths"]["/v1/links/{vehicleId}"]["delete"]["responses"]["404"]
    unlink["content"]["application/json"]["example"]["message"] = str(LinkNotFound())
    _drop_unused_schemas(document)
    _check_routes(document, template)
    return document


def _guard(operation: dict[str, Any], scope: Scope) -> None:
    operation["security"] = [{"bearer": [scope]}]
    ours = ["BatchRefused", "ErrorAnswer"] if "207" in operation["responses"] else ["ErrorAnswer"]
    refusals: dict[str, tuple[str | None, list[str]]] = {
        "401": ("The request carries no token.", ["GatewayAnswer"]),
        "403": (inspect.getdoc(ScopeMissing), [*ours, "GatewayAnswer"]),
    }
    if scope in {Scope.INGEST_METER, Scope.INGEST_VEHICLE}:
        refusals["429"] = (inspect.getdoc(TooManyReadings), [*ours, "GatewayAnswer"])
    for status, (description, models) in refusals.items():
        schemas = [{"$ref": f"#/components/schemas/{model}"} for model in models]
        schema = {"anyOf": schemas} if len(schemas) > 1 else schemas[0]
        operation["responses"][status] = {
            "description": description,
            "content": {"application/json": {"schema": schema}},
        }


def _finish(operation: dict[str, Any], path: str, scope: Scope | None) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    responses["500"] = {
        "description": inspect.getdoc(TelemetryError),
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}},
    }
    for status, response in responses.items():
        response["headers"] = (
            {} if status == "401" else {name: _HEADERS[name] for name in ("x-request-id",)}
        )
        if CSV in response["content"]:
            response["headers"]["Link"] = _HEADERS["Link"]
        if status in {"429", "503"}:
            response["headers"]["Retry-After"] = _HEADERS["Retry-After"]
        content = response["content"]["application/json"]
        if status == "401":
            content["example"] = {"message": "Unauthorized"}
        if "ErrorAnswer" in json.dumps(content["schema"]):
            content["example"] = _error_example(int(status), path, scope)


def _drop_unused_schemas(document: dict[str, Any]) -> None:
    # Powertools documents answers of its own that are never given here, and what cursors hold.
    schemas = document["components"]["schemas"]
    while unused := [name for name in schemas if f'schemas/{name}"' not in json.dumps(document)]:
        for name in unused:
            del schemas[name]


def _error_example(status: int, path: str, scope: Scope | None) -> dict[str, Any]:
    message = _MESSAGES[status]
    if status == 503 and "ingest" in path:
        message = str(NothingTaken())
    if status == 403 and "ingest" not in path:
        message = str(ScopeMissing(scope))
    if "/tariffs/" in path and status in {404, 409}:
        refused = TariffRefused("All tariffs should have one currency")
        message = str(TariffNotFound() if status == 404 else refused)
    elif status == 404 and "{meterId}" in path:
        message = str(MeterNotFound())
    if status == 404 and "{faultId}" in path:
        message = str(FaultNotFound())
    if status == 404 and "{deviceId}" in path:
        message = str(DeviceNotDeclared())
    example = {
        "statusCode": status,
        "path": path.format(
            vehicleId="VEH-001", meterId="METER-001", deviceId="METER-001", faultId=FAULT_ID
        ),
        "message": message,
        "timestamp": "2026-02-10T10:30:00Z",
    }
    if status == 400:
        example["errors"] = [{"field": "timestamp", "message": "Field required"}]
    if status in {403, 429} and "ingest" in path:
        field = "vehicleId" if "vehicle" in path else "meterId"
        example["errors"] = [{"field": field, "message": message}]
    return example


def _check_routes(document: dict[str, Any], template: Template) -> None:
    handled = {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method in operations
    }
    routed = {route.key for route in template.routes}
    if handled != routed:
        differing = ", ".join(sorted(handled ^ routed))
        raise LocalError(f"template.yaml and the handlers differ in: {differing}")


def render_document() -> str:
    """Return the text of docs/openapi.json."""
    return json.dumps(build_document(), indent=2, ensure_ascii=False) + "\n"


def write_document() -> None:
    """Write docs/openapi.json."""
    DOCUMENT.write_text(render_document(), encoding="utf-8")
    print(f"Wrote {DOCUMENT.relative_to(ROOT)}")
