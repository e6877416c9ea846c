"""Devices erased by ops, with every number that is made of them; and the trace of it.

Asking only notes it: the maintenance does the work (telemetry.eraser). erasures.sql says what goes,
and what a device's later readings become.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from telemetry.answers import Answer
from telemetry.corrections import ErasureRequest
from telemetry.database import Database
from telemetry.pages import ITEMS, Page, Position, encode_cursor
from telemetry.voids import Statement, Stream

_REQUEST = "SELECT * FROM request_erasure(%s, %s, %s, %s, %s)"
_LIST = "SELECT * FROM list_erasures(%s, %s, %s, %s)"


class Erasure(Answer):
    """A device that is, or is to be, erased."""

    erasure_id: UUID = Field(examples=["0d3f6a0e-8a36-4a3e-9d0c-0d5f4a8f2b11"])
    stream: Stream = Field(description="What the device is", examples=["vehicle"])
    device_id: str | None = Field(
        description="Which one; null when it is done: the trace does not have it", examples=[None]
    )
    status: Literal["pending", "done"] = Field(examples=["done"])
    asked: Statement
    finished_at: datetime | None = Field(
        description="Since when nothing is left of it; null until then",
        examples=["2026-02-11T10:05:00Z"],
    )
    receipts: int = Field(description="Receipts that were erased so far", examples=[43200])
    files: int = Field(description="Files of the archive that were rewritten", examples=[12])


class Erasures(Page):
    """Erasures, the newest first."""

    items: list[Erasure] = ITEMS


class LastErasure(Position):
    """Where a page of erasures ended."""

    at: AwareDatetime
    erasure_id: UUID


def request_erasure(
    database: Database, request: ErasureRequest, token_id: str | None
) -> tuple[Erasure, bool]:
    """Have a device erased; return the erasure, and whether it is new: who asked first stands.

    Safe to repeat. Raises DatabaseUnavailable.
    """
    said = (request.by, request.why, token_id)
    [(is_new, *row)] = database.fetch(_REQUEST, (request.stream, request.device_id, *said))
    return _erasure(row), is_new


def list_erasures(
    database: Database, after: LastErasure | None = None, limit: int = 100
) -> Erasures:
    """Return a page of erasures. Raises DatabaseUnavailable."""
    last = (after.at, after.erasure_id) if after else (None, None)
    rows = database.fetch(_LIST, (None, *last, limit + 1))
    cursor = None
    if len(rows) > limit:
        erasure_id, _, _, at, *_ = rows[limit - 1]
        cursor = encode_cursor(LastErasure(at=at, erasure_id=erasure_id))
    return Erasures(items=[_erasure(row) for row in rows[:limit]], next_cursor=cursor)


def _erasure(row: Sequence[Any]) -> Erasure:
    erasure_id, stream, device_id, at, by, why, token_id, finished_at, receipts, files = row
    return Erasure(
        erasure_id=erasure_id,
        stream=stream,
        device_id=device_id,
        status="done" if finished_at else "pending",
        asked=Statement(at=at.astimezone(UTC), by=by, why=why, token_id=token_id),
        finished_at=finished_at and finished_at.astimezone(UTC),
        receipts=receipts,
        files=files,
    )
