"""Vehicle readings that waited in the queue: stored, many messages at once."""

import os

from telemetry.database import Database
from telemetry.intake import VEHICLES
from telemetry.observability import build_logger
from telemetry.queue import Queue
from telemetry.settings import Settings
from telemetry.worker import Worker

settings = Settings(os.environ)
database = Database(settings.database_url, password=settings.database_password)
handler = Worker(
    VEHICLES,
    database,
    Queue(settings.queue_url),
    Queue(settings.dead_letter_queue_url),
    build_logger("vehicle_worker"),
).handle
