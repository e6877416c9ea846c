"""The read-only routes: which service this is, how it fares, how a vehicle charged."""

import os
from datetime import UTC, datetime
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from pydantic_core import PydanticCustomError

from telemetry import __version__
from telemetry.answers import Health, Performance, Service
from telemetry.database import Database
from telemetry.errors import (
    DatabaseUnavailable,
    FieldError,
    InvalidRequest,
    VehicleNotFound,
)
from telemetry.health import check_health
from telemetry.http import RETRY_AFTER_SECONDS, build_handler, build_resolver, documents
from telemetry.observability import build_logger
from telemetry.readings import DEVICE_ID, OLDEST_TIMESTAMP, parse_time
from telemetry.reports import Rules, report_performance
from telemetry.settings import Settings

FIRST_TIME_TOO_FAR = datetime(2100, 1, 1, tzinfo=UTC)

settings = Settings(os.environ)
logger = build_logger("analytics")
database = Database(settings.database_url, password=settings.database_password)
# Where there is a read replica, reports come from it: they may be a moment behind.
replica = (
    Database(settings.replica_database_url, password=settings.database_password)
    if settings.replica_database_url
    else database
)
app = build_resolver(logger, enable_validation=True)

VehicleId = Annotated[
    str,
    Path(alias="vehicleId", pattern=DEVICE_ID, description="Vehicle id", examples=["VEH-001"]),
]
WindowEnd = Annotated[
    str | None,
    Query(
        description="Where the window ends: `now`, or an RFC 3339 time with an offset. Left out, "
        "at the vehicle's latest reading.",
        examples=["2024-02-09T15:30:00Z"],
    ),
]


@app.get("/", summary="Which service this is", tags=["Service"], responses=documents(Service, 200))
def describe() -> Service:
    """Answer without asking the database."""
    return Service(version=__version__)


@app.get(
    "/health",
    summary="Whether the system can work",
    tags=["Service"],
    responses=documents(Health, 200) | documents(Health, 503),
)
def health() -> Response[Health]:
    """Answer 503 where the database cannot be reached, a migration or partitions are missing."""
    found = check_health(database, datetime.now(UTC))
    return Response(
        status_code=200 if found.status == "ok" else 503,
        content_type="application/json",
        headers={} if found.status == "ok" else {"Retry-After": RETRY_AFTER_SECONDS},
        body=found,
    )


@app.get(
    "/v1/analytics/performance/<vehicleId>",
    summary="How a vehicle charged in 24 hours",
    tags=["Analytics"],
    responses=documents(Performance, 200, InvalidRequest, VehicleNotFound, DatabaseUnavailable),
)
def performance(vehicle_id: VehicleId, end: WindowEnd = None) -> Performance:
    """Report energy, efficiency and battery temperature over the 24 hours up to `end`."""
    return report_performance(replica, vehicle_id, Rules(), _window_end(end))


def _window_end(end: str | None) -> datetime | None:
    if end is None:
        return None
    if end == "now":
        return datetime.now(UTC)
    try:
        time = parse_time(end)
    except PydanticCustomError as error:
        raise InvalidRequest([FieldError("end", f"{error}, or now")]) from None
    if not OLDEST_TIMESTAMP <= time < FIRST_TIME_TOO_FAR:
        raise InvalidRequest([FieldError("end", "Input should be in the years 2000 to 2099")])
    return time


handler = build_handler(app, logger)
