"""Verdicts against a truth that knows a power curve by the second, and nothing of tables."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.databases import DatabaseUrls
from telemetry.alerts import Watch, evaluate_fleet
from telemetry.charging import Performance
from telemetry.database import Database, connect
from telemetry.devices import DeviceDeclaration, declare_device
from telemetry.faults import FaultSelection, list_faults
from telemetry.fleet import FleetSelection, report_fleet
from telemetry.ground_verification import unite
from telemetry.links import link_vehicle, unlink_vehicle
from telemetry.readings import MeterReading, VehicleReading
from telemetry.reports import report_performance
from telemetry.rules import Rules
from telemetry.store import store_meter_readings, store_vehicle_readings
from telemetry.summaries import refresh_summaries
from telemetry.verification import find_differences
from tests.conftest import unpooled
from tests.integration.conftest import delete_all

pytestmark = unpooled

EXAMPLES = int(os.environ.get("GROUND_EXAMPLES", "15"))
START = datetime(2026, 2, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
END = START + 36 * HOUR
RULES = Rules()

Hours = tuple[float, float]  # from and to, since START


@dataclass
class Side:
    """How a device reports: every so many seconds, from an offset on, and when it does not."""

    cadence: int = 60
    offset: int = 0  # seconds
    jitter: float = 0.0  # seconds
    loss: float = 0.0  # part of the readings
    silent: Sequence[Hours] = ()


@dataclass
class Charger:
    """A car that is charged with a power of so many kW, of which a part reaches the battery."""

    charges: Sequence[Hours]
    kw: float = 7.0
    efficiency: float = 0.9
    elsewhere: Sequence[Hours] = ()  # with 50 kW, at another charger
    meter: Side = field(default_factory=Side)
    vehicle: Side = field(default_factory=Side)
    is_register: bool = False
    vehicle_id: str = "VEH-1"
    hours: Hours = (0, 36)

    def ac_by(self, second: float) -> float:
        return self.kw * _overlap(self.charges, second) / 3600

    def dc_by(self, second: float) -> float:
        return self.efficiency * self.ac_by(second) + 50 * _overlap(self.elsewhere, second) / 3600

    def send(self, store: Database, random: Random | None = None) -> int:
        """Send what both sides tell; return in how many places something is missing."""
        random = random or Random(0)
        edges = 0
        for is_meter, side in ((True, self.meter), (False, self.vehicle)):
            before, told, was_lost = 3600 * self.hours[0], [], False
            second = before + side.offset
            while (second := second + side.cadence) <= 3600 * self.hours[1]:
                at = second + random.uniform(-side.jitter, side.jitter)
                hour = second / 3600
                lost = random.random() < side.loss or any(a < hour <= b for a, b in side.silent)
                edges += lost != was_lost
                was_lost = lost
                if not lost:
                    told.append((at, max(before, at - side.cadence)))
                before = at
            if is_meter:
                meters = [
                    MeterReading.model_construct(
                        meter_id="METER-1",
                        kwh_consumed_ac=8000 + self.ac_by(at)
                        if self.is_register
                        else self.ac_by(at) - self.ac_by(since),
                        voltage=230.0,
                        timestamp=START + timedelta(seconds=at),
                    )
                    for at, since in told
                ]
                store_meter_readings(store, meters, END)
            else:
                vehicles = [
                    VehicleReading.model_construct(
                        vehicle_id=self.vehicle_id,
                        kwh_delivered_dc=self.dc_by(at) - self.dc_by(since),
                        battery_temp=20.0,
                        soc=None,
                        meter_id=None,
                        timestamp=START + timedelta(seconds=at),
                    )
                    for at, since in told
                ]
                store_vehicle_readings(store, vehicles, END)
        return edges


def _overlap(spans: Sequence[Hours], second: float) -> float:
    return sum(max(0.0, min(second, 3600 * b) - 3600 * a) for a, b in spans)


@dataclass
class Operator:
    """Looks at what was made of it."""

    urls: DatabaseUrls
    store: Database
    reader: Database

    def ask(self, vehicle_id: str = "VEH-1") -> Performance:
        """Return the last day's report, before and after the summaries: they agree."""
        before = report_performance(self.reader, vehicle_id, RULES, END)
        with connect(self.urls.owner) as owner:
            refresh_summaries(owner, END, RULES)
            assert find_differences(owner) == []
        found = report_performance(self.reader, vehicle_id, RULES, END)
        assert found == before
        ranked = report_fleet(self.reader, RULES, FleetSelection(), END)
        [row] = [row for row in ranked.items if row.vehicle_id == vehicle_id]
        for name in ("status", "loss_kwh", "efficiency_ratio", "compared_kwh_ac", "dc_elsewhere"):
            assert getattr(row, name) == getattr(found, name)
        assert (ranked.totals.loss_kwh or 0) == pytest.approx(
            sum(row.loss_kwh or 0 for row in ranked.items), abs=0.01
        )
        _check_identities(found)
        return found

    def faults(self) -> list[tuple[str, str]]:
        """Judge the last two hours' windows; return kind and vehicle of each fault."""
        with connect(self.urls.alerts) as connection:
            evaluate_fleet(connection, RULES, Watch(), END + timedelta(minutes=5))
        return [
            (kind, fault.vehicle_id)
            for kind in ("efficiency", "implausible")
            for fault in list_faults(self.reader, FaultSelection(kind=kind)).items
        ]


