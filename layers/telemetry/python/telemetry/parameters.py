"""The parameters that routes of several functions share, and how a parameter's text is read.

Those of one function are beside its routes; those of analytics, in telemetry.analytics_parameters.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeVar

from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from telemetry.pages import Ended, LastDevice, decode_cursor
from telemetry.recognition import (
    FIRST_TIME_TOO_FAR,
    OLDEST_TIMESTAMP,
    Id,
    parse_queried_time,
)

Parsed = TypeVar("Parsed")

MOST_ITEMS = 1000


def parse_instant(value: str) -> datetime:
    """Read `now` or an RFC 3339 time of this century; raise PydanticCustomError on others."""
    if value == "now":
        return datetime.now(UTC)
    try:
        time = parse_queried_time(value)
    except PydanticCustomError as error:
        raise PydanticCustomError("instant", f"{error}, or now") from None
    if not OLDEST_TIMESTAMP <= time < FIRST_TIME_TOO_FAR:
        raise PydanticCustomError("instant", "Input should be in the years 2000 to 2099")
    return time


def read_once(parse: Callable[[str], Parsed]) -> PlainValidator:
    """Return a validator that reads a parameter's text; one that is repeated has several."""

    def read(value: object) -> Parsed:
        if not isinstance(value, str):
            raise PydanticCustomError("repeated", "Parameter should be given once")
        return parse(value)

    return PlainValidator(read)


INSTANT = (read_once(parse_instant), WithJsonSchema({"type": "string"}))
Limit = Annotated[
    int, Query(ge=1, le=MOST_ITEMS, description="At most this many items", examples=[100])
]


def cursor_of(kind: type[Ended]) -> tuple[Any, ...]:
    """Return what makes a parameter the cursor of a list, whose pages end at such positions."""
    return (
        read_once(partial(decode_cursor, kind)),
        WithJsonSchema({"type": "string"}),
        Query(
            alias="cursor",
            description="`nextCursor` of the page before; left out, the first page",
        ),
    )


AfterDevice = Annotated[LastDevice | None, *cursor_of(LastDevice)]
OfMeter = Annotated[
    Id | None,
    Query(
        alias="meterId",
        description="Only those of this meter",
        examples=["METER-001"],
    ),
]
OfVehicle = Annotated[
    Id | None,
    Query(
        alias="vehicleId",
        description="Only those of this vehicle",
        examples=["VEH-001"],
    ),
]
