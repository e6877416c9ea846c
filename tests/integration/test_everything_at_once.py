"""Whatever ops and devices may do, mixed: registers, voids, erasures, the archive, links, tariffs.

Other tests hold each of these alone. Here they meet, in any order and with maintenance that is
killed anywhere; EVERYTHING_EXAMPLES of them (CI: a few).
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from local.databases import DatabaseUrls
from telemetry.archive import Archive
from telemetry.archived_voids import ArchivedVoids
from telemetry.corrections import ErasureRequest
from telemetry.database import Database, connect
from telemetry.devices import DeviceDeclaration, declare_device
from telemetry.eraser import Eraser
from telemetry.erasures import request_erasure
from telemetry.errors import ArchiveUnavailable, LinkNotFound
from telemetry.late import LateReceipts
from telemetry.links import link_vehicle, unlink_vehicle
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
from telemetry.tariffs import FLEET, delete_tariff, put_tariff
from telemetry.verification import find_differences
from tests.conftest import Server, template_at, unpooled
from tests.integration.prices import tariffs
from tests.integration.test_archive import Unreliable, make_fresh
from tests.integration.test_registers import MODULUS, MOST_KW, expected_energies

pytestmark = unpooled  # the maintenance is direct

EXAMPLES = int(os.environ.get("EVERYTHING_EXAMPLES", "5"))
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
START = datetime(2026, 2, 10, 12, tzinfo=UTC)
RULES = Rules(by_name=True, least_kwh=0, least_coverage=0)
SAID = {"by": "Ada Lovelace", "why": "a test"}
DEVICES = ("METER-1", "METER-2", "VEH-1", "VEH-2")

Reading = tuple[str, datetime]


class Receipt(NamedTuple):
    """A reading as it was accepted."""

    device: str
    minute: int
    accepted: datetime
    told: Decimal
    is_register: bool
    named: str | None
    length: float | None  # seconds, as it tells them

    @property
    def time(self) -> datetime:
        return START + self.minute * MINUTE

    @property
    def reading(self) -> Reading:
        return self.device, self.time


class Known:
    """What has to be held, computed in plain Python.

    energies has the energy that each reading of an archived day had last: it changes no more.
    """

    def __init__(self) -> None:
        self.kept: dict[Reading, dict[datetime, Receipt]] = {}
        self.aside: dict[Reading, dict[datetime, Receipt]] = {}
        self.energies: dict[Reading, Decimal] = {}
        self.baselines: dict[str, tuple[datetime, Decimal | None]] = {}
        self.horizons = {"METER": datetime.min.replace(tzinfo=UTC)}
        self.horizons["VEH"] = self.horizons["METER"]
        self.asked: dict[str, list[datetime]] = {}

    def horizon(self, device: str) -> datetime:
        return self.horizons[device.split("-", maxsplit=1)[0]]

    def register(self, reading: Reading) -> Decimal | None:
        receipts = self.kept[reading]
        counted = receipts[max(receipts)]
        return counted.told if counted.is_register else None

    def of_device(self, device: str) -> list[Reading]:
        return sorted(reading for reading in self.kept if reading[0] == device)

    def take(self, receipts: Iterable[Receipt], newest: datetime | None) -> None:
        """Take what is delivered together; newest is what the device's live row shows."""
        shown = newest
        for receipt in sorted(receipts, key=lambda one: (one.time, one.accepted)):
            reading = receipt.reading
            if any(receipt.accepted <= asked for asked in self.asked.get(receipt.device, ())):
                continue
            if reading in self.aside:
                self.aside[reading].setdefault(receipt.accepted, receipt)
                continue
            if receipt.time < self.horizon(receipt.device):
                self._take_archived(receipt, newest, shown)
            self.kept.setdefault(reading, {}).setdefault(receipt.accepted, receipt)
            if shown is None or receipt.time > shown:
                shown = receipt.time

    def _take_archived(
        self, receipt: Receipt, newest: datetime | None, shown: datetime | None
    ) -> None:
        reading, is_late = receipt.reading, newest is not None and receipt.time <= newest
        known = self.kept.get(reading, {})
        if known and receipt.accepted <= max(known):
            return
        if not receipt.is_register:
            self.energies[reading] = receipt.told
        elif not known:
            before = None
            if shown is not None and (receipt.device, shown) in self.kept:
                before = self.register((receipt.device, shown))
            self.energies[reading] = Decimal(0)
            if not is_late and before is not None:
                assert shown is not None
                self.energies[reading] = _grown(shown, before, receipt.time, receipt.told)
        elif not is_late:  # of one call, the last counts
            raise AssertionError("readings of archived days come one by one")
        if not is_late:
            told = receipt.told if receipt.is_register else None
            baseline = self.baselines.get(receipt.device)
            if baseline is None or baseline[0] < receipt.time:
                self.baselines[receipt.device] = receipt.time, told

    def archive(self, stream: str, before: datetime, declared: Iterable[str]) -> None:
        """Close history up to an instant."""
        for device in DEVICES:
            if device.startswith(stream):
                counted = self.counted(device)
                closing = [
                    reading
                    for reading in self.of_device(device)
                    if self.horizons[stream] <= reading[1] < before
                ]
                self.energies.update({reading: counted[reading] for reading in closing})
                if closing and device in declared:
                    self.baselines[device] = closing[-1][1], self.register(closing[-1])
        self.horizons[stream] = max(before, self.horizons[stream])

    def counted(self, device: str) -> dict[Reading, Decimal]:
        """Return the energy of each reading of a device."""
        energies = {}
        before = self.baselines.get(device)
        for reading in self.of_device(device):
            receipts = self.kept[reading]
            counted = receipts[max(receipts)]
            if reading[1] < self.horizon(device):
                energies[reading] = self.energies[reading]
                continue
            energy = counted.told
            if counted.is_register:
                energy = Decimal(0)
                if before is not None and before[1] is not None:
                    energy = _grown(before[0], before[1], reading[1], counted.told)
            energies[reading] = energy
            before = reading[1], self.register(reading)
        return energies

    def void(self, reading: Reading) -> None:
        """Take a reading out of history or the archive."""
        device, time = reading
        self.aside[reading] = self.kept.pop(reading)
        self.energies.pop(reading, None)
        if device in self.baselines and self.baselines[device][0] == time:
            del self.baselines[device]
            if before := [one for one in self.of_device(device) if one[1] < time]:
                self.baselines[device] = before[-1][1], self.register(before[-1])

    def erase(self, device: str) -> None:
        """Forget what was accepted before the last that was asked."""
        asked = self.asked[device][-1]
        for held in (self.kept, self.aside):
            for reading in [one for one in held if one[0] == device]:
                left = {at: one for at, one in held[reading].items() if at > asked}
                held[reading] = left
                if not left:
                    del held[reading]
        self.baselines.pop(device, None)


