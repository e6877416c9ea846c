"""What devices report: the energy of each interval, or a running register.

The work is done by the stored functions of devices.sql, which also says what a register counts.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from telemetry.answers import Answer
from telemetry.database import Database
from telemetry.errors import DeviceNotDeclared
from telemetry.pages import ITEMS, LastDevice, Page, encode_cursor
from telemetry.recognition import MOST_REGISTER_KWH, Message

MOST_EVENTS = 100

_DECLARE = "SELECT * FROM declare_device(%s, %s, %s, %s, %s, %s)"
_FIND = "SELECT * FROM find_device(%s, %s)"
_LIST = """
    SELECT device_id, upper_inf(registers), register_modulus, max_power_kw, declared_at
    FROM devices WHERE device_id > %s ORDER BY device_id LIMIT %s
"""
_JUMPS = """
    SELECT device_id, count(*) FROM register_events
    WHERE device_id = ANY (%s) AND event = 'jump' GROUP BY device_id
"""


class DeviceDeclaration(Message):
    """What a device reports as energy."""

    TEXTS = 1

    energy: Literal["interval", "register"] = Field(
        description="interval: the energy of the interval that ends at each timestamp. register: "
        "what its meter shows, which only grows; the energy is what it has grown by",
        examples=["register"],
    )
    register_modulus: float | None = Field(
        default=None,
        gt=0,
        le=MOST_REGISTER_KWH,
        description="Where the register begins anew at 0 (kWh); left out, nowhere known",
        examples=[1_000_000],
        json_schema_extra={"unit": "kWh"},
    )
    max_power_kw: float | None = Field(
        default=None,
        gt=0,
        le=100_000,
        description="What the device can deliver (kW): a register that grows faster has jumped; "
        "left out, 1000",
        examples=[22],
        json_schema_extra={"unit": "kW"},
    )


class RegisterEvent(Answer):
    """A reading of a register that is not just more than the one before."""

    stream: Literal["meter", "vehicle"] = Field(examples=["meter"])
    timestamp: datetime = Field(description="Device time", examples=["2026-02-10T10:00:00Z"])
    event: Literal["jump", "reset", "rollover"] = Field(
        description="jump: more than the device can deliver in the time; counts nothing. reset: it "
        "began anew at 0; counts what it shows. rollover: it passed its modulus.",
        examples=["jump"],
    )
    register_kwh: float = Field(examples=[98_431.2], json_schema_extra={"unit": "kWh"})
    previous_kwh: float = Field(examples=[1_204.7], json_schema_extra={"unit": "kWh"})


class Declared(Answer):
    """What a device is declared to report."""

    device_id: str = Field(examples=["METER-001"])
    energy: Literal["interval", "register"] = Field(
        description="Whether it reports the energy of each interval, or a running register",
        examples=["register"],
    )
    register_modulus: float | None = Field(
        description="Where the register begins anew (kWh)", examples=[1_000_000]
    )
    max_power_kw: float | None = Field(
        description="What the device can deliver (kW); null: 1000", examples=[22]
    )
    declared_at: datetime = Field(examples=["2026-02-10T10:00:00Z"])


class DeclaredDevice(Declared):
    """What a device is declared to report, and how often its register jumped."""

    jumps: int = Field(
        description="How many of its readings count nothing, because its register had grown by "
        "more than it can deliver",
        examples=[0],
    )


class DeclaredDevices(Page):
    """The devices that were declared, in the order of their ids."""

    items: list[DeclaredDevice] = ITEMS


class Device(Declared):
    """What a device is declared to report, and what was odd about its register."""

    events: list[RegisterEvent] = Field(
        description=f"What was odd about its register, the newest first, {MOST_EVENTS} at most",
        examples=[[]],
    )


def declare_device(
    database: Database, device_id: str, declaration: DeviceDeclaration, at: datetime
) -> tuple[Device, bool]:
    """Say what a device reports in what is accepted after an instant.

    Return what is known of it now, and whether it is new. Raises DatabaseUnavailable.
    """
    [(first, *row)] = database.fetch(
        _DECLARE,
        (
            device_id,
            declaration.energy == "register",
            at,
            declaration.register_modulus,
            declaration.max_power_kw,
            MOST_EVENTS,
        ),
    )
    return _device(row), first


def find_device(database: Database, device_id: str) -> Device:
    """Return what a device was declared to report.

    Raises DeviceNotDeclared and DatabaseUnavailable.
    """
    rows = database.fetch(_FIND, (device_id, MOST_EVENTS))
    if not rows:
        raise DeviceNotDeclared
    return _device(rows[0])


def list_devices(
    database: Database, after: LastDevice | None = None, limit: int = 100
) -> DeclaredDevices:
    """Return a page of the devices that were declared. Raises DatabaseUnavailable."""
    rows = database.fetch(_LIST, (after.device_id if after else "", limit + 1))
    page = rows[:limit]
    jumps: dict[str, int] = dict(database.fetch(_JUMPS, ([row[0] for row in page],)))
    return DeclaredDevices(
        items=[DeclaredDevice(**_declared(row), jumps=jumps.get(row[0], 0)) for row in page],
        next_cursor=(
            encode_cursor(LastDevice(device_id=page[-1][0])) if len(rows) > limit else None
        ),
    )


def _device(row: Sequence[Any]) -> Device:
    *declared, events = row
    noted = [RegisterEvent.model_validate(event) for event in events or ()]
    return Device(**_declared(declared), events=noted)


def _declared(row: Sequence[Any]) -> dict[str, Any]:
    device_id, is_register, modulus, max_power, declared_at = row
    return {
        "device_id": device_id,
        "energy": "register" if is_register else "interval",
        "register_modulus": modulus,
        "max_power_kw": max_power,
        "declared_at": declared_at.astimezone(UTC),
    }
