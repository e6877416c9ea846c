"""One vehicle reading over HTTP: recognised, stored, acknowledged."""

import os
from datetime import UTC, datetime
from typing import Any

from telemetry.answers import Ingested
from telemetry.database import Database
from telemetry.errors import DatabaseUnavailable, InvalidRequest
from telemetry.http import build_handler, build_resolver, documents, receives
from telemetry.observability import build_logger
from telemetry.readings import VehicleReading
from telemetry.settings import Settings
from telemetry.store import store_vehicle_reading

settings = Settings.from_environment(os.environ)
logger = build_logger("ingest_vehicle")
database = Database(settings.database_url)
app = build_resolver(logger)


documentation: Any = {
    "status_code": 201,
    "summary": "Ingest a vehicle reading",
    "tags": ["Ingestion"],
    "responses": documents(Ingested, 201, InvalidRequest, DatabaseUnavailable),
}


@app.post("/ingest/vehicle", **documentation)
@app.post("/v1/ingestion/vehicle", **documentation)
@receives(VehicleReading, app)
def ingest(reading: VehicleReading) -> Ingested:
    """Store one reading of an electric vehicle; 201 means that it is committed.

    It may be sent again as often as a client likes: each receipt is kept, the reading counts once,
    and of several receipts of one reading (vehicleId, timestamp) the last one counts.
    """
    store_vehicle_reading(database, reading, received_at=datetime.now(UTC))
    return Ingested(message=f"Vehicle {reading.vehicle_id} data ingested successfully")


handler = build_handler(app, logger)
