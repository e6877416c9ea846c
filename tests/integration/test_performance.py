"""The performance answer: which readings count, which meter, and why a number is not known."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.databases import DatabaseUrls
from telemetry.database import Database, connect
from telemetry.readings import MeterReading, VehicleReading
from telemetry.reasons import possible_meters
from telemetry.reports import report_performance
from telemetry.rules import Rules
from telemetry.store import store_meter_readings, store_vehicle_readings
from tests.integration.conftest import Api, delete_all

END = datetime(2026, 2, 10, 12, 34, tzinfo=UTC)
DAY = timedelta(hours=24)


def meter_at(api: Api, time: datetime, kwh: float = 1, meter_id: str = "METER-7") -> None:
    body = {"meterId": meter_id, "kwhConsumedAc": kwh, "voltage": 230}
    answer = api.post("/v1/ingestion/meter", body | {"timestamp": time.isoformat()})
    assert answer.status == 201


def vehicle_at(api: Api, time: datetime, kwh: float = 1, vehicle_id: str = "VEH-7") -> None:
    body = {"vehicleId": vehicle_id, "kwhDeliveredDc": kwh, "batteryTemp": 20 + kwh}
    answer = api.post("/v1/ingestion/vehicle", body | {"timestamp": time.isoformat()})
    assert answer.status == 201


def performance(api: Api, query: str = "", vehicle_id: str = "VEH-7") -> dict[str, Any]:
    answer = api.get(f"/v1/analytics/performance/{vehicle_id}{query}")
    assert answer.status == 200
    body: dict[str, Any] = answer.body
    return body


def test_the_window_is_open_at_its_start_and_closed_at_its_end(api: Api) -> None:
    for time, kwh in ((END - DAY, 100), (END - DAY + timedelta(seconds=1), 1), (END, 2)):
        meter_at(api, time, kwh * 2)
        vehicle_at(api, time, kwh)
    found = performance(api)
    assert (found["dcEnergyDelivered"], found["acEnergyConsumed"]) == (3, 6)
    assert (found["dataPoints"], found["efficiency"], found["efficiencyRatio"]) == (2, 0.5, 50)
    assert found["avgBatteryTemp"] == found["averageBatteryTemp"] == 21.5
    assert found["reasons"] == {}


def test_any_window_may_be_asked_for(api: Api) -> None:
    vehicle_at(api, END, 2)
    vehicle_at(api, END - timedelta(days=300), 5)
    early = (END - timedelta(days=300) + timedelta(hours=1)).isoformat()
    found = performance(api, "?end=" + early.replace("+", "%2B"))
    assert (found["dcEnergyDelivered"], found["timeWindowEnd"]) == (5, early[:19] + "Z")
    assert performance(api)["dcEnergyDelivered"] == 2

    now = performance(api, "?end=now")
    assert datetime.fromisoformat(now["timeWindowEnd"]) > END
    assert (now["dcEnergyDelivered"], now["dataPoints"]) == (None, 0)
    assert now["reasons"]["dcEnergyDelivered"] == "VEH-7 has no readings in the window"


def test_only_the_vehicles_own_meter_counts(api: Api) -> None:
    vehicle_at(api, END, 4)
    meter_at(api, END, 5)
    for other in ("METER-8", "METER-77", "METER_7", "7", "MTR-70"):
        meter_at(api, END, 1000, other)
    found = performance(api)
    assert (found["acEnergyConsumed"], found["meterId"]) == (5, "METER-7")


def test_no_meter_is_no_energy_but_a_reason(api: Api) -> None:
    vehicle_at(api, END, 4)
    found = performance(api)
    for field in ("acEnergyConsumed", "totalEnergyConsumedAc", "efficiency", "meterId"):
        assert found[field] is None
        assert "no METER-7 or MTR-7 has reported" in found["reasons"][field]
    assert found["dcEnergyDelivered"] == 4


def test_two_meters_of_one_suffix_are_ambiguous(api: Api) -> None:
    vehicle_at(api, END, 4)
    meter_at(api, END, 5, "METER-7")
    meter_at(api, END, 5, "MTR-7")
    found = performance(api)
    assert found["acEnergyConsumed"] is None
    assert "both METER-7 and MTR-7 have reported" in found["reasons"]["efficiency"]


def test_a_meter_that_was_linked_to_another_vehicle_is_nobodys_by_its_name(api: Api) -> None:
    vehicle_at(api, END, 4)
    meter_at(api, END, 5)
    since = {"validFrom": (END + DAY).isoformat()}
    assert api.put("/v1/links/VEH-8", {"meterId": "METER-7"} | since).status == 201
    found = performance(api)
    assert found["acEnergyConsumed"] is None
    assert found["reasons"]["meterId"].endswith("METER-7 is linked to another vehicle")


def test_a_silent_meter_is_named(api: Api) -> None:
    vehicle_at(api, END, 4)
    meter_at(api, END - timedelta(days=2))
    found = performance(api)
    assert (found["acEnergyConsumed"], found["meterId"]) == (None, "METER-7")
    assert found["reasons"]["efficiency"] == "METER-7 has no readings in the window"


def test_no_energy_has_no_efficiency(api: Api) -> None:
    vehicle_at(api, END, 0)
    meter_at(api, END, 0)
    found = performance(api)
    assert (found["acEnergyConsumed"], found["efficiency"]) == (0, None)
    assert found["reasons"]["efficiency"] == "no AC energy was consumed"


def test_a_vehicle_of_another_name_has_no_meter(api: Api) -> None:
    vehicle_at(api, END, 1, "truck:9")
    found = performance(api, vehicle_id="truck:9")
    assert found["meterId"] is None
    assert "is not VEH, a separator and a suffix" in found["reasons"]["meterId"]


def test_meters_are_paired_by_separator_and_suffix() -> None:
    assert possible_meters("VEH_001") == ["METER_001", "MTR_001"]
    assert possible_meters("VEH-a.b") == ["METER-a.b", "MTR-a.b"]
    assert possible_meters("VEH001") == possible_meters("veh-1") == possible_meters("VEH-") == []


seconds = st.integers(min_value=-3 * 3600, max_value=27 * 3600).map(float)
on_the_hour = st.integers(min_value=-3, max_value=27).map(lambda hour: hour * 3600.0)
offsets = st.one_of(seconds, on_the_hour, seconds.map(lambda value: value + 0.000001))


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    readings=st.lists(
        st.tuples(offsets, st.integers(min_value=0, max_value=10_000)), min_size=1, max_size=30
    ),
    end=offsets,
)
def test_energy_of_any_window_is_the_sum_of_its_readings(
    urls: DatabaseUrls, readings: list[tuple[float, int]], end: float
) -> None:
    start = datetime(2026, 1, 31, tzinfo=UTC)
    database, reader = Database(urls.ingest), Database(urls.read)
    with connect(urls.owner) as connection:
        delete_all(connection)
        for number, (offset, watt_hours) in enumerate(readings):
            accepted = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=number)
            time = start + timedelta(seconds=offset)
            kwh = watt_hours / 1000
            vehicle = VehicleReading.model_construct(
                vehicle_id="VEH-1",
                soc=None,
                kwh_delivered_dc=kwh,
                battery_temp=kwh,
                timestamp=time,
            )
            meter = MeterReading.model_construct(
                meter_id="MTR-1", kwh_consumed_ac=kwh, voltage=230.0, timestamp=time
            )
            store_vehicle_readings(database, [vehicle], accepted)
            store_meter_readings(database, [meter], accepted)
        window_end = start + timedelta(seconds=end)
        found = report_performance(reader, "VEH-1", Rules(), window_end)
        latest = dict(readings)  # of the receipts of one reading the last one counts
        inside = [
            Decimal(watt_hours) / 1000
            for offset, watt_hours in latest.items()
            if end - DAY.total_seconds() < offset <= end
        ]
    database.close()
    reader.close()
    assert found.data_points == len(inside)
    expected = float(sum(inside)) if inside else None
    assert found.dc_energy_delivered == expected
    assert found.ac_energy_consumed == expected
    if inside:
        assert found.avg_battery_temp == pytest.approx(float(sum(inside)) / len(inside), abs=0.006)
