"""What ops ask for of one device: that a reading counts no more, or that the device is erased."""

from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from telemetry.recognition import Id, Instant, Message, Person, Reason


class _Correction(Message):
    """What ops say of one device: which, who says so, and why."""

    OPTIONAL_TEXTS = ("meter_id", "vehicle_id")

    meter_id: Id | None = Field(default=None, description="The meter; or", examples=["METER-001"])
    vehicle_id: Id | None = Field(default=None, description="the vehicle", examples=[None])
    by: Person = Field(description="Who", examples=["Ada Lovelace"])

    @model_validator(mode="after")
    def _is_of_one_device(self) -> Self:
        if (self.meter_id is None) == (self.vehicle_id is None):
            raise PydanticCustomError("device", "Input should have either meterId or vehicleId")
        return self

    @property
    def stream(self) -> str:
        """Whose reading it is: a `meter`'s or a `vehicle`'s."""
        return "vehicle" if self.meter_id is None else "meter"

    @property
    def device_id(self) -> str:
        """Which one's."""
        return self.meter_id or self.vehicle_id or ""


class VoidRequest(_Correction):
    """A reading that is not to count, or to count again; who says so, and why."""

    TEXTS = 5

    timestamp: Instant = Field(
        description="The reading's device time (RFC 3339, offset required)",
        examples=["2026-02-10T10:00:00Z"],
    )
    why: Reason = Field(
        description="What is wrong with the reading, or was with the void",
        examples=["The meter was being tested"],
    )


class ErasureRequest(_Correction):
    """A device that is to be erased; who says so, and why, which is kept for good."""

    TEXTS = 4

    why: Reason = Field(
        description="On what ground; kept for good, so without the id or the name of a person",
        examples=["The driver asked for it, case 2026-117"],
    )
