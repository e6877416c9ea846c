"""The audit trail: every receipt of a device's readings, and which of them counts."""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, NamedTuple, TypeVar

from pydantic import AwareDatetime, BeforeValidator, Field

from telemetry.answers import Answer
from telemetry.database import Database
from telemetry.errors import FieldError, InvalidRequest, MeterNotFound, VehicleNotFound
from telemetry.pages import ITEMS, Page, Position, encode_cursor
from telemetry.recognition import FIRST_TIME_TOO_FAR, OLDEST_TIMESTAMP
from telemetry.streams import METERS, VEHICLES, Stream

DEFAULT_WINDOW = timedelta(hours=24)

# A window (from, to] begins after whatever was received of its first instant.
_LAST_RECEIPT = datetime.max.replace(tzinfo=UTC)


class Receipt(Answer):
    """A reading as it was received once."""

    received_at: datetime = Field(
        description="When the API accepted it", examples=["2026-02-10T10:00:01.250000Z"]
    )
    counts: bool = Field(
        description="Whether this is the latest receipt of the reading: its values count in every "
        "sum",
        examples=[True],
    )
    register_kwh: float | None = Field(
        description="What the register of the device showed (kWh), of which the energy is what it "
        "has grown by; null where the device reports the energy of each interval",
        examples=[None],
        json_schema_extra={"unit": "kWh"},
    )
    seconds: Annotated[
        float, BeforeValidator(lambda seconds: 60 if seconds is None else seconds)
    ] = Field(
        serialization_alias="intervalSeconds",
        description="How long its interval counts as (s)",
        examples=[60],
        json_schema_extra={"unit": "s"},
    )
    told_seconds: float | None = Field(
        description="How long the reading itself says that it is (s); null where it does not",
        examples=[None],
        json_schema_extra={"unit": "s"},
    )


class MeterValues(Answer):
    """What a meter reading says."""

    meter_id: str = Field(examples=["METER-001"])
    timestamp: datetime = Field(description="Device time", examples=["2026-02-10T10:00:00Z"])
    kwh_consumed_ac: float = Field(
        description="Energy consumed in the interval that ends then (kWh, AC)",
        examples=[0.125],
        json_schema_extra={"unit": "kWh"},
    )
    voltage: float | None = Field(
        description="Voltage (V); null where it is not known",
        examples=[240.5],
        json_schema_extra={"unit": "V"},
    )


class VehicleValues(Answer):
    """What a vehicle reading says."""

    vehicle_id: str = Field(examples=["VEH-001"])
    timestamp: datetime = Field(description="Device time", examples=["2026-02-10T10:00:00Z"])
    kwh_delivered_dc: float = Field(
        description="Energy delivered in the interval that ends then (kWh, DC)",
        examples=[0.115],
        json_schema_extra={"unit": "kWh"},
    )
    battery_temp: float | None = Field(
        description="Battery temperature (°C); null where it is not known",
        examples=[28.3],
        json_schema_extra={"unit": "°C"},
    )
    soc: float | None = Field(
        description="State of charge (%); null where it is not known",
        examples=[85],
        json_schema_extra={"unit": "%"},
    )


class MeterReceipt(Receipt, MeterValues):
    """A meter reading as it was received once."""


class VehicleReceipt(Receipt, VehicleValues):
    """A vehicle reading as it was received once; `soc` is null where it carried none."""

    meter_id: str | None = Field(
        description="The meter that the reading names; null where it names none",
        examples=["METER-001"],
    )


class Receipts(Page):
    """A page of the receipts in the window (from, to], by device time, then by time of receipt."""

    start: datetime = Field(
        serialization_alias="from",
        description="Readings after this instant are listed",
        examples=["2026-02-09T10:00:00Z"],
    )
    end: datetime = Field(
        serialization_alias="to",
        description="Readings up to and including this instant are listed",
        examples=["2026-02-10T10:00:00Z"],
    )


class MeterReceipts(Receipts):
    """A page of the receipts in the window (from, to], by device time, then by time of receipt."""

    items: list[MeterReceipt] = ITEMS


class VehicleReceipts(Receipts):
    """A page of the receipts in the window (from, to], by device time, then by time of receipt."""

    items: list[VehicleReceipt] = ITEMS


_Instant = Annotated[
    AwareDatetime,
    Field(ge=OLDEST_TIMESTAMP - DEFAULT_WINDOW, lt=FIRST_TIME_TOO_FAR),
]


class LastReceipt(Position):
    """Where a page of the receipts in (start, end] ended."""

    start: _Instant
    end: _Instant
    timestamp: _Instant
    received_at: AwareDatetime


