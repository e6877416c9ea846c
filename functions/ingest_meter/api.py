"""Meter readings over HTTP, one or many: recognised, stored or queued, acknowledged."""

import os
from datetime import UTC, datetime

from aws_lambda_powertools.event_handler import Response

from telemetry.access import Access
from telemetry.admission import Admission
from telemetry.batches import Batch, BatchMode
from telemetry.bodies import receives, receives_batch
from telemetry.database import Database
from telemetry.http import build_handler, build_resolver
from telemetry.ingestion import BACKFILL_TIMEOUT, TIME_LIMIT, Ingestion
from telemetry.intake import METERS
from telemetry.limits import DeviceLimit
from telemetry.observability import build_logger
from telemetry.outcomes import (
    BATCH_DOCUMENTATION,
    READING_DOCUMENTATION,
    BatchIngested,
    Ingested,
    Queued,
    answer_batch,
    answer_taken,
)
from telemetry.queue import Queue
from telemetry.readings import MeterReading
from telemetry.recognition import parse_reading
from telemetry.settings import Settings

settings = Settings(os.environ)
logger = build_logger("ingest_meter")
database = Database(settings.database_url, TIME_LIMIT, settings.database_password)
if not settings.queue_first:
    database.open()
ingestion = Ingestion(
    METERS,
    database,
    Queue(settings.queue_url),
    Queue(settings.backfill_queue_url, BACKFILL_TIMEOUT),
    logger,
    queue_first=settings.queue_first,
)
app = build_resolver(logger)
admission = Admission(app, DeviceLimit(settings.device_rate, settings.device_burst), database)


@app.post("/ingest/meter", summary="Ingest a meter reading", **READING_DOCUMENTATION)
@app.post("/v1/ingestion/meter", summary="Ingest a meter reading", **READING_DOCUMENTATION)
@receives(parse_reading, MeterReading, app)
def ingest(reading: MeterReading) -> Response[Ingested | Queued]:
    """Take one reading of a smart meter: 201 is committed, 202 durable in the queue.

    It may be sent again as often as a client likes: each receipt is kept, the reading counts once,
    and of several receipts of one reading (meterId, timestamp) the last one counts.
    """
    admission.admit(reading)
    taken = ingestion.take_one(reading, received_at=datetime.now(UTC))
    return answer_taken("meter", reading.meter_id, taken)


@app.post("/v1/ingestion/meter/batch", summary="Ingest meter readings", **BATCH_DOCUMENTATION)
@receives_batch(MeterReading, app)
def ingest_batch(batch: Batch[MeterReading], mode: BatchMode = None) -> Response[BatchIngested]:
    """Take 1 to 10,000 readings, each judged alone and all valid ones stored in one transaction.

    The body may be compressed (`Content-Encoding: gzip`). Devices may come in any order, and a
    reading several times: of its receipts the last one in the array counts. `?mode=backfill` is
    for months of readings: they wait in a queue of their own, and are answered 202.
    """
    batch = admission.admit_batch(batch, mode)
    return answer_batch(app, batch, ingestion.take_batch(batch, datetime.now(UTC), mode))


handler = build_handler(app, logger, Access(by_token=settings.by_token))
