"""Pages of a list: an opaque cursor says where one ended, and the next goes on from there.

A page is found by key, not by counting rows: what is written meanwhile moves no row from one page
to another.
"""

import base64
import binascii
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from telemetry.answers import Answer
from telemetry.recognition import TEXT

# What a list names its items by: `items: list[Fault] = ITEMS`.
ITEMS = Field(description="What is on this page", examples=[[]])


class Page(Answer):
    """A part of a list."""

    items: list[Any] = ITEMS
    next_cursor: str | None = Field(
        description="`cursor` of the next page; null where there is nothing more",
        examples=["eyJkZXZpY2VfaWQiOiJWRUgtMDAxIn0"],
    )


class Position(BaseModel):
    """Where a page of a list ended."""

    model_config = ConfigDict(defer_build=True)


Ended = TypeVar("Ended", bound=Position)


# An id as a position holds it: of whatever is stored, also what would be refused by now.
StoredId = Annotated[str, Field(min_length=1, max_length=64, pattern=TEXT)]


class LastDevice(Position):
    """Where a page of devices ended, which are in the order of their ids."""

    device_id: StoredId


def encode_cursor(position: Position) -> str:
    """Return a position as a text for URLs."""
    encoded = base64.urlsafe_b64encode(position.model_dump_json().encode())
    return encoded.rstrip(b"=").decode()


def decode_cursor(kind: type[Ended], cursor: str) -> Ended:
    """Return the position that a cursor stands for; raise PydanticCustomError where it is none."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return kind.model_validate_json(base64.b64decode(padded, b"-_", validate=True))
    except (UnicodeEncodeError, binascii.Error, ValidationError):
        raise PydanticCustomError(
            "cursor", "Input should be the nextCursor of an earlier page of this list"
        ) from None
