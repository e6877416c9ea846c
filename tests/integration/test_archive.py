"""History moves into a real S3 API and nothing is lost or counted twice, whatever comes when."""

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.errors import LockNotAvailable

from local.configuration import read_local_template
from local.databases import DatabaseUrls
from local.queues import connect as connect_storage
from local.sqs import QueueServer
from telemetry.archive import Archive
from telemetry.bucket import Bucket
from telemetry.database import Database, Row, connect
from telemetry.errors import ArchiveDamaged, ArchiveDiffers, ArchiveUnavailable, DayNotArchived
from telemetry.late import LateReceipts
from telemetry.migrate import apply_migrations
from telemetry.partitions import make_partitions
from telemetry.readings import MeterReading, VehicleReading
from telemetry.store import store_meter_reading, store_meter_readings, store_vehicle_reading
from telemetry.verification import find_differences
from tests.conftest import unpooled
from tests.integration.conftest import delete_all
from tests.integration.oracle import START, Call, Event, Oracle, write

pytestmark = unpooled  # the maintenance is direct

DAY = timedelta(days=1)
# Partitions: January a month, February by days.
NOW = datetime(2026, 2, 9, 13, tzinfo=UTC)
TENTH = datetime(2026, 2, 10, tzinfo=UTC)
_numbers = count()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueServer]:
    running = QueueServer(tmp_path_factory.mktemp("storage"))
    running.start(read_local_template({"DATABASE_URL": "postgresql://"}).queues)
    running.await_queues()
    yield running
    running.stop()


@pytest.fixture
def s3(storage: QueueServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    return connect_storage(storage.environment, "s3")


@pytest.fixture
def bucket(s3: Any) -> Bucket:
    """A bucket of the test's own."""
    name = f"archive-{next(_numbers)}"
    s3.create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": s3.meta.region_name}
    )
    return Bucket(name)


@pytest.fixture
def by_days(empty_database: DatabaseUrls) -> DatabaseUrls:
    """A database whose partitions were made at NOW."""
    with connect(empty_database.owner) as owner:
        apply_migrations(owner)
        make_partitions(owner, NOW)
    return empty_database


@pytest.fixture
def maintainer(by_days: DatabaseUrls) -> Iterator[psycopg.Connection[Row]]:
    """The maintenance's connection; at the end everything is what history says."""
    with connect(by_days.maintain) as connection:
        yield connection
        assert find_differences(connection) == []


@pytest.fixture
def archive(maintainer: psycopg.Connection[Row], bucket: Bucket) -> Archive:
    return Archive(maintainer, bucket)


@pytest.fixture
def store(by_days: DatabaseUrls) -> Iterator[Database]:
    opened = Database(by_days.ingest)
    yield opened
    opened.close()


def always() -> bool:
    return True


def meter(time: datetime, kwh: float = 1.0, meter_id: str = "METER-1") -> MeterReading:
    return MeterReading.model_construct(
        meter_id=meter_id, kwh_consumed_ac=kwh, voltage=230.1, timestamp=time
    )


def vehicle(time: datetime, kwh: float = 1.0, meter_id: str | None = None) -> VehicleReading:
    return VehicleReading.model_construct(
        vehicle_id="VEH-1",
        soc=None,
        kwh_delivered_dc=kwh,
        battery_temp=-20.5,
        timestamp=time,
        meter_id=meter_id,
    )


def rollup(connection: psycopg.Connection[Row], stream: str = "meter") -> list[Row]:
    kwh = "kwh_consumed_ac" if stream == "meter" else "kwh_delivered_dc"
    statement = f"SELECT hour, readings, trim_scale({kwh}) FROM {stream}_hourly_rollup ORDER BY 1"
    return connection.execute(statement.encode()).fetchall()


def count_rows(connection: psycopg.Connection[Row], table: str) -> int:
    [(found,)] = connection.execute(f"SELECT count(*) FROM {table}".encode())
    assert isinstance(found, int)
    return found


