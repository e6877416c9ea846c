"""`GET /health`: 200 while the system can work, 503 with the reason when it cannot."""

from datetime import UTC, datetime, timedelta

import psycopg

from local.databases import DatabaseUrls
from telemetry.database import Database, Row
from telemetry.partitions import DAYS_AHEAD
from telemetry.readings import MeterReading
from telemetry.store import store_meter_reading
from tests.conftest import Server, unpooled
from tests.integration.conftest import Api


def test_a_migrated_database_is_healthy(api: Api) -> None:
    answer = api.get("/health")
    assert (answer.status, answer.body["status"]) == (200, "ok")
    assert all(
        answer.body[check]["ok"] for check in ("database", "migrations", "partitions", "timeZones")
    )


def test_an_empty_database_is_not(empty_database: DatabaseUrls) -> None:
    api = Api(empty_database)
    answer = api.get("/health")
    api.close()
    assert (answer.status, answer.body["status"]) == (503, "unavailable")
    assert answer.body["database"]["ok"]
    assert "0001_roles" in answer.body["migrations"]["detail"]
    assert not answer.body["partitions"]["ok"]


def test_a_missing_migration_is_named(api: Api, connection: psycopg.Connection[Row]) -> None:
    connection.execute("DELETE FROM schema_migrations WHERE name LIKE '0002%'")
    answer = api.get("/health")
    assert answer.status == 503
    assert answer.body["migrations"] == {"ok": False, "detail": "not applied: 0002_streams"}


def test_functions_of_another_version_are_named(
    api: Api, connection: psycopg.Connection[Row]
) -> None:
    connection.execute("UPDATE schema_functions SET checksum = 'older' WHERE name = 'links'")
    answer = api.get("/health")
    assert answer.status == 503
    assert answer.body["migrations"] == {"ok": False, "detail": "not applied: links.sql"}


def test_a_newer_schema_is_no_fault(api: Api, connection: psycopg.Connection[Row]) -> None:
    connection.execute("INSERT INTO schema_migrations (name, checksum) VALUES ('9999_next', '')")
    connection.execute(
        """INSERT INTO schema_functions (name, checksum, applied_at, signatures)
           SELECT name, 'newer', now(), signatures FROM schema_functions"""
    )
    assert api.get("/health").status == 200


def test_partitions_have_to_be_ahead(api: Api, connection: psycopg.Connection[Row]) -> None:
    tomorrow = connection.execute(
        """SELECT inhrelid::regclass::text FROM pg_inherits
           WHERE inhparent = 'vehicle_telemetry_history'::regclass
             AND inhrelid::regclass::text > 'vehicle_telemetry_history_'
                 || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM_DD')
             AND inhrelid::regclass::text NOT LIKE '%default'"""
    ).fetchall()
    assert tomorrow
    for (name,) in tomorrow:
        connection.execute(f"DROP TABLE {name}".encode())
    answer = api.get("/health")
    assert (answer.status, answer.body["partitions"]["ok"]) == (503, False)


def test_readings_in_the_default_partition_are_reported(api: Api, urls: DatabaseUrls) -> None:
    database = Database(urls.ingest)
    beyond = datetime.now(UTC) + timedelta(days=DAYS_AHEAD + 2)
    reading = MeterReading.model_construct(
        meter_id="METER-1", kwh_consumed_ac=1.0, voltage=230.0, timestamp=beyond
    )
    store_meter_reading(database, reading, beyond)
    database.close()
    answer = api.get("/health")
    assert (answer.status, answer.body["partitions"]["ok"]) == (503, False)
    assert "readings beyond" in answer.body["partitions"]["detail"]


def test_each_history_needs_its_partitions(api: Api, connection: psycopg.Connection[Row]) -> None:
    for (name,) in connection.execute(
        """SELECT inhrelid::regclass::text FROM pg_inherits
           WHERE inhparent = 'vehicle_telemetry_history'::regclass
             AND inhrelid::regclass::text NOT LIKE '%default'"""
    ).fetchall():
        connection.execute(f"DROP TABLE {name}".encode())
    answer = api.get("/health")
    assert (answer.status, answer.body["partitions"]["detail"]) == (503, "there are none")


@unpooled
def test_a_server_that_is_no_writer_is_not_healthy(
    api: Api, connection: psycopg.Connection[Row]
) -> None:
    [(name,)] = connection.execute("SELECT current_database()")
    connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    # Sessions end with the writer that they had.
    connection.execute(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    )
    answer = api.get("/health")
    assert (answer.status, answer.body["database"]["ok"]) == (503, False)
    reading = {
        "meterId": "M",
        "kwhConsumedAc": 1,
        "voltage": 1,
        "timestamp": "2024-01-01T00:00:00Z",
    }
    assert api.post("/ingest/meter", reading).status == 503
    connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
    while api.post("/ingest/meter", reading).status != 201:
        pass  # until the circuit breaker tries the database again


def test_a_database_out_of_reach_is_reported(server: Server) -> None:
    api = Api(server.urls("there_is_none"))
    health = api.get("/health")
    assert (health.status, health.body["database"]["ok"]) == (503, False)
    report = api.get("/v1/analytics/performance/VEH-1")
    assert (report.status, report.headers["retry-after"]) == (503, "1")
    refused = api.post(
        "/ingest/meter",
        {"meterId": "M", "kwhConsumedAc": 1, "voltage": 1, "timestamp": "2024-01-01T00:00:00Z"},
    )
    assert refused.status == 503
    assert refused.body["message"] == "Readings cannot be taken now; send the request again"
    assert api.get("/").status == 200
    api.close()
