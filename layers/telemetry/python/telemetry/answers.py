"""What the API answers with, field by field, as JSON in camelCase."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from telemetry import __version__
from telemetry.errors import FieldError

FAULT_ID = "6f1c5bd0-3c57-4d0a-9a0b-b1a1b4b9a1c2"  # an example


class Answer(BaseModel):
    """A JSON body that the API answers with."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, defer_build=True)


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


class Service(Answer):
    """Which service this is."""

    service: str = Field(default="Energy Ingestion Engine", examples=["Energy Ingestion Engine"])
    status: str = Field(default="running", examples=["running"])
    version: str = Field(examples=[__version__])