def test_a_day_goes_to_the_archive_and_comes_back(
    by_days: DatabaseUrls,
    maintainer: psycopg.Connection[Row],
    archive: Archive,
    store: Database,
    s3: Any,
    tmp_path: Path,
) -> None:
    values = [0.1, 1e-7, 123.456789012345, 9999.99999999999, 0.0, 3.3e-19]
    for minute, kwh in enumerate(values):
        at = TENTH + minute * timedelta(minutes=1, microseconds=1)
        store_meter_reading(store, meter(at, kwh), at + timedelta(seconds=1.234567))
        store_vehicle_reading(store, vehicle(at, kwh, "METER-1" if minute % 2 else None), at)
    kept = TENTH + DAY
    store_meter_reading(store, meter(kept), kept)
    before = maintainer.execute(
        "SELECT * FROM vehicle_telemetry_history ORDER BY vehicle_id, timestamp"
    ).fetchall()

    assert archive.close_partitions(TENTH + DAY) > 0
    assert archive.move_closed(always) == 2 * len(values)
    assert archive.count_waiting(TENTH + DAY) == 0
    # Once is enough.
    assert (archive.close_partitions(TENTH + DAY), archive.move_closed(always)) == (0, 0)

    assert count_rows(maintainer, "meter_telemetry_history") == 1
    assert rollup(maintainer, "vehicle")[0][1] == 1
    found = maintainer.execute("SELECT stream, day::text, number, readings, key FROM archive_files")
    key = "readings/stream={}/date=2026-02-10/0000.parquet"
    assert sorted(found.fetchall()) == [
        (stream, "2026-02-10", 0, len(values), key.format(stream)) for stream in ("meter", "vehicle")
    ]

    # Anyone's reader makes sense of it.
    [name] = [entry["Name"] for entry in s3.list_buckets()["Buckets"][-1:]]
    s3.download_file(name, key.format("vehicle"), str(tmp_path / "day.parquet"))
    relation = duckdb.sql(f"SELECT * FROM '{tmp_path / 'day.parquet'}'")
    assert list(zip(relation.columns, map(str, relation.types), strict=True)) == [
        ("vehicle_id", "VARCHAR"),
        ("timestamp", "TIMESTAMP WITH TIME ZONE"),
        ("received_at", "TIMESTAMP WITH TIME ZONE"),
        *((column, "DOUBLE") for column in ("kwh_delivered_dc", "battery_temp", "soc")),
        ("meter_id", "VARCHAR"),
    ]

    table = "vehicle_telemetry_history_2026_02_10_restored"
    for _ in range(2):
        assert archive.restore_day(TENTH.date())[table] == len(values)
    with connect(by_days.read) as reader:
        restored = reader.execute(f"SELECT * FROM {table} ORDER BY vehicle_id, timestamp".encode())
        assert restored.fetchall() == before
    with pytest.raises(DayNotArchived):
        archive.restore_day(date(2026, 2, 9))


def test_what_comes_late_is_counted_once(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database
) -> None:
    late = LateReceipts(maintainer, archive)
    at = TENTH + timedelta(hours=1)

    def send(minute: int, kwh: float, seconds: int) -> None:
        time = at + minute * timedelta(minutes=1)
        store_meter_reading(store, meter(time, kwh), TENTH + timedelta(hours=4, seconds=seconds))

    for minute in range(1, 11):
        send(minute, 1, minute)
    store_meter_reading(store, meter(TENTH + 2 * DAY), TENTH + 2 * DAY)
    archive.close_partitions(TENTH + DAY)
    # Between closing and moving too.
    send(5, 1, 100)
    assert late.settle(always) == 0
    archive.move_closed(always)

    hour = rollup(maintainer)[0]
    assert hour == (at, 10, Decimal(10))
    send(6, 1, 101)  # the same reading again
    assert rollup(maintainer)[0] == hour
    send(30, 1, 102)  # a reading that was never there: counted at once
    assert rollup(maintainer)[0] == (at, 11, Decimal(11))
    send(30, 2, 103)  # corrected before it is in the archive: at once as well
    assert rollup(maintainer)[0] == (at, 11, Decimal(12))
    send(7, 3, 104)  # an archived one corrected: when it was compared with the archive
    send(7, 2, 0)  # its earlier receipt comes later still
    assert rollup(maintainer)[0] == (at, 11, Decimal(12))
    assert late.count() == 4

    assert late.settle(always) == 6
    assert rollup(maintainer)[0] == (at, 11, Decimal(14))
    assert (late.count(), late.settle(always)) == (0, 0)
    assert count_rows(maintainer, "meter_telemetry_history") == 1
    send(7, 3, 104)
    send(30, 2, 103)  # delivered again
    assert late.settle(always) == 2
    assert rollup(maintainer)[0] == (at, 11, Decimal(14))
    assert sum(archive.restore_day(TENTH.date()).values()) == 16
    days = maintainer.execute("SELECT sum(readings) FROM archive_files").fetchall()
    assert days == [(16,)]
