"""What devices report: the energy of each interval, or a running register.

The work is done by the stored functions of devices.sql, which also says what a register counts.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from telemetry.answers import Answer
from telemetry.database import Database
from telemetry.errors import DeviceNotDeclared, FieldError, InvalidRequest
from telemetry.recognition import (
    FIRST_TIME_TOO_FAR,
    MOST_REGISTER_KWH,
    OLDEST_TIMESTAMP,
    AnyTime,
    Message,
)

MOST_EVENTS = 100
MOST_VERSIONS = 100
# Readings one after the other that tell a register from energies of intervals.
_STEPS = 10
_SENT_WITHIN = timedelta(days=1)

_DECLARE = "SELECT * FROM declare_device(%s, %s, %s, %s, %s, %s, %s, %s, %s)"
_DECLARE_CADENCE = "SELECT * FROM declare_cadence(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
_TAKE_BACK = "SELECT * FROM take_declaration_back(%s, %s, %s, %s)"
_FIND = "SELECT * FROM find_device(%s, %s)"


def _check_years(time: datetime) -> datetime:
    if not OLDEST_TIMESTAMP <= time < FIRST_TIME_TOO_FAR:
        raise PydanticCustomError("instant", "Input should be in the years 2000 to 2099")
    return time


class DeviceDeclaration(Message):
    """What a device reports as energy."""

    TEXTS = 2
    OPTIONAL_TEXTS = ("valid_from",)

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
    cadence_seconds: int | None = Field(
        default=None,
        ge=1,
        le=86_400,
        description="How often it reports, which is the length of its intervals (s), up to a day; "
        "left out, 60. A reading that tells its own `intervalSeconds` is as long as it tells; a "
        "register's reading is as long as it is since the one before",
        examples=[900],
        json_schema_extra={"unit": "s"},
    )
    valid_from: Annotated[AnyTime, AfterValidator(_check_years)] | None = Field(
        default=None,
        description="It holds for what is accepted after this instant (RFC 3339, offset required), "
        "until the next version; left out, from now on",
        examples=[None],
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


class Declaration(Answer):
    """What a device reports."""

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
    cadence_seconds: int | None = Field(
        description="How often it reports (s); null: 60",
        examples=[900],
        json_schema_extra={"unit": "s"},
    )


class Version(Declaration):
    """What a device is declared to report in what is accepted after an instant."""

    valid_from: datetime = Field(examples=["2026-02-10T10:00:00Z"])
    declared_at: datetime = Field(examples=["2026-02-10T10:00:00Z"])


class Declared(Declaration):
    """What a device reports now: intervals, where no version has begun."""

    valid_from: datetime | None = Field(
        description="Of the version that holds now; null where none does",
        examples=["2026-02-10T10:00:00Z"],
    )
    declared_at: datetime | None = Field(
        description="When it was declared", examples=["2026-02-10T10:00:00Z"]
    )

    device_id: str = Field(examples=["METER-001"])
    versions: list[Version] = Field(
        description="All versions, the newest first: each holds until the one after it begins",
        examples=[[]],
    )
    pending: bool = Field(
        description="A version was made or taken back: the next maintenance, which is hourly, "
        "looks at what was accepted since it began, and stores again what is something else now. "
        "Archived days, and what is more than an interval can have, stay as they are.",
        examples=[False],
    )


class Device(Declared):
    """What a device is declared to report, and what was odd about its register."""

    events: list[RegisterEvent] = Field(
        description=f"What was odd about its register, the newest first, {MOST_EVENTS} at most",
        examples=[[]],
    )


class DeviceAnswer(Device):
    """A device that was declared just now."""

    disagreement: str | None = Field(
        description="Why what it sent in the last day does not look like what was declared; null "
        "where nothing speaks against it",
        examples=[None],
    )


def declare_device(
    database: Database, device_id: str, declaration: DeviceDeclaration, at: datetime
) -> tuple[DeviceAnswer, bool]:
    """Say what a device reports in what is accepted after validFrom, or after an instant.

    Return what is known of it now, and whether the version is new. Raises InvalidRequest where
    there are too many, and DatabaseUnavailable.
    """
    is_register = declaration.energy == "register"
    said = (
        *(declaration.valid_from or at, at),
        *(declaration.register_modulus, declaration.max_power_kw),
        *(MOST_VERSIONS, MOST_EVENTS, at - _SENT_WITHIN),
    )
    cadence = declaration.cadence_seconds
    [(refused, created, *sent, device_id, versions, pending, events)] = (
        database.fetch(_DECLARE, (device_id, is_register, *said))
        if cadence is None
        else database.fetch(_DECLARE_CADENCE, (device_id, is_register, cadence, *said))
    )
    if refused:
        message = f"A device may have {MOST_VERSIONS} versions: take the newest back with DELETE"
        raise InvalidRequest([FieldError("validFrom", message)])
    device = _device((device_id, versions, pending, events), at)
    disagreement = _find_disagreement(is_register, *sent)
    return DeviceAnswer(**dict(device), disagreement=disagreement), created


def take_back(database: Database, device_id: str, valid_from: datetime, at: datetime) -> Device:
    """Take a version of a device's declaration back, as if it had never been.

    Return what is declared then. Raises DeviceNotDeclared where there is no such version, and
    DatabaseUnavailable.
    """
    rows = database.fetch(_TAKE_BACK, (device_id, valid_from, at, MOST_EVENTS))
    if not rows:
        raise DeviceNotDeclared
    return _device(rows[0], at)


def find_device(database: Database, device_id: str) -> Device:
    """Return what a device was declared to report.

    Raises DeviceNotDeclared and DatabaseUnavailable.
    """
    rows = database.fetch(_FIND, (device_id, MOST_EVENTS))
    if not rows:
        raise DeviceNotDeclared
    return _device(rows[0], datetime.now(UTC))


# What holds where no version has begun.
NOTHING_DECLARED: dict[str, Any] = {
    "energy": "interval",
    "register_modulus": None,
    "max_power_kw": None,
    "cadence_seconds": None,
    "valid_from": None,
    "declared_at": None,
}


def _find_disagreement(is_register: bool, steps: int, rises: int, falls: int) -> str | None:
    """Say what speaks against a declaration in how often what was sent rose and fell."""
    if is_register and falls > 1 and falls * 10 > steps:
        return (
            f"{falls} of {steps} readings of the last day are less than the one before, and a "
            "register only grows: does the device report the energy of each interval?"
        )
    if not is_register and rises >= _STEPS and not falls:
        return (
            f"none of {steps} readings of the last day is less than the one before: does the "
            "device report a running register?"
        )
    return None


def _device(row: Sequence[Any], at: datetime) -> Device:
    *declared, events = row
    noted = [RegisterEvent.model_validate(event) for event in events or ()]
    return Device(**declared_fields(declared, at), events=noted)


def declared_fields(row: Sequence[Any], at: datetime) -> dict[str, Any]:
    """Return the fields of Declared at an instant, of a row of find_device without its events."""
    device_id, declared, pending = row
    versions = [
        Version(
            valid_from=datetime.fromisoformat(version["valid_from"]),
            declared_at=datetime.fromisoformat(version["declared_at"]),
            energy="register" if version["is_register"] else "interval",
            register_modulus=version["register_modulus"],
            max_power_kw=version["max_power_kw"],
            cadence_seconds=version.get("cadence_seconds"),
        )
        for version in declared
    ]
    begun = next(
        (dict(version) for version in versions if version.valid_from <= at), NOTHING_DECLARED
    )
    return {**begun, "device_id": device_id, "versions": versions, "pending": pending}