def _grown(before: datetime, previous: Decimal, at: datetime, register: Decimal) -> Decimal:
    minutes = (at - before) // MINUTE
    registers = {0: float(previous), minutes: float(register)}
    return expected_energies(registers)[minutes][0]


minutes = st.sampled_from(
    [*range(6), 59, 60, 61, 600, 719, 720, 721, 725, 1000, 1440, 2159, 2160, 2161, 2300]
)
# Beside what the register should show (tenths of kWh).
noise = st.sampled_from([0, 0, 0, 0, 0, 1, 3, -3, -5000, 5000, 4_000_000])
sent = st.tuples(
    st.sampled_from(DEVICES),
    minutes,
    noise,
    st.sampled_from([None, "METER-1", "METER-2"]),
    st.sampled_from([None, None, None, 5, 900, 5400, 100_000]),
)
cadences = st.sampled_from([None, None, 10, 900, 7200])
ways = st.sampled_from(["now", "now", "now", "later", "twice"])


class Everything(RuleBasedStateMachine):
    """Devices that report, ops that correct, and maintenance that is killed."""

    fresh: ClassVar[Callable[[], tuple[DatabaseUrls, Unreliable]]]

    def __init__(self) -> None:
        super().__init__()
        urls, self.bucket = type(self).fresh()
        self.stack = ExitStack()
        self.store, self.ops, self.reader = (
            self.stack.enter_context(closing(Database(url)))
            for url in (urls.ingest, urls.correct, urls.read)
        )
        self.connection = self.stack.enter_context(connect(urls.maintain))
        archive = Archive(self.connection, self.bucket)
        self.archive, self.late = archive, LateReceipts(self.connection, archive)
        self.voids = ArchivedVoids(self.connection, archive)
        self.eraser = Eraser(self.connection, archive)
        self.known = Known()
        self.registers: dict[str, bool] = {}  # of those that were declared
        self.queued: list[list[Receipt]] = []
        self.delivered: list[list[Receipt]] = []
        self.pending: set[str] = set()
        self.voiding: set[Reading] = set()
        self.tariffs: set[tuple[str, datetime]] = set()
        self.accepted = datetime.now(UTC)

    def teardown(self) -> None:
        self.stack.close()

    def now(self) -> datetime:
        """Return an instant after all before, not ahead of the database's clock."""
        while (now := datetime.now(UTC)) <= self.accepted:
            pass
        self.accepted = now
        return now

    def holds(self) -> None:
        assert find_differences(self.connection) == []

    @initialize(
        declared=st.dictionaries(st.sampled_from(DEVICES), cadences),
        batch=st.lists(sent, min_size=1, max_size=8),
    )
    def first(self, declared: dict[str, int | None], batch: list[Any]) -> None:
        for device in sorted(declared):
            self.declare(device, cadence=declared[device], is_register=True)
        self.send(batch, "now")

    @rule(device=st.sampled_from(DEVICES), cadence=cadences, is_register=st.booleans())
    def declare(self, device: str, cadence: int | None, *, is_register: bool) -> None:
        if device in self.pending:
            return  # whether it goes with the erasure depends on what comes
        limits = {"registerModulus": float(MODULUS), "maxPowerKw": float(MOST_KW)}
        declaration = DeviceDeclaration.model_validate(
            {
                "energy": "register" if is_register else "interval",
                "cadenceSeconds": cadence,
                **limits,
            }
        )
        declare_device(self.store, device, declaration, self.now())
        self.registers[device] = is_register
        self.holds()

    @rule(batch=st.lists(sent, min_size=1, max_size=6), way=ways)
    def send(self, batch: list[Any], way: str) -> None:
        receipts = []
        for device, minute, extra, named, length in batch:
            is_register = self.registers.get(device, False)
            told = Decimal(5000 + 3 * minute + extra if is_register else 3 + abs(extra) % 7) / 10
            if told < 0 or (device in self.pending and is_register):
                continue
            meter = named if device.startswith("VEH") else None
            receipts.append(Receipt(device, minute, self.now(), told, is_register, meter, length))
        # Of archived days one by one: what of one call counts where is not told twice here.
        calls = [[one] for one in receipts]
        if all(one.time >= self.known.horizon(one.device) for one in receipts):
            calls = [receipts] if receipts else []
        for call in calls:
            if way == "later":
                self.queued.append(call)
            else:
                for _ in range(2 if way == "twice" else 1):
                    self.deliver(call)

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        for call in self.queued.pop(data.draw(st.integers(0, len(self.queued) - 1))):
            self.deliver([call])

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        for call in data.draw(st.sampled_from(self.delivered)):
            self.deliver([call])

    def deliver(self, receipts: list[Receipt]) -> None:
        # What a register of an archived day counts depends on how far an erasure of it is.
        receipts = [
            one
            for one in receipts
            if one.device not in self.pending
            or not one.is_register
            or one.time >= self.known.horizon(one.device)
        ]
        for device in sorted({one.device for one in receipts}):
            own = [one for one in receipts if one.device == device]
            self.known.take(own, self.shown(device))
        for name in ("METER", "VEH"):
            _write(self.store, [one for one in receipts if one.device.startswith(name)])
        self.delivered.append(receipts)
        self.holds()

    @rule(data=st.data())
    def void_or_withdraw(self, data: st.DataObject) -> None:
        readings = sorted({*self.known.kept, *self.known.aside})
        if not readings:
            return
        reading = device, time = data.draw(st.sampled_from(readings))
        stream = "meter" if device.startswith("METER") else "vehicle"
        asked = (*reading, "Ada", "a test", None)
        if reading in self.known.aside:
            shown = self.shown(device)
            statement = f"SELECT stream FROM withdraw_{stream}_void(%s, %s, %s, %s, %s)"
            [(found,)] = self.ops.fetch(statement, asked)
            assert found or device in self.pending
            receipts = self.known.aside.pop(reading)
            if time < self.known.horizon(device):
                last = receipts[max(receipts)]
                self.known.take([last], shown)
                if reading in self.known.kept:
                    self.known.kept[reading].update(receipts)
            else:
                self.known.take(receipts.values(), None)
        elif reading in self.voiding:
            statement = f"SELECT stream FROM withdraw_{stream}_void(%s, %s, %s, %s, %s)"
            assert self.ops.fetch(statement, asked) == [(stream,)] or device in self.pending
            self.voiding.remove(reading)
        else:
            statement = f"SELECT outcome FROM void_{stream}_reading(%s, %s, %s, %s, %s)"
            [(outcome,)] = self.ops.fetch(statement, asked)
            assert outcome in {"voided", "pending"} or device in self.pending
            if outcome == "voided":
                self.known.void(reading)
            elif outcome == "pending":
                self.voiding.add(reading)
        self.holds()

    @rule(device=st.sampled_from(DEVICES))
    def ask(self, device: str) -> None:
        if device in self.pending:
            return
        kind = "meterId" if device.startswith("METER") else "vehicleId"
        request = ErasureRequest.model_validate({kind: device} | SAID)
        erasure, is_new = request_erasure(self.ops, request, None)
        assert is_new
        self.known.asked.setdefault(device, []).append(erasure.asked.at)
        self.pending.add(device)
        self.holds()

    @rule(days=st.integers(0, 2), calls=st.integers(-1, 4), steps=st.integers(1, 9))
    def maintain(self, days: int, calls: int, steps: int) -> None:
        before = START.replace(hour=0) + days * DAY
        left = iter(range(steps))
        for step in (
            partial(self.archive.close_partitions, START - DAY if self.pending else before),
            partial(self.archive.move_closed, _always),
            partial(self.late.settle, _always),
            partial(self.voids.settle, _always),
            partial(self.eraser.erase, lambda: next(left, None) is not None),
        ):
            self.bucket.calls_left = calls
            try:
                step()
            except ArchiveUnavailable:
                assert calls >= 0
            self.bucket.calls_left = -1
            self.look_at_horizons()
            self.look_at_voids()
            self.holds()
        self.look_at_erasures()

    def shown(self, device: str) -> datetime | None:
        """Return the device time that the live row shows."""
        stream = "meter" if device.startswith("METER") else "vehicle"
        [(time,)] = self.connection.execute(
            f"SELECT max(last_timestamp) FROM {stream}_live_status WHERE {stream}_id = %s".encode(),
            (device,),
        )
        return time.astimezone(UTC) if time else None

    def look_at_horizons(self) -> None:
        for stream, archived_to in self.connection.execute("SELECT * FROM archive_horizon"):
            name = "METER" if stream == "meter" else "VEH"
            if archived_to.year > 1 and archived_to.astimezone(UTC) > self.known.horizons[name]:
                self.known.archive(name, archived_to.astimezone(UTC), self.registers)

    def look_at_voids(self) -> None:
        found = {
            (device, time.astimezone(UTC)): pending
            for device, time, pending in self.connection.execute(
                """SELECT meter_id, "timestamp", pending FROM meter_void WHERE withdrawn_at IS NULL
                   UNION ALL
                   SELECT vehicle_id, "timestamp", pending FROM vehicle_void
                   WHERE withdrawn_at IS NULL"""
            )
        }
        for reading in sorted(self.voiding):
            if not found.get(reading):
                self.voiding.remove(reading)
                if reading in found:
                    self.known.void(reading)

    def look_at_erasures(self) -> None:
        rows = self.connection.execute("SELECT device_id FROM erasure WHERE device_id IS NOT NULL")
        waiting = {device for (device,) in rows}
        for device in self.pending - waiting:
            self.known.erase(device)
            if device in self.registers and not self.is_declared(device):
                del self.registers[device]
        self.pending = waiting

    def is_declared(self, device: str) -> bool:
        found = self.connection.execute("SELECT FROM devices WHERE device_id = %s", (device,))
        return found.fetchone() is not None

    @rule(hours=st.integers(0, 60))
    def summarize(self, hours: int) -> None:
        refresh_summaries(self.connection, START + hours * HOUR, RULES)
        self.holds()

    @rule(
        vehicle=st.sampled_from(DEVICES[2:]),
        meter=st.sampled_from([None, *DEVICES[:2]]),
        minute=minutes,
    )
    def link(self, vehicle: str, meter: str | None, minute: int) -> None:
        at = START + (minute - 1) * MINUTE
        try:
            if meter:
                link_vehicle(self.store, vehicle, meter, at)
            else:
                unlink_vehicle(self.store, vehicle, at)
        except LinkNotFound:
            assert meter is None
        self.holds()

    @rule(tariff_id=st.sampled_from([FLEET, *DEVICES[:2]]), tariff=tariffs(START - DAY, 72))
    def price(self, tariff_id: str, tariff: Any) -> None:
        put_tariff(self.store, tariff_id, tariff)
        self.holds()

    @rule()
    def price_no_more(self) -> None:
        found = self.connection.execute(
            "SELECT meter_id, valid_from FROM tariff LIMIT 1"
        ).fetchall()
        for tariff_id, since in found:
            delete_tariff(self.store, tariff_id, since)
        self.holds()

    @precondition(lambda self: not self.pending)
    @rule()
    def everything_is_counted(self) -> None:
        self.archive.move_closed(_always)
        self.late.settle(_always)
        self.voids.settle(_always)
        assert (self.late.count(), self.voids.count()) == (0, 0)
        self.look_at_voids()
        assert not self.voiding
        self.holds()
        # In which hours the energy of each is, the machines of disorder and of the archive tell.
        expected: dict[str, tuple[dict[datetime, int], Decimal]] = {}
        for device in DEVICES:
            counted = self.known.counted(device)
            hours = Counter(
                (time - timedelta(microseconds=1)).replace(minute=0, second=0, microsecond=0)
                for _, time in counted
            )
            expected[device] = dict(hours), sum(counted.values(), Decimal())
        stored: dict[str, tuple[dict[datetime, int], Decimal]] = dict.fromkeys(
            DEVICES, ({}, Decimal())
        )
        for stream, kwh in (("meter", "kwh_consumed_ac"), ("vehicle", "kwh_delivered_dc")):
            for device, hour, readings, energy in self.connection.execute(
                f"SELECT {stream}_id, hour, readings, {kwh} FROM {stream}_hourly_rollup".encode()
            ):
                found, total = stored[device]
                ended = {hour.astimezone(UTC): readings} if readings else {}
                stored[device] = found | ended, total + energy
        assert stored == expected
        self.receipts_are_kept()
        self.reports_agree(expected)

    def receipts_are_kept(self) -> None:
        """Every receipt is in history or beside it; what else is there restates a register."""
        for stream, kwh in (("meter", "kwh_consumed_ac"), ("vehicle", "kwh_delivered_dc")):
            name = "METER" if stream == "meter" else "VEH"
            for table, held in (
                (f"{stream}_telemetry_history", self.known.kept),
                (f"{stream}_void_receipt", self.known.aside),
            ):
                found: dict[Reading, dict[datetime, tuple[Decimal, bool]]] = {}
                for device, time, accepted, told, is_register in self.connection.execute(
                    f"""SELECT {stream}_id, "timestamp", received_at, coalesce(register_kwh, {kwh}),
                               register_kwh IS NOT NULL FROM {table}""".encode()
                ):
                    receipts = found.setdefault((device, time.astimezone(UTC)), {})
                    receipts[accepted.astimezone(UTC)] = told, is_register
                horizon = self.known.horizons[name]
                kept = table.endswith("history")
                readings = {
                    reading
                    for reading in held
                    if reading[0].startswith(name) and (not kept or reading[1] >= horizon)
                }
                assert {one for one in found if not kept or one[1] >= horizon} == readings
                for reading in readings:
                    expected = {at: one[3:5] for at, one in held[reading].items()}
                    assert expected.items() <= found[reading].items()
                    for at in found[reading].keys() - expected.keys():
                        told, is_register = found[reading][at]
                        assert is_register
                        assert (told, True) in expected.values()

    def reports_agree(self, expected: dict[str, tuple[dict[datetime, int], Decimal]]) -> None:
        last = START.replace(hour=0) + 3 * DAY
        for vehicle in DEVICES[2:]:
            hours, total = expected[vehicle]
            if not hours or max(hours) >= last:
                continue
            shown = self.connection.execute(
                "SELECT FROM vehicle_live_status WHERE vehicle_id = %s", (vehicle,)
            ).fetchone()
            if shown is None:
                continue
            report = report_performance(self.reader, vehicle, RULES, last, 4 * DAY)
            assert report.dc_energy_delivered is not None
            assert abs(Decimal(str(report.dc_energy_delivered)) - total) <= Decimal("0.0005")


