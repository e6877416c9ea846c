"""Brings the database up to date: on deploy the migrations, and every day the partitions."""

import os
from datetime import UTC, datetime
from typing import Any

from telemetry.database import connect
from telemetry.migrate import apply_migrations
from telemetry.observability import build_logger
from telemetry.partitions import make_partitions
from telemetry.settings import Settings

database_url = Settings(os.environ).database_url
logger = build_logger("migrate")


def handler(_event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Return the names of the migrations applied and the number of partitions made.

    Safe to repeat, and to run twice at once.
    """
    logger.append_keys(request_id=context.aws_request_id)
    with connect(database_url) as connection:
        migrations = apply_migrations(connection)
        partitions = make_partitions(connection, datetime.now(UTC))
    done = {"migrations": migrations, "partitions": len(partitions)}
    logger.info("database is up to date", extra=done)
    return done
