"""What has to hold for the schema to be sharded by device (docs/capacity.md)."""

import psycopg

from telemetry.database import Row

# Copied to every shard: small, and of no one device.
REFERENCE_TABLES = {
    *("links", "link_locks", "fleet_window", "fleet_totals", "schema_migrations"),
    "schema_functions",
    *("archive_horizon", "archive_closed", "archive_files", "fault", "fault_change", "tariff"),
    *("erasure", "erasure_key", "archive_leftover", "zone_offset"),
}
# On the coordinator, where the maintenance is at work: what comes for archived days.
LOCAL_TABLES = {"meter_pending", "vehicle_pending"}


def test_every_unique_key_begins_with_the_device(connection: psycopg.Connection[Row]) -> None:
    keys = connection.execute(
        """SELECT indrelid::regclass::text, pg_get_indexdef(indexrelid, 1, false)
           FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
           WHERE indisunique AND relnamespace = 'public'::regnamespace AND NOT relispartition"""
    ).fetchall()
    of_device = {"meter_id", "vehicle_id", "device_id"}
    elsewhere = {table for table, column in keys if column not in of_device}
    assert elsewhere <= REFERENCE_TABLES | LOCAL_TABLES
    assert {"meter_telemetry_history", "vehicle_summary"} <= {table for table, _ in keys}


def test_every_table_has_a_key(connection: psycopg.Connection[Row]) -> None:
    keyless = connection.execute(
        """SELECT relname FROM pg_class
           WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
             AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary)"""
    ).fetchall()
    assert keyless == []


def test_nothing_of_devices_is_numbered_excluded_or_referred_to(
    connection: psycopg.Connection[Row],
) -> None:
    sequences = connection.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
    ).fetchall()
    of_local_tables = {f"{table}_number_seq" for table in LOCAL_TABLES}
    constraints = connection.execute(
        """SELECT conrelid::regclass::text FROM pg_constraint
           WHERE contype IN ('f', 'x') AND connamespace = 'public'::regnamespace"""
    ).fetchall()
    assert {name for (name,) in sequences} == of_local_tables
    assert {name for (name,) in constraints} <= REFERENCE_TABLES
