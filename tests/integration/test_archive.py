"""History moves into a real S3 API and nothing is lost or counted twice, whatever comes when."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic
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

from local.databases import DatabaseUrls
from telemetry.archive import Archive
from telemetry.archived_voids import ArchivedVoids
from telemetry.bucket import Bucket
from telemetry.charging import Performance
from telemetry.database import Database, Row, connect
from telemetry.devices import DeviceDeclaration, declare_device
from telemetry.errors import ArchiveDamaged, ArchiveDiffers, ArchiveUnavailable, DayNotArchived
from telemetry.late import LateReceipts
from telemetry.links import link_vehicle
from telemetry.partitions import make_partitions
from telemetry.readings import MeterReading, VehicleReading
from telemetry.reports import report_performance
from telemetry.rules import Rules
from telemetry.store import (
    store_meter_reading,
    store_meter_readings,
    store_vehicle_reading,
    store_vehicle_readings,
)
from telemetry.verification import find_differences
from tests.conftest import Server, database, template_at, unpooled
from tests.integration.conftest import make_bucket
from tests.integration.oracle import START, Call, Event, Oracle, read_rollups, void, withdraw, write

pytestmark = unpooled  # the maintenance is direct

DAY = timedelta(days=1)
# Partitions: January a month, February by days.
NOW = datetime(2026, 2, 9, 13, tzinfo=UTC)
TENTH = datetime(2026, 2, 10, tzinfo=UTC)


@pytest.fixture
def by_days(server: Server) -> Iterator[DatabaseUrls]:
    """A database whose partitions were made at NOW."""
    with database(server, template_at(server, NOW)) as urls:
        yield urls


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


@pytest.fixture
def corrections(by_days: DatabaseUrls) -> Iterator[Database]:
    opened = Database(by_days.correct)
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
    bucket: Bucket,
    archive: Archive,
    store: Database,
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
        (stream, "2026-02-10", 0, len(values), key.format(stream))
        for stream in ("meter", "vehicle")
    ]

    # Anyone's reader makes sense of it.
    bucket.get(key.format("vehicle"), tmp_path / "day.parquet")
    relation = duckdb.read_parquet(str(tmp_path / "day.parquet"))
    assert list(zip(relation.columns, map(str, relation.types), strict=True)) == [
        ("vehicle_id", "VARCHAR"),
        ("timestamp", "TIMESTAMP WITH TIME ZONE"),
        ("received_at", "TIMESTAMP WITH TIME ZONE"),
        *((column, "DOUBLE") for column in ("kwh_delivered_dc", "battery_temp", "soc")),
        ("register_kwh", "DOUBLE"),
        ("meter_id", "VARCHAR"),
        *((column, "DOUBLE") for column in ("told_seconds", "seconds")),
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


def test_what_comes_late_of_the_instant_in_which_the_archive_ends_counts_at_once(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database
) -> None:
    declare_device(store, "METER-2", DeviceDeclaration(energy="register"), NOW)
    horizon = TENTH + DAY
    archived, late, newest = (horizon - timedelta(seconds=1), 2), (horizon, 3), (horizon + DAY, 6)

    def send(*readings: tuple[datetime, float]) -> None:
        devices = ("METER-1", "METER-2")
        items = [meter(time, kwh, device) for time, kwh in readings for device in devices]
        store_meter_readings(store, items, TENTH + 3 * DAY)

    send(archived)
    send(newest)
    archive.close_partitions(horizon)
    archive.move_closed(always)
    send(archived, late)  # of one minute
    rows = maintainer.execute(
        "SELECT meter_id, timestamp, kwh_consumed_ac FROM meter_telemetry_history ORDER BY 1, 2, 3"
    )
    assert rows.fetchall() == [
        ("METER-1", *late),
        ("METER-1", *newest),
        ("METER-2", horizon, 1),
        ("METER-2", horizon + DAY, 3),  # what it has grown by now, and had before
        ("METER-2", horizon + DAY, 4),
    ]


def test_a_register_goes_on_from_the_archive_and_no_late_one_counts_there(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database
) -> None:
    declare_device(store, "METER-1", DeviceDeclaration(energy="register"), NOW)
    late = LateReceipts(maintainer, archive)
    calls = count()
    last = TENTH + DAY - timedelta(minutes=1)

    def send(time: datetime, register: float) -> None:
        received_at = TENTH + 2 * DAY + timedelta(seconds=next(calls))
        store_meter_reading(store, meter(time, register), received_at)

    def total() -> Decimal:
        [(kwh,)] = maintainer.execute("SELECT sum(kwh_consumed_ac) FROM meter_hourly_rollup")
        return Decimal(kwh)

    for minutes, register in ((-60, 500.0), (0, 503.0), (3, 504.5), (6, 505.0)):
        send(last + timedelta(minutes=minutes), register)
    assert total() == 5
    archive.close_partitions(TENTH + DAY)
    archive.move_closed(always)

    # The first that is left in history is corrected, and another comes before it.
    send(last + timedelta(minutes=3), 504.0)
    assert total() == 5
    send(last + timedelta(minutes=2), 503.5)
    assert total() == 5
    hours = {hour: Decimal(kwh) for hour, _, kwh in rollup(maintainer)}
    # A minute of its two is of the day before, as is all but one of the hour before.
    assert (hours[TENTH + DAY - timedelta(hours=1)], hours[TENTH + DAY]) == (
        Decimal("3.2"),
        Decimal("1.75"),
    )
    # One of an archived day splits what was counted already; one that is there changes nothing.
    send(last - timedelta(minutes=10), 502.0)
    send(last, 503.0)
    send(last, 503.5)
    late.settle(always)
    assert late.count() == 0
    assert total() == 5
    assert find_differences(maintainer) == []


def test_a_corrected_register_that_is_the_newest_and_archived_moves_no_energy(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database
) -> None:
    declare_device(store, "METER-1", DeviceDeclaration(energy="register"), NOW)
    last = TENTH + DAY - timedelta(minutes=1)
    for minutes, register in ((-60, 500.0), (0, 503.0)):
        store_meter_reading(store, meter(last + timedelta(minutes=minutes), register), last)
    archive.close_partitions(TENTH + DAY)
    archive.move_closed(always)

    store_meter_reading(store, meter(last, 503.5), last + DAY)
    store_meter_reading(store, meter(last + timedelta(minutes=3), 504.5), last + DAY)
    LateReceipts(maintainer, archive).settle(always)
    assert sum(kwh for _, _, kwh in rollup(maintainer)) == Decimal("4.5")


@pytest.mark.parametrize("at_once", [False, True])
def test_registers_told_after_a_long_silence_go_on_across_the_horizon(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database, at_once: bool
) -> None:
    """METER-1 was heard from before it was silent, METER-2 never was; METER-9 is always there."""
    for device in ("METER-1", "METER-2"):
        declare_device(store, device, DeviceDeclaration(energy="register"), NOW)
    received_at = NOW

    def send(told: Mapping[int, float], *devices: str) -> None:
        nonlocal received_at
        received_at += timedelta(seconds=1)
        items = [
            meter(TENTH + timedelta(hours=hours), register, device)
            for hours, register in told.items()
            for device in devices
        ]
        for call in [items] if at_once else [[item] for item in items]:
            store_meter_readings(store, call, received_at)

    def counted() -> dict[str, Decimal]:
        rows = maintainer.execute(
            "SELECT meter_id, sum(kwh_consumed_ac) FROM meter_hourly_rollup GROUP BY 1"
        )
        return dict(rows.fetchall())

    send({1: 100}, "METER-1")
    send({hours + 1: 1 for hours in range(0, 96, 24)}, "METER-9")
    archive.close_partitions(TENTH + 2 * DAY)
    archive.move_closed(always)
    late = LateReceipts(maintainer, archive)
    told = {20: 150, 30: 160, 60: 170, 70: 175}
    send(told, "METER-1", "METER-2")
    expected = {"METER-1": 75, "METER-2": 25, "METER-9": 4}
    assert counted() == expected
    for again in range(2):
        send(told, "METER-1", "METER-2")
        # After the last one that is archived, and between two that are not.
        send({50 + again: 165, 65 + again: 172}, "METER-1", "METER-2")
        assert counted() == expected
        late.settle(always)
        assert counted() == expected


def test_old_partitions_of_many_days_are_moved_day_by_day(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database
) -> None:
    times = [datetime(year, 5, day, 23, 59, tzinfo=UTC) for year in (2011, 2012) for day in (1, 9)]
    for time in times:
        store_meter_reading(store, meter(time), TENTH)
    archive.close_partitions(TENTH)
    left = [True, True, False]
    assert archive.move_closed(lambda: left.pop(0)) == 2  # no time for more
    assert archive.count_waiting(TENTH) > 0
    assert archive.move_closed(always) == 2
    found = maintainer.execute("SELECT day, readings FROM archive_files ORDER BY day").fetchall()
    assert found == [(time.date(), 1) for time in times]
    # What is archived takes one partition, whatever it was.
    parts = maintainer.execute(
        """SELECT relpartbound IS NOT NULL FROM pg_class
           WHERE relname LIKE 'meter_telemetry_history_20%' AND relkind = 'r'"""
    ).fetchall()
    ahead = (NOW + 14 * DAY).date() - TENTH.date()
    assert len(parts) == ahead.days + 1


class Unreliable(Bucket):
    """A bucket before which a run can be killed, and which may damage what it keeps."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls_left = -1
        self.damages = False

    def _run(self, operation: str, *arguments: str, **named: str) -> None:
        if self.calls_left == 0:
            raise ArchiveUnavailable("archive", "killed")
        self.calls_left -= 1
        if self.damages and operation == "upload_file":
            with Path(arguments[0]).open("r+b") as file:
                file.write(b"damaged!")
        super()._run(operation, *arguments, **named)


