"""History's partitions: made ahead, and made over readings that the default partition holds."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from typing import Any

import psycopg
import pytest
from psycopg.errors import LockNotAvailable

from local.databases import DatabaseUrls
from telemetry.database import Connection, Database, Row, connect
from telemetry.errors import DefaultPartitionMixed
from telemetry.migrate import apply_migrations
from telemetry.partitions import DAYS_AHEAD, HISTORIES, make_partitions
from telemetry.readings import MeterReading, VehicleReading
from telemetry.store import store_meter_reading, store_meter_readings, store_vehicle_reading
from telemetry.verification import find_differences
from tests.conftest import unpooled

pytestmark = unpooled  # the owner is direct

DAY = timedelta(days=1)
ONCE = datetime(2026, 3, 10, 13, tzinfo=UTC)
# Nobody made partitions since, and readings went to the default partition.
LATER = datetime(2026, 5, 1, 13, tzinfo=UTC)


@pytest.fixture
def owner(empty_database: DatabaseUrls) -> Iterator[psycopg.Connection[Row]]:
    """The owner's connection to a database whose partitions were last made at ONCE."""
    with connect(empty_database.owner) as connection:
        apply_migrations(connection)
        make_partitions(connection, ONCE)
        yield connection
        assert find_differences(connection) == []


@pytest.fixture
def store(empty_database: DatabaseUrls, owner: psycopg.Connection[Row]) -> Iterator[Database]:
    """The owner's store: the roles are not admitted to this database."""
    assert owner
    database = Database(empty_database.owner)
    yield database
    database.close()


def meter(time: datetime, meter_id: str = "METER-1") -> MeterReading:
    return MeterReading.model_construct(
        meter_id=meter_id, kwh_consumed_ac=1.0, voltage=230.0, timestamp=time
    )


def vehicle(time: datetime) -> VehicleReading:
    return VehicleReading.model_construct(
        vehicle_id="VEH-1", soc=None, kwh_delivered_dc=1.0, battery_temp=20.0, timestamp=time
    )


def bounds(connection: psycopg.Connection[Row], history: str) -> list[Row]:
    return connection.execute(
        """SELECT bound[1]::timestamptz, bound[2]::timestamptz
           FROM pg_inherits JOIN pg_class part ON part.oid = inhrelid,
           regexp_match(pg_get_expr(relpartbound, part.oid),
                        'FROM \\(''(.+)''\\) TO \\(''(.+)''\\)') AS bound
           WHERE inhparent = %s::text::regclass AND bound IS NOT NULL
           ORDER BY 1""",
        (history,),
    ).fetchall()


def assert_sound(
    connection: psycopg.Connection[Row], now: datetime, days_ahead: int = DAYS_AHEAD
) -> None:
    """Partitions cover every instant once, days ahead too, and the default holds nothing."""
    for history in HISTORIES:
        found = bounds(connection, history)
        assert found[0][0] == datetime(2000, 1, 1, tzinfo=UTC)
        assert all(before[1] == after[0] for before, after in pairwise(found))
        assert found[-1][1] >= now + days_ahead * DAY
        assert connection.execute(f"SELECT FROM {history}_default".encode()).fetchall() == []
        left = "SELECT FROM pg_constraint WHERE conname LIKE '%%bounds' AND conrelid != 0"
        assert connection.execute(left).fetchall() == []


def count_history(connection: psycopg.Connection[Row]) -> int:
    [(found,)] = connection.execute("SELECT count(*) FROM meter_telemetry_history")
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("today", ["2026-01-01", "2026-03-31", "2026-12-31", "2028-02-29"])
def test_partitions_cover_every_instant_once(empty_database: DatabaseUrls, today: str) -> None:
    now = datetime.fromisoformat(today).replace(hour=13, tzinfo=UTC)
    with connect(empty_database.owner) as connection:
        apply_migrations(connection)
        make_partitions(connection, now)
        make_partitions(connection, now + 3 * DAY)
        assert_sound(connection, now + 3 * DAY)
        for history in HISTORIES:
            [today_part] = [
                bound for bound in bounds(connection, history) if bound[0] <= now < bound[1]
            ]
            assert today_part[1] - today_part[0] == DAY


