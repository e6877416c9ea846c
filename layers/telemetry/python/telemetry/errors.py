"""Everything that can go wrong and has a name."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True, slots=True)
class FieldError:
    """One refused field: its name as sent, and why."""

    field: Annotated[str, Field(examples=["voltage"])]
    message: Annotated[str, Field(examples=["Field required"])]


class TelemetryError(Exception):
    """Something went wrong here; it is logged under the request's id."""

    # What HTTP answers with: the status, the fields at fault, in how many seconds to come again.
    status = 500
    errors: Sequence[FieldError] | None = None
    retry_after: int | None = None


class SettingMissing(TelemetryError):
    """An environment variable that the function needs is not set."""

    def __init__(self, name: str) -> None:
        super().__init__(f"environment variable {name} is not set")


class SettingInvalid(TelemetryError):
    """An environment variable has a value that is none of those it may have."""

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"environment variable {name} is {value!r}, and should be {allowed}")


class InvalidRequest(TelemetryError):
    """What was sent cannot be taken; nothing of it was stored."""

    status = 400
    errors: Sequence[FieldError]

    def __init__(self, errors: Sequence[FieldError], message: str = "Validation failed") -> None:
        super().__init__(message)
        self.errors = errors


class BatchInvalid(TelemetryError):
    """No item of a batch can be taken, for more than one reason or because none is valid."""

    status = 400

    def __init__(self) -> None:
        super().__init__("No item of the batch is valid")


class BatchNotAdmitted(TelemetryError):
    """No item of a batch is taken, all for the same reason, which each of them tells."""

    def __init__(self, status: int, retry_after: int) -> None:
        super().__init__("No item of the batch is admitted")
        self.status = status
        self.retry_after = retry_after or None


class InternalError(TelemetryError):
    """Something was not foreseen; the log has it under the request's id."""

    def __init__(self) -> None:
        super().__init__("Internal Server Error")


class RouteNotFound(TelemetryError):
    """There is no such route."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Not Found")


class NotAuthenticated(TelemetryError):
    """The request carries no token, or came past what verifies it."""

    status = 401

    def __init__(self) -> None:
        super().__init__("Unauthorized")


class ScopeMissing(TelemetryError):
    """The token is not accepted, or not for this route or this device."""

    status = 403

    def __init__(self, scope: str | None) -> None:
        needed = f"needs the scope {scope}" if scope else "is closed"
        super().__init__(f"This route {needed}")


class DeviceNotCovered(TelemetryError):
    """The token does not name the device, which may exist or not."""

    status = 403
    errors: Sequence[FieldError]

    def __init__(self, field: str) -> None:
        super().__init__("The token is not for this device")
        self.errors = [FieldError(field, str(self))]


class TooManyReadings(TelemetryError):
    """The device sends more readings than it may; nothing of them was taken."""

    status = 429
    errors: Sequence[FieldError]

    def __init__(self, field: str, seconds: int) -> None:
        super().__init__(f"The device sends too many readings; send again in {seconds} s")
        self.errors = [FieldError(field, str(self))]
        self.retry_after = seconds


class VehicleNotFound(TelemetryError):
    """No reading of this vehicle was ever received."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Vehicle not found")


class LinkNotFound(TelemetryError):
    """No meter feeds the vehicle at that instant, so there is no link to end."""

    status = 404

    def __init__(self) -> None:
        super().__init__("No link to end")


class TariffNotFound(TelemetryError):
    """There is no such tariff, or no such version of it."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Tariff not found")


class TariffRefused(TelemetryError):
    """The tariff does not go with those that there are."""

    status = 409


class MeterNotFound(TelemetryError):
    """No reading of this meter was ever received."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Meter not found")


class DeviceNotDeclared(TelemetryError):
    """Nobody declared what the device reports: it is the energy of each interval."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Device not declared")


class ReadingNotFound(TelemetryError):
    """The device has no such reading; it may still be in a queue."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Reading not found")


class VoidNotFound(TelemetryError):
    """The reading was never voided."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Void not found")


class FaultNotFound(TelemetryError):
    """There is no fault of this id."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Fault not found")


class FaultCleared(TelemetryError):
    """The fault was cleared before it was acknowledged."""

    status = 409

    def __init__(self) -> None:
        super().__init__("The fault is cleared; there is nothing to acknowledge")


class NotAcceptable(TelemetryError):
    """The client accepts none of the forms that the answer can have."""

    status = 406

    def __init__(self, offered: Sequence[str]) -> None:
        super().__init__(f"Accept should allow {' or '.join(offered)}")


class DatabaseUnavailable(TelemetryError):
    """PostgreSQL cannot be reached or does not answer; whether a write took effect is unknown."""

    status = 503
    retry_after = 1

    def __init__(self, said: str = "The database cannot be reached; send the request again"):
        super().__init__(said)


class QueueUnavailable(TelemetryError):
    """SQS cannot be reached or refuses a message."""

    status = 503
    retry_after = 1

    def __init__(self) -> None:
        super().__init__("The queue cannot be reached")


class AlertsUnpublished(TelemetryError):
    """Changes of faults wait, because the topic or bus does not take them; the next run does."""

    def __init__(self) -> None:
        super().__init__("Alerts cannot be published: they wait for the next run")


class NothingTaken(TelemetryError):
    """Neither PostgreSQL nor the queue take readings now; nothing of the request was taken."""

    status = 503
    retry_after = 1

    def __init__(self) -> None:
        super().__init__("Readings cannot be taken now; send the request again")


class UnsupportedEncoding(TelemetryError):
    """The body is compressed in a way that is not understood."""

    status = 415

    def __init__(self) -> None:
        super().__init__("Content-Encoding should be gzip, or left out")


class BodyTooLarge(TelemetryError):
    """The body is, or unpacks to, more than is taken."""

    status = 413

    def __init__(self, most: int) -> None:
        super().__init__(f"The body should have at most {most} bytes, unpacked")


class MessageUnusable(TelemetryError):
    """A message of the queue holds nothing that could ever be stored."""


class MigrationChanged(TelemetryError):
    """A migration that was applied before reads differently now."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"migration {name} was changed after it was applied: undo the change, "
            "and put what is new in a migration of its own"
        )


class DefaultPartitionMixed(TelemetryError):
    """The default partition holds rows that no accepted reading can be, so it cannot be adopted."""

    def __init__(self, name: str, start: datetime, end: datetime) -> None:
        super().__init__(
            f"{name} holds rows outside {start:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}, "
            "which were not taken as readings: delete or move them, then make partitions again"
        )


class RevocationsUnavailable(TelemetryError):
    """It is not known whether a token was revoked."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the table of revoked tokens does not answer: {reason}")


class ArchiveUnavailable(TelemetryError):
    """The bucket of the archive cannot be reached, or refuses."""

    def __init__(self, bucket: str, reason: str) -> None:
        super().__init__(f"the archive {bucket} does not work: {reason}")


class ArchiveDiffers(TelemetryError):
    """What was read back is not what was written; what it was written from is still there."""

    def __init__(self, name: str, expected: str, found: str) -> None:
        super().__init__(f"{name} should hold {expected}, and holds {found}: nothing was dropped")


class ArchiveDamaged(TelemetryError):
    """An object of the archive is not the one that was put there."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is not what was archived: look at older versions of the object")


class DayNotArchived(TelemetryError):
    """The archive has no receipt of that day."""

    def __init__(self, day: date) -> None:
        super().__init__(f"nothing of {day} is in the archive")
