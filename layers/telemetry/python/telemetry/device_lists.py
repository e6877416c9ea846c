"""Lists of devices: those that are declared, and those that should be."""

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import Field

from telemetry.database import Database, Row
from telemetry.devices import NOTHING_DECLARED, Declared, declared_fields
from telemetry.pages import ITEMS, LastDevice, Page, encode_cursor

_LIST = """
    SELECT device_id, versions, pending
    FROM (SELECT device_id AS id FROM devices WHERE device_id > %s) AS known
    CROSS JOIN LATERAL find_device(id, 0)
    ORDER BY id
    LIMIT %s
"""
_UNDECLARED = "SELECT * FROM list_undeclared(%s, %s)"
_JUMPS = """
    SELECT device_id, count(*) FROM register_events
    WHERE device_id = ANY (%s) AND event = 'jump' GROUP BY device_id
"""


class DeclaredDevice(Declared):
    """What a device is declared to report, and how often its register jumped."""

    jumps: int = Field(
        description="How many of its readings count nothing, because its register had grown by "
        "more than it can deliver",
        examples=[0],
    )
    cadence_seen_seconds: int | None = Field(
        description="How often it is seen to report (s), if that is less often than its readings "
        "count for: declare it as `cadenceSeconds`. Null unless `undeclared` is asked for",
        examples=[None],
        json_schema_extra={"unit": "s"},
    )


class DeclaredDevices(Page):
    """The devices that were declared, in the order of their ids."""

    items: list[DeclaredDevice] = ITEMS


def list_devices(
    database: Database, after: LastDevice | None = None, limit: int = 100
) -> DeclaredDevices:
    """Return a page of the devices that were declared. Raises DatabaseUnavailable."""
    rows = database.fetch(_LIST, (after.device_id if after else "", limit + 1))
    page = rows[:limit]
    jumps: dict[str, int] = dict(database.fetch(_JUMPS, ([row[0] for row in page],)))
    now = datetime.now(UTC)
    return DeclaredDevices(
        items=[
            DeclaredDevice(
                **declared_fields(row, now), jumps=jumps.get(row[0], 0), cadence_seen_seconds=None
            )
            for row in page
        ],
        next_cursor=_next_cursor(rows, limit),
    )


def list_undeclared(
    database: Database, after: LastDevice | None = None, limit: int = 100
) -> DeclaredDevices:
    """Return a page of the devices that report less often than their readings count for.

    Raises DatabaseUnavailable.
    """
    rows = database.fetch(_UNDECLARED, (after.device_id if after else "", limit + 1))
    page = rows[:limit]
    return DeclaredDevices(
        items=[
            DeclaredDevice(
                **NOTHING_DECLARED,
                device_id=device_id,
                versions=[],
                pending=False,
                jumps=0,
                cadence_seen_seconds=seen,
            )
            for device_id, seen in page
        ],
        next_cursor=_next_cursor(rows, limit),
    )


def _next_cursor(rows: Sequence[Row], limit: int) -> str | None:
    """Return where the next page begins, if there are more rows; each begins with an id."""
    return encode_cursor(LastDevice(device_id=rows[limit - 1][0])) if len(rows) > limit else None
