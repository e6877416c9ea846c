"""Reports against a plain computation: any links, windows, order of arrival and summaries."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.databases import DatabaseUrls
from telemetry.charging import ChargingStatus
from telemetry.database import Database, Row, connect
from telemetry.figures import rounded_cost, rounded_energy
from telemetry.fleet import (
    Fleet,
    FleetSelection,
    FleetSort,
    FleetVehicle,
    LastRank,
    report_fleet,
)
from telemetry.ground_verification import Reading
from telemetry.pages import decode_cursor
from telemetry.readings import MeterReading, VehicleReading
from telemetry.reports import fetch_charging, report_dashboard, report_performance
from telemetry.rules import Rules
from telemetry.store import (
    store_meter_reading,
    store_meter_readings,
    store_vehicle_reading,
    store_vehicle_readings,
)
from telemetry.summaries import refresh_summaries
from telemetry.tariffs import FLEET, Tariff, delete_tariff, put_tariff
from telemetry.verification import find_differences
from tests.conftest import unpooled
from tests.integration.conftest import delete_all
from tests.integration.ground import Compared, compare_hours
from tests.integration.oracle import flowed
from tests.integration.prices import PriceBook, tariffs

pytestmark = unpooled

START = datetime(2024, 2, 28, tzinfo=UTC)  # before a leap day
HOUR, MICROSECOND = timedelta(hours=1), timedelta(microseconds=1)
RULES = Rules(by_name=False, least_kwh=0, least_coverage=0)
VEHICLES = ("VEH-1", "VEH-2")
METERS = ("METER-1", "METER-2")

Piece = tuple[datetime, datetime]


@dataclass
class Oracle:
    """Everything that was received, and what follows from it.

    Energy and length of each reading; null is a minute.
    """

    received: dict[tuple[str, datetime], tuple[Decimal, float | None]] = field(default_factory=dict)
    longest: dict[str, float] = field(default_factory=dict)
    claims: dict[tuple[str, datetime], str | None] = field(default_factory=dict)
    prices: PriceBook = field(default_factory=PriceBook)

    def ended(self, device: str, start: datetime, end: datetime) -> set[datetime]:
        """Return when readings ended."""
        return {time for of, time in self.received if of == device and start < time <= end}

    def readings(self, device: str, start: datetime, end: datetime) -> dict[Piece, Decimal]:
        """Return what flowed, in pieces that end where an hour or a link does: end and reading."""
        cuts = {START + hour * HOUR for hour in range(-48, 150)} | {at for _, at in self.claims}
        found: dict[Piece, Decimal] = {}
        for (of, time), (kwh, length) in self.received.items():
            begun = time - timedelta(seconds=length or 0)
            if length is None or length <= 60:
                begun = time - MICROSECOND
            opened, closed = max(start, begun), min(end, time)
            if of != device or opened >= closed:
                continue
            bounds = [opened, *sorted(cut for cut in cuts if opened < cut < closed), closed]
            by = [
                flowed(kwh, *((at - START) // MICROSECOND for at in (begun, time, bound)))
                for bound in bounds
            ]
            for bound, earlier, later in zip(bounds[1:], by, by[1:], strict=False):
                found[bound, time] = later - earlier
        return found

    def meter_at(self, vehicle: str, time: datetime) -> str | None:
        """Return the meter that feeds a vehicle just before and at an instant."""
        own = [(start, meter) for (of, start), meter in self.claims.items() if of == vehicle]
        last = max((claim for claim in own if claim[0] < time), default=None)
        if last is None or last[1] is None:
            return None
        rivals = [
            start
            for (of, start), meter in self.claims.items()
            if of != vehicle and meter == last[1] and (last[0], vehicle) < (start, of)
        ]
        return None if any(start < time for start in rivals) else last[1]

    def consumed(self, vehicle: str, start: datetime, end: datetime) -> dict[Piece, Decimal]:
        return {
            piece: kwh
            for meter in METERS
            for piece, kwh in self.readings(meter, start, end).items()
            if self.meter_at(vehicle, piece[0]) == meter
        }

    def parts(
        self, vehicle: str, start: datetime, end: datetime
    ) -> list[tuple[str, datetime, datetime]]:
        """Return which meter fed a vehicle when, in (start, end]."""
        own = sorted((at, meter) for (of, at), meter in self.claims.items() if of == vehicle)
        found = []
        for number, (since, meter) in enumerate(own):
            ends = [end, *(at for at, _ in own[number + 1 : number + 2])]
            ends += [
                at
                for (of, at), claimed in self.claims.items()
                if of != vehicle and claimed == meter and (since, vehicle) < (at, of)
            ]
            opened, closed = max(since, start), min(ends)
            if meter is not None and opened < closed:
                found.append((meter, opened, closed))
        return found

    def compared(self, vehicle: str, start: datetime, end: datetime) -> list[tuple[str, Compared]]:
        """Return what of the energies is compared, in each hour and link of (start, end]."""
        of_vehicle, longest = self.side(vehicle)
        found = []
        for meter, opened, closed in self.parts(vehicle, start, end):
            of_meter, its_longest = self.side(meter)
            first, last = ((at - START) // MICROSECOND for at in (opened, closed))
            ever = max(longest, its_longest)
            found += [
                (meter, hour) for hour in compare_hours(of_meter, of_vehicle, first, last, ever)
            ]
        return found

    def side(self, device: str) -> tuple[list[Reading], int]:
        """Return a device's readings, and how long the longest ever was."""
        found = []
        for (of, time), (kwh, length) in self.received.items():
            if of == device:
                ends = (time - START) // MICROSECOND
                found.append(Reading(ends - round((length or 60) * 10**6), ends, kwh))
        return found, round(self.longest.get(device, 60) * 10**6)

    def loss_costs(
        self, vehicle: str, start: datetime, end: datetime
    ) -> tuple[Decimal | None, Decimal | None]:
        """Return what the energy lost in (start, end] cost, and its CO2, where they are known."""
        if not self.prices.versions or self.lost(vehicle, start, end) is None:
            return None, None
        costs: list[Decimal | None] = [Decimal(), Decimal()]
        for meter, each in self.compared(vehicle, start, end):
            hour = START + each.hour * MICROSECOND
            for number, price in enumerate(self.prices.hour_price(meter, hour)):
                known = costs[number]
                if price is None and (each.compared_ac or each.compared_dc):
                    costs[number] = None
                elif known is not None:
                    costs[number] = known + (each.compared_ac - each.compared_dc) * (price or 0)
        return costs[0], costs[1]

    def lost(self, vehicle: str, start: datetime, end: datetime) -> Decimal | None:
        """Return AC - DC of what was compared, where it is known."""
        if not self.consumed(vehicle, start, end) or not self.readings(vehicle, start, end):
            return None
        hours = [each for _, each in self.compared(vehicle, start, end)]
        ac, dc, of_ac, of_dc = (
            sum((getattr(each, name) for each in hours), Decimal())
            for name in ("ac", "dc", "compared_ac", "compared_dc")
        )
        return None if of_ac == of_dc == 0 and (ac or dc) else of_ac - of_dc

    def rank_by_cost(self, start: datetime, end: datetime) -> bool:
        """Tell whether the fleet has a tariff in the window."""
        ordered = sorted(key for key in self.prices.versions if key[0] == FLEET)
        return any(
            key[1] < end
            and ((valid_to := self.prices.versions[key].valid_to) is None or valid_to > start)
            for key in ordered
        )


