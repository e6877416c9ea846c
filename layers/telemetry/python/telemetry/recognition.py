"""How what is sent is recognised: ids, times, and JSON objects, or refused field by field."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainValidator,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from telemetry.errors import BodyTooLarge, FieldError, InvalidRequest
from telemetry.repetition import Repetition, read_json

OLDEST_TIMESTAMP = datetime(2000, 1, 1, tzinfo=UTC)
FIRST_TIME_TOO_FAR = datetime(2100, 1, 1, tzinfo=UTC)  # for whoever asks
CLOCK_TOLERANCE = timedelta(minutes=5)
# Neither `.` nor `..`, which a URL takes for a folder: three characters, or one that is no dot.
DEVICE_ID = r"^([A-Za-z0-9._:-]{3,64}|[A-Za-z0-9._:-]?[A-Za-z0-9_:-]|[A-Za-z0-9_:-]\.)$"
NO_ID = "Input should be an id: 1 to 64 of A-Z, a-z, 0-9 and . _ : - but neither . nor .. alone"
# One reading or link is some 200 bytes. 6 MB of unknown fields would cost seconds to refuse.
MOST_MESSAGE_BYTES = 16 * 1024
MOST_FIELD_ERRORS = 50
# Of an interval; a register may show any number that is still exact in millionths.
MOST_KWH = 10_000
MOST_REGISTER_KWH = 1_000_000_000
# What PostgreSQL can keep: any text without NUL.
TEXT = r"^[^\x00]*$"


class _RefusedAsNoId:
    """Says what an id is instead of what pattern a text should match."""

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(handler(kind), "id", custom_error_message=NO_ID)


Id = Annotated[str, StringConstraints(pattern=DEVICE_ID), _RefusedAsNoId()]
# Who says something, and why.
Person = Annotated[str, Field(min_length=1, max_length=200, pattern=TEXT)]
Reason = Annotated[str, Field(min_length=1, max_length=1000, pattern=TEXT)]
LONGEST_FIELD_NAME = 64

_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII
)
# In a query string a `+` that is not encoded is a space.
_SPACE_FOR_PLUS = re.compile(r" (?=\d\d:\d\d$)", re.ASCII)
_SECOND = timedelta(seconds=1)


def parse_time(value: object) -> datetime:
    """Read an RFC 3339 time with an offset, into UTC; raise PydanticCustomError on anything else.

    A leap second is the second after it. Pydantic alone would also take a date, a time without
    offset, or epoch seconds in quotes.
    """
    try:
        if isinstance(value, str):
            # The form that most devices send: with these characters in their places, digits are
            # all that fromisoformat takes in the others. A third of the time of the way below.
            if len(value) == 20 and value[4::3] == "--T::Z" and value[17] != "6":
                return datetime.fromisoformat(value)
            if _RFC3339.fullmatch(value):
                return _read_time(value.upper())
    except (ValueError, OverflowError):  # such as a 31st of February, or before year 1 in UTC
        pass
    raise PydanticCustomError(
        "time", "Input should be an RFC 3339 time with an offset, such as 2026-02-10T10:00:00Z"
    )


def _read_time(text: str) -> datetime:
    if text[17:19] != "60":
        return datetime.fromisoformat(text).astimezone(UTC)
    time = datetime.fromisoformat(f"{text[:17]}59{text[19:]}").astimezone(UTC) + _SECOND
    if (time.hour, time.minute) != (0, 0):
        raise ValueError("a leap second ends a day")
    return time


def parse_queried_time(value: object) -> datetime:
    """Read a time of a query string as parse_time does, also where its `+` was not encoded."""
    return parse_time(_SPACE_FOR_PLUS.sub("+", value) if isinstance(value, str) else value)


def format_time(time: datetime) -> str:
    """Return an aware time as parse_time reads it, in UTC."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _device_time(value: object) -> datetime:
    time = parse_time(value)
    if time <= OLDEST_TIMESTAMP:
        raise PydanticCustomError(
            "device_time",
            "Input should be after 2000-01-01T00:00:00Z, where clocks begin that were never set: "
            "set the device's clock, and send the reading with its real time",
        )
    if time > datetime.now(UTC) + CLOCK_TOLERANCE:
        raise PydanticCustomError(
            "device_time",
            "Input should be at most 5 minutes ahead of the server's clock: is the device's "
            "clock right?",
        )
    return time


