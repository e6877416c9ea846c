"""The parameters that routes share: what each may be, and how its text is read."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Annotated, TypeVar

from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from telemetry.charging import ChargingStatus
from telemetry.erasures import LastErasure
from telemetry.faults import FaultState, LastFault
from telemetry.fleet import FleetSort, LastRank
from telemetry.live import LastDevice, Status
from telemetry.pages import decode_cursor
from telemetry.readings import DEVICE_ID, FIRST_TIME_TOO_FAR, OLDEST_TIMESTAMP, parse_time
from telemetry.receipts import LastReceipt
from telemetry.reports import LONGEST_WINDOW
from telemetry.trends import MOST_BUCKETS, Bucket
from telemetry.voids import LastVoid
from telemetry.zones import parse_zone

Parsed = TypeVar("Parsed")

MOST_ITEMS = 1000
MOST_VEHICLES = 100
MOST_HOURS = LONGEST_WINDOW // timedelta(hours=1)


def parse_instant(value: str) -> datetime:
    """Read `now` or an RFC 3339 time of this century; raise PydanticCustomError on others."""
    if value == "now":
        return datetime.now(UTC)
    try:
        time = parse_time(value)
    except PydanticCustomError as error:
        raise PydanticCustomError("instant", f"{error}, or now") from None
    if not OLDEST_TIMESTAMP <= time < FIRST_TIME_TOO_FAR:
        raise PydanticCustomError("instant", "Input should be in the years 2000 to 2099")
    return time


def parse_vehicle_ids(value: str) -> list[str]:
    """Read ids that are separated by commas; raise PydanticCustomError on anything else."""
    ids = value.split(",")
    if len(ids) > MOST_VEHICLES or not all(re.fullmatch(DEVICE_ID, each) for each in ids):
        raise PydanticCustomError(
            "vehicle_ids", "Input should be 1 to 100 vehicle ids, separated by commas"
        )
    return ids


def _read_once(parse: Callable[[str], Parsed]) -> PlainValidator:
    """Return a validator that reads a parameter's text; one that is repeated has several."""

    def read(value: object) -> Parsed:
        if not isinstance(value, str):
            raise PydanticCustomError("repeated", "Parameter should be given once")
        return parse(value)

    return PlainValidator(read)


_INSTANT = (_read_once(parse_instant), WithJsonSchema({"type": "string"}))
PerformanceEnd = Annotated[
    datetime | None,
    *_INSTANT,
    Query(
        alias="end",
        description="Where the window ends: `now`, or an RFC 3339 time with an offset. Left out, "
        "at the vehicle's latest reading.",
        examples=["2024-02-09T15:30:00Z"],
    ),
]
FleetEnd = Annotated[
    datetime | None,
    *_INSTANT,
    Query(
        alias="end",
        description="Where the window ends: `now`, or an RFC 3339 time with an offset. Left out, "
        "at the last whole hour; other windows take longer.",
        examples=["2024-02-09T15:00:00Z"],
    ),
]
TrendEnd = Annotated[
    datetime | None,
    *_INSTANT,
    Query(
        alias="end",
        description="An instant in the last bucket: `now`, or an RFC 3339 time with an offset. "
        "Left out, the vehicle's latest reading.",
        examples=["2024-02-09T15:30:00Z"],
    ),
]
Hours = Annotated[
    int, Query(ge=1, le=MOST_HOURS, description="Length of the window (h)", examples=[24])
]
VehicleIds = Annotated[
    list[str],
    _read_once(parse_vehicle_ids),
    WithJsonSchema({"type": "string"}),
    Query(
        alias="vehicleIds",
        description="1 to 100 vehicle ids, separated by commas",
        examples=["VEH-001,VEH-002"],
    ),
]
OfChargingStatus = Annotated[
    ChargingStatus | None, Query(alias="status", description="Only vehicles of this status")
]
OfSort = Annotated[
    FleetSort | None,
    Query(
        alias="sort",
        description="By the energy lost, or by what that cost. Left out, by cost where the fleet "
        "has a tariff in the window, else by energy; with a cursor, as on the page before.",
    ),
]
OfBucket = Annotated[Bucket, Query(alias="bucket", description="How long each bucket is")]
Buckets = Annotated[
    int | None,
    Query(
        ge=1,
        le=MOST_BUCKETS,
        description="How many buckets; left out, 24 hours or 30 days",
        examples=[7],
    ),
]
WindowStart = Annotated[
    datetime | None,
    *_INSTANT,
    Query(
        alias="from",
        description="Readings after this instant: `now`, or an RFC 3339 time with an offset. Left "
        "out, 24 hours before `to`.",
        examples=["2024-02-08T15:30:00Z"],
    ),
]
WindowEnd = Annotated[
    datetime | None,
    *_INSTANT,
    Query(
        alias="to",
        description="Readings up to and including this instant. Left out, up to the device's "
        "latest reading.",
        examples=["2024-02-09T15:30:00Z"],
    ),
]
Zone = Annotated[
    tzinfo | None,
    _read_once(parse_zone),
    WithJsonSchema({"type": "string"}),
    Query(
        alias="tz",
        description="Times are given in this IANA time zone, with its offset. Left out, in UTC.",
        examples=["Asia/Kolkata"],
    ),
]
Limit = Annotated[
    int, Query(ge=1, le=MOST_ITEMS, description="At most this many items", examples=[100])
]

_CURSOR = (
    WithJsonSchema({"type": "string"}),
    Query(alias="cursor", description="`nextCursor` of the page before; left out, the first page"),
)
AfterDevice = Annotated[LastDevice | None, _read_once(partial(decode_cursor, LastDevice)), *_CURSOR]
AfterReceipt = Annotated[
    LastReceipt | None, _read_once(partial(decode_cursor, LastReceipt)), *_CURSOR
]
AfterRank = Annotated[LastRank | None, _read_once(partial(decode_cursor, LastRank)), *_CURSOR]
AfterFault = Annotated[LastFault | None, _read_once(partial(decode_cursor, LastFault)), *_CURSOR]
AfterVoid = Annotated[LastVoid | None, _read_once(partial(decode_cursor, LastVoid)), *_CURSOR]
AfterErasure = Annotated[
    LastErasure | None, _read_once(partial(decode_cursor, LastErasure)), *_CURSOR
]
OfFaultState = Annotated[
    FaultState | None, Query(alias="state", description="Only faults in this state")
]
OfVehicle = Annotated[
    str | None,
    Query(
        alias="vehicleId",
        pattern=DEVICE_ID,
        description="Only those of this vehicle",
        examples=["VEH-001"],
    ),
]
OfStatus = Annotated[
    Status | None, Query(alias="status", description="Only devices of this status")
]
Charging = Annotated[
    bool | None,
    Query(
        description="Only vehicles that are online and charge (`true`), or are online and do not "
        "(`false`)"
    ),
]
OfMeter = Annotated[
    str | None,
    Query(
        alias="meterId",
        pattern=DEVICE_ID,
        description="Only those of this meter",
        examples=["METER-001"],
    ),
]
