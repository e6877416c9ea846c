"""Faults acknowledged over HTTP: who looks after one, and why."""

import os
from typing import Annotated
from uuid import UUID

from aws_lambda_powertools.event_handler.openapi.params import Path

from telemetry import http
from telemetry.access import Access
from telemetry.acknowledgements import Acknowledged, Acknowledgement, acknowledge_fault
from telemetry.answers import FAULT_ID
from telemetry.bodies import receives
from telemetry.database import Database
from telemetry.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    FaultCleared,
    FaultNotFound,
    InvalidRequest,
    UnsupportedEncoding,
)
from telemetry.observability import build_logger
from telemetry.recognition import parse_reading
from telemetry.settings import Settings

logger = build_logger("alerts")
settings = Settings(os.environ)
database = Database(settings.database_url, password=settings.database_password)
app = http.build_resolver(logger)

FaultId = Annotated[str, Path(alias="faultId", description="Fault id", examples=[FAULT_ID])]


@app.post(
    "/v1/analytics/faults/<faultId>/acknowledge",
    summary="Acknowledge a fault",
    tags=["Analytics"],
    responses=http.documents(
        Acknowledged, 200, InvalidRequest, UnsupportedEncoding, BodyTooLarge, FaultNotFound
    )
    | http.documents(Acknowledged, 200, FaultCleared, DatabaseUnavailable),
)
@receives(parse_reading, Acknowledgement, app)
def acknowledge(fault_id: FaultId, request: Acknowledgement) -> Acknowledged:
    """Say who looks after a fault and why; that is published too. Who said so first stands."""
    try:
        found = UUID(fault_id)
    except ValueError:
        raise FaultNotFound from None
    acknowledge_fault(database, found, request.by, request.why)
    logger.info("fault acknowledged", fault_id=fault_id)
    return Acknowledged(id=found)


handler = http.build_handler(app, logger, Access(by_token=settings.by_token))
