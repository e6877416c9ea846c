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

    # What HTTP answers with.
    status = 500


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

    def __init__(self, errors: list[FieldError], message: str = "Validation failed") -> None:
        super().__init__(message)
        self.errors = errors


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


class MeterNotFound(TelemetryError):
    """No reading of this meter was ever received."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Meter not found")


class NotAcceptable(TelemetryError):
    """The client accepts none of the forms that the answer can have."""

    status = 406

    def __init__(self, offered: Sequence[str]) -> None:
        super().__init__(f"Accept should allow {' or '.join(offered)}")


class DatabaseUnavailable(TelemetryError):
    """PostgreSQL cannot be reached or does not answer; whether a write took effect is unknown."""

    status = 503

    def __init__(self) -> None:
        super().__init__("The database cannot be reached; send the request again")


class QueueUnavailable(TelemetryError):
    """SQS cannot be reached or refuses a message."""

    status = 503

    def __init__(self) -> None:
        super().__init__("The queue cannot be reached")


class NothingTaken(TelemetryError):
    """Neither PostgreSQL nor the queue take readings now; nothing of the request was taken."""

    status = 503

    def __init__(self) -> None:
        super().__init__("Readings cannot be taken now; send the request again")


class UnsupportedEncoding(TelemetryError):
    """The body is compressed in a way that is not understood."""

    status = 415

    def __init__(self) -> None:
        super().__init__("Content-Encoding should be gzip, or left out")


class BodyTooLarge(TelemetryError):
    """The body unpacks to more than is taken."""

    status = 413

    def __init__(self, most: int) -> None:
        super().__init__(f"The body should unpack to at most {most} bytes")


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
