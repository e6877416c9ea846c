"""Readings voided by ops: they are kept, and count no more until the void is withdrawn.

The work is done by the stored functions of voids.sql, which also says what follows and what does
not.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from telemetry.answers import Answer
from telemetry.corrections import VoidRequest
from telemetry.database import Database, Row
from telemetry.errors import ReadingNotFound, VoidNotFound
from telemetry.pages import ITEMS, Page, Position, StoredId, encode_cursor

Stream = Literal["meter", "vehicle"]

_VOID = "SELECT outcome, (void).* FROM void_{stream}_reading(%s, %s, %s, %s, %s)"
_WITHDRAW = "SELECT * FROM withdraw_{stream}_void(%s, %s, %s, %s, %s)"
_LIST = "SELECT * FROM list_voids(%s, %s, %s, %s, %s, %s, %s, %s)"


class Statement(Answer):
    """Who said so, when and why."""

    at: datetime = Field(examples=["2026-02-11T09:00:00Z"])
    by: str = Field(description="Who, as it was said", examples=["Ada Lovelace"])
    why: str = Field(examples=["The meter was being tested"])
    token_id: str | None = Field(
        description="The token that it was said with; null where none was asked for",
        examples=["5d0f792b"],
    )


class VoidedReceipt(Answer):
    """A receipt that is kept beside history; fields of the other stream are null."""

    received_at: datetime = Field(examples=["2026-02-10T10:00:01.250000Z"])
    kwh_consumed_ac: float | None = Field(
        default=None, examples=[0.125], json_schema_extra={"unit": "kWh"}
    )
    voltage: float | None = Field(default=None, examples=[240.5], json_schema_extra={"unit": "V"})
    kwh_delivered_dc: float | None = Field(
        default=None, examples=[None], json_schema_extra={"unit": "kWh"}
    )
    battery_temp: float | None = Field(
        default=None, examples=[None], json_schema_extra={"unit": "°C"}
    )
    soc: float | None = Field(default=None, examples=[None], json_schema_extra={"unit": "%"})
    register_kwh: float | None = Field(
        default=None,
        description="What a register showed, of which the energy is what it had grown by",
        examples=[None],
        json_schema_extra={"unit": "kWh"},
    )
    seconds: float | None = Field(
        default=None,
        serialization_alias="intervalSeconds",
        description="How long its interval counted as (s); null: 60",
        examples=[None],
        json_schema_extra={"unit": "s"},
    )
    told_seconds: float | None = Field(
        default=None,
        description="How long it said that it is (s)",
        examples=[None],
        json_schema_extra={"unit": "s"},
    )
    meter_id: str | None = Field(default=None, examples=[None])


class Void(Answer):
    """A reading that does not count, or did not for a time."""

    meter_id: str | None = Field(description="The meter, or null", examples=["METER-001"])
    vehicle_id: str | None = Field(description="The vehicle, or null", examples=[None])
    timestamp: datetime = Field(description="Device time", examples=["2026-02-10T10:00:00Z"])
    voided: Statement
    withdrawn: Statement | None = Field(
        description="Since when it counts again; null while the void stands", examples=[None]
    )
    pending: bool = Field(
        description="It takes the archive: the reading counts until the next maintenance, which is "
        "hourly; where there turns out to be no such reading, the void is withdrawn",
        examples=[False],
    )
    receipts: list[VoidedReceipt] = Field(
        description="What is kept of it, also what came since; empty while the void is pending, "
        "and where it is withdrawn: then it is in history again",
        examples=[[]],
    )


class Voids(Page):
    """Voids, the newest first."""

    items: list[Void] = ITEMS


class LastVoid(Position):
    """Where a page of voids ended."""

    at: AwareDatetime
    stream: Stream
    device_id: StoredId
    timestamp: AwareDatetime


def void_reading(
    database: Database, request: VoidRequest, token_id: str | None
) -> tuple[Void, bool]:
    """Void a reading; return the void, and whether it is new: who voided it first stands.

    Safe to repeat. Raises ReadingNotFound and DatabaseUnavailable.
    """
    [(outcome, *void)] = _call(database, _VOID, request, token_id)
    if outcome is None:
        raise ReadingNotFound
    return _void(void), outcome != "standing"


def withdraw_void(database: Database, request: VoidRequest, token_id: str | None) -> Void:
    """Have a voided reading count again, and return its void; who withdrew it first stands.

    Safe to repeat. Raises VoidNotFound and DatabaseUnavailable.
    """
    [void] = _call(database, _WITHDRAW, request, token_id)
    if void[0] is None:
        raise VoidNotFound
    return _void(void)


def list_voids(
    database: Database,
    device: tuple[Stream, str] | None = None,
    after: LastVoid | None = None,
    limit: int = 100,
) -> Voids:
    """Return a page of voids, of one device or of all. Raises DatabaseUnavailable."""
    stream, device_id = device or (None, None)
    last = (after.at, after.stream, after.device_id, after.timestamp) if after else (None,) * 4
    rows = database.fetch(_LIST, (stream, device_id, None, *last, limit + 1))
    cursor = None
    if len(rows) > limit:
        stream, device_id, timestamp, at, *_ = rows[limit - 1]
        cursor = encode_cursor(
            LastVoid(at=at, stream=stream, device_id=device_id, timestamp=timestamp)
        )
    return Voids(items=[_void(row) for row in rows[:limit]], next_cursor=cursor)


def _call(
    database: Database, statement: str, request: VoidRequest, token_id: str | None
) -> list[Row]:
    said = (request.by, request.why, token_id)
    return database.fetch(
        statement.format(stream=request.stream), (request.device_id, request.timestamp, *said)
    )


def _void(row: Sequence[Any]) -> Void:
    stream, device_id, timestamp, *said, pending, receipts = row
    return Void(
        meter_id=device_id if stream == "meter" else None,
        vehicle_id=device_id if stream == "vehicle" else None,
        timestamp=timestamp.astimezone(UTC),
        voided=_statement(*said[:4]),
        withdrawn=_statement(*said[4:]) if said[4] else None,
        pending=pending,
        receipts=[VoidedReceipt.model_validate(receipt) for receipt in receipts or ()],
    )


def _statement(at: datetime, by: str, why: str, token_id: str | None) -> Statement:
    return Statement(at=at.astimezone(UTC), by=by, why=why, token_id=token_id)
