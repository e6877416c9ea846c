"""POST and GET /v1/erasures: nothing of the device is left, and everything else is right."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from local.databases import DatabaseUrls
from telemetry.archive import Archive
from telemetry.archived_voids import ArchivedVoids
from telemetry.bucket import Bucket
from telemetry.corrections import ErasureRequest
from telemetry.database import Database, Row, connect
from telemetry.devices import DeviceDeclaration, declare_device
from telemetry.eraser import Eraser
from telemetry.erasures import list_erasures, request_erasure
from telemetry.errors import ArchiveUnavailable
from telemetry.late import LateReceipts
from telemetry.links import link_vehicle
from telemetry.maintenance import Maintenance, alone
from telemetry.readings import MeterReading, VehicleReading
from telemetry.reports import report_performance
from telemetry.rules import Rules
from telemetry.store import (
    store_meter_reading,
    store_meter_readings,
    store_vehicle_reading,
    store_vehicle_readings,
)
from telemetry.summaries import refresh_summaries
from telemetry.verification import find_differences
from tests.conftest import Server, database, template_at, unpooled
from tests.integration.conftest import Api, delete_all
from tests.integration.oracle import void

pytestmark = unpooled  # the maintenance is direct

SAID = {"by": "Ada Lovelace", "why": "Case 2026-117"}
DAY = timedelta(days=1)
NOW = datetime(2026, 2, 9, 13, tzinfo=UTC)
NOON = datetime(2026, 2, 10, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def always() -> bool:
    return True


@pytest.fixture
def by_days(server: Server) -> Iterator[DatabaseUrls]:
    with database(server, template_at(server, NOW)) as urls:
        yield urls


@pytest.fixture
def owner(by_days: DatabaseUrls) -> Iterator[psycopg.Connection[Row]]:
    with connect(by_days.owner) as connection:
        yield connection


@pytest.fixture
def maintainer(by_days: DatabaseUrls) -> Iterator[psycopg.Connection[Row]]:
    with connect(by_days.maintain) as connection:
        yield connection
        assert find_differences(connection) == []


@pytest.fixture
def store(by_days: DatabaseUrls) -> Iterator[Database]:
    opened = Database(by_days.ingest)
    yield opened
    opened.close()


@pytest.fixture
def ops(by_days: DatabaseUrls) -> Iterator[Database]:
    opened = Database(by_days.correct)
    yield opened
    opened.close()


class Counted(Bucket):
    """A bucket before which a run can be killed."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls_left = -1

    def _run(self, operation: str, *arguments: str, **named: str) -> None:
        if self.calls_left == 0:
            raise ArchiveUnavailable("archive", "killed")
        self.calls_left -= 1
        super()._run(operation, *arguments, **named)


@pytest.fixture
def counted(bucket: Bucket) -> Counted:
    return Counted(bucket._name)


@pytest.fixture
def archive(maintainer: psycopg.Connection[Row], counted: Counted) -> Archive:
    return Archive(maintainer, counted)


@pytest.fixture
def eraser(maintainer: psycopg.Connection[Row], archive: Archive) -> Eraser:
    return Eraser(maintainer, archive)


def meter(time: datetime, kwh: float = 1.0, meter_id: str = "METER-1") -> MeterReading:
    return MeterReading.model_construct(
        meter_id=meter_id, kwh_consumed_ac=kwh, voltage=230.1, timestamp=time
    )


def vehicle(
    time: datetime, vehicle_id: str = "VEH-1", meter_id: str | None = None, soc: float | None = None
) -> VehicleReading:
    return VehicleReading.model_construct(
        vehicle_id=vehicle_id,
        soc=soc,
        kwh_delivered_dc=0.9,
        battery_temp=25.5,
        timestamp=time,
        meter_id=meter_id,
    )


