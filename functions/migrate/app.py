"""Brings the database up to date on deploy: migrations, and partitions for what comes first."""

import os
from datetime import UTC, datetime
from typing import Any

from telemetry.deployment import admit_by_iam, connect_owner, deploy
from telemetry.migrate import apply_migrations
from telemetry.observability import build_logger
from telemetry.partitions import make_partitions
from telemetry.settings import Settings
from telemetry.zones import refresh_zones

settings = Settings(os.environ)
database_url, token = settings.database_url, settings.database_password
owner_password = settings.owner_password
logger = build_logger("migrate")


def handler(event: dict[str, Any], context: Any) -> dict[str, Any] | None:
    """Return the migrations applied, the time zones refreshed and how many partitions were made.

    Safe to repeat, and to run twice at once. A custom resource of CloudFormation gets its answer
    where it waits for it.
    """
    logger.append_keys(request_id=context.aws_request_id)
    if "ResponseURL" not in event:
        return bring_up_to_date()
    deploy(event, bring_up_to_date)
    return None


def bring_up_to_date() -> dict[str, Any]:
    """Apply migrations, refresh time zones; make partitions, which a new database needs at once."""
    with connect_owner(database_url, token, owner_password) as connection:
        migrations = apply_migrations(connection)
        if token:  # of the stack's own database, where the proxy lets in by tokens
            admit_by_iam(connection)
        zones = refresh_zones(connection)
        partitions = make_partitions(connection, datetime.now(UTC))
    done = {"migrations": migrations, "zones": zones, "partitions": len(partitions)}
    logger.info("database is up to date", extra=done)
    return done