def minutes_of(pieces: Iterable[Piece]) -> int:
    return len({-int(-time.timestamp() // 60) for _, time in pieces})


offsets = st.one_of(
    st.integers(0, 60 * 60).map(lambda minute: timedelta(minutes=minute)),
    st.integers(0, 60).map(lambda hour: hour * HOUR),
    st.integers(0, 60 * 3600 * 10).map(lambda tenth: timedelta(seconds=tenth / 10)),
)
lengths = st.sampled_from([None, None, None, 30, 900, 3000.5, 7200, 100_000])
events = st.one_of(
    st.tuples(
        st.just("store"),
        st.lists(
            st.tuples(st.sampled_from(VEHICLES + METERS), offsets, st.integers(0, 10_000), lengths),
            min_size=1,
            max_size=12,
        ),
    ),
    st.tuples(
        st.just("link"),
        st.tuples(st.sampled_from(VEHICLES), st.sampled_from((*METERS, None)), offsets),
    ),
    st.tuples(st.just("refresh"), st.integers(0, 60)),
    st.tuples(st.just("tariff"), st.tuples(st.sampled_from((FLEET, *METERS)), tariffs(START, 50))),
    st.tuples(st.just("delete tariff"), st.integers(0, 5)),
)
windows = st.tuples(offsets, st.integers(1, 72))


@pytest.fixture
def reader(urls: DatabaseUrls) -> Iterator[Database]:
    opened = Database(urls.read)
    yield opened
    opened.close()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(history=st.lists(events, min_size=1, max_size=12), asked=st.lists(windows, min_size=1))
def test_every_number_is_what_history_says(
    urls: DatabaseUrls, reader: Database, history: list[Any], asked: list[tuple[timedelta, int]]
) -> None:
    oracle, store = Oracle(), Database(urls.ingest)
    with connect(urls.owner) as owner:
        delete_all(owner)
        for number, (kind, what) in enumerate(history):
            accepted = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=number)
            if kind == "store":
                _store(store, oracle, what, accepted)
            elif kind == "link":
                _link(owner, oracle, *what)
            elif kind == "tariff":
                _put_tariff(store, oracle, *what)
            elif kind == "delete tariff":
                for key in sorted(oracle.prices.versions)[what : what + 1]:
                    del oracle.prices.versions[key]
                    delete_tariff(store, *key)
            else:
                refresh_summaries(owner, START + what * HOUR, RULES)
        assert find_differences(owner) == []
    store.close()

    known = [each for each in VEHICLES if any(of == each for of, _ in oracle.received)]
    for offset, hours in asked:
        end = START + offset
        start = end - hours * HOUR
        for row in fetch_charging(
            reader, VEHICLES, RULES, ends=[end] * len(VEHICLES), length=hours * HOUR
        ):
            delivered = oracle.readings(row["vehicle_id"], start, end)
            consumed = oracle.consumed(row["vehicle_id"], start, end)
            assert row["readings"] == len(oracle.ended(row["vehicle_id"], start, end))
            assert row["kwh_dc"] == (sum(delivered.values()) if delivered else None)
            assert row["kwh_ac"] == (sum(consumed.values()) if consumed else None)
            if all(length is None for _, length in oracle.received.values()):
                assert row["minutes_heard"] == minutes_of(delivered)
                assert row["meter_minutes"] == minutes_of(consumed)
            _check_compared(
                row, [each for _, each in oracle.compared(row["vehicle_id"], start, end)]
            )
            costs = oracle.loss_costs(row["vehicle_id"], start, end)
            assert (row.get("loss_cost"), row.get("loss_co2_kg")) == costs
            assert row.get("currency") == ("EUR" if oracle.prices.versions else None)
        assert [
            vehicle.vehicle_id
            for vehicle in report_dashboard(reader, VEHICLES, RULES, end, hours * HOUR).vehicles
        ] == known

    for sort in get_args(FleetSort):
        _check_fleet(oracle, reader, history, known, sort)
    found = report_fleet(reader, RULES, FleetSelection(), START)
    by_cost = oracle.rank_by_cost(found.time_window_start, found.time_window_end)
    assert found.sort == ("cost" if by_cost else "energy")


def _check_compared(row: dict[str, Any], hours: Sequence[Compared]) -> None:
    if row["kwh_dc"] is not None:
        assert row["kwh_dc_linked"] == sum(each.dc for each in hours)
        assert row["kwh_dc_compared"] == sum(each.compared_dc for each in hours)
    if row["kwh_ac"] is not None:
        assert row["kwh_ac_compared"] == sum(each.compared_ac for each in hours)
    assert row["compared_minutes"] == sum(each.seconds for each in hours) // 60
    unsure = sum(each.unsure for each in hours)
    assert round(row["kwh_unsure"] or Decimal(), 9) == round(unsure, 9)


def _check_fleet(
    oracle: Oracle, reader: Database, history: list[Any], known: list[str], sort: FleetSort
) -> None:
    summed = report_fleet(reader, RULES, FleetSelection(sort=sort), START)
    assert summed.sort == sort
    lost = [each.loss_cost if sort == "cost" else each.loss_kwh for each in summed.items]
    assert lost == sorted(lost, key=lambda loss: -math.inf if loss is None else loss, reverse=True)
    assert {vehicle.vehicle_id for vehicle in summed.items} <= set(known)
    for vehicle in summed.items:
        _check_fleet_row(oracle, vehicle, summed.time_window_start, summed.time_window_end)
    if any(kind == "refresh" for kind, _ in history):
        # By rules that no window is summarized by, and that judge alike. It has also the vehicles
        # that were not heard of before the refresh.
        by_others, window = (
            RULES._replace(least_kwh=1e-13),
            FleetSelection(end=summed.time_window_end, sort=sort),
        )
        computed = report_fleet(reader, by_others, window, START).items
        before = {vehicle.vehicle_id for vehicle in summed.items}
        assert [vehicle for vehicle in computed if vehicle.vehicle_id in before] == summed.items
    _check_totals(summed)
    for status in get_args(ChargingStatus):
        assert _pages(reader, status, sort) == [
            each for each in summed.items if each.status == status
        ]


def _check_totals(fleet: Fleet) -> None:
    totals = fleet.totals
    assert totals.vehicles == len(fleet.items)
    for status in get_args(ChargingStatus):
        assert getattr(totals, status) == sum(each.status == status for each in fleet.items)
    known = [vehicle for vehicle in fleet.items if vehicle.loss_kwh is not None]
    for name in ("total_energy_consumed_ac", "total_energy_delivered_dc", "loss_kwh"):
        summed = sum(Decimal(str(getattr(vehicle, name))) for vehicle in known)
        assert getattr(totals, name) == (pytest.approx(float(summed), abs=0.01) if known else None)
    for name in ("loss_cost", "loss_co2_kg"):
        values = [value for each in fleet.items if (value := getattr(each, name)) is not None]
        summed = sum(Decimal(str(value)) for value in values)
        assert getattr(totals, name) == (pytest.approx(float(summed), abs=0.01) if values else None)


def _pages(reader: Database, status: ChargingStatus, sort: FleetSort) -> list[FleetVehicle]:
    """Read the fleet's vehicles of a status, one a page."""
    vehicles: list[FleetVehicle] = []
    after = None
    while True:
        page = report_fleet(
            reader, RULES, FleetSelection(status=status, limit=1, after=after, sort=sort), START
        )
        vehicles += page.items
        if page.next_cursor is None:
            return vehicles
        after = decode_cursor(LastRank, page.next_cursor)


def _check_fleet_row(oracle: Oracle, vehicle: FleetVehicle, start: datetime, end: datetime) -> None:
    delivered = oracle.readings(vehicle.vehicle_id, start, end)
    consumed = oracle.consumed(vehicle.vehicle_id, start, end)
    dc = sum(delivered.values()) if delivered else None
    ac = sum(consumed.values()) if consumed else None
    assert vehicle.total_energy_delivered_dc == rounded_energy(dc)
    assert vehicle.total_energy_consumed_ac == rounded_energy(ac)
    assert vehicle.loss_kwh == rounded_energy(oracle.lost(vehicle.vehicle_id, start, end))
    cost, co2 = oracle.loss_costs(vehicle.vehicle_id, start, end)
    assert (vehicle.loss_cost, vehicle.loss_co2_kg) == (rounded_cost(cost), rounded_energy(co2))


def _store(
    store: Database,
    oracle: Oracle,
    items: Sequence[tuple[str, timedelta, int, float | None]],
    accepted: datetime,
) -> None:
    meters, vehicles = [], []
    for device, offset, watt_hours, length in items:
        time, kwh = START + offset, watt_hours / 1000
        oracle.received[device, time] = Decimal(watt_hours) / 1000, length
        oracle.longest[device] = max(oracle.longest.get(device, 60), length or 60)
        if device in METERS:
            meters.append(
                MeterReading.model_construct(
                    meter_id=device,
                    kwh_consumed_ac=kwh,
                    voltage=230.0,
                    timestamp=time,
                    interval_seconds=length,
                )
            )
        else:
            vehicles.append(
                VehicleReading.model_construct(
                    vehicle_id=device,
                    soc=None,
                    kwh_delivered_dc=kwh,
                    battery_temp=20.0,
                    timestamp=time,
                    interval_seconds=length,
                )
            )
    # As the API does: one reading by the function for one.
    if len(meters) == 1:
        store_meter_reading(store, meters[0], accepted)
    elif meters:
        store_meter_readings(store, meters, accepted)
    if len(vehicles) == 1:
        store_vehicle_reading(store, vehicles[0], accepted)
    elif vehicles:
        store_vehicle_readings(store, vehicles, accepted)


def _link(
    owner: psycopg.Connection[Row],
    oracle: Oracle,
    vehicle: str,
    meter: str | None,
    offset: timedelta,
) -> None:
    oracle.claims[vehicle, START + offset] = meter
    owner.execute(
        """
        INSERT INTO links (vehicle_id, valid_from, meter_id, source) VALUES (%s, %s, %s, 'api')
        ON CONFLICT (vehicle_id, valid_from) DO UPDATE SET meter_id = excluded.meter_id
        """,
        (vehicle, START + offset, meter),
    )


def _put_tariff(store: Database, oracle: Oracle, tariff_id: str, tariff: Tariff) -> None:
    key = (tariff_id, tariff.valid_from)
    assert put_tariff(store, tariff_id, tariff) == (key not in oracle.prices.versions)
    oracle.prices.versions[key] = tariff


def test_a_day_that_was_heard_from_in_its_first_hour_alone_counts(
    reader: Database, urls: DatabaseUrls
) -> None:
    store = Database(urls.ingest)
    items = [("VEH-1", timedelta(minutes=30), 1, None), ("VEH-1", 30 * HOUR, 2, None)]
    with connect(urls.owner) as owner:
        refresh_summaries(owner, START, RULES)
        _store(store, Oracle(), items, START)
        refresh_summaries(owner, START + 48 * HOUR, RULES)
    store.close()
    found = report_performance(reader, "VEH-1", RULES, START + 48 * HOUR, 48 * HOUR)
    assert found.data_points == 2


def test_gaps_are_found(reader: Database, urls: DatabaseUrls) -> None:
    store, oracle = Database(urls.ingest), Oracle()
    heard = [minute for minute in range(1, 121) if minute not in range(40, 52)]
    items = [("VEH-1", timedelta(minutes=minute), 1, None) for minute in heard]
    _store(store, oracle, items, START)
    store.close()
    found = report_performance(reader, "VEH-1", RULES, START + 2 * HOUR, 2 * HOUR)
    assert found.gaps is not None
    [gap] = found.gaps.vehicle
    assert gap.minutes == 12
    assert gap.start == START + timedelta(minutes=39)
    assert gap.end == START + timedelta(minutes=51)
    assert (found.coverage.vehicle.minutes_heard, found.coverage.vehicle.ratio) == (108, 0.9)