def receive(
    store: Database, received_at: datetime, *readings: MeterReading | VehicleReading
) -> None:
    meters = [reading for reading in readings if isinstance(reading, MeterReading)]
    vehicles = [reading for reading in readings if isinstance(reading, VehicleReading)]
    times = [received_at + number * timedelta(microseconds=1) for number in range(len(readings))]
    if meters:
        store_meter_readings(store, meters, times[: len(meters)])
    if vehicles:
        store_vehicle_readings(store, vehicles, times[: len(vehicles)])


def ask(ops: Database, **device: str) -> datetime:
    """Ask that a device be erased; return when that was."""
    request = ErasureRequest.model_validate(device | SAID)
    erasure, is_new = request_erasure(ops, request, "5d0f792b")
    assert is_new
    return erasure.asked.at


def mentions(owner: psycopg.Connection[Row], text: str) -> dict[str, int]:
    """Count the rows of every table that hold a text in whichever column."""
    tables = owner.execute(
        """SELECT relname FROM pg_class
           WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
             AND NOT relispartition"""
    ).fetchall()
    found = {}
    for (table,) in tables:
        statement = sql.SQL("SELECT count(*) FROM {} AS t WHERE strpos(t::text, %s) > 0")
        [(count,)] = owner.execute(statement.format(sql.Identifier(table)), (text,))
        if count:
            found[table] = count
    return found


def archived_mentions(s3: Any, bucket: Bucket, text: str, folder: Path) -> int:
    """Count the receipts of all objects of a bucket that hold a text."""
    total = 0
    for entry in s3.list_objects_v2(Bucket=bucket._name).get("Contents", []):
        file = folder / "found.parquet"
        s3.download_file(bucket._name, entry["Key"], str(file))
        row = duckdb.execute(
            f"SELECT count(*) FROM read_parquet('{file}') AS t WHERE contains(t::VARCHAR, $text)",
            {"text": text},
        ).fetchone()
        assert row
        total += row[0]
    return total


def declare_register(store: Database, device: str) -> None:
    declare_device(store, device, DeviceDeclaration(energy="register"), NOON - 9 * DAY)


def fill(store: Database, last: datetime = NOON) -> None:
    """Two meters and two vehicles over days, with links, registers, faults' windows and a void."""
    for day in (3 * DAY, 2 * DAY, DAY, timedelta(0)):
        for hours in (0, 5, 12):
            at = last - day + timedelta(hours=hours)
            receive(
                store,
                at + timedelta(seconds=2),
                *(meter(at, 1.5, name) for name in ("METER-1", "METER-2")),
                vehicle(at, "VEH-1", "METER-1", soc=hours * 5.0),
                vehicle(at, "VEH-2", "METER-2"),
            )
    link_vehicle(store, "VEH-2", "METER-1", last - 2 * DAY + timedelta(hours=6))
    link_vehicle(store, "VEH-1", "METER-2", last - DAY + timedelta(hours=7))


of_each_stream = pytest.mark.parametrize(
    ("device", "name"), [({"meterId": "METER-1"}, "METER-1"), ({"vehicleId": "VEH-1"}, "VEH-1")]
)