def _always() -> bool:
    return True


def _write(store: Database, receipts: list[Receipt]) -> None:
    if not receipts:
        return
    times = [one.accepted for one in receipts]
    if receipts[0].device.startswith("METER"):
        meters = [
            MeterReading.model_construct(
                meter_id=one.device,
                kwh_consumed_ac=float(one.told),
                voltage=230.0,
                timestamp=one.time,
                interval_seconds=one.length,
            )
            for one in receipts
        ]
        if len(meters) == 1:
            store_meter_reading(store, meters[0], times[0])
        else:
            store_meter_readings(store, meters, times)
        return
    vehicles = [
        VehicleReading.model_construct(
            vehicle_id=one.device,
            kwh_delivered_dc=float(one.told),
            battery_temp=25.0,
            soc=float(one.minute % 100) if one.minute % 3 else None,
            meter_id=one.named,
            timestamp=one.time,
            interval_seconds=one.length,
        )
        for one in receipts
    ]
    if len(vehicles) == 1:
        store_vehicle_reading(store, vehicles[0], times[0])
    else:
        store_vehicle_readings(store, vehicles, times)


def test_everything_at_once_is_what_was_accepted(server: Server, s3: Any) -> None:
    with make_fresh(server, template_at(server, START - DAY), s3) as fresh:
        Everything.fresh = staticmethod(fresh)
        run_state_machine_as_test(
            Everything,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
