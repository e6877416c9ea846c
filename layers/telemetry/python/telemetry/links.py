"""Which meter feeds which vehicle: links made, ended and listed.

The work is done by the stored functions of links.sql, which also says what a link is.
"""

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from telemetry.answers import Answer
from telemetry.database import Database
from telemetry.errors import LinkNotFound, VehicleNotFound
from telemetry.recognition import Id, Instant, Message, format_time

MOST_LINKS = 1_000

# psycopg reads times in the session's time zone; the answers' are in UTC.
_LINK = "SELECT * FROM link_vehicle(%s, %s, %s, %s)"
_UNLINK = "SELECT * FROM unlink_vehicle(%s, %s)"
_LIST = "SELECT * FROM list_links(%s, %s, %s)"


class LinkRequest(Message):
    """A meter that feeds a vehicle."""

    TEXTS = 2
    OPTIONAL_TEXTS = ("valid_from",)

    meter_id: Id = Field(description="Meter id", examples=["METER-001"])
    valid_from: Instant | None = Field(
        default=None,
        description="From when on (RFC 3339, offset required), from 2000-01-01 to 5 minutes from "
        "now; left out, from now on",
        examples=["2026-02-10T10:00:00Z"],
    )


class Link(Answer):
    """A meter feeds a vehicle over the interval (validFrom, validTo]."""

    meter_id: str = Field(examples=["METER-001"])
    valid_from: datetime = Field(
        description="The meter's energy is the vehicle's after this instant",
        examples=["2026-02-10T10:00:00Z"],
    )
    valid_to: datetime | None = Field(
        description="Up to and including this instant: then the vehicle got another link, the "
        "meter another vehicle, or it was ended; null while it goes on. The same as validFrom "
        "where another vehicle was linked to the meter at that very instant.",
        examples=[None],
    )
    source: Literal["api", "reading"] = Field(
        description="Who said so: this API, or a reading of the vehicle that names its meter",
        examples=["api"],
    )


class Links(Answer):
    """The links of a vehicle, the newest first."""

    vehicle_id: str = Field(examples=["VEH-001"])
    links: list[Link] = Field(examples=[[]])
    next_cursor: str | None = Field(
        description="Passed as `cursor`, it gets those before; null where there are none",
        examples=[None],
    )


def link_vehicle(
    database: Database, vehicle_id: str, meter_id: str, valid_from: datetime | None = None
) -> tuple[Link, bool]:
    """Link a vehicle to a meter from valid_from on, or from now on where that is None.

    Return the link as it holds, and whether it is new: it is not where the API had linked the
    vehicle at that instant (then to this meter from now on), nor where from now on is asked for
    and the meter feeds the vehicle already. Raises DatabaseUnavailable.
    """
    since = valid_from or datetime.now(UTC)
    params = (vehicle_id, since, meter_id, valid_from is None)
    [(created, *link)] = database.fetch(_LINK, params)
    return _link(*link), created


def unlink_vehicle(database: Database, vehicle_id: str, valid_to: datetime) -> Link:
    """End the link that a vehicle has at an instant there, and return it.

    To end it there again changes nothing. Raises LinkNotFound and DatabaseUnavailable.
    """
    rows = database.fetch(_UNLINK, (vehicle_id, valid_to))
    if not rows:
        raise LinkNotFound
    return _link(*rows[0])


def list_links(
    database: Database, vehicle_id: str, before: datetime | None = None, limit: int = 100
) -> Links:
    """Return at most so many links of a vehicle that began before an instant, the newest first.

    Raises VehicleNotFound where it has neither reported nor was ever linked, and
    DatabaseUnavailable.
    """
    rows = database.fetch(_LIST, (vehicle_id, before, limit + 1))
    if not rows:
        raise VehicleNotFound
    links = [_link(*row) for row in rows[:limit] if row[0] is not None]
    more = len(rows) > limit
    return Links(
        vehicle_id=vehicle_id,
        links=links,
        next_cursor=format_time(links[-1].valid_from) if more else None,
    )


def _link(meter_id: str, valid_from: datetime, valid_to: datetime | None, source: Any) -> Link:
    return Link(
        meter_id=meter_id,
        valid_from=valid_from.astimezone(UTC),
        valid_to=valid_to and valid_to.astimezone(UTC),
        source=source,
    )