@of_each_stream
def test_nothing_of_an_erased_device_is_left(
    store: Database,
    ops: Database,
    owner: psycopg.Connection[Row],
    maintainer: psycopg.Connection[Row],
    eraser: Eraser,
    device: dict[str, str],
    name: str,
) -> None:
    declare_register(store, name)
    fill(store)
    stream = "meter" if "meterId" in device else "vehicle"
    ops.fetch(f"SELECT void_{stream}_reading(%s, %s, 'Ada', 'a test', NULL)", (name, NOON - DAY))
    owner.execute(
        """INSERT INTO fault (fault_id, opened_window, vehicle_id, meter_id)
           VALUES (gen_random_uuid(), %s, 'VEH-1', 'METER-1')""",
        (NOON,),
    )
    owner.execute(
        "INSERT INTO charger_window VALUES (%s, 'VEH-1', 'METER-1', '{}', 'fault')", (NOON,)
    )
    refresh_summaries(maintainer, NOON + timedelta(hours=13), Rules())
    before = mentions(owner, name)
    assert {f"{stream}_telemetry_history", "links", "vehicle_summary", "fault"} <= set(before)
    others = {other: mentions(owner, other) for other in ("METER-2", "VEH-2")}

    ask(ops, **device)
    assert find_differences(maintainer) == []
    assert mentions(owner, name) == before | {"erasure": 1}
    assert eraser.erase(always) == 1
    assert mentions(owner, name) == {}
    assert find_differences(maintainer) == []
    for other, tables in others.items():
        after = mentions(owner, other)
        for table in ("telemetry_history", "hourly_rollup", "daily_rollup", "live_status"):
            kind = "meter" if other.startswith("METER") else "vehicle"
            assert after[f"{kind}_{table}"] == tables[f"{kind}_{table}"]
    [entry] = list_erasures(ops).items
    assert (entry.status, entry.device_id, entry.asked.by) == ("done", None, SAID["by"])
    # One was stored again, for it is longer since the void.
    assert (entry.receipts, entry.asked.token_id) == (12, "5d0f792b")
    assert (eraser.erase(always), eraser.count()) == (0, 0)


@of_each_stream
def test_much_of_one_device_is_erased_in_parts(
    store: Database,
    ops: Database,
    owner: psycopg.Connection[Row],
    maintainer: psycopg.Connection[Row],
    eraser: Eraser,
    device: dict[str, str],
    name: str,
) -> None:
    fill(store)
    seconds = [NOON + number * timedelta(seconds=1) for number in range(4100)]
    receive(store, NOON + DAY, *(meter(at) for at in seconds))
    named = [vehicle(at, "VEH-1", f"METER-{at.second % 2 + 1}") for at in seconds]
    receive(store, NOON + DAY, *named)
    owner.execute(
        """INSERT INTO links (vehicle_id, valid_from, meter_id, source)
           SELECT 'VEH-1', %s + number * interval '1 second', 'METER-1', 'api'
           FROM generate_series(1, 1500) AS number""",
        (NOON + DAY,),
    )
    ask(ops, **device)
    [(erasing,)] = owner.execute("SELECT erasure_id FROM erasure")
    day = NOON - timedelta(hours=12)
    stream = "meter" if "meterId" in device else "vehicle"
    parts = (
        (f"SELECT erase_{stream}_day(%s, %s, '[]')", (erasing, day), 3),
        *([("SELECT erase_meter_name(%s, 'VEH-1', %s)", (erasing, day), 2)] * (stream == "meter")),
    )
    for statement, said, most in parts:
        done = [maintainer.execute(statement.encode(), said).fetchone()]
        while done[-1] == (None,):
            assert find_differences(maintainer) == []
            done.append(maintainer.execute(statement.encode(), said).fetchone())
        assert done == [(None,)] * (most - 1) + [(True,)]
    assert eraser.erase(always) == 1
    assert mentions(owner, name) == {}


# Its summary is marked, too: who holds it at the end of an hour is not who held it before.
def test_a_meter_that_changed_hands_within_an_hour_leaves_both_summaries_to_be_made_anew(
    store: Database,
    ops: Database,
    owner: psycopg.Connection[Row],
    maintainer: psycopg.Connection[Row],
) -> None:
    times = [NOON + minutes * MINUTE for minutes in (1, 20, 50)]
    receive(store, NOON + DAY, *(reading for at in times for reading in (meter(at), vehicle(at))))
    link_vehicle(store, "VEH-1", "METER-1", NOON + 10 * MINUTE)
    link_vehicle(store, "VEH-2", "METER-1", NOON + 40 * MINUTE)
    refresh_summaries(owner, NOON + timedelta(hours=2), Rules())
    ask(ops, meterId="METER-1")
    maintainer.execute(
        "SELECT erase_meter_day(erasure_id, %s, '[]') FROM erasure", (NOON - timedelta(hours=12),)
    )
    assert find_differences(maintainer) == []


