"""Faults of chargers, listed with their history.

telemetry.alerts raises them; faults.sql says when.
"""

from datetime import UTC, datetime
from typing import Literal, NamedTuple
from uuid import UUID

from pydantic import AwareDatetime, Field, field_validator

from telemetry.answers import FAULT_ID, Answer
from telemetry.database import Database, Row
from telemetry.pages import ITEMS, Page, Position, encode_cursor

FaultKind = Literal["efficiency", "implausible"]
FaultState = Literal["open", "acknowledged", "cleared"]
Change = Literal["opened", "acknowledged", "cleared"]

_LIST = """
    SELECT fault.fault_id, vehicle_id, meter_id, kind, state, opened_window, cleared_window, history
    FROM fault CROSS JOIN LATERAL (
        SELECT json_agg(json_build_object('change', change, 'changedAt', changed_at,
                                          'publishedAt', published_at)::jsonb || details
                        ORDER BY changed_at, published_at)
        FROM fault_change WHERE fault_change.fault_id = fault.fault_id
    ) AS changes (history)
    WHERE kind = %(kind)s
      AND (%(state)s::text IS NULL OR state = %(state)s)
      AND (%(vehicle_id)s::text IS NULL OR vehicle_id = %(vehicle_id)s)
      AND (%(window)s::timestamptz IS NULL OR opened_window < %(window)s
           OR opened_window = %(window)s AND fault.fault_id > %(fault_id)s)
    ORDER BY opened_window DESC, fault.fault_id
    LIMIT %(most)s
"""


class Evidence(Answer):
    """What a charger was judged by: its energies in the window (timeWindowStart, timeWindowEnd]."""

    time_window_start: datetime = Field(examples=["2024-02-08T15:00:00Z"])
    time_window_end: datetime = Field(examples=["2024-02-09T15:00:00Z"])
    linked_minutes: int = Field(
        description="Minutes of the window in which the meter fed the vehicle", examples=[1440]
    )
    status: Literal["healthy", "degraded", "fault", "implausible"] = Field(examples=["fault"])
    efficiency_ratio: float = Field(
        description="DC / AC × 100 of what was compared (%)",
        examples=[80.2],
        json_schema_extra={"unit": "%"},
    )
    compared_kwh_ac: float | None = Field(
        default=None,
        description="AC energy while the vehicle was heard, too (kWh); null in evidence of before "
        "there was such",
        examples=[34.946],
        json_schema_extra={"unit": "kWh"},
    )
    compared_kwh_dc: float | None = Field(
        default=None,
        description="DC energy while the meter was heard, too (kWh)",
        examples=[28.027],
        json_schema_extra={"unit": "kWh"},
    )
    compared_minutes: int | None = Field(
        default=None,
        description="Minutes that were compared",
        examples=[1426],
        json_schema_extra={"unit": "min"},
    )
    total_energy_consumed_ac: float = Field(examples=[34.946], json_schema_extra={"unit": "kWh"})
    total_energy_delivered_dc: float = Field(examples=[28.027], json_schema_extra={"unit": "kWh"})
    vehicle_coverage: float | None = Field(
        description="Minutes heard from / linked", examples=[0.99]
    )
    meter_coverage: float | None = Field(description="The same of the meter", examples=[0.99])
    average_battery_temp: float | None = Field(examples=[28.3], json_schema_extra={"unit": "°C"})
    average_voltage: float | None = Field(
        description="Of the meter, while energy was drawn",
        examples=[203.4],
        json_schema_extra={"unit": "V"},
    )
    hints: list[Literal["lowVoltage", "highBatteryTemp"]] = Field(
        description="What may be the reason", examples=[["lowVoltage"]]
    )


class FaultChange(Answer):
    """A change of a fault's state."""

    change: Change = Field(examples=["opened"])
    changed_at: datetime = Field(
        description="When it was found out, or said", examples=["2024-02-09T15:10:03Z"]
    )
    evidence: Evidence | None = Field(
        default=None,
        description="The latest window judged; null where it was acknowledged",
        examples=[None],
    )
    by: str | None = Field(default=None, description="Who acknowledged it", examples=[None])
    why: str | None = Field(default=None, description="What was said then", examples=[None])

    @field_validator("changed_at")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.astimezone(UTC)


class PastChange(FaultChange):
    """A change of a fault's state, and whether it was told."""

    published_at: datetime | None = Field(
        description="When it was published; null while it waits", examples=["2024-02-09T15:10:04Z"]
    )


class Notice(FaultChange):
    """A change as it is published; of several with one id all but one are repeats."""

    id: str = Field(examples=[f"{FAULT_ID}-opened"])
    fault_id: UUID
    vehicle_id: str
    meter_id: str
    kind: FaultKind


class Fault(Answer):
    """A charger's fault, from when it was opened until it is cleared."""

    id: UUID = Field(examples=[FAULT_ID])
    vehicle_id: str = Field(examples=["VEH-001"])
    meter_id: str = Field(examples=["METER-001"])
    kind: FaultKind = Field(
        description="efficiency: too little of what the meter measured reached the battery; "
        "implausible: more than it measured did, so a meter or a link is wrong",
        examples=["efficiency"],
    )
    state: FaultState = Field(
        description="open: nobody has acknowledged it; acknowledged: it lasts, and somebody looks "
        "after it; cleared: it is over",
        examples=["open"],
    )
    opened_at: datetime = Field(
        description="The end of the window that opened it", examples=["2024-02-09T15:00:00Z"]
    )
    cleared_at: datetime | None = Field(
        description="The end of the window that cleared it", examples=[None]
    )
    history: list[PastChange] = Field(description="Its changes, the oldest first", examples=[[]])


class Faults(Page):
    """Faults, those opened last first."""

    items: list[Fault] = ITEMS


class LastFault(Position):
    """Where a page of faults ended."""

    opened_at: AwareDatetime
    id: UUID


class FaultSelection(NamedTuple):
    """Which faults, how many, after which; None means any."""

    state: FaultState | None = None
    vehicle_id: str | None = None
    limit: int = 100
    after: LastFault | None = None
    kind: FaultKind = "efficiency"


def list_faults(database: Database, selection: FaultSelection) -> Faults:
    """Return a page of faults. Raises DatabaseUnavailable."""
    after = selection.after
    rows = database.fetch(
        _LIST,
        {
            "kind": selection.kind,
            "state": selection.state,
            "vehicle_id": selection.vehicle_id,
            "window": after and after.opened_at,
            "fault_id": after and after.id,
            "most": selection.limit + 1,
        },
    )
    items = [_fault(row) for row in rows[: selection.limit]]
    more = len(rows) > selection.limit
    return Faults(
        items=items,
        next_cursor=encode_cursor(LastFault(opened_at=items[-1].opened_at, id=items[-1].id))
        if more
        else None,
    )


def _fault(row: Row) -> Fault:
    fault_id, vehicle_id, meter_id, kind, state, opened_at, cleared_at, history = row
    return Fault(
        id=fault_id,
        vehicle_id=vehicle_id,
        meter_id=meter_id,
        kind=kind,
        state=state,
        opened_at=opened_at.astimezone(UTC),
        cleared_at=cleared_at and cleared_at.astimezone(UTC),
        history=[PastChange.model_validate(change) for change in history],
    )
