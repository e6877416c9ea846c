"""The write path: what history, live rows and rollups hold after readings in any order.

Every test here ends with the check of the `urls` fixture: what is derived equals what plain
SQL computes from history.
"""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.errors import QueryCanceled

from local.databases import DatabaseUrls
from telemetry.database import Database, Row
from telemetry.errors import DatabaseUnavailable
from telemetry.readings import MeterReading, VehicleReading
from telemetry.store import (
    store_meter_reading,
    store_meter_readings,
    store_vehicle_reading,
    store_vehicle_readings,
)
from telemetry.verification import find_differences
from tests.conftest import unpooled
from tests.integration.conftest import delete_all

NOON = datetime(2026, 2, 10, 12, tzinfo=UTC)
ACCEPTED = datetime(2026, 2, 10, 13, tzinfo=UTC)


@pytest.fixture
def database(urls: DatabaseUrls) -> Iterator[Database]:
    opened = Database(urls.ingest)
    yield opened
    opened.close()


def meter(minute: float, kwh: float = 1.0, meter_id: str = "METER-1") -> MeterReading:
    return MeterReading.model_construct(
        meter_id=meter_id,
        kwh_consumed_ac=float(kwh),
        voltage=230.0,
        timestamp=NOON + timedelta(minutes=minute),
    )


def vehicle(minute: float, soc: float | None = None, kwh: float = 1.0) -> VehicleReading:
    return VehicleReading.model_construct(
        vehicle_id="VEH-1",
        soc=soc,
        kwh_delivered_dc=float(kwh),
        battery_temp=25.0,
        timestamp=NOON + timedelta(minutes=minute),
    )


def store(database: Database, readings: Sequence[MeterReading], accepted: datetime) -> None:
    """Store as the API does: one reading by the function for one."""
    if len(readings) == 1:
        store_meter_reading(database, readings[0], accepted)
    else:
        store_meter_readings(database, readings, accepted)