@pytest.fixture
def unreliable(bucket: Bucket) -> Unreliable:
    return Unreliable(bucket._name)


@pytest.mark.parametrize("calls", range(4))
def test_a_run_that_is_cut_off_is_continued(
    maintainer: psycopg.Connection[Row], unreliable: Unreliable, store: Database, calls: int
) -> None:
    archive = Archive(maintainer, unreliable)
    late = LateReceipts(maintainer, archive)
    at = TENTH + timedelta(hours=1.5)
    store_meter_reading(store, meter(at), at)
    store_vehicle_reading(store, vehicle(at), at)
    archive.close_partitions(TENTH + DAY)
    unreliable.calls_left = calls
    with pytest.raises(ArchiveUnavailable):
        archive.move_closed(always)
    assert count_rows(maintainer, "archive_closed") > 0
    unreliable.calls_left = -1
    assert archive.move_closed(always) == 2 - calls // 2
    assert count_rows(maintainer, "archive_closed") == 0

    minute = timedelta(minutes=1)
    store_meter_reading(store, meter(at, 2), at + minute)
    store_meter_reading(store, meter(at + minute, 1), at + minute)
    unreliable.calls_left = calls
    with suppress(ArchiveUnavailable):
        late.settle(always)
    unreliable.calls_left = -1
    assert late.settle(always) == (2 if calls < 3 else 0)
    [(_, *counted)] = rollup(maintainer)
    assert counted == [2, Decimal(3)]
    assert sum(archive.restore_day(TENTH.date()).values()) == 4


