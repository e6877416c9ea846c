"""HTTP as every function speaks it: models rendered, one shape of errors, a request's id."""

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

from telemetry.access import Access
from telemetry.answers import (
    ErrorAnswer,
)
from telemetry.errors import (
    FieldError,
    InternalError,
    InvalidRequest,
    NotAuthenticated,
    RouteNotFound,
    ScopeMissing,
    TelemetryError,
)
from telemetry.recognition import LONGEST_FIELD_NAME, MOST_FIELD_ERRORS

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
    from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse

Event = dict[str, Any]
Handler = Callable[[Event, Any], dict[str, Any]]
Body = TypeVar("Body", bound=BaseModel)

# Monitors call these, and some add parameters of their own.
MONITORED = {"/", "/health"}


def build_resolver(logger: Logger, *, enable_validation: bool = False) -> APIGatewayHttpResolver:
    """Return a resolver that renders models as JSON and this package's errors in one shape.

    It refuses query parameters that a route does not have. enable_validation lets Powertools check
    and pass on path and query parameters (about 40 µs).
    """
    resolver = APIGatewayHttpResolver(
        serializer=_render,
        enable_validation=enable_validation,
        response_validation_error_http_code=500 if enable_validation else None,
    )

    def answer_error(error: TelemetryError) -> Response[ErrorAnswer]:
        if error.status >= 500:
            logger.error(str(error), reason=str(error.__cause__ or ""))
        elif error.errors:
            # Names only: what was sent is the client's data.
            fields = [entry.field for entry in error.errors]
            logger.info("request refused", status=error.status, fields=fields)
        return answer(error.status, describe_error(resolver.current_event.path, error), error)

    def answer_bad_parameters(error: RequestValidationError) -> Response[ErrorAnswer]:
        fields = [FieldError(str(entry["loc"][-1]), entry["msg"]) for entry in error.errors()]
        return answer_error(InvalidRequest([*fields, *_unknown_parameters(resolver)]))

    def answer_unknown_route(_: Exception) -> Response[ErrorAnswer]:
        return answer_error(RouteNotFound())

    def fail(error: ResponseValidationError) -> Response[ErrorAnswer]:
        raise error  # ours, not the client's: build_handler logs it and answers 500

    def refuse_unknown_parameters(
        _: APIGatewayHttpResolver, next_middleware: "NextMiddleware"
    ) -> Response[Any]:
        if unknown := _unknown_parameters(resolver):
            raise InvalidRequest(unknown)
        return next_middleware(resolver)

    resolver.use([refuse_unknown_parameters])
    resolver.exception_handler(TelemetryError)(answer_error)
    resolver.exception_handler(RequestValidationError)(answer_bad_parameters)
    resolver.exception_handler(ResponseValidationError)(fail)
    resolver.not_found(answer_unknown_route)
    return resolver


def _unknown_parameters(resolver: APIGatewayHttpResolver) -> list[FieldError]:
    """Return an error for each query parameter of the current request that its route does not have.

    A route has those that docs/openapi.json lists, which is made of the same signature.
    """
    sent = resolver.current_event.query_string_parameters
    route = resolver.context["_route"]
    # Powertools makes a route up for a path that none takes. It alone documents no answers.
    if not sent or route.path in MONITORED or not route.responses:
        return []
    names = [parameter.alias for parameter in route.dependant.query_params]
    known = ", ".join(names) or "none"
    return [
        FieldError(name[:LONGEST_FIELD_NAME], f"No such parameter; this route has {known}")
        for name in sent
        if name not in names
    ][:MOST_FIELD_ERRORS]


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


def build_handler(resolver: APIGatewayHttpResolver, logger: Logger, access: Access) -> Handler:
    """Return the Lambda handler, which answers requests that access allows.

    Every answer and every log line carries the request's id, every line the token's as well. The
    resolver's context has the `identity` of whoever sends the request.
    """

    def handler(event: Event, context: Any) -> dict[str, Any]:
        request_id = event["requestContext"]["requestId"]
        logger.append_keys(request_id=request_id, token_id=None)
        try:
            identity = access.identify(event)
            logger.append_keys(token_id=identity.token_id)
            resolver.context["identity"] = identity
            answer = resolver.resolve(event, context)
        except (NotAuthenticated, ScopeMissing) as refusal:
            logger.warning("request refused", status=refusal.status, reason=str(refusal))
            answer = _plain_answer(event, refusal)
        except Exception:
            logger.exception("unhandled error")
            answer = _plain_answer(event, InternalError())
        answer["headers"]["x-request-id"] = request_id
        return answer

    return handler


def _plain_answer(event: Event, error: TelemetryError) -> dict[str, Any]:
    return {
        "statusCode": error.status,
        "headers": {"Content-Type": "application/json"},
        "body": _render(describe_error(event["rawPath"], error)),
        "isBase64Encoded": False,
    }


def answer(status: int, body: Body, error: TelemetryError | None = None) -> Response[Body]:
    """Answer with a model; where that tells of an error, with when to come again."""
    again = error.retry_after if error else None
    return Response(
        status_code=status,
        content_type="application/json",
        headers={"Retry-After": str(again)} if again else {},
        body=body,
    )


def describe_error(path: str, error: TelemetryError) -> ErrorAnswer:
    """Return what a request for a path that an error ended is answered with."""
    return ErrorAnswer(
        status_code=error.status,
        path=path,
        message=str(error),
        timestamp=datetime.now(UTC).replace(microsecond=0),
        errors=list(error.errors) if error.errors else None,
    )


def _render(body: BaseModel | dict[str, Any]) -> str:
    if isinstance(body, BaseModel):
        return body.model_dump_json(by_alias=True)
    return json.dumps(
        body, separators=(",", ":")
    )  # where Powertools validates answers, it makes them dicts
