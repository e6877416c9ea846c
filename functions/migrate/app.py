"""Brings the database up to date: on deploy the migrations, every hour partitions and summaries."""

import os
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit, single_metric

from telemetry.database import connect
from telemetry.deployment import admit_by_iam, deploy
from telemetry.migrate import apply_migrations
from telemetry.observability import NAMESPACE, build_logger
from telemetry.partitions import count_strays, make_partitions
from telemetry.reports import Rules
from telemetry.settings import Settings
from telemetry.summaries import refresh_summaries

settings = Settings(os.environ)
database_url, password = settings.database_url, settings.database_password
stack_name = settings.stack_name
rules = Rules(settings.pairs_by_name, settings.least_kwh, settings.least_coverage)
logger = build_logger("migrate")


def handler(event: dict[str, Any], context: Any) -> dict[str, Any] | None:
    """Return the names of the migrations applied and how many partitions were made.

    On schedule also how many vehicles were summarized.

    Safe to repeat, and to run twice at once. A custom resource of CloudFormation gets its answer
    where it waits for it.
    """
    logger.append_keys(request_id=context.aws_request_id)
    if "ResponseURL" not in event:
        return bring_up_to_date() | {"vehicles": summarize()}
    deploy(event, bring_up_to_date)
    return None


def bring_up_to_date() -> dict[str, Any]:
    """Apply migrations, report readings that found no partition, make partitions for them."""
    with connect(database_url, password=password) as connection:
        migrations = apply_migrations(connection)
        if password:  # of the stack's own database, where the proxy lets in by tokens
            admit_by_iam(connection)
        report_strays(count_strays(connection))
        partitions = make_partitions(connection, datetime.now(UTC))
    done = {"migrations": migrations, "partitions": len(partitions)}
    logger.info("database is up to date", extra=done)
    return done


def summarize() -> int:
    """Make the summaries of the last whole hour; return the number of vehicles."""
    with connect(database_url, password=password) as connection:
        return refresh_summaries(connection, datetime.now(UTC), rules)


def report_strays(count: int) -> None:
    """Write a metric that CloudWatch reads from the log."""
    unit = MetricUnit.Count
    with single_metric("ReadingsInDefaultPartition", unit, count, namespace=NAMESPACE) as metric:
        metric.add_dimension("Stack", stack_name)