def test_readings_of_the_default_partition_get_one_of_their_own(
    owner: psycopg.Connection[Row], store: Database
) -> None:
    for number in range(3):
        store_meter_reading(store, meter(LATER - number * 5 * DAY), LATER)
        store_vehicle_reading(store, vehicle(LATER - number * 5 * DAY), LATER)
    made = make_partitions(owner, LATER)
    assert "meter_telemetry_history_2026_03_25_to_2026_05_09" in made
    assert_sound(owner, LATER)
    assert count_history(owner) == 3
    assert make_partitions(owner, LATER) == []

    # Again, months later.
    again = LATER + 100 * DAY
    store_meter_reading(store, meter(again), again)
    make_partitions(owner, again)
    assert_sound(owner, again)
    assert count_history(owner) == 4


def test_writers_go_on_while_the_default_partition_becomes_another(
    empty_database: DatabaseUrls, owner: psycopg.Connection[Row], store: Database
) -> None:
    devices = [f"METER-{number}" for number in range(50)]
    for minute in range(100):
        time = LATER - minute * timedelta(minutes=1)
        store_meter_readings(store, [meter(time, device) for device in devices], LATER)
    done = threading.Event()

    def write(writer: int) -> int:
        database = Database(empty_database.owner)
        for number in count():
            if done.is_set():
                break
            # In order, late (this recomputes an hour from history), and now and then many at once.
            time = LATER + timedelta(seconds=number if number % 2 else -number)
            accepted = LATER + timedelta(hours=1, seconds=number)
            if number % 10:
                store_meter_reading(database, meter(time, devices[writer]), accepted)
            else:
                store_meter_readings(database, [meter(time, devices[writer])] * 2, accepted)
        database.close()
        return number + (number + 9) // 10

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, writer) for writer in range(4)]
        makers = [pool.submit(_make, empty_database, LATER) for _ in range(2)]
        made = [name for maker in makers for name in maker.result()]
        done.set()
        written = sum(writer.result() for writer in writers)
    assert len(made) == len(set(made))
    assert_sound(owner, LATER)
    assert count_history(owner) == 5000 + written


def _make(urls: DatabaseUrls, now: datetime) -> list[str]:
    with connect(urls.owner) as connection:
        return make_partitions(connection, now)


class Killed(Exception):
    """The process ended here."""


class Mortal(Connection):
    """Ends before a statement of its own."""

    left: int

    def execute(self, *args: Any, **kwargs: Any) -> psycopg.Cursor[Row]:
        if not self.left:
            raise Killed
        self.left -= 1
        return super().execute(*args, **kwargs)


def test_a_run_killed_anywhere_is_finished_by_the_next(
    empty_database: DatabaseUrls, owner: psycopg.Connection[Row], store: Database
) -> None:
    now = LATER
    for left in count():
        store_meter_reading(store, meter(now), now)
        store_vehicle_reading(store, vehicle(now), now)
        with suppress(Killed), Mortal.connect(empty_database.owner, autocommit=True) as mortal:
            mortal.left = left
            make_partitions(mortal, now, days_ahead=1)
            break
        # Whatever it left behind: readings are taken.
        store_meter_reading(store, meter(now + timedelta(minutes=1)), now)
        make_partitions(owner, now, days_ahead=1)
        assert_sound(owner, now, days_ahead=1)
        now += 10 * DAY
    assert left > 20
    assert count_history(owner) == 2 * left + 1


def test_rows_that_are_no_readings_are_reported_and_hinder_no_writer(
    owner: psycopg.Connection[Row], store: Database
) -> None:
    store_meter_reading(store, meter(LATER), LATER)
    owner.execute(
        """INSERT INTO meter_telemetry_history
           VALUES ('2036-01-01Z', '2036-01-01Z', 0, 'METER-X', 0)"""
    )
    with pytest.raises(DefaultPartitionMixed, match="meter_telemetry_history_default holds rows"):
        make_partitions(owner, LATER)
    store_meter_reading(store, meter(LATER + 30 * DAY), LATER)
    owner.execute("DELETE FROM meter_telemetry_history WHERE meter_id = 'METER-X'")
    make_partitions(owner, LATER + 30 * DAY)
    assert_sound(owner, LATER + 30 * DAY)


def test_whoever_holds_a_history_for_long_is_not_waited_for(
    empty_database: DatabaseUrls,
    owner: psycopg.Connection[Row],
    store: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store_meter_reading(store, meter(LATER), LATER)
    monkeypatch.setattr("telemetry.partitions.LOCK_TRIES", 2)
    with psycopg.connect(empty_database.owner) as other:
        other.execute("SELECT FROM meter_telemetry_history")
        with pytest.raises(LockNotAvailable):
            make_partitions(owner, LATER)
        # Writers are not stuck behind it.
        store_meter_reading(store, meter(LATER + timedelta(minutes=1)), LATER)
    make_partitions(owner, LATER)
    assert_sound(owner, LATER)
