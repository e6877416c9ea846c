"""What ops take out of the numbers: readings voided, voids withdrawn, devices erased."""

import os
from typing import Annotated

from aws_lambda_powertools.event_handler import Response

from telemetry import erasures, http, voids
from telemetry.access import Access
from telemetry.bodies import receives
from telemetry.corrections import ErasureRequest, VoidRequest
from telemetry.database import Database
from telemetry.erasures import Erasure, Erasures, LastErasure
from telemetry.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    FieldError,
    InvalidRequest,
    ReadingNotFound,
    UnsupportedEncoding,
    VoidNotFound,
)
from telemetry.observability import build_logger
from telemetry.parameters import Limit, OfMeter, OfVehicle, cursor_of
from telemetry.recognition import parse_reading
from telemetry.settings import Settings
from telemetry.voids import LastVoid, Void, Voids

logger = build_logger("corrections")
settings = Settings(os.environ)
database = Database(settings.database_url, password=settings.database_password)
app = http.build_resolver(logger, enable_validation=True)

AfterVoid = Annotated[LastVoid | None, *cursor_of(LastVoid)]
AfterErasure = Annotated[LastErasure | None, *cursor_of(LastErasure)]


@app.post(
    "/v1/voids",
    summary="Void a reading",
    enable_validation=False,
    tags=["Corrections"],
    status_code=201,
    responses=http.documents(
        Void, 201, InvalidRequest, UnsupportedEncoding, BodyTooLarge, ReadingNotFound
    )
    | http.documents(Void, 200, DatabaseUnavailable)
    | http.documents(Void, 202),
)
@receives(parse_reading, VoidRequest, app)
def void(request: VoidRequest) -> Response[Void]:
    """Take a reading out of every number. It is kept, with whatever is sent of it again.

    Who voids a reading first stands: another request changes nothing, and is answered 200. Where it
    takes the archive (202, `pending`), the reading counts until the hourly maintenance has done it.
    """
    made, new = voids.void_reading(database, request, app.context["identity"].token_id)
    logger.info("reading voided", stream=request.stream, new=new)
    status = (202 if made.pending else 201) if new else 200
    return Response(status, "application/json", made)


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


@app.post(
    "/v1/erasures",
    summary="Erase a device",
    enable_validation=False,
    tags=["Corrections"],
    status_code=202,
    responses=http.documents(
        Erasure, 202, InvalidRequest, UnsupportedEncoding, BodyTooLarge, DatabaseUnavailable
    ),
)
@receives(parse_reading, ErasureRequest, app)
def erase(request: ErasureRequest) -> Response[Erasure]:
    """Have everything deleted that was accepted of a device up to now, and all numbers follow.

    The hourly maintenance does it. What the device sends from now on begins anew and stays. Who
    asks first stands, until it is done.
    """
    asked, new = erasures.request_erasure(database, request, app.context["identity"].token_id)
    logger.info("erasure asked for", stream=request.stream, erasure=str(asked.erasure_id), new=new)
    return Response(202, "application/json", asked)


@app.get(
    "/v1/erasures",
    summary="Which devices were erased, and are to be",
    tags=["Corrections"],
    responses=http.documents(Erasures, 200, InvalidRequest, DatabaseUnavailable),
)
def erased(*, limit: Limit = 100, after: AfterErasure = None) -> Erasures:
    """List erasures with who, when and why, the newest first; what is done names no device."""
    return erasures.list_erasures(database, after, limit)


handler = http.build_handler(app, logger, Access(by_token=settings.by_token))
