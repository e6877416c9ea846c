"""One meter reading over HTTP: recognised, stored, acknowledged."""

import os
from datetime import UTC, datetime
from typing import Any

from telemetry.answers import Ingested
from telemetry.database import Database
from telemetry.errors import DatabaseUnavailable, InvalidRequest
from telemetry.http import build_handler, build_resolver, documents, receives
from telemetry.observability import build_logger
from telemetry.readings import MeterReading
from telemetry.settings import Settings
from telemetry.store import store_meter_reading

settings = Settings.from_environment(os.environ)
logger = build_logger("ingest_meter")
database = Database(settings.database_url)
app = build_resolver(logger)


documentation: Any = {
    "status_code": 201,
    "summary": "Ingest a meter reading",
    "tags": ["Ingestion"],
    "responses": documents(Ingested, 201, InvalidRequest, DatabaseUnavailable),
}


@app.post("/ingest/meter", **documentation)
@app.post("/v1/ingestion/meter", **documentation)
@receives(MeterReading, app)
def ingest(reading: MeterReading) -> Ingested:
    """Store one reading of a smart meter; 201 means that it is committed.

    It may be sent again as often as a client likes: each receipt is kept, the reading counts once,
    and of several receipts of one reading (meterId, timestamp) the last one counts.
    """
    store_meter_reading(database, reading, received_at=datetime.now(UTC))
    return Ingested(message=f"Meter {reading.meter_id} data ingested successfully")


handler = build_handler(app, logger)
