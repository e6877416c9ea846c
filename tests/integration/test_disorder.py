"""The store under disorder, against an oracle in plain Python.

Random interleavings of new, late, repeated, corrected, batched and voided readings over several
connections, some at once, with connections killed and receipts redelivered. After every step
history and what is set aside are exactly what was acknowledged, and live rows and rollups are what
history says: by the oracle here, and by the SQL of telemetry.verification.
"""

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import psycopg
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from local.databases import DatabaseUrls
from telemetry.database import Database, connect
from telemetry.verification import find_differences
from tests.integration.conftest import delete_all
from tests.integration.oracle import (
    ACCEPTED,
    START,
    Call,
    Event,
    Oracle,
    read_rollups,
    void,
    withdraw,
    write,
)

CONNECTIONS = 3

# Few devices and times, so that they meet: minutes, hour boundaries, and a microsecond beside them.
offsets = st.one_of(
    st.integers(min_value=-2, max_value=130).map(lambda minute: minute * 60.0),
    st.sampled_from([0.0, 3600.0, 7200.0, 0.000001, 3600.000001, 3599.999999]),
)
# Of a minute mostly; shorter ones, up to an hour, over several hours, and more than an hour.
lengths = st.sampled_from(
    [None, None, None, 60, 5, 90, 900, 1800.5, 3600, 3600.000001, 7500, 90_000]
)
events = st.builds(
    Event,
    st.integers(min_value=1, max_value=3),
    offsets,
    st.integers(min_value=0, max_value=3),
    st.none() | st.integers(min_value=0, max_value=100),
    st.booleans(),
    lengths,
)
batches = st.lists(events, min_size=1, max_size=8)


