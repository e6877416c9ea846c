"""Many readings in one request: a JSON array, each item of which is judged alone."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, get_args

from pydantic import GetCoreSchemaHandler, ValidationError, WithJsonSchema
from pydantic_core import (
    CoreSchema,
    InitErrorDetails,
    PydanticCustomError,
    SchemaValidator,
    core_schema,
)

from telemetry.errors import FieldError, InvalidRequest
from telemetry.recognition import Reading, field_errors, repeats_names
from telemetry.repetition import Repetition, read_json

MOST_READINGS = 10_000
# 10,000 readings have 70,000 of them. Without this bound 6 MB of unknown fields, or of objects in
# objects, cost seconds and more memory than the function has, before one of them is refused.
MOST_SEPARATORS = 150_000
# Each unknown field of an item takes 1.3 KiB to tell of, and one item may have all of them.
MOST_FIELDS = 50
# Of the items that are not valid so many are told, each with its errors.
MOST_REJECTIONS = 100

BatchMode = Annotated[
    Literal["backfill"] | None,
    WithJsonSchema(
        {
            "enum": ["backfill"],
            "type": "string",
            "description": "`backfill`: readings of the past, many batches of them. They wait in a "
            "queue of their own, which delays nobody else's; what is accepted is answered 202",
        }
    ),
]


@dataclass(frozen=True, slots=True)
class Rejection:
    """An item that is not taken: its position in the array, an HTTP status, and why.

    retry_after is in seconds.
    """

    index: int
    status: int
    errors: Sequence[FieldError]
    retry_after: int | None = None


class Batch(Generic[Reading]):
    """The valid readings of an array with their positions in it, and the items that are not."""

    def __init__(
        self, readings: list[Reading], indexes: Sequence[int], rejections: list[Rejection]
    ) -> None:
        self.readings = readings
        self.indexes = indexes
        self.rejections = rejections

    def sort(self, order: Callable[[Reading], Any]) -> None:
        """Bring the readings into an order; equal ones stay in that of the array."""
        positions = sorted(
            range(len(self.readings)), key=lambda position: order(self.readings[position])
        )
        self.readings = [self.readings[position] for position in positions]
        self.indexes = [self.indexes[position] for position in positions]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Document it as the array that it is parsed from."""
        (kind,) = get_args(source)
        return _array(handler.generate_schema(kind))


def _array(item: CoreSchema) -> CoreSchema:
    return core_schema.list_schema(item, min_length=1, max_length=MOST_READINGS, fail_fast=True)


@functools.cache
def _array_validator(kind: type[Reading]) -> SchemaValidator:
    return SchemaValidator(_array(kind.__pydantic_core_schema__))


def parse_batch(kind: type[Reading], body: str | bytes) -> Batch[Reading]:
    """Recognise an array of readings.

    Raises InvalidRequest where it is no JSON array of 1 to MOST_READINGS items.
    """
    if _count_separators(body) > MOST_SEPARATORS:
        raise _malformed("Input should have no more items and fields than 10,000 readings need")
    try:
        # All at once, without a dict for each: half the time. One that is not valid ends it.
        readings = _array_validator(kind).validate_json(body)
    except ValidationError as error:
        if error.error_count() == 1:  # there may be many, all of one item
            [only] = error.errors(include_url=False)
            if only["type"] in {"json_invalid", "string_unicode"}:
                raise _malformed(f"Input should be JSON: {only['msg']}") from None
        return _judge_array(kind, body)
    if repeats_names(kind, body, readings):
        return _judge_array(kind, body)
    return Batch(readings, range(len(readings)), [])


def _count_separators(body: str | bytes) -> int:
    if isinstance(body, str):
        return body.count(",") + body.count("{") + body.count("[")
    return body.count(b",") + body.count(b"{") + body.count(b"[")


def _judge_array(kind: type[Reading], body: str | bytes) -> Batch[Reading]:
    try:
        items = read_json(body)
    except ValueError as error:  # a NaN
        raise _malformed(f"Input should be JSON: {error}") from None
    if not isinstance(items, list) or not items:
        raise _malformed("Input should be a JSON array with at least one reading")
    if len(items) > MOST_READINGS:
        raise _malformed(
            f"Input should have at most {MOST_READINGS:,} readings, not {len(items):,}"
        )
    validate: Callable[[object], Reading] = kind.__pydantic_validator__.validate_python

    def judge(item: object) -> Reading:
        if isinstance(item, Repetition):
            raise item.error
        if isinstance(item, dict) and len(item) > MOST_FIELDS:
            raise _TOO_MANY_FIELDS
        return validate(item)

    return judge_items(judge, items)


def judge_items(validate: Callable[[object], Reading], items: Sequence[object]) -> Batch[Reading]:
    """Tell the valid items from the others, of which the first MOST_REJECTIONS have errors."""
    readings: list[Reading] = []
    indexes: list[int] = []
    rejections: list[Rejection] = []
    for index, item in enumerate(items):
        try:
            readings.append(validate(item))
        except ValidationError as error:
            told = field_errors(error) if len(rejections) < MOST_REJECTIONS else ()
            rejections.append(Rejection(index, 400, told))
        else:
            indexes.append(index)
    return Batch(readings, indexes, rejections)


_TOO_MANY_FIELDS = ValidationError.from_exception_data(
    "object",
    [
        InitErrorDetails(
            type=PydanticCustomError("fields", f"Input should have at most {MOST_FIELDS} fields"),
            loc=(),
            input=None,
        )
    ],
)


def _malformed(message: str) -> InvalidRequest:
    return InvalidRequest([FieldError("body", message)])
