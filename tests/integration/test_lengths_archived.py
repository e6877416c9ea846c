"""Readings of any length, where the archive, erasures, voids and declarations meet them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from local.databases import DatabaseUrls
from telemetry.archive import Archive
from telemetry.bucket import Bucket
from telemetry.database import Database, Row, connect
from telemetry.devices import DeviceDeclaration, declare_device
from telemetry.eraser import Eraser
from telemetry.late import LateReceipts
from telemetry.migrate import _apply, apply_migrations
from telemetry.partitions import make_partitions
from telemetry.readings import MeterReading, VehicleReading
from telemetry.redeclarations import store_again
from telemetry.rules import Rules
from telemetry.store import store_meter_reading, store_meter_readings, store_vehicle_reading
from telemetry.summaries import refresh_summaries
from telemetry.verification import find_differences
from tests.conftest import Server, database, template_at, unpooled
from tests.integration.oracle import void
from tests.integration.released import RELEASES, released_functions, released_migrations

pytestmark = unpooled

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
NOW = datetime(2026, 2, 9, 13, tzinfo=UTC)
TENTH = datetime(2026, 2, 10, tzinfo=UTC)


def always() -> bool:
    return True


@pytest.fixture
def urls_by_days(server: Server) -> Iterator[DatabaseUrls]:
    with database(server, template_at(server, NOW)) as urls:
        yield urls


@pytest.fixture
def maintainer(urls_by_days: DatabaseUrls) -> Iterator[psycopg.Connection[Row]]:
    with connect(urls_by_days.maintain) as connection:
        yield connection


@pytest.fixture
def archive(maintainer: psycopg.Connection[Row], bucket: Bucket) -> Archive:
    return Archive(maintainer, bucket)


@pytest.fixture
def store(urls_by_days: DatabaseUrls) -> Iterator[Database]:
    opened = Database(urls_by_days.ingest)
    yield opened
    opened.close()


@pytest.fixture
def ops(urls_by_days: DatabaseUrls) -> Iterator[Database]:
    opened = Database(urls_by_days.correct)
    yield opened
    opened.close()


def meter(
    time: datetime, kwh: float = 1.0, meter_id: str = "METER-1", seconds: float | None = None
) -> MeterReading:
    return MeterReading.model_construct(
        meter_id=meter_id,
        kwh_consumed_ac=kwh,
        voltage=230.0,
        timestamp=time,
        interval_seconds=seconds,
    )


def declare(store: Database, seconds: int, valid_from: datetime | None = None) -> None:
    said: dict[str, Any] = {"energy": "interval", "cadenceSeconds": seconds}
    if valid_from:
        said["validFrom"] = valid_from.isoformat()
    now = datetime.now(UTC)
    declare_device(store, "METER-1", DeviceDeclaration.model_validate(said), now)


def ask_for_erasure(ops: Database, meter_id: str) -> None:
    ops.fetch("SELECT * FROM request_erasure('meter', %s, 'Ada', 'a test', NULL)", (meter_id,))


def archive_until(archive: Archive, end: datetime) -> None:
    assert archive.close_partitions(end) > 0
    archive.move_closed(always)


@pytest.mark.parametrize("release", RELEASES)
def test_a_partition_that_a_release_before_closed_is_archived(
    empty_database: DatabaseUrls, bucket: Bucket, release: str
) -> None:
    with connect(empty_database.owner) as owner:
        list(_apply(owner, released_migrations(release), released_functions(release)))
        make_partitions(owner, NOW)
        owner.execute(
            """INSERT INTO meter_telemetry_history
                   (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage)
               VALUES ('METER-1', %(at)s, %(at)s, 1, 230)""",
            {"at": TENTH + HOUR},
        )
        archive = Archive(owner, bucket)
        assert archive.close_partitions(TENTH + DAY) > 0
        apply_migrations(owner)
        assert archive.move_closed(always) == 1


def test_a_receipt_delivered_again_is_the_same_whatever_was_declared_since(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database
) -> None:
    at, received = TENTH + 5 * HOUR, TENTH + 4 * DAY
    store_meter_reading(store, meter(at, 3.0), received)
    archive_until(archive, TENTH + DAY)
    declare(store, 7200, TENTH - 30 * DAY)
    store_again(maintainer, always)
    sums = "SELECT hour, kwh_consumed_ac FROM meter_hourly_rollup ORDER BY hour"
    before = maintainer.execute(sums).fetchall()
    store_meter_reading(store, meter(at, 3.0), received)
    LateReceipts(maintainer, archive).settle(always)
    assert maintainer.execute(sums).fetchall() == before
    [(archived,)] = maintainer.execute("SELECT sum(readings) FROM archive_files")
    assert archived == 1


def test_an_erasure_counts_of_what_stays_the_receipt_that_counts(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database, ops: Database
) -> None:
    store_meter_reading(store, meter(TENTH + 12 * HOUR), NOW)
    store_meter_reading(store, meter(TENTH + DAY + 12 * HOUR), NOW)
    ask_for_erasure(ops, "METER-1")
    # Sent after that: over midnight first, and corrected to be of the next day alone.
    at, later = TENTH + DAY + 30 * MINUTE, datetime.now(UTC) + timedelta(seconds=2)
    store_meter_reading(store, meter(at, 8.0, seconds=7200), later)
    store_meter_reading(store, meter(at, 5.0, seconds=900), later + timedelta(seconds=1))
    archive_until(archive, TENTH + 2 * DAY)
    LateReceipts(maintainer, archive).settle(always)
    assert Eraser(maintainer, archive).erase(always) == 1
    found = maintainer.execute(
        "SELECT sum(kwh_consumed_ac), sum(readings) FROM meter_hourly_rollup"
    )
    assert found.fetchall() == [(5, 1)]


def test_a_device_of_which_an_erasure_leaves_an_archived_reading_keeps_its_cadence(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database, ops: Database
) -> None:
    store_meter_reading(store, meter(TENTH + HOUR), NOW)
    store_meter_reading(store, meter(TENTH + 3 * DAY), NOW)
    ask_for_erasure(ops, "METER-1")
    declare(store, 900)
    later = datetime.now(UTC) + timedelta(seconds=2)
    store_meter_reading(store, meter(TENTH + 2 * HOUR), later)
    archive_until(archive, TENTH + DAY)
    LateReceipts(maintainer, archive).settle(always)
    assert Eraser(maintainer, archive).erase(always) == 1
    ahead = datetime.now(UTC) + 30 * HOUR
    store_meter_reading(store, meter(ahead), ahead)
    found = maintainer.execute("SELECT seconds FROM meter_telemetry_history").fetchall()
    assert found == [(900,)]


def test_the_only_reading_of_a_device_is_voided_at_once_however_long_it_is(
    archive: Archive, store: Database, ops: Database
) -> None:
    store_meter_reading(store, meter(TENTH + HOUR, meter_id="METER-9"), NOW)
    archive_until(archive, TENTH + DAY)
    at = TENTH + 2 * DAY
    store_meter_reading(store, meter(at, 8.0, seconds=7200), NOW)
    assert void(ops, ("METER-1", at)) == "voided"


def test_every_link_that_an_erased_reading_reached_into_is_marked(
    maintainer: psycopg.Connection[Row], store: Database, ops: Database
) -> None:
    at = TENTH + 10 * HOUR
    for number, minutes in ((1, 41), (2, 51)):
        reading = VehicleReading.model_construct(
            vehicle_id=f"VEH-{number}",
            soc=None,
            kwh_delivered_dc=1.0,
            battery_temp=20.0,
            meter_id="METER-1",
            timestamp=at + minutes * MINUTE,
        )
        store_vehicle_reading(store, reading, NOW)
    store_meter_reading(store, meter(at + 58 * MINUTE, 8.0, seconds=1680), NOW)
    refresh_summaries(maintainer, TENTH + 12 * HOUR, Rules())
    ask_for_erasure(ops, "METER-1")
    maintainer.execute("SELECT erase_meter_day(erasure_id, %s, '[]') FROM erasure", (TENTH,))
    assert find_differences(maintainer) == []


@pytest.mark.parametrize("cadence", [900, 86_400])
def test_thousands_of_readings_declared_otherwise_are_stored_again(
    maintainer: psycopg.Connection[Row], store: Database, cadence: int
) -> None:
    items = [meter(TENTH - number * MINUTE) for number in range(2_500)]
    store_meter_readings(store, items, NOW)
    declare(store, cadence, NOW - DAY)
    # Each looked for what it covered by itself once: that took minutes.
    maintainer.execute("SET statement_timeout = '60s'")
    assert store_again(maintainer, always) == 1
    assert find_differences(maintainer) == []


def test_thousands_of_readings_sent_again_with_another_length_are_stored(
    maintainer: psycopg.Connection[Row], store: Database
) -> None:
    times = [TENTH - number * MINUTE for number in range(2_500)]
    store_meter_readings(store, [meter(time) for time in times], NOW)
    store_meter_readings(store, [meter(time, seconds=3599) for time in times], NOW + HOUR)
    assert find_differences(maintainer) == []
