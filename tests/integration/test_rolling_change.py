"""While a version is deployed, code and schema are not of one version: each pair has to serve."""

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from local.databases import DatabaseUrls
from telemetry.database import connect
from telemetry.migrate import Migration, _apply, shipped_migrations
from telemetry.partitions import make_partitions
from tests.conftest import unpooled
from tests.integration.conftest import Api

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
def owner(database: DatabaseUrls) -> Iterator[psycopg.Connection]:
    with connect(database.owner) as connection:
        yield connection


# Links and faults: what the code before does without, each alone or both in one release.
@pytest.mark.parametrize("count", [1, 2])
def test_new_code_serves_on_the_schema_before(
    database: DatabaseUrls, owner: psycopg.Connection, count: int
) -> None:
    migrations = shipped_migrations()
    before, held_back = migrations[:-count], migrations[-count:]
    list(_apply(owner, before))
    make_partitions(owner, datetime.now(UTC))
    api = Api(database)
    serve(api, "10:00")
    names = ", ".join(migration.name for migration in held_back)
    assert api.get("/health").body["migrations"]["detail"] == f"not applied: {names}"
    list(_apply(owner, held_back))
    serve(api, "11:00")
    api.close()


def test_old_code_serves_on_a_schema_that_has_more(
    database: DatabaseUrls, owner: psycopg.Connection
) -> None:
    list(_apply(owner, shipped_migrations()))
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
    database: DatabaseUrls, owner: psycopg.Connection
) -> None:
    list(_apply(owner, shipped_migrations()))
    make_partitions(owner, datetime.now(UTC))
    api = Api(database)
    with pytest.raises(psycopg.errors.DivisionByZero):
        list(_apply(owner, [BROKEN]))
    serve(api, "10:00")
    assert api.get("/health").status == 200
    api.close()


def serve(api: Api, hour: str) -> None:
    """Write and read on every way there is: one, many, late, corrected, reported."""
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
    report = api.get(f"/v1/analytics/performance/VEH-1?end={time}")
    assert report.status == 200
    assert report.body["efficiencyRatio"] == 92
