"""What ops take out of the numbers: readings voided over HTTP, and voids withdrawn."""

import os

from aws_lambda_powertools.event_handler import Response

from telemetry import http, voids
from telemetry.access import Access
from telemetry.bodies import receives
from telemetry.database import Database
from telemetry.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    FieldError,
    InvalidRequest,
    ReadingArchived,
    ReadingNotFound,
    UnsupportedEncoding,
    VoidNotFound,
)
from telemetry.observability import build_logger
from telemetry.parameters import AfterVoid, Limit, OfMeter, OfVehicle
from telemetry.readings import VoidRequest, parse_reading
from telemetry.settings import Settings
from telemetry.voids import Void, Voids

logger = build_logger("corrections")
settings = Settings(os.environ)
database = Database(settings.database_url, password=settings.database_password)
app = http.build_resolver(logger, enable_validation=True)


@app.post(
    "/v1/voids",
    summary="Void a reading",
    enable_validation=False,
    tags=["Corrections"],
    status_code=201,
    responses=http.documents(
        Void, 201, InvalidRequest, UnsupportedEncoding, BodyTooLarge, ReadingNotFound
    )
    | http.documents(Void, 200, ReadingArchived, DatabaseUnavailable),
)
@receives(parse_reading, VoidRequest, app)
def void(request: VoidRequest) -> Response[Void]:
    """Take a reading out of every number. It is kept, with whatever is sent of it again.

    Who voids a reading first stands: another request changes nothing, and is answered 200.
    """
    made, new = voids.void_reading(database, request, app.context["identity"].token_id)
    logger.info("reading voided", stream=request.stream, new=new)
    return Response(201 if new else 200, "application/json", made)


@app.post(
    "/v1/voids/withdrawals",
    summary="Withdraw a void",
    enable_validation=False,
    tags=["Corrections"],
    responses=http.documents(
        Void, 200, InvalidRequest, UnsupportedEncoding, BodyTooLarge, VoidNotFound
    )
    | http.documents(Void, 200, DatabaseUnavailable),
)
@receives(parse_reading, VoidRequest, app)
def withdraw(request: VoidRequest) -> Void:
    """Have a voided reading count again, as if it had never been voided; the void stays listed."""
    withdrawn = voids.withdraw_void(database, request, app.context["identity"].token_id)
    logger.info("void withdrawn", stream=request.stream)
    return withdrawn


@app.get(
    "/v1/voids",
    summary="Which readings were voided",
    tags=["Corrections"],
    responses=http.documents(Voids, 200, InvalidRequest, DatabaseUnavailable),
)
def history(
    *,
    meter_id: OfMeter = None,
    vehicle_id: OfVehicle = None,
    limit: Limit = 100,
    after: AfterVoid = None,
) -> Voids:
    """List voids with who, when and why, the newest first, those that were withdrawn too."""
    if meter_id and vehicle_id:
        raise InvalidRequest([FieldError("vehicleId", "Input should be left out beside meterId")])
    device: tuple[voids.Stream, str] | None = None
    if meter_id:
        device = ("meter", meter_id)
    elif vehicle_id:
        device = ("vehicle", vehicle_id)
    return voids.list_voids(database, device, after, limit)


handler = http.build_handler(app, logger, Access(by_token=settings.by_token))
