"""Readings on their way through the queue: JSON that an operator can read, column by column.

    {"stream": "meter", "receivedAt": "2026-02-10T10:00:00.000001Z",
     "readings": {"meterId": ["METER-001"], "kwhConsumedAc": [5.5], "voltage": [240.5],
                  "timestamp": ["2026-02-10T10:00:00Z"]}}

Columns take half the bytes of objects: 10,000 readings fit into one message. A field that may be
left out, and that none of them has, is.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from telemetry.batches import MOST_READINGS, judge_items
from telemetry.errors import MessageUnusable
from telemetry.intake import Intake
from telemetry.readings import count_hours
from telemetry.recognition import DeviceTime, Reading, field_errors, format_time

# A message of SQS has at most 1 MiB, attributes included; a dead letter carries its reason in one.
MOST_MESSAGE_BYTES = 1_048_576 - 8_192
# Hours that a message's readings reach into beside those in which they end: a second of PostgreSQL.
# A worker whose time is up begins a message anew.
MOST_HOURS = 50_000


class Message(NamedTuple, Generic[Reading]):
    """The readings of one message, in the order of their receipt; the first was at received_at."""

    readings: Sequence[Reading]
    received_at: datetime

    @property
    def receipts(self) -> list[datetime]:
        """When each of the readings was accepted: a microsecond after the one before."""
        return [
            self.received_at + timedelta(microseconds=number)
            for number in range(len(self.readings))
        ]


class _Envelope(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, strict=True, extra="forbid")

    stream: str
    received_at: DeviceTime
    readings: dict[str, list[Any]] = Field(min_length=1)


def pack(
    intake: Intake[Reading], readings: Sequence[Reading], received_at: datetime
) -> list[tuple[int, str]]:
    """Return message bodies with the number of readings in each: one where everything fits."""
    columns = {
        field.alias or name: column
        for name, field in intake.kind.model_fields.items()
        if (column := [getattr(reading, name) for reading in readings]).count(None) < len(column)
        or field.is_required()
    }
    body = json.dumps(
        {"stream": intake.name, "receivedAt": received_at, "readings": columns},
        separators=(",", ":"),
        default=format_time,
    )
    fits = len(body) <= MOST_MESSAGE_BYTES  # all of it is ASCII
    if len(readings) == 1 or (fits and count_hours(readings) <= MOST_HOURS):
        return [(len(readings), body)]
    half = len(readings) // 2
    later = received_at + timedelta(microseconds=half)
    return [
        *pack(intake, readings[:half], received_at),
        *pack(intake, readings[half:], later),
    ]


def unpack(intake: Intake[Reading], body: str) -> Message[Reading]:
    """Return what a message holds; raise MessageUnusable where it is none of the stream's."""
    try:
        envelope = _Envelope.model_validate_json(body)
    except ValidationError as error:
        raise MessageUnusable(_summarize(field_errors(error))) from None
    if envelope.stream != intake.name:
        raise MessageUnusable(f"a message of stream {envelope.stream!r}, not {intake.name!r}")
    lengths = {len(column) for column in envelope.readings.values()}
    if len(lengths) > 1 or not lengths <= set(range(1, MOST_READINGS + 1)):
        raise MessageUnusable(f"columns with 1 to {MOST_READINGS} readings each, not {lengths}")
    names = envelope.readings.keys()
    items = [
        dict(zip(names, row, strict=True)) for row in zip(*envelope.readings.values(), strict=True)
    ]
    batch = judge_items(intake.kind.__pydantic_validator__.validate_python, items)
    if batch.rejections:
        first = batch.rejections[0]
        raise MessageUnusable(
            f"{len(batch.rejections)} of {len(items)} readings are not valid; "
            f"reading {first.index}: {_summarize(first.errors)}"
        )
    return Message(batch.readings, envelope.received_at)


def _summarize(errors: Sequence[Any]) -> str:
    return "; ".join(f"{error.field}: {error.message}" for error in errors)[:1_000]