def _check_identities(found: Performance) -> None:
    ac, dc = found.total_energy_consumed_ac, found.total_energy_delivered_dc
    if ac is not None:
        assert found.compared_kwh_ac is not None
        assert found.ac_unmatched is not None
        assert ac == pytest.approx(found.compared_kwh_ac + found.ac_unmatched, abs=0.002)
    if dc is not None:
        parts = found.compared_kwh_dc, found.dc_unmatched, found.dc_elsewhere
        assert dc == pytest.approx(sum(part or 0 for part in parts), abs=0.003)


@pytest.fixture
def operator(urls: DatabaseUrls) -> Iterator[Operator]:
    found = Operator(urls, Database(urls.ingest), Database(urls.read))
    yield found
    found.store.close()
    found.reader.close()


CHARGES = ((13, 19), (25, 28))


def test_a_complete_charger_is_what_its_totals_say(operator: Operator) -> None:
    Charger(CHARGES).send(operator.store)
    found = operator.ask()
    assert (found.status, found.efficiency_ratio, found.loss_kwh) == ("healthy", 90.0, 6.3)
    assert (found.compared_kwh_ac, found.ac_unmatched, found.dc_elsewhere) == (63.0, 0, 0)
    assert found.compared_minutes == 1440
    assert operator.faults() == []


def test_a_car_without_reception_makes_no_fault(operator: Operator) -> None:
    Charger(CHARGES, vehicle=Side(silent=[(13, 19)])).send(operator.store)
    found = operator.ask()
    assert (found.status, found.efficiency_ratio) == ("insufficient", 90.0)
    assert (found.compared_kwh_ac, found.ac_unmatched, found.loss_kwh) == (21.0, 42.0, 2.1)
    assert found.status_reason is not None
    assert found.status_reason.startswith("21 of 63 kWh AC flowed while the vehicle was heard, too")
    assert operator.faults() == []


def test_a_register_that_catches_up_makes_no_fault(operator: Operator) -> None:
    declaration = DeviceDeclaration.model_validate({"energy": "register", "maxPowerKw": 22})
    declare_device(operator.store, "METER-1", declaration, END - 40 * HOUR)
    Charger(((16, 22), (25, 28)), is_register=True, meter=Side(silent=[(16, 22.5)])).send(
        operator.store
    )
    found = operator.ask()
    assert (found.total_energy_consumed_ac, found.estimated_kwh_ac) == (63.0, 42.0)
    assert (found.compared_kwh_ac, found.efficiency_ratio) == (21.0, 90.0)
    assert found.status == "insufficient"
    assert operator.faults() == []


def test_a_failing_charger_is_found_though_its_meter_was_silent_for_a_third(
    operator: Operator,
) -> None:
    Charger(CHARGES, efficiency=0.75, meter=Side(silent=[(13, 16)])).send(operator.store)
    found = operator.ask()
    assert (found.status, found.efficiency_ratio, found.loss_kwh) == ("fault", 75.0, 10.5)
    assert (found.compared_kwh_dc, found.dc_unmatched) == (31.5, 15.75)
    assert operator.faults() == [("efficiency", "VEH-1")]


@pytest.mark.parametrize(
    ("efficiency", "status", "away"), [(0.75, "fault", 0.1), (0.92, "healthy", 0.66)]
)
def test_a_charge_elsewhere_says_nothing_of_the_charger_at_home(
    operator: Operator, efficiency: float, status: str, away: float
) -> None:
    Charger([(14, 19)], efficiency=efficiency, elsewhere=[(30, 30 + away)]).send(operator.store)
    link_vehicle(operator.store, "VEH-1", "METER-1", START)
    unlink_vehicle(operator.store, "VEH-1", START + 26 * HOUR)
    found = operator.ask()
    assert (found.status, found.efficiency_ratio) == (status, 100 * efficiency)
    assert found.dc_elsewhere == pytest.approx(50 * away)
    assert found.loss_kwh == pytest.approx(35 * (1 - efficiency))


def test_of_two_cars_in_turn_on_a_silent_meter_neither_is_judged_by_what_straddles(
    operator: Operator,
) -> None:
    declare_device(operator.store, "METER-1", DeviceDeclaration(energy="register"), END - 40 * HOUR)
    both = Charger(((16, 20), (22, 24)), kw=11, is_register=True, meter=Side(silent=[(17, 23)]))
    both.vehicle = Side(silent=[(21, 36)])
    both.send(operator.store)
    second = Charger([(22, 24)], kw=11, vehicle_id="VEH-2")
    second.meter = Side(silent=[(0, 36)])
    second.send(operator.store)
    link_vehicle(operator.store, "VEH-1", "METER-1", START)
    link_vehicle(operator.store, "VEH-2", "METER-1", START + 21 * HOUR)
    for vehicle_id in ("VEH-1", "VEH-2"):
        found = operator.ask(vehicle_id)
        assert (found.status, found.efficiency_ratio) == ("insufficient", 90.0)
    assert operator.faults() == []