def test_what_reads_back_otherwise_is_not_dropped(
    maintainer: psycopg.Connection[Row], unreliable: Unreliable, store: Database, s3: Any
) -> None:
    archive = Archive(maintainer, unreliable)
    store_meter_reading(store, meter(TENTH), TENTH)
    archive.close_partitions(TENTH + DAY)
    unreliable.damages = True
    with pytest.raises((ArchiveDiffers, duckdb.Error)):
        archive.move_closed(always)
    assert count_rows(maintainer, "meter_telemetry_history_2026_02_10") == 1
    unreliable.damages = False
    assert archive.move_closed(always) == 1

    # An object that somebody changed later is not taken for what was archived.
    s3.put_object(
        Bucket=unreliable._name,
        Key="readings/stream=meter/date=2026-02-10/0000.parquet",
        Body=b"something else",
    )
    with pytest.raises(ArchiveDamaged):
        archive.restore_day(TENTH.date())


def test_a_partition_with_more_than_its_files_is_not_dropped(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database
) -> None:
    store_meter_reading(store, meter(TENTH), TENTH)
    archive.close_partitions(TENTH + DAY)
    maintainer.execute(
        """INSERT INTO archive_files
               (stream, day, number, bytes, readings, key, sha256, kwh, checksum)
           VALUES ('meter', '2026-02-10', 0, 0, 0, '', '', 0, 0)"""
    )
    with pytest.raises(ArchiveDiffers, match="should hold 1 receipts, and holds 0"):
        archive.move_closed(always)
    assert count_rows(maintainer, "meter_telemetry_history_2026_02_10") == 1