def test_what_was_accepted_before_never_comes_back_and_what_comes_later_stays(
    store: Database, ops: Database, owner: psycopg.Connection[Row], eraser: Eraser
) -> None:
    now = datetime.now(UTC)
    receive(store, now - 3 * MINUTE, vehicle(now - 4 * MINUTE, soc=50), meter(now - 4 * MINUTE))
    asked = ask(ops, vehicleId="VEH-1")
    waited = vehicle(now - 2 * MINUTE, meter_id="METER-9", soc=60)
    receive(store, asked - MINUTE, waited)  # while it is pending
    new = asked + timedelta(seconds=1)
    receive(store, new, vehicle(now - MINUTE))
    # One reading that is sent again later, and one whose device time is ahead of what came later.
    receive(store, new + timedelta(seconds=1), vehicle(now - 4 * MINUTE))
    ahead = vehicle(asked + 4 * MINUTE, soc=70)
    receive(store, asked - MINUTE, ahead)
    assert eraser.erase(always) == 1
    for reading in (waited, ahead, vehicle(now - 4 * MINUTE, soc=50)):
        receive(store, asked - MINUTE, reading)
        receive(store, asked, reading)
    receive(store, new + timedelta(seconds=2), vehicle(now))
    found = owner.execute(
        "SELECT timestamp, received_at > %s FROM vehicle_telemetry_history ORDER BY 1", (asked,)
    ).fetchall()
    assert found == [(now - 4 * MINUTE, True), (now - MINUTE, True), (now, True)]
    assert owner.execute("SELECT last_timestamp, soc FROM vehicle_live_status").fetchall() == [
        (now, None)
    ]
    assert mentions(owner, "METER-9") == {}


@pytest.mark.parametrize("alone", [True, False])
def test_what_vehicles_told_of_an_erased_meter_comes_without_its_name(
    store: Database,
    ops: Database,
    owner: psycopg.Connection[Row],
    eraser: Eraser,
    *,
    alone: bool,
) -> None:
    def deliver(accepted: datetime, reading: VehicleReading) -> None:
        if alone:
            store_vehicle_reading(store, reading, accepted)
        else:
            receive(store, accepted, reading, vehicle(reading.timestamp, "VEH-2", "METER-2"))

    now = datetime.now(UTC)
    known, waited, last = (
        vehicle(now - number * MINUTE, meter_id="METER-1") for number in (4, 3, 2)
    )
    deliver(now - MINUTE, known)
    asked = ask(ops, meterId="METER-1")
    for reading in (known, waited):  # while it is pending, one of them again
        deliver(now - MINUTE, reading)
    assert eraser.erase(always) == 1
    for reading in (known, waited, last):
        deliver(now - MINUTE, reading)
    assert mentions(owner, "METER-1") == {}
    assert owner.execute(
        """SELECT "timestamp" FROM vehicle_telemetry_history
           WHERE vehicle_id = 'VEH-1' ORDER BY 1"""
    ).fetchall() == [(reading.timestamp,) for reading in (known, waited, last)]
    deliver(asked + MINUTE, vehicle(now - MINUTE, meter_id="METER-1"))
    assert mentions(owner, "METER-1") == {
        "vehicle_telemetry_history": 1,
        "links": 1,
        "link_locks": 1,
    }
    assert find_differences(owner) == []


def test_a_device_without_a_row_is_guarded_when_it_comes_back(
    store: Database, ops: Database, owner: psycopg.Connection[Row], eraser: Eraser
) -> None:
    now = datetime.now(UTC)
    asked = ask(ops, meterId="METER-1")
    assert eraser.erase(always) == 1
    receive(store, asked - MINUTE, meter(now), meter(now, 2.0, "METER-2"))
    assert owner.execute("SELECT DISTINCT meter_id FROM meter_telemetry_history").fetchall() == [
        ("METER-2",)
    ]
    assert set(mentions(owner, "METER-1")) == set()
    batch = [meter(now), meter(now + 2 * MINUTE)]
    store_meter_readings(store, batch, [asked - MINUTE, asked + MINUTE])
    assert owner.execute(
        "SELECT last_timestamp FROM meter_live_status WHERE meter_id = 'METER-1'"
    ).fetchall() == [(now + 2 * MINUTE,)]


