"""While a version is deployed, code and schema are not of one version: each pair has to serve."""

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from local.databases import DatabaseUrls
from local.tables import render_tables
from telemetry.database import Row, connect
from telemetry.migrate import Migration, _apply, apply_migrations, shipped_migrations
from telemetry.partitions import make_partitions
from telemetry.stored_functions import FunctionFile, apply_functions
from tests.conftest import Server, unpooled
from tests.conftest import database as template_database
from tests.integration.conftest import Api
from tests.integration.released import (
    RELEASES,
    called_by_code,
    released_functions,
    released_migrations,
)

pytestmark = unpooled  # the owner is direct

METER = {"meterId": "METER-1", "kwhConsumedAc": 5.5, "voltage": 230}
VEHICLE = {"vehicleId": "VEH-1", "soc": 85, "kwhDeliveredDc": 5.06, "batteryTemp": 28.3}
# What a release may add and the code before it does not know.
NEXT = Migration(
    "9999_next",
    """
    ALTER TABLE meter_telemetry_history ADD COLUMN next text NOT NULL DEFAULT '';
    ALTER TABLE vehicle_telemetry_history ADD COLUMN next text NOT NULL DEFAULT '';
    ALTER TABLE meter_live_status ADD COLUMN next text NOT NULL DEFAULT '';
    ALTER TABLE vehicle_live_status ADD COLUMN next text NOT NULL DEFAULT '';
    ALTER TABLE meter_hourly_rollup ADD COLUMN next numeric NOT NULL DEFAULT 0;
    ALTER TABLE vehicle_hourly_rollup ADD COLUMN next numeric NOT NULL DEFAULT 0;
    """,
)
BROKEN = Migration("9999_broken", "ALTER TABLE meter_live_status ADD COLUMN next text; SELECT 1/0")


@pytest.fixture
def database(empty_database: DatabaseUrls) -> DatabaseUrls:
    """An empty database of which the owner does everything: the last migration may be the roles."""
    owner = empty_database.owner
    return DatabaseUrls(*[owner] * 6)


@pytest.fixture
def owner(database: DatabaseUrls) -> Iterator[psycopg.Connection[Row]]:
    with connect(database.owner) as connection:
        yield connection


def bring_to_release(owner: psycopg.Connection[Row], release: str) -> None:
    list(_apply(owner, released_migrations(release), released_functions(release)))
    make_partitions(owner, datetime.now(UTC))


@pytest.mark.parametrize("release", RELEASES)
def test_new_code_takes_readings_on_the_schema_before(
    database: DatabaseUrls, owner: psycopg.Connection[Row], release: str
) -> None:
    bring_to_release(owner, release)
    api = Api(database)
    take(api, "10:00")
    apply_migrations(owner)
    serve(api, "11:00")
    assert api.get("/health").status == 200
    api.close()


# What code of the release calls, by name and by the types of its arguments.
CALLED = """
    SELECT grantee::regrole::text, pg_proc.oid::regprocedure::text,
           pg_get_function_result(pg_proc.oid)
    FROM pg_proc CROSS JOIN aclexplode(proacl)
    WHERE pronamespace = 'public'::regnamespace AND grantee != proowner
    ORDER BY 1, 2
"""


@pytest.mark.parametrize("release", RELEASES)
def test_functions_that_the_code_before_calls_stay(
    owner: psycopg.Connection[Row], release: str
) -> None:
    bring_to_release(owner, release)
    by_code = called_by_code(release)
    called = [
        found for found in owner.execute(CALLED).fetchall() if found[1].partition("(")[0] in by_code
    ]
    assert ("telemetry_ingest", "store_meter_reading") in {
        (role, signature.partition("(")[0]) for role, signature, _ in called
    }
    apply_migrations(owner)
    assert set(called) <= set(owner.execute(CALLED))


DEFINED = """
    SELECT oid::regprocedure::text, pg_get_functiondef(oid), proacl::text
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1
"""


@pytest.mark.parametrize("release", RELEASES)
def test_a_database_brought_up_to_date_is_as_a_new_one(
    server: Server, owner: psycopg.Connection[Row], release: str
) -> None:
    bring_to_release(owner, release)
    apply_migrations(owner)
    with template_database(server, "migrated") as urls, connect(urls.owner) as new:
        assert render_tables(owner) == render_tables(new)
        assert owner.execute(DEFINED).fetchall() == new.execute(DEFINED).fetchall()


def test_a_function_whose_file_is_gone_is_dropped_and_no_others(
    owner: psycopg.Connection[Row],
) -> None:
    made = "CREATE OR REPLACE FUNCTION {}() RETURNS integer LANGUAGE sql AS 'SELECT 1'"
    owner.execute(b"CREATE FUNCTION of_somebody() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    list(_apply(owner, shipped_migrations()))
    for names in (["one", "two"], ["two", "three"]):
        files = [FunctionFile(name, made.format(name)) for name in names]
        with owner.transaction():
            apply_functions(owner, files)
        found = owner.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        )
        assert {name for (name,) in found} == {*names, "of_somebody"}


def test_old_code_serves_on_a_schema_that_has_more(
    database: DatabaseUrls, owner: psycopg.Connection[Row]
) -> None:
    apply_migrations(owner)
    make_partitions(owner, datetime.now(UTC))
    api = Api(database)
    serve(api, "10:00")
    assert list(_apply(owner, [NEXT])) == ["9999_next"]
    serve(api, "11:00")  # on the connections and with the plans that it has
    api.close()
    started_anew = Api(database)
    serve(started_anew, "12:00")
    assert started_anew.get("/health").status == 200
    started_anew.close()


def test_a_migration_that_fails_leaves_what_there_was(
    database: DatabaseUrls, owner: psycopg.Connection[Row]
) -> None:
    apply_migrations(owner)
    make_partitions(owner, datetime.now(UTC))
    api = Api(database)
    with pytest.raises(psycopg.errors.DivisionByZero):
        list(_apply(owner, [BROKEN]))
    serve(api, "10:00")
    assert api.get("/health").status == 200
    api.close()


def take(api: Api, hour: str) -> None:
    """Write on every way there is: one, many, late, corrected."""
    time = f"2026-02-10T{hour}:00Z"
    late = {"timestamp": "2026-02-09T12:00:00Z"}
    for path, reading in (("meter", METER), ("vehicle", VEHICLE)):
        for body in (
            {**reading, "timestamp": time},
            {**reading, "timestamp": time},
            reading | late,
        ):
            assert api.post(f"/v1/ingestion/{path}", body).status == 201
        batch = [{**reading, "timestamp": time}, reading | late]
        answer = api.post(f"/v1/ingestion/{path}/batch", batch)
        assert (answer.status, answer.body["duplicate"]) == (201, 2)


def serve(api: Api, hour: str) -> None:
    """Write, and read what comes of it."""
    time = f"2026-02-10T{hour}:00Z"
    take(api, hour)
    report = api.get(f"/v1/analytics/performance/VEH-1?end={time}")
    assert report.status == 200
    assert report.body["efficiencyRatio"] == 92