class Writer:
    """Stores meter readings, each call accepted a second after the one before."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._accepted = ACCEPTED

    def send(self, *readings: MeterReading) -> datetime:
        self._accepted += timedelta(seconds=1)
        store(self._database, readings, self._accepted)
        return self._accepted


@pytest.fixture
def writer(database: Database) -> Writer:
    return Writer(database)


def rollup(connection: psycopg.Connection[Row]) -> list[Row]:
    return connection.execute(
        "SELECT hour, readings, kwh_consumed_ac, minutes FROM meter_hourly_rollup ORDER BY 1"
    ).fetchall()


def live_kwh(connection: psycopg.Connection[Row]) -> Decimal:
    [(kwh,)] = connection.execute("SELECT last_kwh_consumed_ac FROM meter_live_status")
    assert isinstance(kwh, Decimal)
    return kwh


def count_history(connection: psycopg.Connection[Row]) -> int:
    [(count,)] = connection.execute("SELECT count(*) FROM meter_telemetry_history")
    assert isinstance(count, int)
    return count


def test_energy_belongs_to_the_hour_it_ends_in(
    writer: Writer, connection: psycopg.Connection[Row]
) -> None:
    writer.send(meter(0), meter(1), meter(60), meter(60.01))
    assert rollup(connection) == [
        (NOON - timedelta(hours=1), 1, 1, 1 << 59),
        (NOON, 2, 2, 1 | 1 << 59),
        (NOON + timedelta(hours=1), 1, 1, 1),
    ]


@unpooled
def test_rollups_do_not_depend_on_the_time_zone_of_the_session(
    database: Database, writer: Writer, connection: psycopg.Connection[Row]
) -> None:
    database.fetch("SELECT set_config('timezone', 'Asia/Kolkata', false)")
    writer.send(meter(1), meter(29.5), meter(31))
    assert rollup(connection) == [(NOON, 3, 3, 1 | 1 << 29 | 1 << 30)]


def test_a_resend_is_kept_and_counts_once(
    writer: Writer, connection: psycopg.Connection[Row]
) -> None:
    for _ in range(3):
        writer.send(meter(1, 2.5))
    assert count_history(connection) == 3
    assert rollup(connection) == [(NOON, 1, Decimal("2.5"), 1)]


def test_a_correction_counts_instead(writer: Writer, connection: psycopg.Connection[Row]) -> None:
    writer.send(meter(1, 2.5))
    writer.send(meter(2, 1))
    writer.send(meter(1, 3.5))
    writer.send(meter(2, 4))
    assert count_history(connection) == 4
    assert rollup(connection)[0][2] == Decimal("7.5")
    assert live_kwh(connection) == 4


def test_a_late_reading_leaves_the_live_row(
    writer: Writer, connection: psycopg.Connection[Row]
) -> None:
    writer.send(meter(100, 9))
    writer.send(meter(1, 1), meter(61, 2))
    assert live_kwh(connection) == 9
    assert [row[2] for row in rollup(connection)] == [1, 11]


def test_a_receipt_delivered_again_adds_nothing(
    database: Database, writer: Writer, connection: psycopg.Connection[Row]
) -> None:
    readings = [meter(1), meter(2), meter(1, 5)]
    accepted = writer.send(*readings)
    writer.send(meter(2, 7))
    store_meter_readings(database, readings, accepted)
    assert count_history(connection) == 4
    assert rollup(connection)[0][1:3] == (2, 12)


def test_the_latest_receipt_counts_also_when_written_first(
    database: Database, connection: psycopg.Connection[Row]
) -> None:
    store(database, [meter(1, 2)], ACCEPTED + timedelta(seconds=1))
    store(database, [meter(1, 1)], ACCEPTED)
    assert live_kwh(connection) == 2
    assert rollup(connection)[0][2] == 2


def test_two_events_of_one_instant_are_both_kept(
    database: Database, connection: psycopg.Connection[Row]
) -> None:
    for _ in range(2):  # the second round is a redelivery
        for kwh in (1, 2, 3):
            store(database, [meter(1, kwh)], ACCEPTED)
    assert count_history(connection) == 3
    assert live_kwh(connection) == 3
    assert rollup(connection)[0][1:3] == (1, 3)


def test_one_batch_may_hold_a_reading_several_times(
    writer: Writer, connection: psycopg.Connection[Row]
) -> None:
    writer.send(meter(3), meter(1, 5), meter(3, 4), meter(2), meter(1, 6), meter(3, 2))
    assert count_history(connection) == 6
    assert rollup(connection)[0][1:3] == (3, 9)
    assert live_kwh(connection) == 2


def test_one_batch_may_be_late_and_new_in_one_hour(
    writer: Writer, connection: psycopg.Connection[Row]
) -> None:
    writer.send(meter(30))
    writer.send(meter(10), meter(50), meter(30, 3), meter(70))
    assert [row[1:3] for row in rollup(connection)] == [(3, 5), (1, 1)]


def test_sums_are_exact(writer: Writer, connection: psycopg.Connection[Row]) -> None:
    writer.send(meter(1, 1e16 / 1e13), meter(2, 0.1), meter(3, 0.2))
    assert rollup(connection)[0][2] == Decimal("1000.3")


def test_readings_that_were_known_are_counted(database: Database) -> None:
    def send(seconds: int, *readings: MeterReading) -> tuple[int, int]:
        return store_meter_readings(database, readings, ACCEPTED + timedelta(seconds=seconds))

    assert send(0, meter(1), meter(2), meter(1, meter_id="METER-2")) == (0, 0)
    assert send(1, meter(1), meter(2, 5), meter(3)) == (1, 1)
    assert send(2, meter(2, 5), meter(1, 7), meter(0)) == (1, 1)
    assert send(3, meter(4), meter(4), meter(4, 2), meter(4, 2)) == (2, 1)
    assert send(4, meter(4, 2), meter(4), meter(-1), meter(-1)) == (2, 1)


def test_a_state_of_charge_that_differs_is_a_correction(database: Database) -> None:
    for number, (reading, known) in enumerate(
        [
            (vehicle(1), (0, 0)),
            (vehicle(1), (1, 0)),
            (vehicle(1, 50), (0, 1)),
            (vehicle(1, 50), (1, 0)),
            (vehicle(1), (0, 1)),
        ]
    ):
        accepted = ACCEPTED + timedelta(seconds=number)
        assert store_vehicle_readings(database, [reading], accepted) == known


@pytest.mark.parametrize("at_once", [False, True])
def test_the_newest_state_of_charge_is_shown(
    database: Database, connection: psycopg.Connection[Row], at_once: bool
) -> None:
    for sent, shown in (
        ([vehicle(1, 50), vehicle(2)], 50),
        ([vehicle(1, 50), vehicle(3), vehicle(2, 60)], 60),
        ([vehicle(3, 50), vehicle(2, 60)], 50),
        ([vehicle(1, 50), vehicle(1)], 50),
        ([vehicle(1, 50), vehicle(1, 40)], 40),
        ([vehicle(1)], None),
    ):
        if at_once:
            store_vehicle_readings(database, sent, ACCEPTED)
        else:
            for number, reading in enumerate(sent):
                store_vehicle_reading(database, reading, ACCEPTED + timedelta(seconds=number))
        assert connection.execute("SELECT soc FROM vehicle_live_status").fetchall() == [(shown,)]
        delete_all(connection)


def test_a_broken_connection_neither_loses_nor_doubles(
    database: Database,
    writer: Writer,
    connection: psycopg.Connection[Row],
    admin: psycopg.Connection[Row],
) -> None:
    writer.send(meter(1))
    [(own,)] = database.fetch("SELECT pg_backend_pid()")
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", (own,))
    writer.send(meter(2))
    assert rollup(connection)[0][1:3] == (2, 2)
    assert count_history(connection) == 2


@unpooled
def test_a_frozen_server_is_waited_for_no_longer_than_the_time_limit(
    urls: DatabaseUrls, connection: psycopg.Connection[Row]
) -> None:
    limited = Database(urls.ingest, time_limit=0.5)
    [(backend,)] = limited.fetch("SELECT pg_backend_pid()")
    os.kill(backend, signal.SIGSTOP)
    # Without a limit the write would wait for this, and succeed.
    thaw = threading.Timer(10, os.kill, (backend, signal.SIGCONT))
    thaw.start()
    try:
        with pytest.raises(DatabaseUnavailable):
            store_meter_reading(limited, meter(1), ACCEPTED)
        # It may take effect later: then the same receipt, written again, adds nothing.
        store_meter_reading(limited, meter(1), ACCEPTED)
    finally:
        thaw.cancel()
        os.kill(backend, signal.SIGCONT)
    alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
    while connection.execute(alive, (backend,)).fetchone() != (0,):
        pass
    limited.close()
    assert count_history(connection) == 1
    assert rollup(connection)[0][1:3] == (1, 1)


@unpooled
def test_the_server_gives_up_a_statement_before_the_client_does(
    urls: DatabaseUrls, connection: psycopg.Connection[Row], database: Database
) -> None:
    [(backend,)] = database.fetch("SELECT pg_backend_pid()")
    with connection.transaction():
        connection.execute("LOCK TABLE meter_live_status")
        with pytest.raises(DatabaseUnavailable) as raised:
            store_meter_reading(database, meter(1), ACCEPTED)
    assert isinstance(raised.value.__cause__, QueryCanceled)
    assert database.fetch("SELECT pg_backend_pid()") == [(backend,)]
    store_meter_reading(database, meter(1), ACCEPTED)


TAMPERINGS = [
    "UPDATE meter_live_status SET last_kwh_consumed_ac = 99",
    "UPDATE meter_live_status SET updated_at = updated_at + interval '1 second'",
    "DELETE FROM meter_live_status",
    "UPDATE meter_hourly_rollup SET readings = readings + 1",
    "UPDATE meter_hourly_rollup SET minutes = minutes | 2",
    "UPDATE meter_hourly_rollup SET kwh_consumed_ac = kwh_consumed_ac + 0.000001",
    "DELETE FROM meter_hourly_rollup",
    "INSERT INTO meter_hourly_rollup VALUES (now(), 1, 1, 'METER-2', 1)",
    "DELETE FROM meter_telemetry_history",
    "UPDATE vehicle_live_status SET soc = 1",
    "UPDATE vehicle_live_status SET soc_timestamp = '-infinity'",
    "UPDATE vehicle_hourly_rollup SET battery_temp_sum = 0",
]


def test_verification_finds_what_is_wrong(
    database: Database, connection: psycopg.Connection[Row]
) -> None:
    for tampering in TAMPERINGS:
        store_meter_readings(database, [meter(1)], ACCEPTED)
        store_vehicle_readings(database, [vehicle(1, 50)], ACCEPTED)
        assert find_differences(connection) == []
        connection.execute(tampering.encode())
        assert find_differences(connection), tampering
        delete_all(connection)


def test_nothing_of_a_failed_write_is_visible(
    database: Database, connection: psycopg.Connection[Row]
) -> None:
    bad: Any = meter(2, kwh=float("nan"), meter_id="METER\0")
    with pytest.raises(psycopg.DataError):
        store_meter_readings(database, [meter(1), bad], ACCEPTED)
    assert count_history(connection) == 0
    assert rollup(connection) == []
