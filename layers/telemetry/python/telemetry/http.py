"""HTTP as every function speaks it: bodies recognised, models rendered, one shape of errors."""

import base64
import binascii
import functools
import inspect
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.openapi.exceptions import (
    RequestValidationError,
    ResponseValidationError,
)
from pydantic import BaseModel

from telemetry.answers import ErrorAnswer
from telemetry.errors import FieldError, InvalidRequest, TelemetryError
from telemetry.readings import Reading, parse_reading

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse

Event = dict[str, Any]
Answer = TypeVar("Answer", bound=BaseModel)

RETRY_AFTER_SECONDS = "1"


def build_resolver(logger: Logger, *, enable_validation: bool = False) -> APIGatewayHttpResolver:
    """Return a resolver that renders models as JSON and this package's errors in one shape.

    enable_validation lets Powertools check and pass on path and query parameters (about 40 µs).
    """
    resolver = APIGatewayHttpResolver(
        serializer=_render,
        enable_validation=enable_validation,
        response_validation_error_http_code=500 if enable_validation else None,
    )

    def answer_error(error: TelemetryError) -> Response[ErrorAnswer]:
        if error.status >= 500:
            logger.error(str(error), reason=str(error.__cause__ or ""))
        elif isinstance(error, InvalidRequest):
            # Names only: what was sent is the client's data.
            logger.info("request refused", fields=[entry.field for entry in error.errors])
        fields = error.errors if isinstance(error, InvalidRequest) else None
        return _error_response(resolver, error.status, str(error), fields)

    def answer_bad_parameters(error: RequestValidationError) -> Response[ErrorAnswer]:
        fields = [FieldError(str(entry["loc"][-1]), entry["msg"]) for entry in error.errors()]
        return answer_error(InvalidRequest(fields))

    def answer_unknown_route(_: Exception) -> Response[ErrorAnswer]:
        return _error_response(resolver, 404, "Not Found")

    def fail(error: ResponseValidationError) -> Response[ErrorAnswer]:
        raise error  # ours, not the client's: build_handler logs it and answers 500

    resolver.exception_handler(TelemetryError)(answer_error)
    resolver.exception_handler(RequestValidationError)(answer_bad_parameters)
    resolver.exception_handler(ResponseValidationError)(fail)
    resolver.not_found(answer_unknown_route)
    return resolver


def documents(
    answer: type[BaseModel], status: int, *errors: type[TelemetryError]
) -> "dict[int, OpenAPIResponse]":
    """Return what a route may answer with, for its OpenAPI documentation."""
    described = {
        status: (answer, answer),
        **{error.status: (ErrorAnswer, error) for error in errors},
    }
    return {
        code: {
            "description": inspect.cleandoc(source.__doc__ or "").splitlines()[0],
            "content": {"application/json": {"model": model}},
        }
        for code, (model, source) in described.items()
    }


def receives(
    kind: type[Reading], resolver: APIGatewayHttpResolver
) -> Callable[[Callable[[Reading], Answer]], Callable[[], Answer]]:
    """Decorate a route so that it gets the request's body as a reading, or is not called at all.

    Powertools' own body parsing reads JSON leniently and costs twice as much as the whole request.
    """

    def decorate(route: Callable[[Reading], Answer]) -> Callable[[], Answer]:
        @functools.wraps(route)
        def call() -> Answer:
            return route(parse_reading(kind, body_of(resolver.current_event.raw_event)))

        return call

    return decorate


def body_of(event: Event) -> str | bytes:
    """Return the body of an HTTP API event (payload format 2.0), empty where there is none."""
    body: str = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return body
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise InvalidRequest([FieldError("body", "Input should be JSON")]) from None


def build_handler(
    resolver: APIGatewayHttpResolver, logger: Logger
) -> Callable[[Event, Any], dict[str, Any]]:
    """Return the Lambda handler: every answer and every log line carries the request's id."""

    def handler(event: Event, context: Any) -> dict[str, Any]:
        request_id = event["requestContext"]["requestId"]
        logger.append_keys(request_id=request_id)
        try:
            answer = resolver.resolve(event, context)
        except Exception:
            logger.exception("unhandled error")
            answer = _internal_error(event)
        answer["headers"]["x-request-id"] = request_id
        return answer

    return handler


def _internal_error(event: Event) -> dict[str, Any]:
    error = _error_answer(event["rawPath"], 500, "Internal Server Error")
    return {
        "statusCode": 500,
        "headers": {"Content-Type": "application/json"},
        "body": _render(error),
        "isBase64Encoded": False,
    }


def _error_response(
    resolver: APIGatewayHttpResolver,
    status: int,
    message: str,
    fields: list[FieldError] | None = None,
) -> Response[ErrorAnswer]:
    return Response(
        status_code=status,
        content_type="application/json",
        headers={"Retry-After": RETRY_AFTER_SECONDS} if status == 503 else {},
        body=_error_answer(resolver.current_event.path, status, message, fields),
    )


def _error_answer(
    path: str, status: int, message: str, fields: list[FieldError] | None = None
) -> ErrorAnswer:
    now = datetime.now(UTC).replace(microsecond=0)
    return ErrorAnswer(status_code=status, path=path, message=message, timestamp=now, errors=fields)


def _render(body: BaseModel | dict[str, Any]) -> str:
    if isinstance(body, BaseModel):
        return body.model_dump_json(by_alias=True)
    return json.dumps(
        body, separators=(",", ":")
    )  # where Powertools validates answers, it makes them dicts
