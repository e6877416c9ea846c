"""What energy costs: tariffs of the fleet and of meters, put, listed and deleted over HTTP."""

import os
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from telemetry import http, tariffs
from telemetry.access import Access
from telemetry.bodies import receives
from telemetry.database import Database
from telemetry.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    InvalidRequest,
    TariffNotFound,
    TariffRefused,
    UnsupportedEncoding,
)
from telemetry.observability import build_logger
from telemetry.paths import MeterId
from telemetry.recognition import QueriedTime, check_id
from telemetry.settings import Settings
from telemetry.tariffs import FLEET, Tariff, Tariffs, parse_tariff

logger = build_logger("tariffs")
settings = Settings(os.environ)
database = Database(settings.database_url, password=settings.database_password)
app = http.build_resolver(logger, enable_validation=True)

OF_FLEET, OF_METER = "/v1/tariffs/fleet", "/v1/tariffs/meters/<meterId>"
ValidFrom = Annotated[QueriedTime, Query(alias="validFrom", description="Of the version")]

putting = http.documents(
    Tariff, 201, InvalidRequest, UnsupportedEncoding, BodyTooLarge, TariffRefused
) | http.documents(Tariff, 200, DatabaseUnavailable)
listing = http.documents(Tariffs, 200, InvalidRequest, TariffNotFound, DatabaseUnavailable)


@app.put(
    OF_FLEET,
    summary="Set the fleet's tariff",
    enable_validation=False,
    tags=["Tariffs"],
    status_code=201,
    responses=putting,
)
@receives(parse_tariff, Tariff, app)
def put_of_fleet(tariff: Tariff) -> Response[Tariff]:
    """Say what energy costs from an instant on; a version of the same `validFrom` is replaced.

    What was before keeps its price: reports of it do not change.
    """
    return _put(FLEET, tariff)


@app.put(
    OF_METER,
    summary="Set the tariff of a meter",
    enable_validation=False,
    tags=["Tariffs"],
    status_code=201,
    responses=putting,
)
@receives(parse_tariff, Tariff, app)
def put_of_meter(meter_id: MeterId, tariff: Tariff) -> Response[Tariff]:
    """Say what energy of this meter costs, instead of what the fleet's tariff says."""
    return _put(check_id(meter_id, "meterId"), tariff)


def _put(tariff_id: str, tariff: Tariff) -> Response[Tariff]:
    new = tariffs.put_tariff(database, tariff_id, tariff)
    return Response(201 if new else 200, "application/json", tariff)


@app.get(OF_FLEET, summary="The fleet's tariff", tags=["Tariffs"], responses=listing)
def list_of_fleet() -> Tariffs:
    """List the versions of the fleet's tariff, the newest first."""
    return tariffs.list_tariff(database, FLEET)


@app.get(OF_METER, summary="The tariff of a meter", tags=["Tariffs"], responses=listing)
def list_of_meter(meter_id: MeterId) -> Tariffs:
    """List the versions of a meter's own tariff, the newest first."""
    return tariffs.list_tariff(database, meter_id)


@app.delete(
    OF_FLEET, summary="Delete a version of the fleet's tariff", tags=["Tariffs"], responses=listing
)
def delete_of_fleet(valid_from: ValidFrom) -> Tariffs:
    """Delete a version, as if it had never been; answers with those that are left."""
    return tariffs.delete_tariff(database, FLEET, valid_from)


@app.delete(
    OF_METER,
    summary="Delete a version of a meter's tariff",
    tags=["Tariffs"],
    responses=listing,
)
def delete_of_meter(meter_id: MeterId, valid_from: ValidFrom) -> Tariffs:
    """Delete a version, as if it had never been; answers with those that are left."""
    return tariffs.delete_tariff(database, meter_id, valid_from)


handler = http.build_handler(app, logger, Access(by_token=settings.by_token))
