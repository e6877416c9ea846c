"""Whether the system can take readings and answer for them."""

from datetime import UTC, datetime, timedelta
from typing import Literal

from psycopg.errors import UndefinedTable
from pydantic import Field

from telemetry.answers import Answer
from telemetry.database import Database
from telemetry.errors import DatabaseUnavailable
from telemetry.migrate import shipped_migrations
from telemetry.partitions import END_OF_PARTITIONS, HISTORIES
from telemetry.stored_functions import shipped_functions
from telemetry.zones import OUTDATED, RELEASE

LEAST_AHEAD = timedelta(days=1)

# Only the default partitions can hold these.
_BEYOND_PARTITIONS = """
    SELECT EXISTS (SELECT FROM meter_telemetry_history WHERE "timestamp" >= %s)
        OR EXISTS (SELECT FROM vehicle_telemetry_history WHERE "timestamp" >= %s)
"""


class Check(Answer):
    """One thing that has to hold for the system to be healthy."""

    ok: bool = Field(examples=[True])
    detail: str = Field(description="What was found", examples=["reachable"])


class Health(Answer):
    """Whether the system can take readings and answer for them."""

    status: Literal["ok", "unavailable"] = Field(examples=["ok"])
    database: Check = Field(description="PostgreSQL answers")
    migrations: Check = Field(description="The schema is the one this version needs")
    partitions: Check = Field(description="History has partitions ahead of the readings to come")
    time_zones: Check = Field(
        description="Tariffs go by the release of the IANA time zone database that this version "
        "has: it decides all local times"
    )


def check_health(database: Database, now: datetime) -> Health:
    """Ask PostgreSQL; a database that does not answer is a finding, not an error."""
    try:
        checks = {
            "database": _database(database),
            "migrations": _migrations(database),
            "partitions": _partitions(database, now),
            "time_zones": _time_zones(database),
        }
    except DatabaseUnavailable as error:
        unknown = Check(ok=False, detail="unknown while the database does not answer")
        checks = {"database": Check(ok=False, detail=str(error))}
        checks |= dict.fromkeys(("migrations", "partitions", "time_zones"), unknown)
    well = all(check.ok for check in checks.values())
    return Health(status="ok" if well else "unavailable", **checks)


def _database(database: Database) -> Check:
    [(version, read_only)] = database.fetch(
        """SELECT current_setting('server_version'),
                  current_setting('transaction_read_only')::boolean"""
    )
    detail = f"PostgreSQL {version}" + (", read-only" if read_only else "")
    return Check(ok=not read_only, detail=detail)


def _migrations(database: Database) -> Check:
    try:
        applied = {name for (name,) in database.fetch("SELECT name FROM schema_migrations")}
    except UndefinedTable:
        applied = set()
    missing = [entry.name for entry in shipped_migrations() if entry.name not in applied]
    if applied:
        known = set(database.fetch("SELECT name, checksum FROM schema_functions"))
        missing += [
            f"{file.name}.sql"
            for file in shipped_functions()
            if (file.name, file.checksum) not in known
        ]
    if missing:
        return Check(ok=False, detail=f"not applied: {', '.join(missing)}")
    return Check(ok=True, detail=f"{len(applied)} applied")


def _partitions(database: Database, now: datetime) -> Check:
    [(end,)] = database.fetch(END_OF_PARTITIONS, (list(HISTORIES),))
    if end is None:
        return Check(ok=False, detail="there are none")
    detail = f"until {end.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    [(beyond,)] = database.fetch(_BEYOND_PARTITIONS, (end, end))
    if beyond:
        detail += ", and readings beyond: invoke the migration function"
    return Check(ok=end >= now + LEAST_AHEAD and not beyond, detail=detail)


def _time_zones(database: Database) -> Check:
    try:
        outdated = [name for (name,) in database.fetch(OUTDATED, (RELEASE,))]
    except UndefinedTable:
        outdated = []  # as the check of migrations says
    detail = f"IANA {RELEASE}"
    if outdated:
        detail += f", not for {', '.join(outdated)}: invoke the migration function"
    return Check(ok=not outdated, detail=detail)
