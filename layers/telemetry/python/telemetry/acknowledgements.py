"""Acknowledgements of chargers' faults: who looks after one, and why."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from telemetry.answers import FAULT_ID, Answer
from telemetry.database import Database
from telemetry.errors import FaultCleared, FaultNotFound
from telemetry.recognition import Message, Person, Reason

_ACKNOWLEDGE = "SELECT acknowledge_fault(%s, %s, %s)"


class Acknowledgement(Message):
    """Who looks after a fault."""

    by: Person = Field(description="Who", examples=["Ada Lovelace"])
    why: Reason = Field(
        description="What is known, or done about it",
        examples=["Charger is to be replaced on Friday"],
    )


class Acknowledged(Answer):
    """Somebody looks after the fault."""

    id: UUID = Field(examples=[FAULT_ID])
    state: Literal["acknowledged"] = Field(default="acknowledged", examples=["acknowledged"])


def acknowledge_fault(database: Database, fault_id: UUID, by: str, why: str) -> None:
    """Note who looks after a fault and why; who said so first stands.

    Raises FaultNotFound, FaultCleared and DatabaseUnavailable.
    """
    [(state,)] = database.fetch(_ACKNOWLEDGE, (fault_id, by, why))
    if state is None:
        raise FaultNotFound
    if state == "cleared":
        raise FaultCleared