def test_a_correction_that_comes_while_its_reading_is_put_away_counts(
    by_days: DatabaseUrls, maintainer: psycopg.Connection[Row], bucket: Bucket, store: Database
) -> None:
    archive = Archive(maintainer, bucket)
    archive.close_partitions(TENTH + DAY)
    archive.move_closed(always)
    store_meter_reading(store, meter(TENTH + 2 * DAY), TENTH + 2 * DAY)
    store_meter_reading(store, meter(TENTH, 5), TENTH + 9 * DAY)

    class Meanwhile(Archive):
        def store_file(self, *arguments: Any, **named: Any) -> Any:
            if not sent:  # received before the other, and stored after it
                sent.append(True)
                store_meter_reading(store, meter(TENTH, 1), TENTH + 8 * DAY)
            return super().store_file(*arguments, **named)

    sent: list[bool] = []
    late = LateReceipts(maintainer, Meanwhile(maintainer, bucket))
    left = [True, False]
    late.settle(lambda: left.pop(0))
    store_meter_reading(store, meter(TENTH, 7), TENTH + 10 * DAY)
    late.settle(always)
    assert rollup(maintainer)[0][1:] == (1, Decimal(7))
    assert sum(archive.restore_day(TENTH.date()).values()) == 3


def test_a_report_counts_archived_hours_as_a_whole_and_says_so(
    by_days: DatabaseUrls, archive: Archive, store: Database
) -> None:
    at = TENTH + timedelta(hours=10)
    for minute in range(-59, 61):
        time = at + minute * timedelta(minutes=1)
        store_meter_reading(store, meter(time, 1.25, "METER-1"), time)
        store_vehicle_reading(store, vehicle(time, 1), time)
    # The meter moves to another vehicle within an hour: each keeps what the other does not get.
    moved = at + timedelta(minutes=20)
    link_vehicle(store, "VEH-1", "METER-1", at - DAY)
    link_vehicle(store, "VEH-2", "METER-1", moved)
    other = vehicle(at).model_copy(update={"vehicle_id": "VEH-2"})
    store_vehicle_reading(store, other, at)
    reader = Database(by_days.read)

    def ask(vehicle_id: str, end: datetime) -> Performance:
        return report_performance(reader, vehicle_id, Rules(), end, timedelta(hours=1))

    ragged, whole = at + timedelta(minutes=30), at + timedelta(hours=1)
    before = ask("VEH-1", ragged)
    assert (before.data_points, before.reasons, before.ac_energy_consumed) == (60, {}, 62.5)
    archive.close_partitions(TENTH + DAY)
    archive.move_closed(always)
    after = ask("VEH-1", ragged)
    assert (after.time_window_start, after.time_window_end) == (at, whole)
    assert (after.data_points, after.ac_energy_consumed) == (60, 75)
    assert "readings before 2026-02-11T00:00:00Z are archived" in after.reasons["timeWindowStart"]
    assert ask("VEH-2", ragged).ac_energy_consumed is None
    # Windows that follow each other still do.
    parts = [ask("VEH-1", ragged + hours * timedelta(hours=1)).data_points for hours in (-1, 0, 1)]
    assert parts == [60, 60, 0]
    reader.close()