_TIME_SCHEMA = WithJsonSchema({"type": "string", "format": "date-time"})
DeviceTime = Annotated[
    datetime,
    PlainValidator(_device_time),
    _TIME_SCHEMA,
    Field(
        description="Device time (RFC 3339, offset required), after 2000-01-01T00:00:00Z and at "
        "most 5 minutes ahead of the server. The energy is that of the interval which ends here.",
        examples=["2026-02-10T10:00:00Z"],
    ),
]


def _check_instant(time: datetime) -> datetime:
    if not OLDEST_TIMESTAMP <= time <= datetime.now(UTC) + CLOCK_TOLERANCE:
        raise PydanticCustomError(
            "instant", "Input should be from 2000-01-01T00:00:00Z to 5 minutes from now"
        )
    return time


AnyTime = Annotated[datetime, PlainValidator(parse_time), _TIME_SCHEMA]
Instant = Annotated[AnyTime, AfterValidator(_check_instant)]
QueriedTime = Annotated[datetime, PlainValidator(parse_queried_time), _TIME_SCHEMA]
QueriedInstant = Annotated[QueriedTime, AfterValidator(_check_instant)]


class Message(BaseModel):
    """A JSON body that the API takes: every field as it is named, and no others."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
    )

    # How many fields are texts in JSON, none of which may have a quotation mark in it, and those
    # that may be missing or null. None where a text may be any.
    TEXTS: ClassVar[int | None] = None
    OPTIONAL_TEXTS: ClassVar[tuple[str, ...]] = ()


Reading = TypeVar("Reading", bound=Message)


_OBJECT_ERRORS = {"model_type", "model_attributes_type"}
_NOT_AN_OBJECT = "Input should be an object"


def parse_reading(kind: type[Reading], body: str | bytes) -> Reading:
    """Recognise one reading in a JSON body.

    Raises InvalidRequest with every failing field, BodyTooLarge.
    """
    if len(body) > MOST_MESSAGE_BYTES:
        raise BodyTooLarge(MOST_MESSAGE_BYTES)
    try:
        reading = kind.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error)) from None
    if repeats_names(kind, body, [reading]):
        raise InvalidRequest(field_errors(read_json(body).error))
    return reading


def repeats_names(kind: type[Reading], body: str | bytes, readings: Sequence[Reading]) -> bool:
    """Tell whether the JSON that was read as these readings has a name twice in an object.

    In what is valid, quotation marks are around names and texts alone; whatever is there beside it,
    and was not read, brings its own along. So it is enough to count them: 0.2 µs a reading.
    """
    if kind.TEXTS is None:
        return isinstance(read_json(body), Repetition)
    marks = body.count('"') if isinstance(body, str) else body.count(b'"')
    names = sum(len(reading.model_fields_set) for reading in readings)
    texts = kind.TEXTS * len(readings)
    for name in kind.OPTIONAL_TEXTS:
        texts -= list(map(attrgetter(name), readings)).count(None)
    return marks != 2 * (names + texts)


def check_id(device_id: str, field: str) -> str:
    """Return a device's id; raise InvalidRequest, which names the field, where it cannot be one."""
    if not re.fullmatch(DEVICE_ID, device_id):
        raise InvalidRequest([FieldError(field, NO_ID)])
    return device_id


def field_errors(error: ValidationError) -> list[FieldError]:
    """Return what pydantic found wrong, without what was sent."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [
        FieldError(
            field=".".join(str(part) for part in entry["loc"])[:LONGEST_FIELD_NAME] or "body",
            message=_NOT_AN_OBJECT if entry["type"] in _OBJECT_ERRORS else entry["msg"],
        )
        for entry in found[:MOST_FIELD_ERRORS]
    ]
