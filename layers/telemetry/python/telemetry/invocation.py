"""Direct invocation by ops: a question as a plain object, answered as the HTTP route answers it.

    {"vehicleId": "VEH-001", "end": "now", "hours": 24}     its performance
    {"vehicleIds": ["VEH-001", "VEH-002"]}                  a dashboard
    {"fleet": {"status": "fault", "hours": 24, "limit": 10}}

The other keys are the route's query parameters; one that the route does not have is refused.
"""

import json
from typing import Any
from urllib.parse import quote, urlencode

from telemetry.access import OPS_CONTEXT
from telemetry.errors import FieldError, InvalidRequest
from telemetry.http import Event, Handler


def answer_directly(handler: Handler, question: Event, context: Any) -> dict[str, Any]:
    """Return the body that the HTTP API answers a question with, also where it is an error.

    Raises InvalidRequest where it is no such question.
    """
    route, vehicle_id, parameters = _route(question)
    path = route.replace("{vehicleId}", quote(vehicle_id, safe=""))
    texts = {name: _text(value) for name, value in parameters.items()}
    event = {
        "version": "2.0",
        "routeKey": f"GET {route}",
        "rawPath": path,
        "rawQueryString": urlencode(texts),
        "queryStringParameters": texts,
        "headers": {"accept": "application/json"},
        "requestContext": {
            "http": {"method": "GET", "path": path},
            "requestId": context.aws_request_id,
            "stage": "$default",
            # Who may invoke the function may read: that is for IAM to say.
            "authorizer": {"lambda": OPS_CONTEXT},
        },
        "isBase64Encoded": False,
    }
    answer: dict[str, Any] = json.loads(handler(event, context)["body"])
    return answer


def _route(question: Event) -> tuple[str, str, dict[str, Any]]:
    match question:
        case {"vehicleId": str(vehicle_id), **parameters}:
            return "/v1/analytics/performance/{vehicleId}", vehicle_id, parameters
        case {"vehicleIds": list()}:
            return "/v1/analytics/performance", "", question
        case {"fleet": dict(selection)} if len(question) == 1:
            return "/v1/analytics/fleet", "", selection
    message = (
        'Input should have "vehicleId" or "vehicleIds", or "fleet" alone with parameters in it'
    )
    raise InvalidRequest([FieldError("event", message)])


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
