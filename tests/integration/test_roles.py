"""Who may do what in the database: every overstep is refused."""

from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from local.databases import MAINTAIN, OWNER, DatabaseUrls, database_urls
from telemetry.database import Database, Row, connect
from telemetry.links import link_vehicle
from telemetry.readings import MeterReading
from telemetry.store import store_meter_reading
from telemetry.verification import find_differences
from tests.conftest import Server

NOON = datetime(2026, 2, 10, 12, tzinfo=UTC)
TABLES = [
    f"{stream}_{table}"
    for stream in ("meter", "vehicle")
    for table in ("telemetry_history", "live_status", "hourly_rollup", "daily_rollup")
]
VIEWS = ["meter_history", "vehicle_history", "meter_live_state", "vehicle_live_state"]
LINKS = ["links", "link_periods"]
ARCHIVE = ["archive_horizon", "archive_closed", "archive_files", "meter_pending", "vehicle_pending"]
FAULTS = ["fault", "fault_change", "charger_window"]
# What no role may do.
OVERSTEPS = [
    *(f"DELETE FROM {table}" for table in FAULTS),
    *(f"INSERT INTO {table} DEFAULT VALUES" for table in FAULTS),
    "UPDATE fault SET state = 'cleared'",
    "UPDATE fault_change SET published_at = NULL",
    "SELECT count(*) FROM charger_window",
    "SELECT explain_fault('METER-1', '{}', 1, 1)",
    *(f"INSERT INTO {table} DEFAULT VALUES" for table in TABLES),
    *(f"DELETE FROM {table}" for table in [*TABLES, *VIEWS, "links", "schema_migrations"]),
    "INSERT INTO links DEFAULT VALUES",
    "SELECT count(*) FROM link_locks",
    "SELECT sum_meters('{METER-1}', now())",
    "SELECT summarize_vehicles('{VEH-1}', now(), true, 1, 0.5)",
    "SELECT mark_meter_summaries('{}')",
    "SELECT sum_meter_days('{}')",
    "SELECT store_meter_events('{}')",
    "UPDATE vehicle_summary SET stale = false",
    "DELETE FROM fleet_window",
    "UPDATE fleet_totals SET vehicles = 0",
    "SELECT begin_fleet_window(now(), true, 1, 0.5)",
    "SELECT lock_links('{VEH-1}')",
    "DELETE FROM tariff",
    "UPDATE tariff SET price_per_kwh = 0",
    "SELECT mark_summaries_of_tariff('*', now())",
    "SELECT claim_by_api('VEH-1', now(), 'METER-1')",
    "SELECT claim_meters('{}')",
    "UPDATE schema_functions SET checksum = ''",
    *(f"DELETE FROM {table}" for table in ARCHIVE),
    *(f"TRUNCATE {table}" for table in TABLES),
    *(f"DROP TABLE {table} CASCADE" for table in TABLES),
    "INSERT INTO meter_telemetry_history_default DEFAULT VALUES",
    "UPDATE meter_telemetry_history SET kwh_consumed_ac = 0",
    "UPDATE meter_live_status SET last_voltage = 0",
    "UPDATE vehicle_hourly_rollup SET readings = 0",
    "UPDATE vehicle_live_state SET soc = 0",
    "ALTER TABLE meter_telemetry_history DETACH PARTITION meter_telemetry_history_2020",
    "DROP TABLE meter_telemetry_history_2020",
    "SET ROLE telemetry_maintain",
    "ALTER TABLE meter_telemetry_history ADD COLUMN x int",
    "ALTER FUNCTION rollup_hour OWNER TO CURRENT_USER",
    "DROP FUNCTION store_meter_reading",
    "CREATE TABLE mine (x int)",
    "CREATE SCHEMA mine",
    "CREATE ROLE mine",
    "ALTER ROLE telemetry_owner PASSWORD 'mine'",
    "GRANT telemetry_owner TO CURRENT_USER",
    "SET ROLE telemetry_owner",
    "INSERT INTO schema_migrations VALUES ('mine', '')",
]
OVERSTEPS_OF_INGEST = [
    "SELECT count(*) FROM tariff",
    "SELECT * FROM hour_prices('{*}', ARRAY[now()], ARRAY[now()])",
    "SELECT * FROM loss_costs(NULL)",
    *(f"SELECT count(*) FROM {table}" for table in [*TABLES, *VIEWS, *LINKS, "schema_migrations"]),
    "SELECT count(*) FROM meter_telemetry_history_default",
    "SELECT vehicle_performance('{VEH-1}', '{NULL}', '{NULL}', '1 day', true)",
    "SELECT report_charging('{VEH-1}', '{NULL}', '{NULL}', '1 day', true, false, 1, 0.5)",
    "SELECT links_of('VEH-1', now() - interval '1 day', now())",
    "SELECT count(*) FROM fault",
    "SELECT count(*) FROM fault_change",
]
OVERSTEPS_OF_READ = [
    "SELECT put_tariff('*', now(), NULL, '', 'UTC', 1, 1, '[]', '{0}', '{1}', 1, '', '{}', '{}')",
    "SELECT delete_tariff('*', now())",
    "SELECT list_tariff('*')",
    "SELECT store_meter_reading('METER-1', now(), now(), 1, 1, now(), 1)",
    "SELECT store_vehicle_reading('VEH-1', now(), now(), 1, 1, 1, 'M', now(), 1)",
    "SELECT store_meter_readings('{METER-1}', ARRAY[now()], ARRAY[now()], '{1}', '{1}')",
    "SELECT store_vehicle_readings('{V}', ARRAY[now()], ARRAY[now()], '{1}', '{1}', '{1}', '{M}')",
    "SELECT link_vehicle('VEH-1', now(), 'METER-1', false)",
    "SELECT unlink_vehicle('VEH-1', now())",
    "SELECT list_links('VEH-1', now(), 1)",
]
CALLS_OF_ALERTS = [
    "SELECT evaluate_faults('', 1, now(), '1 day', true, 1, 0.5, 207, 45)",
    "SELECT take_fault_changes(1)",
    "SELECT mark_fault_changes('{}', '{}')",
    "SELECT count_fault_changes()",
    "SELECT acknowledge_fault(gen_random_uuid(), 'Ada', 'seen')",
]
CALLS_OF_CORRECT = [
    "SELECT void_meter_reading('METER-1', now(), 'Ada', 'a test', NULL)",
    "SELECT withdraw_meter_void('METER-1', now(), 'Ada', 'a test', NULL)",
    "SELECT void_vehicle_reading('VEH-1', now(), 'Ada', 'a test', NULL)",
    "SELECT withdraw_vehicle_void('VEH-1', now(), 'Ada', 'a test', NULL)",
    "SELECT list_voids(NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1)",
    "SELECT request_erasure('meter', 'METER-1', 'Ada', 'a test', NULL)",
    "SELECT list_erasures(NULL, NULL, NULL, 1)",
]
OVERSTEPS_OF = {
    "ingest": OVERSTEPS_OF_INGEST + CALLS_OF_ALERTS + CALLS_OF_CORRECT,
    "read": OVERSTEPS_OF_READ + CALLS_OF_ALERTS + CALLS_OF_CORRECT,
    "alerts": OVERSTEPS_OF_INGEST + OVERSTEPS_OF_READ + CALLS_OF_CORRECT,
    "correct": OVERSTEPS_OF_INGEST + OVERSTEPS_OF_READ + CALLS_OF_ALERTS,
}


