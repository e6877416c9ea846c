"""What the parameters of analytics' routes may be: of reports, live lists, receipts and faults."""

import re
from datetime import datetime, timedelta, tzinfo
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import WithJsonSchema
from pydantic_core import PydanticCustomError

from telemetry.charging import ChargingStatus
from telemetry.faults import FaultKind, FaultState, LastFault
from telemetry.fleet import FleetSort, LastRank
from telemetry.live import Status
from telemetry.parameters import INSTANT, cursor_of, read_once
from telemetry.receipts import LastReceipt
from telemetry.recognition import DEVICE_ID
from telemetry.reports import LONGEST_WINDOW
from telemetry.trends import MOST_BUCKETS, Bucket
from telemetry.zones import parse_zone

MOST_VEHICLES = 100
MOST_HOURS = LONGEST_WINDOW // timedelta(hours=1)


def _parse_vehicle_ids(value: str) -> list[str]:
    """Read ids that are separated by commas; raise PydanticCustomError on anything else."""
    ids = value.split(",")
    if len(ids) > MOST_VEHICLES or not all(re.fullmatch(DEVICE_ID, each) for each in ids):
        raise PydanticCustomError(
            "vehicle_ids", "Input should be 1 to 100 vehicle ids, separated by commas"
        )
    return ids


def _parse_queried_zone(value: str) -> tzinfo:
    """Read a name as parse_zone does, also where its `+` was not encoded, as of Etc/GMT+5."""
    return parse_zone(value.replace(" ", "+"))


PerformanceEnd = Annotated[
    datetime | None,
    *INSTANT,
    Query(
        alias="end",
        description="Where the window ends: `now`, or an RFC 3339 time with an offset. Left out, "
        "at the vehicle's latest reading.",
        examples=["2024-02-09T15:30:00Z"],
    ),
]
FleetEnd = Annotated[
    datetime | None,
    *INSTANT,
    Query(
        alias="end",
        description="Where the window ends: `now`, or an RFC 3339 time with an offset. Left out, "
        "at the last whole hour; other windows take longer.",
        examples=["2024-02-09T15:00:00Z"],
    ),
]
TrendEnd = Annotated[
    datetime | None,
    *INSTANT,
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
    read_once(_parse_vehicle_ids),
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
    *INSTANT,
    Query(
        alias="from",
        description="Readings after this instant: `now`, or an RFC 3339 time with an offset. Left "
        "out, 24 hours before `to`.",
        examples=["2024-02-08T15:30:00Z"],
    ),
]
WindowEnd = Annotated[
    datetime | None,
    *INSTANT,
    Query(
        alias="to",
        description="Readings up to and including this instant. Left out, up to the device's "
        "latest reading.",
        examples=["2024-02-09T15:30:00Z"],
    ),
]
Zone = Annotated[
    tzinfo | None,
    read_once(_parse_queried_zone),
    WithJsonSchema({"type": "string"}),
    Query(
        alias="tz",
        description="Times are given in this IANA time zone, with its offset. Left out, in UTC.",
        examples=["Asia/Kolkata"],
    ),
]
OfFaultState = Annotated[
    FaultState | None, Query(alias="state", description="Only faults in this state")
]
OfFaultKind = Annotated[
    FaultKind | None,
    Query(
        alias="kind",
        description="Only faults of this kind. Left out, those of `efficiency`: too little of what "
        "the meter measured reached the battery. `implausible`: more than it measured did.",
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
AfterReceipt = Annotated[LastReceipt | None, *cursor_of(LastReceipt)]
AfterRank = Annotated[LastRank | None, *cursor_of(LastRank)]
AfterFault = Annotated[LastFault | None, *cursor_of(LastFault)]
