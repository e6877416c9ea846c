"""Where there is a read replica, reports come from it, and everything else from the database."""

import pytest

from local.databases import DatabaseUrls
from telemetry.database import connect
from telemetry.migrate import apply_migrations
from tests.conftest import unpooled
from tests.integration.conftest import Api

VEHICLE = {
    "vehicleId": "VEH-1",
    "kwhDeliveredDc": 1,
    "batteryTemp": 20,
    "timestamp": "2026-02-10T10:00:00Z",
}


@unpooled
def test_reports_come_from_the_replica(
    urls: DatabaseUrls, empty_database: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The replica is far behind.
    with connect(empty_database.owner) as connection:
        apply_migrations(connection)
    monkeypatch.setenv("REPLICA_DATABASE_URL", empty_database.owner)
    api = Api(urls)
    assert api.post("/ingest/vehicle", VEHICLE).status == 201
    assert api.get("/v1/analytics/performance/VEH-1").status == 404
    assert api.get("/health").status == 200
    api.close()
    monkeypatch.delenv("REPLICA_DATABASE_URL")
    api = Api(urls)
    assert api.get("/v1/analytics/performance/VEH-1").status == 200
    api.close()


@unpooled
def test_without_its_replica_only_reports_fail(
    urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICA_DATABASE_URL", "postgresql://telemetry_read:x@127.0.0.1:1/x")
    api = Api(urls)
    assert api.post("/ingest/vehicle", VEHICLE).status == 201
    assert api.get("/v1/analytics/performance/VEH-1").status == 503
    assert api.get("/health").status == 200
    api.close()