@of_each_stream
def test_the_archive_is_rewritten_without_the_device_wherever_a_run_is_killed(
    store: Database,
    ops: Database,
    owner: psycopg.Connection[Row],
    maintainer: psycopg.Connection[Row],
    archive: Archive,
    eraser: Eraser,
    counted: Counted,
    s3: Any,
    tmp_path: Path,
    device: dict[str, str],
    name: str,
) -> None:
    fill(store)
    midnight = NOON.replace(hour=0)  # counted for the day before, filed under its own
    receive(store, NOON, vehicle(midnight, meter_id="METER-1"), meter(midnight))
    archive.close_partitions(midnight)
    archive.move_closed(always)
    archive.restore_day((midnight - DAY).date())
    others = {
        other: archived_mentions(s3, counted, other, tmp_path)
        for other in ("METER-1", "METER-2", "VEH-1", "VEH-2")
        if other != name
    }
    assert archived_mentions(s3, counted, name, tmp_path) > 0
    ask(ops, **device)
    runs = 0
    while eraser.count():
        runs += 1
        counted.calls_left = runs
        with suppress(ArchiveUnavailable):
            eraser.erase(always)
        counted.calls_left = -1
        assert find_differences(maintainer) == []
    assert runs > 3
    eraser.erase(always)
    assert mentions(owner, name) == {}
    assert archived_mentions(s3, counted, name, tmp_path) == 0
    keys = {entry["Key"] for entry in s3.list_objects_v2(Bucket=counted._name)["Contents"]}
    files = owner.execute("SELECT key FROM archive_files").fetchall()
    assert keys == {key for (key,) in files}
    for other, before in others.items():
        # A vehicle that is erased takes along what it told of its meter.
        lost = 8 if (name, other) == ("VEH-1", "METER-1") else 0
        assert archived_mentions(s3, counted, other, tmp_path) == before - lost
    for stream in ("meter", "vehicle"):
        [(readings,)] = owner.execute(
            "SELECT sum(readings) FROM archive_files WHERE stream = %s", (stream,)
        )
        with_device = stream == ("meter" if "meterId" in device else "vehicle")
        assert readings == (8 if with_device else 16)


def test_what_came_later_of_archived_days_is_kept(
    store: Database,
    ops: Database,
    owner: psycopg.Connection[Row],
    maintainer: psycopg.Connection[Row],
    archive: Archive,
    eraser: Eraser,
    s3: Any,
    counted: Counted,
    tmp_path: Path,
) -> None:
    old = NOON - 2 * DAY
    receive(store, old, meter(old), meter(old + MINUTE), meter(NOON))
    archive.close_partitions(NOON.replace(hour=0))
    archive.move_closed(always)
    asked = ask(ops, meterId="METER-1")
    receive(store, asked + MINUTE, meter(old, 5.0), meter(old + 60 * MINUTE, 7.0))
    LateReceipts(maintainer, archive).settle(always)
    assert eraser.erase(always) == 1
    assert owner.execute(
        "SELECT sum(readings), trim_scale(sum(kwh_consumed_ac)) FROM meter_hourly_rollup"
    ).fetchall() == [(2, 12)]
    assert archived_mentions(s3, counted, "METER-1", tmp_path) == 2


