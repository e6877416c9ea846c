"""HTTP as every function speaks it: bodies recognised, models rendered, one shape of errors."""

import inspect
import json
from collections.abc import Callable, Sequence
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
    BatchIngested,
    BatchRefused,
    ErrorAnswer,
    Ingested,
    Queued,
    RejectedItem,
)
from telemetry.batches import MOST_REJECTIONS, Batch, Rejection
from telemetry.errors import (
    BatchInvalid,
    BatchNotAdmitted,
    BodyTooLarge,
    FieldError,
    InternalError,
    InvalidRequest,
    NotAuthenticated,
    NothingTaken,
    RouteNotFound,
    ScopeMissing,
    TelemetryError,
    UnsupportedEncoding,
)
from telemetry.ingestion import Taken

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse

Event = dict[str, Any]
Handler = Callable[[Event, Any], dict[str, Any]]
Body = TypeVar("Body", bound=BaseModel)


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
        elif error.errors:
            # Names only: what was sent is the client's data.
            fields = [entry.field for entry in error.errors]
            logger.info("request refused", status=error.status, fields=fields)
        return _response(error.status, _error_answer(resolver.current_event.path, error), error)

    def answer_bad_parameters(error: RequestValidationError) -> Response[ErrorAnswer]:
        fields = [FieldError(str(entry["loc"][-1]), entry["msg"]) for entry in error.errors()]
        return answer_error(InvalidRequest(fields))

    def answer_unknown_route(_: Exception) -> Response[ErrorAnswer]:
        return answer_error(RouteNotFound())

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


READING_DOCUMENTATION: Any = {
    "tags": ["Ingestion"],
    "status_code": 201,
    "responses": documents(
        Ingested, 201, InvalidRequest, UnsupportedEncoding, BodyTooLarge, NothingTaken
    )
    | documents(Queued, 202),
}
BATCH_DOCUMENTATION: Any = {
    "tags": ["Ingestion"],
    "status_code": 201,
    "responses": documents(BatchIngested, 201, UnsupportedEncoding, BodyTooLarge, NothingTaken)
    | documents(BatchIngested, 202)
    | documents(BatchIngested, 207)
    | {
        400: {
            "description": "Not one item was taken, or the body is no array of readings.",
            "content": {"application/json": {"model": BatchRefused | ErrorAnswer}},
        }
    },
}


def answer_taken(name: str, reading_id: str, taken: Taken) -> Response[Ingested | Queued]:
    """Answer for one reading: 201 where it is committed, 202 where it is in the queue."""
    subject = f"{name.capitalize()} {reading_id} data"
    if taken.status == "stored":
        return _response(201, Ingested(message=f"{subject} ingested successfully"))
    return _response(202, Queued(message=f"{subject} queued"))


def answer_batch(
    resolver: APIGatewayHttpResolver, batch: Batch[Any], taken: Taken | None
) -> Response[BatchIngested]:
    """Answer for a batch, of which nothing was valid where taken is None.

    201 all stored, 202 all queued, 207 some not taken. None taken: what all items have in common
    (403, 429), else 400.
    """
    again = [FieldError("body", str(NothingTaken()))]
    rejections = batch.rejections + [
        Rejection(batch.indexes[position], 503, again)
        for position in (taken.not_taken if taken else ())
    ]
    rejections.sort(key=lambda rejection: rejection.index)
    accepted = len(batch.readings) - len(taken.not_taken if taken else ())
    noun = "reading" if accepted == 1 else "readings"
    fields: dict[str, Any] = {
        "success": not rejections,
        "status": taken.status if taken else "refused",
        "message": f"{accepted:,} {noun} {taken.status if taken else 'taken'}",
        "accepted": accepted,
        "duplicate": taken.resent.duplicates if taken and taken.resent else None,
        "corrected": taken.resent.corrections if taken and taken.resent else None,
        "rejected": len(rejections),
        "rejections": [
            RejectedItem(index=each.index, status=each.status, errors=list(each.errors))
            for each in rejections[:MOST_REJECTIONS]
        ],
        "rejections_omitted": max(0, len(rejections) - MOST_REJECTIONS),
    }
    if taken is None:
        refusal = _refusal_of_all(rejections)
        error = _error_answer(resolver.current_event.path, refusal)
        return _response(refusal.status, BatchRefused(**fields | dict(error)), refusal)
    all_taken = 201 if taken.status == "stored" else 202
    return _response(207 if rejections else all_taken, BatchIngested(**fields))


def _refusal_of_all(rejections: Sequence[Rejection]) -> TelemetryError:
    """Return what all items of a batch have in common, of which none is taken."""
    first = rejections[0]
    if first.status == 400 or any(each.status != first.status for each in rejections):
        return BatchInvalid()
    return BatchNotAdmitted(first.status, max(each.retry_after or 0 for each in rejections))


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
        "body": _render(_error_answer(event["rawPath"], error)),
        "isBase64Encoded": False,
    }


def _response(status: int, body: Body, error: TelemetryError | None = None) -> Response[Body]:
    again = error.retry_after if error else None
    return Response(
        status_code=status,
        content_type="application/json",
        headers={"Retry-After": str(again)} if again else {},
        body=body,
    )


def _error_answer(path: str, error: TelemetryError) -> ErrorAnswer:
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
