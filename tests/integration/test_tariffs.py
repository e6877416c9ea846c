"""Prices by the hour, what the energy lost cost, and summaries that follow a tariff's changes."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.databases import DatabaseUrls
from telemetry.database import Database, connect
from telemetry.errors import TariffRefused
from telemetry.fleet import FleetSelection, report_fleet
from telemetry.readings import MeterReading, VehicleReading
from telemetry.rules import Rules
from telemetry.store import store_meter_readings, store_vehicle_readings
from telemetry.summaries import refresh_summaries
from telemetry.tariffs import FLEET, Tariff, delete_tariff, put_tariff
from telemetry.verification import find_differences
from tests.conftest import unpooled
from tests.integration.prices import PriceBook, tariffs

pytestmark = unpooled

HOUR = timedelta(hours=1)
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
RULES = Rules(by_name=True, least_kwh=0, least_coverage=0)
# Before clocks change: in Europe, in North America, on Lord Howe and in Adelaide, in Chile, in Iran
# (the last time), in Morocco, and where a day was left out.
CHANGES = [
    datetime.fromisoformat(text).replace(tzinfo=UTC)
    for text in (
        *("2026-03-28T18", "2026-10-24T18", "2026-03-08", "2026-11-01", "2026-04-04T09"),
        *("2026-10-03T09", "2026-04-04T20", "2022-03-21T12", "2022-09-21T12"),
        *("2026-02-14T18", "2026-03-21T18", "2011-12-29T12"),
    )
]


def make_tariff(price: float = 0.3, valid_from: datetime = MONDAY, **changes: Any) -> Tariff:
    tariff = Tariff.model_construct(
        currency="EUR",
        time_zone="UTC",
        price_per_kwh=price,
        kg_co2_per_kwh=0.4,
        periods=[],
        valid_from=valid_from,
        valid_to=None,
    )
    return tariff.model_copy(update=changes)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_an_hour_has_the_mean_price_of_its_quarters_by_local_clocks(
    urls: DatabaseUrls, writer: Database, data: st.DataObject
) -> None:
    start = data.draw(st.sampled_from(CHANGES))
    book = PriceBook()
    with connect(urls.owner) as owner:
        owner.execute("DELETE FROM tariff")
        for _ in range(data.draw(st.integers(1, 4))):
            tariff = data.draw(tariffs(start - 6 * HOUR, 24))
            tariff_id = data.draw(st.sampled_from((FLEET, "METER-1")))
            put_tariff(writer, tariff_id, tariff)
            book.versions[tariff_id, tariff.valid_from] = tariff
        found = owner.execute(
            "SELECT * FROM hour_prices(%s, %s, %s)",
            ([FLEET, "METER-1"], [start] * 2, [start + 30 * HOUR] * 2),
        ).fetchall()
    assert len(found) == 60
    for tariff_id, hour, price, co2 in found:
        assert (price, co2) == book.hour_price(tariff_id, hour.astimezone(UTC))


def charge(writer: Database, vehicles: int, hours: int, at: datetime = MONDAY) -> None:
    """Store a reading of each vehicle and its meter every half hour: 2 kWh AC, 1.5 or less DC."""
    times = [at + number * HOUR / 2 for number in range(1, 2 * hours + 1)]
    meters = [
        MeterReading.model_construct(
            meter_id=f"METER-{number}", kwh_consumed_ac=2.0, voltage=230.0, timestamp=time
        )
        for number in range(vehicles)
        for time in times
    ]
    batteries = [
        VehicleReading.model_construct(
            vehicle_id=f"VEH-{number}",
            soc=None,
            kwh_delivered_dc=max(0.0, 1.5 - number / 8),
            battery_temp=20.0,
            timestamp=time,
        )
        for number in range(vehicles)
        for time in times
    ]
    store_meter_readings(writer, meters, at)
    store_vehicle_readings(writer, batteries, at)


changes = st.one_of(
    st.tuples(
        st.just("put"),
        st.tuples(st.sampled_from((FLEET, "METER-0", "METER-1")), tariffs(MONDAY - HOUR, 30)),
    ),
    st.tuples(st.just("delete"), st.integers(0, 3)),
    st.tuples(st.just("refresh"), st.integers(24, 27)),
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(done=st.lists(changes, min_size=1, max_size=8))
def test_summaries_follow_every_change_of_a_tariff(
    urls: DatabaseUrls, writer: Database, reader: Database, done: list[Any]
) -> None:
    book = PriceBook()
    with connect(urls.owner) as owner:
        for table in (b"tariff", b"fleet_window", b"fleet_totals", b"vehicle_summary"):
            owner.execute(b"DELETE FROM " + table)
        if owner.execute("SELECT count(*) FROM vehicle_live_status").fetchall() == [(0,)]:
            charge(writer, 2, 30)
        refresh_summaries(owner, MONDAY + 24 * HOUR, RULES)
        for kind, what in done:
            if kind == "refresh":
                refresh_summaries(owner, MONDAY + what * HOUR, RULES)
            elif kind == "put":
                tariff_id, tariff = what
                put_tariff(writer, tariff_id, tariff)
                book.versions[tariff_id, tariff.valid_from] = tariff
            else:
                for key in sorted(book.versions)[what : what + 1]:
                    del book.versions[key]
                    delete_tariff(writer, *key)
            assert find_differences(owner) == []
            fleet = report_fleet(reader, RULES, FleetSelection(), MONDAY)
            for vehicle in fleet.items:
                lost = Decimal(1) + Decimal(vehicle.vehicle_id[-1]) / 4  # kWh an hour
                priced = [
                    book.hour_price(f"METER-{vehicle.vehicle_id[-1]}", hour)
                    for hour in (fleet.time_window_start + n * HOUR for n in range(24))
                ]
                cost, co2 = (
                    None if None in each else float(lost * sum(each, start=Decimal()))
                    for each in zip(*priced, strict=True)
                )
                assert (vehicle.loss_cost, vehicle.loss_co2_kg) == (cost, co2)


def test_a_year_of_a_fleet_of_which_each_meter_has_a_tariff_is_answered(
    urls: DatabaseUrls, writer: Database, reader: Database
) -> None:
    charge(writer, 40, 24)
    for number in range(40):
        put_tariff(writer, f"METER-{number}", make_tariff(0.5))
    year = FleetSelection(end=MONDAY + 24 * HOUR, length=366 * 24 * HOUR)
    report = report_fleet(reader, RULES, year, MONDAY)  # the reader's limit is 5 s
    assert report.items[0].loss_cost == pytest.approx(0.5 * 48 * 2.0)


def test_a_tariff_put_while_summaries_are_made_is_in_them_or_they_are_stale(
    urls: DatabaseUrls, writer: Database, reader: Database
) -> None:
    charge(writer, 5, 24)

    def put_many() -> None:
        for number in range(20):
            put_tariff(writer, FLEET, make_tariff(number / 10))

    with ThreadPoolExecutor() as pool, connect(urls.owner) as owner:
        putting = pool.submit(put_many)
        for number in range(20):
            refresh_summaries(owner, MONDAY + (24 - number % 2) * HOUR, RULES)
        putting.result()
        assert find_differences(owner) == []
    [first, *_] = report_fleet(reader, RULES, FleetSelection(), MONDAY).items
    assert first.vehicle_id == "VEH-4"


def test_of_two_first_tariffs_of_different_currencies_one_stays(urls: DatabaseUrls) -> None:
    def put(currency: str) -> bool:
        database = Database(urls.ingest)
        try:
            return put_tariff(database, f"METER-{currency}", make_tariff(currency=currency))
        except TariffRefused:
            return False
        finally:
            database.close()

    with ThreadPoolExecutor() as pool:
        assert sorted(pool.map(put, ("EUR", "USD"))) == [False, True]
    with connect(urls.owner) as owner:
        assert len(owner.execute("SELECT currency FROM tariff").fetchall()) == 1
