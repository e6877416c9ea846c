"""What the API answers with, field by field, as JSON in camelCase."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from telemetry import __version__
from telemetry.errors import FieldError


class Answer(BaseModel):
    """A JSON body that the API answers with."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)


class ErrorAnswer(Answer):
    """What every refused or failed request is answered with."""

    status_code: int = Field(description="The HTTP status", examples=[400])
    path: str = Field(description="The path of the request", examples=["/v1/ingestion/meter"])
    message: str = Field(description="What went wrong", examples=["Validation failed"])
    timestamp: datetime = Field(
        description="When it was answered", examples=["2026-02-10T10:30:00Z"]
    )
    errors: list[FieldError] | None = Field(
        default=None,
        exclude_if=lambda errors: errors is None,
        description="Every field that was refused, and why; only where fields were refused",
        examples=[[{"field": "voltage", "message": "Field required"}]],
    )


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


class Service(Answer):
    """Which service this is."""

    service: str = Field(default="Energy Ingestion Engine", examples=["Energy Ingestion Engine"])
    status: str = Field(default="running", examples=["running"])
    version: str = Field(examples=[__version__])