class Disorder(RuleBasedStateMachine):
    """One database, several connections, and calls in any order."""

    urls: DatabaseUrls
    superuser_url: str

    def __init__(self) -> None:
        super().__init__()
        self.admin = connect(self.superuser_url)
        delete_all(self.admin)
        self.databases = [Database(self.urls.ingest) for _ in range(CONNECTIONS)]
        self.corrections = Database(self.urls.correct)
        self.oracle = Oracle()
        self.calls: list[Call] = []

    def teardown(self) -> None:
        for database in (*self.databases, self.corrections):
            database.close()
        self.admin.close()

    def accept(self, batch: Sequence[Event]) -> Call:
        call = Call(batch, ACCEPTED + timedelta(seconds=len(self.calls)))
        self.calls.append(call)
        self.oracle.take(call)
        return call

    @initialize(batch=batches)
    def first(self, batch: list[Event]) -> None:
        write(self.databases[0], self.accept(batch))

    @rule(batch=batches, connection=st.integers(0, CONNECTIONS - 1))
    def send(self, batch: list[Event], connection: int) -> None:
        write(self.databases[connection], self.accept(batch))

    @rule(event=events, connection=st.integers(0, CONNECTIONS - 1))
    def send_one(self, event: Event, connection: int) -> None:
        write(self.databases[connection], self.accept([event]))

    @rule(data=st.data(), connection=st.integers(0, CONNECTIONS - 1))
    def redeliver(self, data: st.DataObject, connection: int) -> None:
        write(self.databases[connection], data.draw(st.sampled_from(self.calls)))

    @rule(data=st.data(), watt_hours=st.integers(4, 5), soc=st.none() | st.integers(1, 2))
    def accept_in_an_instant_already_taken(
        self, data: st.DataObject, watt_hours: int, soc: int | None
    ) -> None:
        device, time, accepted = data.draw(st.sampled_from(sorted(self.oracle.received)))
        event = Event(
            int(device[-1]),
            (time - START).total_seconds(),
            watt_hours,
            soc,
            is_meter=device.startswith("MTR"),
        )
        call = Call([event], accepted)
        self.calls.append(call)
        self.oracle.take(call)
        write(self.databases[0], call)

    @rule(connection=st.integers(0, CONNECTIONS - 1))
    def kill_connection(self, connection: int) -> None:
        [(pid,)] = self.databases[connection].fetch("SELECT pg_backend_pid()")
        self.admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    @rule(batch=batches, connection=st.integers(0, CONNECTIONS - 1))
    def kill_connection_while_it_writes(self, batch: list[Event], connection: int) -> None:
        [(pid,)] = self.databases[connection].fetch("SELECT pg_backend_pid()")
        call = self.accept(batch)
        killer = threading.Thread(
            target=self.admin.execute, args=("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        )
        killer.start()
        write(self.databases[connection], call)
        killer.join()

    @rule(first=batches, second=batches)
    def send_at_once(self, first: list[Event], second: list[Event]) -> None:
        # Also redelivered at once: each batch goes over two connections.
        calls = [self.accept(first), self.accept(second[::-1])]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            done = [
                pool.submit(write, database, call)
                for database, call in zip(self.databases, [*calls, calls[0]], strict=True)
            ]
        for future in done:
            future.result()

    def draw_reading(self, data: st.DataObject) -> tuple[str, datetime]:
        readings = sorted({(device, time) for device, time, _ in self.oracle.received})
        return data.draw(st.sampled_from(readings))

    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        reading = self.draw_reading(data)
        known = reading in self.oracle.voided
        assert void(self.corrections, reading) == ("standing" if known else "voided")
        self.oracle.voided.add(reading)

    @precondition(lambda self: self.oracle.voided)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        reading = data.draw(st.sampled_from(sorted(self.oracle.voided)))
        withdraw(self.corrections, reading)
        self.oracle.voided.remove(reading)

    @rule(data=st.data(), batch=batches)
    def void_or_withdraw_while_it_is_sent_again(
        self, data: st.DataObject, batch: list[Event]
    ) -> None:
        reading = self.draw_reading(data)
        change = withdraw if reading in self.oracle.voided else void
        resent = [
            Event(
                int(reading[0][-1]),
                (reading[1] - START).total_seconds(),
                watt_hours,
                watt_hours,
                is_meter=reading[0].startswith("MTR"),
            )
            for watt_hours in (6, 7)
        ]
        calls = [self.accept([*batch, resent[0]]), self.accept([resent[1]])]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            done = [pool.submit(write, self.databases[n], call) for n, call in enumerate(calls)]
            done.append(pool.submit(change, self.corrections, reading))
        for future in done:
            future.result()
        self.oracle.voided ^= {reading}

    @precondition(lambda self: self.calls)
    @invariant()
    def history_is_what_was_acknowledged(self) -> None:
        for table, expected in (
            ("telemetry_history", self.oracle.history),
            ("void_receipt", self.oracle.set_aside),
        ):
            rows = self.admin.execute(
                f"""SELECT meter_id, "timestamp", received_at, kwh_consumed_ac, voltage,
                           told_seconds
                    FROM meter_{table}""".encode()
            ).fetchall()
            rows += self.admin.execute(
                f"""SELECT vehicle_id, "timestamp", received_at, kwh_delivered_dc, battery_temp,
                           told_seconds, soc
                    FROM vehicle_{table}""".encode()
            ).fetchall()
            assert {(row[0], row[1], row[2]): row[3:] for row in rows} == expected

    @precondition(lambda self: self.calls)
    @invariant()
    def live_rows_are_the_newest_readings(self) -> None:
        rows = self.admin.execute(
            """SELECT meter_id, last_timestamp, updated_at, last_kwh_consumed_ac, last_voltage,
                      NULL::float8 FROM meter_live_status"""
        ).fetchall()
        rows += self.admin.execute(
            """SELECT vehicle_id, last_timestamp, updated_at, last_kwh_delivered_dc,
                      last_battery_temp, soc FROM vehicle_live_status"""
        ).fetchall()
        assert {row[0]: row[1:] for row in rows} == self.oracle.live()

    @precondition(lambda self: self.calls)
    @invariant()
    def rollups_are_the_sums_of_history(self) -> None:
        assert read_rollups(self.admin) == self.oracle.rollup()
        assert find_differences(self.admin) == []


def test_the_store_is_right_under_disorder(urls: DatabaseUrls, superuser_url: str) -> None:
    here = {"urls": urls, "superuser_url": superuser_url}
    machine = type("DisorderHere", (Disorder,), here)
    run_state_machine_as_test(
        machine, settings=settings(max_examples=15, stateful_step_count=20, deadline=None)
    )


def test_writers_of_the_same_devices_neither_deadlock_nor_lose(urls: DatabaseUrls) -> None:
    writers, calls, devices = 8, 12, 40

    def send(writer: int) -> None:
        order = random.Random(writer)
        database = Database(urls.ingest)
        for call in range(calls):
            batch = [
                Event(device, float(60 * order.randrange(180)), 1, None, is_meter=True)
                for device in range(devices)
            ]
            order.shuffle(batch)
            accepted = ACCEPTED + timedelta(minutes=call, seconds=writer)
            write(database, Call(batch, accepted))
        database.close()

    with connect(urls.owner) as connection:
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(send, range(writers)))
        connection.execute("SELECT pg_stat_force_next_flush()")
        assert connection.execute(deadlocks).fetchone() == (0,)
        [(stored,)] = connection.execute("SELECT count(*) FROM meter_telemetry_history")
    assert stored == writers * calls * devices


def test_a_deadlock_made_by_others_goes_unnoticed(urls: DatabaseUrls, superuser_url: str) -> None:
    first, second = (Event(device, 60.0, 1, None, is_meter=True) for device in (1, 2))
    database = Database(urls.ingest)
    write(database, Call([first, second], ACCEPTED))
    with psycopg.connect(superuser_url) as other, ThreadPoolExecutor(1) as pool:
        lock = "SELECT 1 FROM meter_live_status WHERE meter_id = %s FOR UPDATE"
        # The victim is whoever waited longer: make it the store.
        other.execute("SET deadlock_timeout = '1h'")
        other.execute(lock, (second.id,))
        written = pool.submit(write, database, Call([first, second], ACCEPTED + timedelta(hours=1)))
        with connect(urls.owner) as watcher:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while watcher.execute(waiting).fetchone() == (0,):
                pass
        other.execute(lock, (first.id,))
        other.commit()
        written.result()
    database.close()