def test_late_claims_of_meters_become_links(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database
) -> None:
    late = LateReceipts(maintainer, archive)
    at = TENTH + timedelta(hours=2)
    store_vehicle_reading(store, vehicle(at), TENTH)
    store_vehicle_reading(store, vehicle(at + DAY), TENTH)
    archive.close_partitions(TENTH + DAY)
    archive.move_closed(always)
    store_vehicle_reading(store, vehicle(at, 1, "METER-1"), TENTH + DAY)
    assert count_rows(maintainer, "links") == 0
    late.settle(always)
    assert maintainer.execute("SELECT meter_id, valid_from FROM links").fetchall() == [
        ("METER-1", at - timedelta(minutes=1))
    ]


def test_a_voided_reading_of_an_archived_day_leaves_its_files_and_every_number(
    maintainer: psycopg.Connection[Row],
    archive: Archive,
    store: Database,
    corrections: Database,
) -> None:
    voids = ArchivedVoids(maintainer, archive)
    archived, kept = TENTH + timedelta(hours=1, seconds=20), TENTH + 2 * DAY
    for time in (archived, archived + timedelta(seconds=10), archived + DAY / 2, kept):
        store_meter_reading(store, meter(time), time)
    store_meter_reading(store, meter(archived, 3), kept)
    archive.close_partitions(TENTH + DAY)
    assert void(corrections, ("MTR", archived)) is None  # of another device

    def void_meter(time: datetime) -> str:
        statement = "SELECT outcome FROM void_meter_reading('METER-1', %s, 'Ada', 'a test', NULL)"
        [(outcome,)] = corrections.fetch(statement, (time,))
        assert isinstance(outcome, str)
        return outcome

    def live() -> Row:
        [row] = maintainer.execute("SELECT last_timestamp, updated_at FROM meter_live_status")
        return row

    before = rollup(maintainer)
    # In the archive; of a minute of which something is there, but no such reading; and the only one
    # beside the archive, whose live row has to show what is there.
    missing = archived + timedelta(seconds=20)
    assert [void_meter(time) for time in (archived, missing, kept)] == ["pending"] * 3
    assert void_meter(archived) == "standing"
    assert (rollup(maintainer), voids.count()) == (before, 3)
    assert voids.settle(always) == 0  # the day is being moved
    archive.move_closed(always)
    assert (voids.settle(always), voids.count(), voids.settle(always)) == (3, 0, 0)
    assert [row[:2] for row in rollup(maintainer)] == [
        (TENTH + timedelta(hours=hours), 1) for hours in (1, 13)
    ]
    assert live() == (archived + DAY / 2, archived + DAY / 2)
    assert maintainer.execute(
        """SELECT "timestamp", received_at, kwh_consumed_ac FROM meter_void_receipt ORDER BY 1, 2"""
    ).fetchall() == [(archived, archived, 1), (archived, kept, 3), (kept, kept, 1)]
    assert maintainer.execute(
        """SELECT "timestamp", withdrawn_by, withdrawn_why FROM meter_void
           WHERE withdrawn_at IS NOT NULL"""
    ).fetchall() == [(missing, "maintenance", "There is no such reading")]
    [(readings,)] = maintainer.execute("SELECT sum(readings) FROM archive_files")
    assert (readings, archive.restore_day(TENTH.date())) == (
        2,
        {"meter_telemetry_history_2026_02_10_restored": 2},
    )

    # What is sent of it again is kept aside; withdrawn it is as if it had never been voided.
    store_meter_reading(store, meter(archived, 4), kept + DAY)
    assert count_rows(maintainer, "meter_void_receipt") == 4
    statement = "SELECT stream FROM withdraw_meter_void('METER-1', %s, 'Ada', 'it was right', NULL)"
    for time in (archived, kept):
        assert corrections.fetch(statement, (time,)) == [("meter",)]
    LateReceipts(maintainer, archive).settle(always)
    [changed, *others] = rollup(maintainer)
    assert (changed[2], others) == (before[0][2] + 1, before[1:])
    assert live()[0] == kept
    assert find_differences(maintainer) == []