def test_a_void_stands_while_the_live_row_goes_with_an_erasure_and_comes_back(
    owner: psycopg.Connection[Row],
    maintainer: psycopg.Connection[Row],
    archive: Archive,
    eraser: Eraser,
    store: Database,
    ops: Database,
) -> None:
    store_meter_readings(store, [meter(NOON - 2 * DAY)], NOW)
    archive.close_partitions(NOON.replace(hour=0))
    archive.move_closed(always)
    ask(ops, meterId="METER-1")
    owner.execute("UPDATE erasure SET asked_at = asked_at - interval '1 day'")
    now = datetime.now(UTC)
    for time in (NOON - 4 * DAY, now):
        store_meter_readings(store, [meter(time)], now)
    LateReceipts(maintainer, archive).settle(always)
    assert void(ops, ("METER-1", now)) == "pending"
    assert ArchivedVoids(maintainer, archive).settle(always) == 1

    def goes_on() -> bool:
        store_meter_readings(store, [meter(now)], now)
        return find_differences(maintainer) == []

    assert eraser.erase(goes_on) == 1
    shown = maintainer.execute("SELECT last_timestamp FROM meter_live_status").fetchall()
    assert shown == [(NOON - 4 * DAY,)]


def test_a_vehicle_of_which_the_archive_alone_has_something_left_is_reported(
    store: Database,
    ops: Database,
    by_days: DatabaseUrls,
    maintainer: psycopg.Connection[Row],
    archive: Archive,
    eraser: Eraser,
) -> None:
    old = NOON - 2 * DAY
    receive(store, NOW, vehicle(old), vehicle(NOON))
    archive.close_partitions(NOON.replace(hour=0))
    archive.move_closed(always)
    asked = ask(ops, vehicleId="VEH-1")
    receive(store, asked + MINUTE, vehicle(old + MINUTE), vehicle(old + 2 * MINUTE))
    LateReceipts(maintainer, archive).settle(always)
    assert eraser.erase(always) == 1
    receive(store, asked, vehicle(NOON + MINUTE))  # from a queue
    with closing(Database(by_days.read)) as reader:
        report = report_performance(reader, "VEH-1", Rules(), NOON, 3 * DAY)
    assert report.data_points == 2


def test_registers_are_what_they_grew_by_while_their_device_waits_to_be_erased(
    store: Database, ops: Database, owner: psycopg.Connection[Row], eraser: Eraser
) -> None:
    declare_register(store, "METER-1")
    times = [NOON + hours * timedelta(hours=6) for hours in range(5)]  # over midnight
    receive(store, NOW, *(meter(time, 5000.0 + n) for n, time in enumerate(times)))
    asked = ask(ops, meterId="METER-1")
    receive(store, asked + MINUTE, meter(times[1] + MINUTE, 5001.25))
    assert find_differences(owner) == []
    for change in ("void_meter_reading", "withdraw_meter_void", "void_meter_reading"):
        ops.fetch(f"SELECT {change}('METER-1', %s, 'Ada', '', NULL)", (times[2],))
        assert find_differences(owner) == []
    calls = iter([True, True, False])  # killed after the first day
    assert eraser.erase(lambda: next(calls)) == 0
    assert find_differences(owner) == []
    assert eraser.erase(always) == 1
    assert owner.execute(
        "SELECT sum(readings), sum(kwh_consumed_ac) FROM meter_hourly_rollup"
    ).fetchall() == [(1, 0)]


def test_a_register_that_is_told_after_an_erasure_does_not_go_on_from_the_archive(
    store: Database,
    ops: Database,
    owner: psycopg.Connection[Row],
    archive: Archive,
    eraser: Eraser,
) -> None:
    declare_register(store, "METER-1")
    receive(store, NOW, meter(NOON - 2 * DAY, 5000.0), meter(NOON, 5100.0))
    archive.close_partitions(NOON.replace(hour=0))
    archive.move_closed(always)
    asked = ask(ops, meterId="METER-1")
    receive(store, asked + MINUTE, meter(NOON + MINUTE, 5101.0))
    assert eraser.erase(always) == 1
    assert mentions(owner, "METER-1").keys() == {
        *("meter_telemetry_history", "meter_hourly_rollup", "meter_live_status"),
        *("devices", "device_declarations"),
    }
    receive(store, asked + 2 * MINUTE, meter(NOON + 2 * MINUTE, 5101.5))
    assert owner.execute(
        "SELECT sum(readings), sum(kwh_consumed_ac) FROM meter_hourly_rollup"
    ).fetchall() == [(2, Decimal("0.5"))]


