"""Reports against a plain computation: any links, windows, order of arrival and summaries."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
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
from telemetry.fleet import Fleet, FleetSelection, FleetVehicle, LastRank, report_fleet
from telemetry.pages import decode_cursor
from telemetry.readings import MeterReading, VehicleReading
from telemetry.reports import (
    Rules,
    fetch_charging,
    report_dashboard,
    report_performance,
    rounded_energy,
)
from telemetry.store import (
    store_meter_reading,
    store_meter_readings,
    store_vehicle_reading,
    store_vehicle_readings,
)
from telemetry.summaries import refresh_summaries
from telemetry.verification import find_differences
from tests.integration.conftest import delete_all

START = datetime(2024, 2, 28, tzinfo=UTC)  # before a leap day
HOUR = timedelta(hours=1)
RULES = Rules(by_name=False, least_kwh=0, least_coverage=0)
VEHICLES = ("VEH-1", "VEH-2")
METERS = ("METER-1", "METER-2")


@dataclass
class Oracle:
    """Everything that was received, and what follows from it."""

    received: dict[tuple[str, datetime], Decimal] = field(default_factory=dict)
    claims: dict[tuple[str, datetime], str | None] = field(default_factory=dict)

    def readings(self, device: str, start: datetime, end: datetime) -> dict[datetime, Decimal]:
        return {
            time: kwh
            for (of, time), kwh in self.received.items()
            if of == device and start < time <= end
        }

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

    def consumed(self, vehicle: str, start: datetime, end: datetime) -> dict[datetime, Decimal]:
        return {
            time: kwh
            for meter in METERS
            for time, kwh in self.readings(meter, start, end).items()
            if self.meter_at(vehicle, time) == meter
        }


def minutes_of(times: Mapping[datetime, Decimal]) -> int:
    return len({-int(-time.timestamp() // 60) for time in times})


offsets = st.one_of(
    st.integers(0, 60 * 60).map(lambda minute: timedelta(minutes=minute)),
    st.integers(0, 60).map(lambda hour: hour * HOUR),
    st.integers(0, 60 * 3600 * 10).map(lambda tenth: timedelta(seconds=tenth / 10)),
)
events = st.one_of(
    st.tuples(
        st.just("store"),
        st.lists(
            st.tuples(st.sampled_from(VEHICLES + METERS), offsets, st.integers(0, 10_000)),
            min_size=1,
            max_size=12,
        ),
    ),
    st.tuples(
        st.just("link"),
        st.tuples(st.sampled_from(VEHICLES), st.sampled_from((*METERS, None)), offsets),
    ),
    st.tuples(st.just("refresh"), st.integers(0, 60)),
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
            assert row["readings"] == len(delivered)
            assert row["minutes_heard"] == minutes_of(delivered)
            assert row["kwh_delivered_dc"] == (sum(delivered.values()) if delivered else None)
            assert row["kwh_consumed_ac"] == (sum(consumed.values()) if consumed else None)
            assert row["meter_minutes"] == minutes_of(consumed)
        assert [
            vehicle.vehicle_id
            for vehicle in report_dashboard(reader, VEHICLES, RULES, end, hours * HOUR).vehicles
        ] == known

    summed = report_fleet(reader, RULES, FleetSelection(), START)
    assert {vehicle.vehicle_id for vehicle in summed.items} <= set(known)
    for vehicle in summed.items:
        _check_fleet_row(oracle, vehicle, summed.time_window_start, summed.time_window_end)
    if any(kind == "refresh" for kind, _ in history):
        # By rules that no window is summarized by, and that judge alike. It has also the vehicles
        # that were not heard of before the refresh.
        by_others, window = (
            replace(RULES, least_coverage=1e-9),
            FleetSelection(end=summed.time_window_end),
        )
        computed = report_fleet(reader, by_others, window, START).items
        before = {vehicle.vehicle_id for vehicle in summed.items}
        assert [vehicle for vehicle in computed if vehicle.vehicle_id in before] == summed.items
    _check_totals(summed)
    for status in get_args(ChargingStatus):
        assert _pages(reader, status) == [each for each in summed.items if each.status == status]


def _check_totals(fleet: Fleet) -> None:
    totals = fleet.totals
    assert totals.vehicles == len(fleet.items)
    for status in get_args(ChargingStatus):
        assert getattr(totals, status) == sum(each.status == status for each in fleet.items)
    known = [vehicle for vehicle in fleet.items if vehicle.loss_kwh is not None]
    for name in ("total_energy_consumed_ac", "total_energy_delivered_dc", "loss_kwh"):
        summed = sum(Decimal(str(getattr(vehicle, name))) for vehicle in known)
        assert getattr(totals, name) == (float(summed) if known else None)


def _pages(reader: Database, status: ChargingStatus) -> list[FleetVehicle]:
    """Read the fleet's vehicles of a status, one a page."""
    vehicles: list[FleetVehicle] = []
    after = None
    while True:
        page = report_fleet(
            reader, RULES, FleetSelection(status=status, limit=1, after=after), START
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
    assert vehicle.loss_kwh == (None if ac is None or dc is None else rounded_energy(ac - dc))


def _store(
    store: Database,
    oracle: Oracle,
    items: list[tuple[str, timedelta, int]],
    accepted: datetime,
) -> None:
    meters, vehicles = [], []
    for device, offset, watt_hours in items:
        time, kwh = START + offset, watt_hours / 1000
        oracle.received[device, time] = Decimal(watt_hours) / 1000
        if device in METERS:
            meters.append(
                MeterReading.model_construct(
                    meter_id=device, kwh_consumed_ac=kwh, voltage=230.0, timestamp=time
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


def test_gaps_are_found(reader: Database, urls: DatabaseUrls) -> None:
    store, oracle = Database(urls.ingest), Oracle()
    heard = [minute for minute in range(1, 121) if minute not in range(40, 52)]
    items = [("VEH-1", timedelta(minutes=minute), 1) for minute in heard]
    _store(store, oracle, items, START)
    store.close()
    found = report_performance(reader, "VEH-1", RULES, START + 2 * HOUR, 2 * HOUR)
    assert found.gaps is not None
    [gap] = found.gaps.vehicle
    assert gap.minutes == 12
    assert gap.start == START + timedelta(minutes=39)
    assert gap.end == START + timedelta(minutes=51)
    assert (found.coverage.vehicle.minutes_heard, found.coverage.vehicle.ratio) == (108, 0.9)
