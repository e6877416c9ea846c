"""Which meter feeds which vehicle: links made, listed and ended over HTTP."""

import os
from datetime import UTC, datetime
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from telemetry import http, links
from telemetry.access import Access
from telemetry.bodies import receives
from telemetry.database import Database
from telemetry.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    InvalidRequest,
    LinkNotFound,
    UnsupportedEncoding,
    VehicleNotFound,
)
from telemetry.links import Link, LinkRequest, Links
from telemetry.observability import build_logger
from telemetry.paths import VehicleId
from telemetry.recognition import QueriedInstant, QueriedTime, check_id, parse_reading
from telemetry.settings import Settings

logger = build_logger("links")
settings = Settings(os.environ)
database = Database(settings.database_url, password=settings.database_password)
app = http.build_resolver(logger, enable_validation=True)

PATH = "/v1/links/<vehicleId>"
Limit = Annotated[int, Query(ge=1, le=links.MOST_LINKS, description="How many at most")]
Cursor = Annotated[QueriedTime | None, Query(description="`nextCursor` of the answer before")]
ValidTo = Annotated[
    QueriedInstant | None,
    Query(alias="validTo", description="When, from 2000-01-01 on; left out, now"),
]


@app.put(
    PATH,
    summary="Link a vehicle",
    enable_validation=False,
    tags=["Links"],
    status_code=201,
    responses=http.documents(
        Link, 201, InvalidRequest, UnsupportedEncoding, BodyTooLarge, DatabaseUnavailable
    )
    | http.documents(Link, 200),
)
@receives(parse_reading, LinkRequest, app)
def link(vehicle_id: VehicleId, request: LinkRequest) -> Response[Link]:
    """Say which meter feeds a vehicle from an instant on; either may be yet to report.

    It ends what the vehicle and the meter were linked to until then. Sent again it changes nothing;
    with another meter for the same instant it replaces what was sent before.
    """
    vehicle = check_id(vehicle_id, "vehicleId")
    made, new = links.link_vehicle(database, vehicle, request.meter_id, request.valid_from)
    return Response(201 if new else 200, "application/json", made)


@app.get(
    PATH,
    summary="The links of a vehicle",
    tags=["Links"],
    responses=http.documents(Links, 200, InvalidRequest, VehicleNotFound, DatabaseUnavailable),
)
def history(vehicle_id: VehicleId, limit: Limit = 100, cursor: Cursor = None) -> Links:
    """List the links of a vehicle, the newest first, whether made here or by readings."""
    return links.list_links(database, vehicle_id, cursor, limit)


@app.delete(
    PATH,
    summary="End the link of a vehicle",
    tags=["Links"],
    responses=http.documents(Link, 200, InvalidRequest, LinkNotFound, DatabaseUnavailable),
)
def unlink(vehicle_id: VehicleId, valid_to: ValidTo = None) -> Link:
    """End the link that a vehicle has at an instant; a reading that names a meter opens another."""
    return links.unlink_vehicle(database, vehicle_id, valid_to or datetime.now(UTC))


handler = http.build_handler(app, logger, Access(by_token=settings.by_token))