def test_a_register_is_none_of_an_interval_where_an_erasure_left_the_archive_alone(
    store: Database,
    ops: Database,
    maintainer: psycopg.Connection[Row],
    archive: Archive,
    eraser: Eraser,
) -> None:
    declare_register(store, "METER-1")
    receive(store, NOW, meter(NOON - 2 * DAY, 5000.0))
    archive.close_partitions(NOON.replace(hour=0))
    archive.move_closed(always)
    asked = ask(ops, meterId="METER-1")
    receive(store, asked + MINUTE, meter(NOON - 4 * DAY, 4000.0))
    LateReceipts(maintainer, archive).settle(always)
    assert eraser.erase(always) == 1
    later = asked + DAY
    store_meter_reading(store, meter(later, 5010.0), later)
    [(total,)] = maintainer.execute("SELECT sum(kwh_consumed_ac) FROM meter_hourly_rollup")
    assert total == 1010


def test_verification_finds_what_should_have_been_erased(
    store: Database, ops: Database, owner: psycopg.Connection[Row], eraser: Eraser
) -> None:
    asked = ask(ops, meterId="METER-1")
    assert eraser.erase(always) == 1
    receive(store, asked + MINUTE, meter(NOON))
    owner.execute("UPDATE meter_telemetry_history SET received_at = %s", (asked,))
    found = [(entry.table, entry.device, entry.expected) for entry in find_differences(owner)]
    assert ("meter_telemetry_history", "METER-1", "erased") in found
    owner.execute("UPDATE meter_telemetry_history SET received_at = %s", (asked + MINUTE,))


def test_two_runs_at_once_erase_once(
    by_days: DatabaseUrls, store: Database, ops: Database, counted: Counted, s3: Any
) -> None:
    fill(store)
    with connect(by_days.maintain) as maintainer:
        archive = Archive(maintainer, counted)
        archive.close_partitions(NOON.replace(hour=0))
        archive.move_closed(always)
    ask(ops, meterId="METER-1")

    def run() -> None:
        with connect(by_days.maintain) as connection:
            eraser = Eraser(connection, Archive(connection, Bucket(counted._name)))
            while eraser.count():
                with alone(connection) as is_alone:
                    if is_alone:
                        eraser.erase(always)

    with ThreadPoolExecutor() as pool:
        for running in [pool.submit(run) for _ in range(2)]:
            running.result()
    with connect(by_days.owner) as owner:
        assert mentions(owner, "METER-1") == {}
        assert find_differences(owner) == []


def test_an_erasure_that_loses_a_deadlock_is_run_again(
    server: Server,
    by_days: DatabaseUrls,
    store: Database,
    ops: Database,
    owner: psycopg.Connection[Row],
    maintainer: psycopg.Connection[Row],
    archive: Archive,
) -> None:
    receive(store, NOON, vehicle(NOON, meter_id="METER-1"))
    ask(ops, vehicleId="VEH-1")
    maintenance = Maintenance(maintainer, archive, NOON, NOON, rules=Rules(), go=always)
    process = maintainer.info.backend_pid
    superuser_url = server.superuser_url(by_days)
    with ThreadPoolExecutor() as pool, psycopg.connect(superuser_url) as other:
        # The victim is whoever looks first: make it the erasure.
        other.execute("SET deadlock_timeout = '1h'")
        other.execute("SELECT FROM link_locks WHERE device_id = 'METER-1' FOR UPDATE")
        erasing = pool.submit(maintenance.erase_devices)
        # It has the vehicle and waits for the meter.
        while not owner.execute(
            "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", (process,)
        ).fetchall():
            pass
        other.execute("SELECT FROM vehicle_live_status WHERE vehicle_id = 'VEH-1' FOR UPDATE")
        other.commit()
        assert erasing.result().value == 0
    assert mentions(owner, "VEH-1") == {}


