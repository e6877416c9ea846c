"""Every hour: judges the fleet's chargers, and publishes each change of a fault once."""

import os
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from telemetry.alerts import (
    Watch,
    count_unpublished,
    evaluate_fleet,
    publish_changes,
)
from telemetry.database import PATIENT_TIMEOUT, Connection, connect
from telemetry.faults import Notice
from telemetry.metrics import report_count
from telemetry.observability import build_logger
from telemetry.recognition import format_time
from telemetry.rules import Rules
from telemetry.settings import Settings
from telemetry.targets import open_target

settings = Settings(os.environ)
database_url, password = settings.database_url, settings.database_password
stack_name = settings.stack_name
rules = Rules.of(settings)
watch = Watch(settings.fault_window, settings.low_voltage, settings.high_battery_temp)
target = open_target(settings.alert_target)
logger = build_logger("fault_monitor")

# Lambda takes answers of up to 6 MB.
MOST_SHOWN = 1000
# Milliseconds that are left for what is found.
TO_PUBLISH = 120_000


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Return the end of the last window, who was not judged, how much was published, and the first.

    Safe to repeat, and to run twice at once. What an earlier run left is published also where this
    one cannot judge. Raises TimeoutError where not every vehicle could be judged in time.
    """
    logger.append_keys(request_id=context.aws_request_id)
    with connect(database_url, password=password, time_limit=PATIENT_TIMEOUT) as connection:
        try:
            judged = evaluate_fleet(
                *(connection, rules, watch, datetime.now(UTC)),
                go=lambda: context.get_remaining_time_in_millis() > TO_PUBLISH,
            )
        finally:
            if not connection.closed:  # else what broke it is the error
                published = _publish(connection)
    report_count(stack_name, "VehiclesNotJudged", len(judged.failed))
    for vehicle_id, why in judged.failed.items():
        logger.error("a vehicle could not be judged", vehicle_id=vehicle_id, reason=why)
    if not judged.is_complete:
        raise TimeoutError("there was no time to judge every vehicle")
    logger.info("faults are judged", until=judged.until, published=[each.id for each in published])
    return {
        "timeWindowEnd": format_time(judged.until),
        "notJudged": dict(islice(judged.failed.items(), MOST_SHOWN)),
        "published": len(published),
        "first": [each.model_dump(mode="json", by_alias=True) for each in published[:MOST_SHOWN]],
    }


def _publish(connection: Connection) -> list[Notice]:
    try:
        return publish_changes(connection, target)
    finally:
        if not connection.closed:
            report_count(stack_name, "UnpublishedAlerts", count_unpublished(connection))