def test_a_register_goes_on_from_the_one_before_where_the_last_archived_one_is_voided(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database, corrections: Database
) -> None:
    declare_device(store, "METER-1", DeviceDeclaration(energy="register"), NOW)
    last = TENTH + timedelta(hours=2)
    for time, register in ((last - timedelta(hours=1), 100), (last, 110), (last + DAY, 115)):
        store_meter_reading(store, meter(time, register), TENTH + 3 * DAY)
    archive.close_partitions(TENTH + DAY)
    archive.move_closed(always)
    assert void(corrections, ("METER-1", last)) == "pending"
    assert ArchivedVoids(maintainer, archive).settle(always) == 1
    hours = rollup(maintainer)
    assert [row[1:] for row in (hours[0], hours[-1])] == [(1, 0), (1, Decimal("0.6"))]
    assert {row[1:] for row in hours[1:-1]} == {(0, Decimal("0.6"))}
    assert len(hours) == 26


def test_a_void_that_never_took_effect_leaves_nothing_behind(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database, corrections: Database
) -> None:
    """It was withdrawn before it was settled, or there turned out to be no such reading."""
    voids = ArchivedVoids(maintainer, archive)
    midnight = TENTH + DAY
    older, newest = vehicle(midnight), vehicle(midnight + timedelta(minutes=1))
    store_vehicle_readings(store, [older, newest], midnight)
    archive.close_partitions(midnight + DAY)
    before = rollup(maintainer, "vehicle")
    assert void(corrections, ("VEH-1", newest.timestamp)) == "pending"
    withdraw(corrections, ("VEH-1", newest.timestamp))
    assert find_differences(maintainer) == []
    archive.move_closed(always)
    assert void(corrections, ("VEH-1", midnight + timedelta(seconds=30))) == "pending"
    assert (voids.settle(always), voids.count()) == (1, 0)
    assert find_differences(maintainer) == []
    store_vehicle_readings(store, [older, newest], midnight)
    LateReceipts(maintainer, archive).settle(always)
    assert rollup(maintainer, "vehicle") == before


@pytest.mark.parametrize("stream", ["meter", "vehicle"])
def test_a_withdrawn_void_shows_its_reading_again_beside_others_of_its_minute(
    maintainer: psycopg.Connection[Row],
    archive: Archive,
    store: Database,
    corrections: Database,
    stream: str,
) -> None:
    voids = ArchivedVoids(maintainer, archive)
    older, newest = (TENTH + timedelta(hours=1, seconds=seconds) for seconds in (10, 40))
    reading = ("METER-1" if stream == "meter" else "VEH-1", newest)

    def send(time: datetime) -> None:
        if stream == "meter":
            store_meter_reading(store, meter(time), time)
        else:
            store_vehicle_reading(store, vehicle(time), time)

    send(older)
    send(newest)
    archive.close_partitions(TENTH + DAY)
    archive.move_closed(always)
    before = rollup(maintainer, stream)
    assert void(corrections, reading) == "pending"
    assert voids.settle(always) == 1
    withdraw(corrections, reading)
    for _ in range(2):
        assert rollup(maintainer, stream) == before
        shown = maintainer.execute(f"SELECT last_timestamp FROM {stream}_live_status".encode())
        assert shown.fetchall() == [(newest,)]
        send(newest)
        LateReceipts(maintainer, archive).settle(always)
    assert rollup(maintainer, stream) == before


def test_what_waits_counts_once_though_all_else_of_its_hour_is_voided_meanwhile(
    maintainer: psycopg.Connection[Row], archive: Archive, store: Database, corrections: Database
) -> None:
    late = LateReceipts(maintainer, archive)
    hour, received_at = TENTH + timedelta(hours=1), TENTH + 3 * DAY
    archived, minute_ends = hour + timedelta(seconds=20), hour + timedelta(minutes=1)
    for time in (archived, TENTH + 2 * DAY):
        store_meter_reading(store, meter(time), time)
    archive.close_partitions(TENTH + DAY)
    archive.move_closed(always)
    store_meter_reading(store, meter(minute_ends, 2), received_at)
    assert void(corrections, ("METER-1", archived)) == "pending"
    assert ArchivedVoids(maintainer, archive).settle(always) == 1
    store_meter_reading(store, meter(minute_ends, 3), received_at + timedelta(seconds=1))
    assert late.count() == 2
    late.settle(always)
    assert rollup(maintainer)[0] == (hour, 1, 3)