def test_more_than_the_meter_measured_is_an_alert_of_its_own(operator: Operator) -> None:
    Charger(CHARGES, efficiency=1.2).send(operator.store)
    assert operator.ask().status == "implausible"
    assert operator.faults() == [("implausible", "VEH-1")]


def test_where_nothing_was_compared_the_ratio_is_of_the_totals(operator: Operator) -> None:
    charger = Charger([(14, 19), (20, 25)])
    charger.meter, charger.vehicle = Side(silent=[(19.5, 36)]), Side(silent=[(0, 19.5)])
    charger.send(operator.store)
    found = operator.ask()
    assert (found.status, found.efficiency_ratio, found.efficiency) == ("insufficient", 90.0, 0.9)
    assert (found.loss_kwh, found.compared_minutes) == (None, 0)
    assert "nothing was compared" in found.reasons["lossKwh"]
    assert found.status_reason == found.reasons["lossKwh"]


sides = st.builds(
    Side,
    cadence=st.sampled_from([60, 60, 60, 300, 900, 1800]),
    offset=st.integers(-30, 59),
    jitter=st.sampled_from([0.0, 0.0, 1.0, 3.0]),
    loss=st.sampled_from([0.0, 0.0, 0.01, 0.1]),
    silent=st.lists(
        st.tuples(st.integers(0, 34), st.sampled_from([0.1, 0.5, 2, 7])).map(
            lambda span: (float(span[0]), span[0] + span[1])
        ),
        max_size=2,
    ),
)
chargers = st.builds(
    Charger,
    charges=st.lists(
        st.tuples(st.floats(0, 35), st.sampled_from([0.3, 1.5, 4.0])), min_size=1, max_size=3
    ).map(lambda spans: [(begin, begin + length) for begin, length in spans]),
    kw=st.sampled_from([3.7, 7.0, 11.0, 22.0]),
    efficiency=st.sampled_from([0.895, 0.9, 0.92, 0.95, 0.75, 0.8]),
    elsewhere=st.lists(st.integers(0, 35).map(lambda hour: (hour + 0.25, hour + 0.5)), max_size=1),
    meter=sides,
    vehicle=sides,
)
links = st.one_of(st.none(), st.tuples(st.integers(0, 20), st.integers(21, 36)))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(charger=chargers, link=links, seed=st.integers(0, 1000))
def test_no_healthy_charger_is_ever_called_faulty(
    operator: Operator, charger: Charger, link: Any, seed: int
) -> None:
    with connect(operator.urls.owner) as owner:
        delete_all(owner)
    charger.charges = unite(charger.charges)
    for device, side in (("METER-1", charger.meter), ("VEH-1", charger.vehicle)):
        declaration = DeviceDeclaration.model_validate(
            {"energy": "interval", "cadenceSeconds": side.cadence}
        )
        declare_device(operator.store, device, declaration, END - 40 * HOUR)
    if link is not None:
        charger.elsewhere = [each for each in charger.elsewhere if each[0] >= link[1]]
        link_vehicle(operator.store, "VEH-1", "METER-1", START + link[0] * HOUR)
        unlink_vehicle(operator.store, "VEH-1", START + link[1] * HOUR)
    else:
        charger.elsewhere = []
    edges = charger.send(operator.store, Random(seed))
    with connect(operator.urls.owner) as owner:
        known = owner.execute("SELECT FROM vehicle_live_status").fetchall()
    if not known:
        return
    found = operator.ask()
    faults = operator.faults()
    if charger.efficiency > 0.85:
        assert faults == []
    of_ac, of_dc = found.compared_kwh_ac, found.compared_kwh_dc
    if of_ac and of_dc is not None:
        # Of each edge at most two minutes are on one side only, and as many of jitter.
        slack = charger.kw / 30 * (edges + 4) + 0.02 * of_ac
        assert abs(of_dc - charger.efficiency * of_ac) <= slack
    ac = found.total_energy_consumed_ac or 0
    enough = found.coverage.vehicle.ratio or 0, found.coverage.meter.ratio or 0
    if (
        charger.efficiency <= 0.8
        and of_ac
        and of_ac >= max(0.6 * ac, charger.kw / 3 * (edges + 4))
        and (of_dc or 0) >= 0.6 * ((of_dc or 0) + (found.dc_unmatched or 0))
        and min(enough) > 0.5
        and max(charger.meter.cadence, charger.vehicle.cadence) == 60
    ):
        assert found.status == "fault"
