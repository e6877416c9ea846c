"""A client is told what the database did not do: each failure in its own words."""

from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from local.databases import READ, DatabaseUrls
from telemetry.database import Database, Row
from telemetry.errors import DatabaseUnavailable
from tests.conftest import unpooled
from tests.integration.conftest import Api
from tests.wire import Wire

CANNOT_BE_REACHED = "The database cannot be reached; send the request again"
GAVE_UP = "The database took too long and gave up; send the request again, or ask for less"


@pytest.fixture
def hasty(urls: DatabaseUrls, admin: psycopg.Connection[Row]) -> DatabaseUrls:
    """The test's database, which gives up what analytics ask for after 0.2 s."""
    setting = sql.SQL("ALTER ROLE {} IN DATABASE {} SET statement_timeout = '200ms'")
    database = urlsplit(urls.owner).path[1:]
    admin.execute(setting.format(sql.Identifier(READ), sql.Identifier(database)))
    return urls


def test_a_report_that_takes_too_long_is_told_so(
    hasty: DatabaseUrls, connection: psycopg.Connection[Row]
) -> None:
    api = Api(hasty)
    with connection.transaction():
        connection.execute("LOCK TABLE vehicle_live_status, schema_migrations")
        answer, health = api.get("/v1/live/vehicles/VEH-001"), api.get("/health")
    api.close()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.body["message"] == GAVE_UP
    assert (health.status, health.body["database"]) == (503, {"ok": False, "detail": GAVE_UP})


@unpooled
def test_a_server_that_is_silent_did_not_answer_in_time(urls: DatabaseUrls, wire: Wire) -> None:
    database = Database(wire.url, time_limit=0.5)
    for ask in (
        lambda: database.fetch("SELECT 1"),
        lambda: database.call(b"SELECT 1", (), ()),
    ):
        ask()
        wire.freeze()
        with pytest.raises(DatabaseUnavailable, match="did not answer in time"):
            ask()
        wire.cut()
    database.close()


def test_a_server_that_is_not_there_cannot_be_reached(wire: Wire) -> None:
    database = Database(wire.url, time_limit=0.5)
    wire.close()
    with pytest.raises(DatabaseUnavailable) as raised:
        database.fetch("SELECT 1")
    assert str(raised.value) == CANNOT_BE_REACHED


@pytest.mark.parametrize(
    ("code", "said"), [("40001", "Other requests kept changing"), ("53100", "does not take")]
)
def test_a_server_that_refuses_is_not_called_unreachable(
    writer: Database, code: str, said: str
) -> None:
    with pytest.raises(DatabaseUnavailable, match=said):
        writer.fetch(f"DO $$ BEGIN RAISE SQLSTATE '{code}'; END $$")