# What the maintenance may not do: it writes what is derived, and owns history alone.
OVERSTEPS_OF_MAINTAIN = [
    "UPDATE tariff SET price_per_kwh = 0",
    "SELECT delete_tariff('*', now())",
    *(f"DROP TABLE {table} CASCADE" for table in TABLES if "history" not in table),
    *(f"TRUNCATE {table}" for table in [*TABLES, *ARCHIVE] if "history" not in table),
    "ALTER TABLE meter_live_status ADD COLUMN x int",
    "SELECT store_meter_reading('METER-1', now(), now(), 1, 1, now(), 1)",
    "SELECT link_vehicle('VEH-1', now(), 'METER-1', false)",
    "ALTER FUNCTION rollup_hour OWNER TO CURRENT_USER",
    "DELETE FROM schema_migrations",
    "UPDATE fault SET state = 'cleared'",
    "CREATE SCHEMA mine",
    "CREATE ROLE mine",
    "SET ROLE telemetry_owner",
    "SET ROLE telemetry_ingest",
]


def test_the_maintenance_does_not_overstep(urls: DatabaseUrls) -> None:
    with connect(urls.maintain) as connection:
        allowed = [entry for entry in OVERSTEPS_OF_MAINTAIN if not _is_refused(connection, entry)]
    assert allowed == []


