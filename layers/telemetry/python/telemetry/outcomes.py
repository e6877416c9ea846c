"""What became of readings, as it is answered: one by one, and for each item of a batch."""

from collections.abc import Sequence
from typing import Any, Literal

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from pydantic import Field

from telemetry.answers import Answer, ErrorAnswer
from telemetry.batches import MOST_REJECTIONS, Batch, Rejection
from telemetry.errors import (
    BatchInvalid,
    BatchNotAdmitted,
    BodyTooLarge,
    FieldError,
    InvalidRequest,
    NothingTaken,
    TelemetryError,
    UnsupportedEncoding,
)
from telemetry.http import answer, describe_error, documents
from telemetry.ingestion import Taken


class Ingested(Answer):
    """A reading is committed in PostgreSQL."""

    success: Literal[True] = Field(default=True, examples=[True])
    message: str = Field(examples=["Meter METER-001 data ingested successfully"])


class Queued(Answer):
    """The reading is durable in the queue, and will be committed in PostgreSQL."""

    success: Literal[True] = Field(default=True, examples=[True])
    status: Literal["queued"] = Field(default="queued", examples=["queued"])
    message: str = Field(examples=["Meter METER-001 data queued"])


class RejectedItem(Answer):
    """An item of a batch that was not taken."""

    index: int = Field(description="Its position in the array, from 0", examples=[2])
    status: int = Field(
        description="As for a single reading: 400 not valid, 403 not for this token, 429 and 503 "
        "send it again",
        examples=[400],
    )
    errors: list[FieldError] = Field(
        description="Every field that was refused, and why",
        examples=[[{"field": "voltage", "message": "Field required"}]],
    )


class BatchIngested(Answer):
    """What became of the items of a batch; what was accepted is durable."""

    success: bool = Field(description="Whether every item was accepted", examples=[True])
    status: Literal["stored", "queued", "refused"] = Field(
        description="Where the accepted readings are: committed in PostgreSQL, in the queue, or "
        "there are none",
        examples=["stored"],
    )
    message: str = Field(examples=["100 readings stored"])
    accepted: int = Field(description="Items that were taken", examples=[100])
    duplicate: int | None = Field(
        description="Of the accepted, those known already with the same values; null while they "
        "are in the queue",
        examples=[0],
    )
    corrected: int | None = Field(
        description="Of the accepted, those known already with other values; null while they are "
        "in the queue",
        examples=[0],
    )
    rejected: int = Field(description="Items that were not taken", examples=[0])
    rejections: list[RejectedItem] = Field(
        description="The first of the items that were not taken", examples=[[]]
    )
    rejections_omitted: int = Field(
        description="How many more were not taken than are listed", examples=[0]
    )


class BatchRefused(ErrorAnswer, BatchIngested):
    """Not one item of a batch was taken."""


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
        return answer(201, Ingested(message=f"{subject} ingested successfully"))
    return answer(202, Queued(message=f"{subject} queued"))


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
        error = describe_error(resolver.current_event.path, refusal)
        return answer(refusal.status, BatchRefused(**fields | dict(error)), refusal)
    all_taken = 201 if taken.status == "stored" else 202
    return answer(207 if rejections else all_taken, BatchIngested(**fields))


def _refusal_of_all(rejections: Sequence[Rejection]) -> TelemetryError:
    """Return what all items of a batch have in common, of which none is taken."""
    first = rejections[0]
    if first.status == 400 or any(each.status != first.status for each in rejections):
        return BatchInvalid()
    return BatchNotAdmitted(first.status, max(each.retry_after or 0 for each in rejections))