def test_writers_never_wait_for_a_second(
    by_days: DatabaseUrls, maintainer: psycopg.Connection[Row], archive: Archive
) -> None:
    """Under load, and while somebody reads all of history and lets nobody change it."""
    over, begun = threading.Event(), threading.Barrier(5)
    alone: list[float] = []
    beside: list[float] = []

    def send(writer: int) -> None:
        database = Database(by_days.ingest)
        for minute in count():
            if over.is_set():
                break
            if minute == 25:
                begun.wait(60)
            time = NOW - 20 * DAY + minute * timedelta(minutes=1)
            batch = [meter(time, 1, f"METER-{writer}-{number}") for number in range(20)]
            began = monotonic()
            store_meter_readings(database, batch, NOW)
            took = monotonic() - began
            (alone if minute < 25 else beside).append(took)
        database.close()

    threads = [threading.Thread(target=send, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    try:
        begun.wait(60)
        with (
            connect(by_days.owner) as reader,
            reader.transaction(),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr("telemetry.partitions.LOCK_TRIES", 5)
            reader.execute("SELECT count(*) FROM meter_telemetry_history")
            with pytest.raises(LockNotAvailable):
                archive.close_partitions(NOW)
        for days in range(8, 0, -1):
            archive.close_partitions(NOW - days * DAY)
            archive.move_closed(always)
            make_partitions(maintainer, NOW + 8 * DAY - days * DAY)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    # On a machine that has other work, batches take longer without any maintenance.
    assert max(beside) < max(1, 10 * max(alone))
    LateReceipts(maintainer, archive).settle(always)
    assert count_rows(maintainer, "archive_closed") == 0


offsets = st.one_of(
    st.integers(min_value=-2, max_value=4).map(lambda minute: 43_200 + minute * 60.0),
    st.sampled_from([43_200.000001, 43_199.999999, 43_230.0, 129_600.0, 129_660.0]),
)
events = st.builds(
    Event,
    st.integers(min_value=1, max_value=2),
    offsets,
    st.integers(min_value=0, max_value=3),
    st.none() | st.integers(min_value=0, max_value=100),
    st.booleans(),
    st.sampled_from([None, None, None, 900, 5400, 100_000]),
)
batches = st.lists(events, min_size=1, max_size=6)


class ArchivedDisorder(RuleBasedStateMachine):
    """Readings of three days in any order, and maintenance that is cut off anywhere."""

    fresh: Callable[[], tuple[DatabaseUrls, Unreliable]]

    def __init__(self) -> None:
        super().__init__()
        urls, self.bucket = type(self).fresh()
        self.store = Database(urls.ingest)
        self.corrections = Database(urls.correct)
        self.connection = connect(urls.maintain)
        self.archive = Archive(self.connection, self.bucket)
        self.late = LateReceipts(self.connection, self.archive)
        self.voids = ArchivedVoids(self.connection, self.archive)
        self.oracle = Oracle()
        self.calls: list[Call] = []

    def teardown(self) -> None:
        self.store.close()
        self.corrections.close()
        self.connection.close()

    def accept(self, batch: list[Event]) -> Call:
        call = Call(batch, START + 9 * DAY + timedelta(seconds=len(self.calls)))
        self.calls.append(call)
        self.oracle.take(call)
        return call

    @initialize(batch=batches)
    def first(self, batch: list[Event]) -> None:
        write(self.store, self.accept(batch))

    @rule(batch=batches)
    def send(self, batch: list[Event]) -> None:
        write(self.store, self.accept(batch))

    @rule(event=events)
    def send_one(self, event: Event) -> None:
        write(self.store, self.accept([event]))

    @rule(data=st.data(), watt_hours=st.integers(4, 6), in_an_instant_taken=st.booleans())
    def correct(self, data: st.DataObject, watt_hours: int, *, in_an_instant_taken: bool) -> None:
        device, time, accepted = data.draw(st.sampled_from(sorted(self.oracle.received)))
        event = Event(
            int(device[-1]),
            (time - START).total_seconds(),
            watt_hours,
            None,
            is_meter=device.startswith("MTR"),
        )
        if in_an_instant_taken:
            call = Call([event], accepted)
            self.calls.append(call)
            self.oracle.take(call)
            write(self.store, call)
        else:
            self.send_one(event)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def redeliver(self, data: st.DataObject) -> None:
        write(self.store, data.draw(st.sampled_from(self.calls)))

    @rule(data=st.data())
    def void_or_withdraw(self, data: st.DataObject) -> None:
        readings = sorted({(device, time) for device, time, _ in self.oracle.received})
        reading = data.draw(st.sampled_from(readings))
        if reading in self.oracle.voided:
            withdraw(self.corrections, reading)
            self.oracle.voided.remove(reading)
        else:
            assert void(self.corrections, reading) in ("voided", "pending")
            self.oracle.voided.add(reading)

    @rule(days=st.integers(1, 2), calls=st.integers(-1, 3))
    def maintain(self, days: int, calls: int) -> None:
        before = START.replace(hour=0) + days * DAY
        for step in (
            partial(self.archive.close_partitions, before),
            partial(self.archive.move_closed, always),
            partial(self.late.settle, always),
            partial(self.voids.settle, always),
        ):
            self.bucket.calls_left = calls
            try:
                step()
            except ArchiveUnavailable:
                assert calls >= 0
        self.bucket.calls_left = -1

    @rule()
    def everything_is_counted(self) -> None:
        self.archive.move_closed(always)
        self.late.settle(always)
        self.voids.settle(always)
        assert (self.late.count(), self.voids.count()) == (0, 0)
        counted, expected = read_rollups(self.connection), self.oracle.rollup()
        for hour in (*counted.values(), *expected.values()):
            hour.covered = 0  # not put right where history is not here
        assert counted == expected
        [(archived,)] = self.connection.execute(
            "SELECT coalesce(sum(readings), 0) FROM archive_files"
        )
        kept = sum(
            count_rows(self.connection, f"{stream}_telemetry_history")
            for stream in ("meter", "vehicle")
        )
        assert archived + kept == len(self.oracle.history)
        aside = sum(
            count_rows(self.connection, f"{stream}_void_receipt") for stream in ("meter", "vehicle")
        )
        assert aside == len(self.oracle.set_aside)
        # Not with its values: of an archived reading a correction of the same microsecond counts,
        # and is not shown.
        shown: dict[str, datetime] = dict(
            self.connection.execute(
                """SELECT meter_id, last_timestamp FROM meter_live_status
                   UNION ALL SELECT vehicle_id, last_timestamp FROM vehicle_live_status"""
            ).fetchall()
        )
        assert shown == {device: row[0] for device, row in self.oracle.live().items()}
        assert find_differences(self.connection) == []


@contextmanager
def make_fresh(
    server: Server, template: str, s3: Any
) -> Iterator[Callable[[], tuple[DatabaseUrls, Unreliable]]]:
    """Yield what makes a copy of a database, and a bucket; the copy before is dropped."""
    with ExitStack() as made:

        def fresh() -> tuple[DatabaseUrls, Unreliable]:
            made.pop_all().close()
            return made.enter_context(database(server, template)), Unreliable(make_bucket(s3))

        yield fresh


def test_the_archive_holds_and_counts_whatever_was_accepted_whenever(
    server: Server, s3: Any
) -> None:
    with make_fresh(server, template_at(server, NOW), s3) as fresh:
        ArchivedDisorder.fresh = staticmethod(fresh)
        run_state_machine_as_test(
            ArchivedDisorder,
            settings=settings(max_examples=25, stateful_step_count=15, deadline=None),
        )