@pytest.mark.parametrize("user", OVERSTEPS_OF)
def test_no_role_oversteps(urls: DatabaseUrls, user: str) -> None:
    entries = [*OVERSTEPS, *OVERSTEPS_OF[user]]
    with connect(getattr(urls, user)) as connection:
        allowed = [entry for entry in entries if not _is_refused(connection, entry)]
    assert allowed == []


def _is_refused(connection: psycopg.Connection[Row], statement: str) -> bool:
    try:
        connection.execute(statement.encode())
    except InsufficientPrivilege:
        return True
    return False


@pytest.mark.parametrize("user", OVERSTEPS_OF)
def test_no_role_makes_temporary_tables(server: Server, user: str) -> None:
    # A right of the database itself, which a clone of it does not inherit.
    with connect(getattr(database_urls(server.running, "migrated"), user)) as connection:
        assert _is_refused(connection, "CREATE TEMP TABLE mine (x int)")


def test_ingest_writes_what_read_reads(urls: DatabaseUrls) -> None:
    ingest, read = Database(urls.ingest), Database(urls.read)
    reading = MeterReading.model_construct(
        meter_id="METER-1", kwh_consumed_ac=1.5, voltage=230.0, timestamp=NOON
    )
    store_meter_reading(ingest, reading, NOON)
    for table in [*TABLES, *VIEWS]:
        [(count,)] = read.fetch(f"SELECT count(*) FROM {table}")
        expected = table.startswith("meter") and "daily" not in table  # made when a day is over
        assert count == expected, table
    link_vehicle(ingest, "VEH-1", "METER-1", NOON)
    assert read.fetch("SELECT meter_id FROM links_of('VEH-1', now(), now())") == [("METER-1",)]
    assert read.fetch("SELECT meter_id FROM link_periods") == [("METER-1",)]
    with connect(urls.read) as connection:
        assert find_differences(connection) == []
    ingest.close()
    read.close()


def test_alerts_does_its_work_without_any_right_to_a_table(urls: DatabaseUrls) -> None:
    with connect(urls.alerts) as connection:
        for call in CALLS_OF_ALERTS:
            connection.execute(call.encode())


def test_corrections_do_their_work_without_any_right_to_a_table(urls: DatabaseUrls) -> None:
    with connect(urls.correct) as connection:
        for call in CALLS_OF_CORRECT:
            connection.execute(call.encode())


def test_history_is_the_maintenances_and_everything_else_the_owners(
    connection: psycopg.Connection[Row],
) -> None:
    owners = connection.execute(
        """SELECT DISTINCT pg_get_userbyid(owner), name ~ '_telemetry_history' FROM (
               SELECT relowner, relname FROM pg_class
               WHERE relnamespace = 'public'::regnamespace
               UNION ALL
               SELECT proowner, proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
           ) AS object (owner, name)
           ORDER BY 2"""
    )
    assert owners.fetchall() == [(OWNER, False), (MAINTAIN, True)]


@pytest.mark.parametrize("user", OVERSTEPS_OF)
def test_a_role_brings_the_settings_that_the_store_needs(urls: DatabaseUrls, user: str) -> None:
    with connect(getattr(urls, user)) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}".encode()).fetchone()
            for name in (
                "statement_timeout",
                "transaction_isolation",
                "DateStyle",
                "TimeZone",
                "jit",
            )
        }
    assert shown == {
        "statement_timeout": ("5s",),
        "transaction_isolation": ("read committed",),
        "DateStyle": ("ISO, MDY",),
        "TimeZone": ("UTC",),
        "jit": ("off",),
    }
