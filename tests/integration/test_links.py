"""Links between vehicles and meters under disorder, against an oracle in plain Python.

Random claims by readings and by the API, late, corrected, given up, voided, re-sent and at equal
instants, over several connections, some at once, with connections killed. After every step the rows
of links and the periods that follow from them are those of the claims, whatever the order they came
in.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import psycopg
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from local.databases import DatabaseUrls
from telemetry.database import Database, Row, connect
from telemetry.devices import DeviceDeclaration, declare_device
from telemetry.errors import LinkNotFound
from telemetry.intake import VEHICLES
from telemetry.links import link_vehicle, unlink_vehicle
from telemetry.messages import pack, unpack
from telemetry.readings import VehicleReading
from telemetry.store import store_vehicle_reading, store_vehicle_readings
from telemetry.verification import find_differences
from tests.integration.conftest import delete_all
from tests.integration.oracle import void, withdraw

START = datetime(2026, 2, 10, 12, tzinfo=UTC)
ACCEPTED = datetime(2026, 2, 11, tzinfo=UTC)
MINUTE, MICROSECOND = timedelta(minutes=1), timedelta(microseconds=1)
CONNECTIONS = 3
# A vehicle that is declared to report every four minutes.
DECLARED, CADENCE = "VEH-2", 4 * MINUTE


class Named(NamedTuple):
    """A reading of a vehicle, with the meter that it names or None."""

    vehicle: str
    offset: float  # minutes after START
    meter: str | None
    length: float | None = None  # seconds, as the reading tells it

    @property
    def time(self) -> datetime:
        return START + timedelta(minutes=self.offset)


@dataclass(frozen=True)
class Call:
    """Readings accepted together, the first of them at `accepted`."""

    readings: Sequence[Named]
    accepted: datetime


def make_reading(named: Named) -> VehicleReading:
    return VehicleReading.model_construct(
        vehicle_id=named.vehicle,
        soc=50.0,
        kwh_delivered_dc=0.1,
        battery_temp=25.0,
        meter_id=named.meter,
        timestamp=named.time,
        interval_seconds=named.length,
    )


def write(database: Database, call: Call) -> None:
    readings = [make_reading(named) for named in call.readings]
    if len(readings) == 1:
        store_vehicle_reading(database, readings[0], call.accepted)
    else:
        store_vehicle_readings(database, readings, call.accepted)


class Claim(NamedTuple):
    """From since on, the meter feeds the vehicle. In the order in which claims hold."""

    since: datetime
    vehicle: str
    meter: str | None
    source: str


class Oracle:
    """What readings and the API have claimed."""

    def __init__(self) -> None:
        self.receipts: dict[tuple[str, datetime, datetime], Named] = {}
        self.said: dict[tuple[str, datetime], str | None] = {}
        self.voided: set[tuple[str, datetime]] = set()

    def take(self, call: Call) -> None:
        for position, named in enumerate(call.readings):
            key = (named.vehicle, named.time, call.accepted + position * MICROSECOND)
            self.receipts[key] = named

    def claims(self) -> list[Claim]:
        counted = {key[:2]: self.receipts[key] for key in sorted(self.receipts)}
        claims = {
            (vehicle, since): Claim(since, vehicle, named.meter, "reading")
            for (vehicle, time), named in counted.items()
            if named.meter is not None
            and (vehicle, time) not in self.voided
            and (since := time - lead(named))
        }
        for (vehicle, since), meter in self.said.items():
            claims[vehicle, since] = Claim(since, vehicle, meter, "api")
        return sorted(claims.values(), key=lambda claim: claim[:2])

    def kept(self) -> list[Claim]:
        """Return the claims without those of readings that change nothing."""
        kept = []
        last_of_vehicle: dict[str, Claim] = {}
        last_of_meter: dict[str | None, Claim] = {}
        for claim in self.claims():
            before = last_of_vehicle.get(claim.vehicle)
            changes = before is None or last_of_meter.get(claim.meter) is not before
            if changes or claim.source == "api":
                kept.append(claim)
            last_of_vehicle[claim.vehicle] = last_of_meter[claim.meter] = claim
        return kept

    def end(self, claim: Claim) -> datetime | None:
        """Return where the link ends that a claim made: at the next one kept of either side."""
        later = [
            other.since
            for other in self.kept()
            if (other.vehicle == claim.vehicle and other.since > claim.since)
            or (other.meter == claim.meter and other.vehicle != claim.vehicle and other > claim)
        ]
        return min(later, default=None)

    def fed(self, vehicle: str, at: datetime) -> str | None:
        """Return the meter that feeds a vehicle at an instant."""
        before = [claim for claim in self.claims() if claim.since < at]
        own = [claim for claim in before if claim.vehicle == vehicle]
        if not own or own[-1].meter is None:
            return None
        return own[-1].meter if _last_on(before, own[-1].meter) == own[-1] else None


def lead(named: Named) -> timedelta:
    """Return how long before its time a reading claims its meter."""
    if named.length is not None:
        return timedelta(seconds=min(60, named.length))
    return CADENCE if named.vehicle == DECLARED else MINUTE


def _last_on(claims: list[Claim], meter: str) -> Claim:
    return [claim for claim in claims if claim.meter == meter][-1]


vehicles = st.sampled_from(["VEH-1", "VEH-2", "VEH-3"])
meters = st.sampled_from(["METER-1", "METER-2", "METER-3"])
# Few, so that claims meet in one instant; now and then a microsecond beside.
# At 2:05 a reading of five seconds claims from where one of a minute at 3:00 does.
offsets = st.integers(0, 12).map(float) | st.sampled_from(
    [3.0, 3.0 + 1 / 60e6, 6.0 - 1 / 60e6, 2 + 5 / 60]
)
lengths = st.sampled_from([None, None, None, 5, 60, 600])
readings = st.builds(Named, vehicles, offsets, st.none() | meters, lengths)
batches = st.lists(readings, min_size=1, max_size=8)


class Claims(RuleBasedStateMachine):
    """One database, several connections, and claims in any order."""

    urls: DatabaseUrls
    superuser_url: str

    def __init__(self) -> None:
        super().__init__()
        self.admin = connect(self.superuser_url)
        delete_all(self.admin)
        self.databases = [Database(self.urls.ingest) for _ in range(CONNECTIONS)]
        self.corrections = Database(self.urls.correct)
        declare_device(
            self.databases[0],
            DECLARED,
            DeviceDeclaration.model_construct(
                energy="interval",
                cadence_seconds=int(CADENCE.total_seconds()),
                valid_from=START - timedelta(days=9),
            ),
            datetime.now(UTC),
        )
        self.oracle = Oracle()
        self.calls: list[Call] = []

    def teardown(self) -> None:
        for database in (*self.databases, self.corrections):
            database.close()
        self.admin.close()

    def accept(self, batch: Sequence[Named]) -> Call:
        call = Call(batch, ACCEPTED + timedelta(seconds=len(self.calls)))
        self.calls.append(call)
        self.oracle.take(call)
        return call

    @rule(batch=batches, connection=st.integers(0, CONNECTIONS - 1))
    def send(self, batch: list[Named], connection: int) -> None:
        write(self.databases[connection], self.accept(batch))

    @rule(reading=readings, connection=st.integers(0, CONNECTIONS - 1))
    def send_one(self, reading: Named, connection: int) -> None:
        write(self.databases[connection], self.accept([reading]))

    @rule(vehicle=vehicles, meter=meters, count=st.integers(1, 5))
    def send_on(self, vehicle: str, meter: str, count: int) -> None:
        times = [time for _, time, _ in self.oracle.receipts] or [START]
        next_minute = (max(times) - START) // MINUTE + 1
        for offset in range(next_minute, next_minute + count):
            write(self.databases[0], self.accept([Named(vehicle, float(offset), meter)]))

    @rule(data=st.data(), meter=st.none() | meters, length=lengths)
    def correct(self, data: st.DataObject, meter: str | None, length: float | None) -> None:
        if self.oracle.receipts:
            vehicle, time, _ = data.draw(st.sampled_from(sorted(self.oracle.receipts)))
            corrected = Named(vehicle, (time - START) / MINUTE, meter, length)
            write(self.databases[0], self.accept([corrected]))

    @rule(data=st.data())
    def void_or_withdraw(self, data: st.DataObject) -> None:
        if self.oracle.receipts:
            vehicle, time, _ = data.draw(st.sampled_from(sorted(self.oracle.receipts)))
            change = withdraw if (vehicle, time) in self.oracle.voided else void
            change(self.corrections, (vehicle, time))
            self.oracle.voided ^= {(vehicle, time)}

    @rule(data=st.data())
    def redeliver(self, data: st.DataObject) -> None:
        if self.calls:
            write(self.databases[1], data.draw(st.sampled_from(self.calls)))

    @rule(vehicle=vehicles, offset=offsets, meter=meters)
    def link(self, vehicle: str, offset: float, meter: str) -> None:
        since = Named(vehicle, offset, meter).time
        created = (vehicle, since) not in self.oracle.said
        self.oracle.said[vehicle, since] = meter
        link, was_created = link_vehicle(self.databases[0], vehicle, meter, since)
        assert was_created is created
        assert (link.meter_id, link.valid_from, link.source) == (meter, since, "api")
        assert link.valid_to == self.oracle.end(Claim(since, vehicle, meter, "api"))

    @rule(vehicle=vehicles, offset=offsets)
    def unlink(self, vehicle: str, offset: float) -> None:
        until = Named(vehicle, offset, None).time
        held = [claim for claim in self.oracle.kept() if claim.vehicle == vehicle]
        held = [claim for claim in held if claim.since < until]
        fed = self.oracle.fed(vehicle, until)
        try:
            link = unlink_vehicle(self.databases[1], vehicle, until)
        except LinkNotFound:
            assert fed is None
            return
        assert (link.meter_id, link.valid_from, link.valid_to) == (fed, held[-1].since, until)
        if self.oracle.end(held[-1]) != until:
            self.oracle.said[vehicle, until] = None

    @rule(batch=batches, connection=st.integers(0, CONNECTIONS - 1))
    def kill_connection_while_it_writes(self, batch: list[Named], connection: int) -> None:
        [(pid,)] = self.databases[connection].fetch("SELECT pg_backend_pid()")
        call = self.accept(batch)
        killer = threading.Thread(
            target=self.admin.execute, args=("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        )
        killer.start()
        write(self.databases[connection], call)
        killer.join()

    @rule(first=batches, second=batches, vehicle=vehicles, offset=offsets, meter=meters)
    def claim_at_once(
        self, first: list[Named], second: list[Named], vehicle: str, offset: float, meter: str
    ) -> None:
        calls = [self.accept(first), self.accept(second[::-1])]
        since = Named(vehicle, offset, meter).time
        self.oracle.said[vehicle, since] = meter
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            done = [
                pool.submit(write, database, call)
                for database, call in zip(self.databases, calls, strict=False)
            ]
            linked = pool.submit(link_vehicle, self.databases[2], vehicle, meter, since)
        linked.result()
        for future in done:
            future.result()

    @invariant()
    def links_are_the_claims_that_change_something(self) -> None:
        rows = self.admin.execute("SELECT valid_from, vehicle_id, meter_id, source FROM links")
        assert sorted(rows.fetchall()) == [tuple(claim) for claim in self.oracle.kept()]
        assert find_differences(self.admin) == []

    @invariant()
    def periods_are_those_of_all_claims(self) -> None:
        periods = self.admin.execute(
            "SELECT vehicle_id, meter_id, valid_from, valid_to FROM link_periods"
        ).fetchall()
        claims = self.oracle.claims()
        for vehicle in {claim.vehicle for claim in claims}:
            for at in _instants(claims):
                fed = [
                    period[1]
                    for period in periods
                    if period[0] == vehicle
                    and period[2] < at
                    and (period[3] is None or at <= period[3])
                ]
                assert fed == [meter for meter in [self.oracle.fed(vehicle, at)] if meter]


def _instants(claims: Sequence[Claim]) -> Iterator[datetime]:
    """Yield each instant at which a claim begins, and the first after it."""
    for since in {claim.since for claim in claims}:
        yield since
        yield since + MICROSECOND


def test_links_are_right_under_disorder(urls: DatabaseUrls, superuser_url: str) -> None:
    here = {"urls": urls, "superuser_url": superuser_url}
    machine = type("ClaimsHere", (Claims,), here)
    run_state_machine_as_test(
        machine, settings=settings(max_examples=20, stateful_step_count=15, deadline=None)
    )


def test_who_lost_a_meter_and_has_it_again_within_one_call_cuts_into_the_other_link(
    writer: Database, connection: psycopg.Connection[Row]
) -> None:
    after = 3 + 1 / 60_000_000
    for minute in range(1, 6):
        write(writer, Call([Named("VEH-2", float(minute), "METER-3")], ACCEPTED))
    write(writer, Call([Named("VEH-1", 6.0, "METER-3")], ACCEPTED))
    both = [Named("VEH-2", after, "METER-1"), Named("VEH-1", after, "METER-3")]
    write(writer, Call(both, ACCEPTED))
    held = connection.execute(
        "SELECT vehicle_id, valid_from FROM links WHERE meter_id = 'METER-3' ORDER BY valid_from"
    ).fetchall()
    assert held == [
        ("VEH-2", START),
        ("VEH-1", START + 2 * MINUTE + MICROSECOND),
        ("VEH-2", START + 3 * MINUTE),
        ("VEH-1", START + 5 * MINUTE),
    ]


def test_two_writers_that_swap_their_chargers_at_one_moment_lose_nothing(
    urls: DatabaseUrls, connection: psycopg.Connection[Row]
) -> None:
    # Two vehicles, each now on the other's charger; and the API with them.
    databases = [Database(urls.ingest) for _ in range(3)]
    together = threading.Barrier(3)

    def send(vehicle: int, meter: str, start: float) -> None:
        together.wait(10)
        for minute in range(3):
            accepted = ACCEPTED + timedelta(minutes=start, seconds=minute)
            named = Named(f"VEH-{vehicle}", start + minute, meter)
            write(databases[vehicle], Call([named], accepted))

    def link(meter: str, start: float) -> None:
        together.wait(10)
        link_vehicle(databases[0], "VEH-0", meter, Named("VEH-0", start + 5, None).time)

    for turn in range(20):
        meters = ["METER-1", "METER-2"][:: 1 if turn % 2 else -1]
        with ThreadPoolExecutor(3) as pool:
            done = [pool.submit(send, n + 1, meters[n], 10.0 * turn) for n in range(2)]
            done.append(pool.submit(link, meters[0], 10.0 * turn))
        for future in done:
            future.result()
        assert find_differences(connection) == []
    at_end = connection.execute(
        "SELECT vehicle_id, meter_id FROM link_periods WHERE valid_to IS NULL ORDER BY 1"
    )
    # In each turn VEH-0 took the charger of VEH-1 five minutes later.
    assert at_end.fetchall() == [("VEH-0", "METER-1"), ("VEH-2", "METER-2")]
    for database in databases:
        database.close()


def test_a_reading_being_written_and_a_link_that_cuts_in_before_it_see_each_other(
    urls: DatabaseUrls, connection: psycopg.Connection[Row]
) -> None:
    database = Database(urls.ingest)
    write(database, Call([Named("VEH-1", 0.0, "METER-1")], ACCEPTED))
    with connect(urls.owner, autocommit=False) as writer, ThreadPoolExecutor(1) as pool:
        # Continues the link, so it writes none; and it is not committed yet.
        writer.execute(
            "SELECT store_vehicle_reading('VEH-1', %s, %s, 1, 1, NULL, 'METER-1', %s, 1 << 9)",
            (START + 10 * MINUTE, ACCEPTED + MINUTE, START),
        )
        linked = pool.submit(link_vehicle, database, "VEH-2", "METER-1", START + 5 * MINUTE)
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while connection.execute(waiting).fetchone() == (0,):
            assert not linked.done()
        writer.commit()
        link, _ = linked.result()
    assert link.valid_to == START + 9 * MINUTE
    holds = connection.execute("SELECT vehicle_id FROM link_periods WHERE valid_to IS NULL")
    assert holds.fetchall() == [("VEH-1",)]
    database.close()


def test_verification_finds_a_link_that_no_claim_made_and_one_that_is_missing(
    urls: DatabaseUrls, admin: psycopg.Connection[Row]
) -> None:
    database = Database(urls.ingest)
    write(database, Call([Named("VEH-1", 0.0, "METER-1")], ACCEPTED))
    database.close()
    moved = "UPDATE links SET valid_from = valid_from + %s * interval '1 minute'"
    admin.execute(moved, (1,))
    found = find_differences(admin)
    assert [(each.table, each.expected, each.stored) for each in found] == [
        ("links", "(METER-1,reading)", None),
        ("links", None, "(METER-1,reading)"),
    ]
    admin.execute(moved, (-1,))


def test_a_message_of_the_queue_carries_the_meter(
    urls: DatabaseUrls, connection: psycopg.Connection[Row]
) -> None:
    readings = [make_reading(Named("VEH-1", offset, "METER-1")) for offset in (0.0, 1.0)]
    [(_, body)] = pack(VEHICLES, readings, ACCEPTED)
    message = unpack(VEHICLES, body)
    database = Database(urls.ingest)
    store_vehicle_readings(database, message.readings, message.receipts)
    database.close()
    rows = connection.execute("SELECT vehicle_id, meter_id, valid_from, source FROM links")
    assert rows.fetchall() == [("VEH-1", "METER-1", START - MINUTE, "reading")]