def test_erasures_are_asked_for_and_listed_over_http(api: Api) -> None:
    asked = api.post("/v1/erasures", {"meterId": "METER-1"} | SAID)
    assert asked.status == 202
    assert (asked.body["deviceId"], asked.body["status"]) == ("METER-1", "pending")
    again = api.post("/v1/erasures", {"meterId": "METER-1", "by": "Bob", "why": "again"})
    assert (again.status, again.body) == (202, asked.body)
    other = api.post("/v1/erasures", {"vehicleId": "METER-1"} | SAID).body
    first = api.get("/v1/erasures?limit=1").body
    assert first["items"] == [other]
    assert api.get(f"/v1/erasures?cursor={first['nextCursor']}").body == {
        "items": [asked.body],
        "nextCursor": None,
    }


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (SAID, "body"),
        ({"meterId": "M", "vehicleId": "V"} | SAID, "body"),
        ({"meterId": "?"} | SAID, "meterId"),
        ({"meterId": "M", "why": "x"}, "by"),
        ({"meterId": "M", "timestamp": "2026-02-10T12:00:00Z"} | SAID, "timestamp"),
    ],
)
def test_what_is_not_said_rightly_is_refused(api: Api, body: object, field: str) -> None:
    answer = api.post("/v1/erasures", body)
    assert (answer.status, answer.body["errors"][0]["field"]) == (400, field)


Arrival = tuple[str, int, int, str | None]
arrivals = st.lists(
    st.tuples(
        st.sampled_from(["METER-1", "METER-2", "VEH-1", "VEH-2"]),
        st.sampled_from(
            [0, 1, 59, 60, 719, 720, 721, 1440, 2160, 2161]
        ),  # minutes: 720 is midnight
        st.sampled_from([-2, -1, 1, 2]),  # accepted so long before or after the erasure
        st.sampled_from([None, "METER-1", "METER-2"]),
    ),
    max_size=14,
)


def test_history_is_what_was_accepted_later_whatever_came_when(
    by_days: DatabaseUrls, store: Database, ops: Database, counted: Counted
) -> None:
    with connect(by_days.owner) as owner, connect(by_days.maintain) as maintainer:
        eraser = Eraser(maintainer, Archive(maintainer, counted))

        @settings(max_examples=25, deadline=None)
        @given(arrivals, arrivals, arrivals, st.sampled_from(["METER-1", "VEH-1"]))
        def check(
            before: list[Arrival], pending: list[Arrival], after: list[Arrival], erased: str
        ) -> None:
            delete_all(owner)
            start, sent = NOON - 2 * DAY, []

            def deliver(arrival: Arrival, asked: datetime) -> None:
                name, minute, side, named = arrival
                at, received = start + minute * MINUTE, asked + side * MINUTE
                receive(
                    store,
                    received,
                    meter(at, 1.0, name)
                    if name.startswith("METER")
                    else vehicle(at, name, named, soc=float(minute % 100)),
                )
                sent.append((name, at, received, asked))

            for arrival in before:
                deliver((*arrival[:2], -abs(arrival[2]), arrival[3]), datetime.now(UTC))
            asked = ask(ops, **{"meterId" if erased[0] == "M" else "vehicleId": erased})
            for arrival in pending:
                deliver(arrival, asked)
            assert find_differences(maintainer) == []
            assert eraser.erase(always) == 1
            assert find_differences(maintainer) == []
            for arrival in after:
                # What a vehicle that is not erased told of an erased meter counts as it did.
                deliver(arrival, asked)
            assert find_differences(maintainer) == []
            found = owner.execute(
                """SELECT meter_id, timestamp FROM meter_telemetry_history
                   UNION SELECT vehicle_id, timestamp FROM vehicle_telemetry_history"""
            ).fetchall()
            assert set(found) == {
                (name, at) for name, at, received, _ in sent if name != erased or received > asked
            }

        check()
