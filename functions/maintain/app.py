"""Keeps the system in order, every hour: partitions, summaries, archive, statistics.

Invoked with `{"restore": "2026-01-31"}` it brings that day back from the archive, for an audit.
"""

import os
from datetime import UTC, date, datetime
from typing import Any

from telemetry.archive import Archive
from telemetry.bucket import Bucket
from telemetry.database import PATIENT_TIMEOUT, connect
from telemetry.maintenance import Maintenance, alone
from telemetry.metrics import report_count
from telemetry.observability import build_logger
from telemetry.rules import Rules
from telemetry.settings import Settings

# Nothing long is begun with less time than this (ms): a day of 10,000 devices takes two minutes.
ENOUGH_TIME = 300_000

settings = Settings(os.environ)
database_url, password = settings.database_url, settings.database_password
bucket, retention = Bucket(settings.archive_bucket), settings.history_retention
rules = Rules.of(settings)
stack_name = settings.stack_name
logger = build_logger("maintain")


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Return the metric of each step; of a restored day, its tables with their numbers of rows.

    Safe to repeat, to run twice at once (the second does nothing) and to be killed. A step that
    fails does not keep the others from running; the last failure is then raised.
    """
    logger.append_keys(request_id=context.aws_request_id)
    now, failure, done = datetime.now(UTC), None, {}
    with connect(database_url, password=password, time_limit=PATIENT_TIMEOUT) as connection:
        archive = Archive(connection, bucket)
        if "restore" in event:
            return archive.restore_day(date.fromisoformat(event["restore"]))
        maintenance = Maintenance(
            *(connection, archive, now, now - retention),
            rules=rules,
            go=lambda: context.get_remaining_time_in_millis() > ENOUGH_TIME,
        )
        with alone(connection) as is_alone:
            if not is_alone:
                logger.info("another run is at work")
                return {"running": True}
            for step in (
                maintenance.count_strays,
                maintenance.make_partitions,
                maintenance.refresh_summaries,
                maintenance.archive_history,
                maintenance.settle_late_receipts,
                maintenance.settle_voids,
                maintenance.store_redeclared,
                maintenance.erase_devices,
                maintenance.refresh_statistics,
            ):
                try:
                    metric, value, details = step()
                except Exception as error:
                    logger.exception("%s failed", step.__name__)
                    failure = error
                else:
                    done[metric] = value
                    logger.info(step.__name__, extra={metric: value, **details})
                    report_count(stack_name, metric, value)
    if failure:
        raise failure
    return done