class ReceiptSelection(NamedTuple):
    """Which receipts are asked for: those in (start, end], or those that follow a page.

    end is the device's latest reading where it is None, start 24 hours before the end. A cursor
    brings the window of its page along. Times are given in the zone.
    """

    start: datetime | None = None
    end: datetime | None = None
    after: LastReceipt | None = None
    limit: int = 100
    zone: tzinfo = UTC


_LATEST = "SELECT last_timestamp FROM {stream}_live_status WHERE {stream}_id = %s"

# The bounds are repeated as plain comparisons because partitions are not pruned by a pair.
_RECEIPTS = """
    SELECT "timestamp", received_at, {values}
    FROM {stream}_telemetry_history
    WHERE {stream}_id = %(device_id)s
      AND "timestamp" >= %(timestamp)s AND "timestamp" <= %(end)s
      AND ("timestamp", received_at) > (%(timestamp)s, %(received_at)s)
    ORDER BY "timestamp", received_at
    LIMIT %(limit)s + 1
"""
Kind = TypeVar("Kind", MeterReceipt, VehicleReceipt)
_METERS, _VEHICLES = (METERS, MeterReceipt), (VEHICLES, VehicleReceipt)


def list_meter_receipts(
    database: Database, meter_id: str, selection: ReceiptSelection
) -> MeterReceipts:
    """Return a page of a meter's receipts.

    Raises InvalidRequest, MeterNotFound and DatabaseUnavailable.
    """
    begin = selection.after or _find_begin(database, METERS, meter_id, selection)
    if begin is None:
        raise MeterNotFound
    items, cursor = _fetch(database, _METERS, meter_id, begin, selection)
    start, end = (bound.astimezone(selection.zone) for bound in (begin.start, begin.end))
    return MeterReceipts(start=start, end=end, items=items, next_cursor=cursor)


def list_vehicle_receipts(
    database: Database, vehicle_id: str, selection: ReceiptSelection
) -> VehicleReceipts:
    """Return a page of a vehicle's receipts, as list_meter_receipts does."""
    begin = selection.after or _find_begin(database, VEHICLES, vehicle_id, selection)
    if begin is None:
        raise VehicleNotFound
    items, cursor = _fetch(database, _VEHICLES, vehicle_id, begin, selection)
    start, end = (bound.astimezone(selection.zone) for bound in (begin.start, begin.end))
    return VehicleReceipts(start=start, end=end, items=items, next_cursor=cursor)


def _find_begin(
    database: Database, stream: Stream, device_id: str, selection: ReceiptSelection
) -> LastReceipt | None:
    """Return where the first page begins; None for a device that never reported."""
    if selection.start and selection.end and selection.start >= selection.end:
        raise InvalidRequest([FieldError("from", "Input should be before to")])
    for (last_timestamp,) in database.fetch(_LATEST.format(stream=stream.name), (device_id,)):
        end = selection.end or last_timestamp
        start = selection.start or end - DEFAULT_WINDOW
        return LastReceipt(start=start, end=end, timestamp=start, received_at=_LAST_RECEIPT)
    return None


def _fetch(
    database: Database,
    of: tuple[Stream, type[Kind]],
    device_id: str,
    begin: LastReceipt,
    selection: ReceiptSelection,
) -> tuple[list[Kind], str | None]:
    """Return receipts, and the cursor of the page after them.

    A reading's last receipt counts: the one that is not followed by another of the same timestamp.
    One row more than asked for tells that of the page's last row too.
    """
    (stream, kind), limit, zone = of, selection.limit, selection.zone
    names = [value.name for value in stream.values]
    statement = _RECEIPTS.format(stream=stream.name, values=", ".join(names))
    rows = database.fetch(statement, {"device_id": device_id, "limit": limit, **begin.model_dump()})
    next_timestamps = [row[0] for row in rows[1:]] + [None]
    items = [
        kind(
            **{stream.device: device_id, **dict(zip(names, values, strict=True))},
            timestamp=timestamp.astimezone(zone),
            received_at=received_at.astimezone(zone),
            counts=timestamp != next_timestamp,
        )
        for (timestamp, received_at, *values), next_timestamp in zip(
            rows[:limit], next_timestamps, strict=False
        )
    ]
    if len(rows) <= limit:
        return items, None
    timestamp, received_at, *_ = rows[limit - 1]
    end = begin.model_copy(update={"timestamp": timestamp, "received_at": received_at})
    return items, encode_cursor(end)
