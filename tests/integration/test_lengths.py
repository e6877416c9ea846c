"""Readings of any length, as a device vendor and an operator meet them: over HTTP."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from local.databases import DatabaseUrls
from telemetry.database import Row, connect
from telemetry.redeclarations import store_again
from telemetry.verification import find_differences
from tests.conftest import unpooled
from tests.integration.conftest import Api, Queues

pytestmark = unpooled

NOON = datetime.fromisoformat("2026-02-10T12:00:00Z")
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
PERFORMANCE = f"/v1/analytics/performance/VEH-1?end={NOON:%Y-%m-%dT%H:%M:%SZ}"
NIGHT = {"days": ["mon", "tue", "wed"], "from": "00:00", "to": "06:00", "pricePerKwh": 0.1}
TARIFF = {
    "currency": "EUR",
    "timeZone": "UTC",
    "pricePerKwh": 0.3,
    "periods": [NIGHT],
    "validFrom": "2026-02-01T00:00:00Z",
}


@pytest.fixture
def maintain(urls: DatabaseUrls) -> Iterator[Callable[[], int]]:
    """Store again what is declared otherwise since, as the maintenance does."""
    with connect(urls.maintain) as connection:
        yield lambda: store_again(connection, lambda: True)


def send(api: Api, stream: str, readings: list[dict[str, Any]], status: int = 201) -> Any:
    answer = api.post(f"/v1/ingestion/{stream}/batch", readings)
    assert answer.status == status, answer.body
    return answer.body


def meter(time: datetime, kwh: float, **fields: Any) -> dict[str, Any]:
    known = {"meterId": "METER-1", "kwhConsumedAc": kwh, "voltage": 230}
    return known | {"timestamp": time.isoformat()} | fields


def vehicle(time: datetime, kwh: float, **fields: Any) -> dict[str, Any]:
    known = {"vehicleId": "VEH-1", "kwhDeliveredDc": kwh, "batteryTemp": 20}
    return known | {"timestamp": time.isoformat()} | fields


def send_day(api: Api, step: timedelta, lost: int = 0, **fields: Any) -> None:
    """Send a day's readings of 6 kW in and 5.4 kW out; of every `lost` ones the last is missing."""
    hours = step / HOUR
    times = [NOON - number * step for number in range(DAY // step)]
    kept = [time for place, time in enumerate(times) if not lost or place % lost != lost - 1]
    for start in range(0, len(kept), 10_000):
        part = kept[start : start + 10_000]
        send(api, "meter", [meter(time, 6 * hours, **fields) for time in part])
        send(api, "vehicle", [vehicle(time, 5.4 * hours, **fields) for time in part])


def declare(api: Api, seconds: int, **fields: Any) -> None:
    for device in ("METER-1", "VEH-1"):
        body = {"energy": "interval", "cadenceSeconds": seconds} | fields
        assert api.put(f"/v1/devices/{device}", body).status in {200, 201}


@pytest.mark.parametrize("minutes", [5, 10, 15, 30, 60])
def test_a_complete_device_is_judged_whatever_its_cadence(api: Api, minutes: int) -> None:
    declare(api, 60 * minutes)
    send_day(api, minutes * MINUTE)
    found = api.get(PERFORMANCE).body
    assert (found["status"], found["efficiencyRatio"]) == ("healthy", 90)
    assert found["coverage"]["vehicle"] == found["coverage"]["meter"]
    assert found["coverage"]["vehicle"] == {
        "minutesHeard": 1440,
        "minutesExpected": 1440,
        "ratio": 1,
    }
    assert (found["gaps"]["vehicle"], found["gaps"]["meter"]) == ([], [])
    assert (found["dataPoints"], found["estimatedKwhAc"]) == (1440 // minutes, 0)


def test_a_reading_tells_its_own_length_whatever_is_declared(api: Api) -> None:
    declare(api, 3600)
    send_day(api, 15 * MINUTE, intervalSeconds=900)
    found = api.get(PERFORMANCE).body
    assert (found["status"], found["coverage"]["vehicle"]["ratio"]) == ("healthy", 1)
    [first, *_] = api.get("/v1/meters/METER-1/readings?limit=2").body["items"]
    assert (first["intervalSeconds"], first["toldSeconds"]) == (900, 900)


def test_a_device_that_is_not_declared_is_told_how_to_be(
    api: Api, maintain: Callable[[], int]
) -> None:
    send_day(api, 15 * MINUTE)
    found = api.get(PERFORMANCE).body
    assert found["status"] == "insufficient"
    for device in ("VEH-1", "METER-1"):
        assert (
            f"{device} reports every 900 s and each reading counts for 60 s, because it is not "
            f'declared: PUT /v1/devices/{device} {{"energy": "interval", "cadenceSeconds": 900}}'
        ) in found["statusReason"]
    listed = api.get("/v1/devices?undeclared=true").body["items"]
    assert [(one["deviceId"], one["cadenceSeenSeconds"]) for one in listed] == [
        ("METER-1", 900),
        ("VEH-1", 900),
    ]
    pages = api.get("/v1/devices?undeclared=true&limit=1").body
    assert [one["deviceId"] for one in pages["items"]] == ["METER-1"]
    rest = api.get(f"/v1/devices?undeclared=true&limit=1&cursor={pages['nextCursor']}").body
    assert [one["deviceId"] for one in rest["items"]] == ["VEH-1"]
    assert rest["nextCursor"] is None
    dashboard = api.get(
        f"/v1/analytics/performance?vehicleIds=VEH-1&end={NOON.isoformat()}".replace("+", "%2B")
    )
    assert "METER-1 reports every 900 s" in dashboard.body["vehicles"][0]["statusReason"]

    # From now on: nobody is told so again, and what came already is as it was.
    declare(api, 900)
    found = api.get(PERFORMANCE).body
    assert (found["status"], "declared" in found["statusReason"]) == ("insufficient", False)

    # With a validFrom in the past, what came already is stored again.
    declare(api, 900, validFrom="2026-01-01T00:00:00Z")
    assert maintain() == 2
    found = api.get(PERFORMANCE).body
    assert (found["status"], found["efficiencyRatio"]) == ("healthy", 90)
    assert api.get("/v1/devices?undeclared=true").body["items"] == []
    # Taken back, as if it had never been.
    for device in ("METER-1", "VEH-1"):
        path = f"/v1/devices/{device}?validFrom=2026-01-01T00:00:00Z"
        assert api.delete(path).status == 200
    assert maintain() == 2
    assert api.get(PERFORMANCE).body["status"] == "insufficient"


def test_a_car_that_is_often_out_of_reception_is_not_taken_for_a_slow_one(api: Api) -> None:
    times = [NOON - hour * HOUR - minute * MINUTE for hour in range(24) for minute in range(5)]
    send(api, "vehicle", [vehicle(time, 0.1) for time in times])
    assert api.get("/v1/devices?undeclared=true").body["items"] == []


def test_a_fast_device_that_loses_half_is_not_complete(api: Api) -> None:
    send_day(api, timedelta(seconds=5), lost=2, intervalSeconds=5)
    found = api.get(PERFORMANCE).body
    assert found["coverage"]["vehicle"]["ratio"] == 0.5
    assert found["dataPoints"] == 8640


def test_gaps_are_longer_than_one_and_a_half_cadences(api: Api) -> None:
    declare(api, 900)
    lost = {3, 10, 11}
    times = [NOON - number * 15 * MINUTE for number in range(96) if number not in lost]
    send(api, "vehicle", [vehicle(time, 1) for time in times])
    found = api.get(PERFORMANCE).body
    assert [gap["minutes"] for gap in found["gaps"]["vehicle"]] == [30]
    assert found["coverage"]["vehicle"]["minutesHeard"] == 1440 - 45


def test_what_a_register_catches_up_after_an_outage_is_spread_over_its_hours(
    api: Api, connection: psycopg.Connection[Row]
) -> None:
    # Silent from 22:00 to 06:00: 42 kWh of which most flowed at night.
    assert api.put("/v1/tariffs/fleet", TARIFF).status == 201
    for device in ("METER-1", "VEH-1"):
        assert api.put(f"/v1/devices/{device}", {"energy": "register"}).status == 201
    evening, morning = NOON - 14 * HOUR, NOON - 6 * HOUR
    send(api, "meter", [meter(evening, 1000), meter(morning, 1042)])
    send(api, "vehicle", [vehicle(evening, 500), vehicle(morning, 500 + 37.8)])
    found = api.get(f"/v1/analytics/performance/VEH-1?end={morning:%Y-%m-%dT%H:%M:%SZ}").body
    assert (found["totalEnergyConsumedAc"], found["estimatedKwhAc"]) == (42, 42)
    assert (found["totalEnergyDeliveredDc"], found["estimatedKwhDc"]) == (37.8, 37.8)
    # Nobody knows when it flowed, so nothing can be compared.
    assert (found["acUnmatched"], found["dcUnmatched"]) == (42, 37.8)
    assert (found["lossKwh"], found["lossCost"], found["efficiencyRatio"]) == (None, None, 90)
    assert found["status"] == "insufficient"
    [gap] = found["gaps"]["meter"][-1:]
    assert (gap["start"], gap["end"]) == ("2026-02-09T22:00:00Z", "2026-02-10T06:00:00Z")
    trend = api.get(
        f"/v1/analytics/vehicles/VEH-1/trend?bucket=hour&buckets=8&end={morning:%Y-%m-%dT%H:%M:%SZ}"
    ).body["items"]
    assert [hour["totalEnergyConsumedAc"] for hour in trend] == [5.25] * 8
    # What is between two instants adds up to the last decimal.
    hours = connection.execute("SELECT sum(kwh_consumed_ac) FROM meter_hourly_rollup").fetchone()
    assert hours == (42,)
    assert find_differences(connection) == []


def test_energy_is_not_lost_for_a_broken_sensor(api: Api) -> None:
    send(api, "meter", [meter(NOON, 5, voltage=None), meter(NOON - MINUTE, 5, voltage=210)])
    send(
        api,
        "vehicle",
        [vehicle(NOON - n * MINUTE, 4.5, batteryTemp=t) for n, t in ((1, 31), (0, None))],
    )
    found = api.get(PERFORMANCE).body
    assert (found["totalEnergyConsumedAc"], found["totalEnergyDeliveredDc"]) == (10, 9)
    assert (found["avgBatteryTemp"], found["averageBatteryTemp"]) == (31, 31)
    assert api.get("/v1/live/meters/METER-1").body["voltage"] is None
    assert api.get("/v1/live/vehicles/VEH-1").body["batteryTemp"] is None
    assert api.post("/ingest/meter", meter(NOON, 5, voltage=None)).status == 201
    assert api.post("/ingest/vehicle", vehicle(NOON, 5, batteryTemp=None)).status == 201
    # Absent is not null.
    for path, reading, field in (
        ("/ingest/meter", meter(NOON, 5), "voltage"),
        ("/ingest/vehicle", vehicle(NOON, 5), "batteryTemp"),
    ):
        del reading[field]
        answer = api.post(path, reading)
        assert (answer.status, answer.body["errors"]) == (
            400,
            [{"field": field, "message": "Field required"}],
        )


def test_an_hour_that_a_corrected_reading_is_no_longer_in_has_nothing(
    api: Api, connection: psycopg.Connection[Row]
) -> None:
    later = NOON + 4 * MINUTE
    for seconds in (7200, 30):
        send(api, "vehicle", [vehicle(later, 0, intervalSeconds=seconds)])
    found = api.get(PERFORMANCE).body
    assert found["totalEnergyDeliveredDc"] is None
    assert found["reasons"]["totalEnergyDeliveredDc"] == "VEH-1 has no readings in the window"
    hours = connection.execute("SELECT count(*) FROM vehicle_hourly_rollup").fetchone()
    assert hours == (1,)


@pytest.mark.parametrize("seconds", [0, 0.999, 2_678_401, -60, "900", True])
def test_a_length_is_a_number_of_seconds_up_to_31_days(api: Api, seconds: Any) -> None:
    answer = api.post("/ingest/meter", meter(NOON, 5, intervalSeconds=seconds))
    assert (answer.status, answer.body["errors"][0]["field"]) == (400, "intervalSeconds")


@pytest.mark.parametrize("seconds", [0, 86_401, 900.5, "900"])
def test_a_cadence_is_a_whole_number_of_seconds_up_to_a_day(api: Api, seconds: Any) -> None:
    answer = api.put("/v1/devices/METER-1", {"energy": "interval", "cadenceSeconds": seconds})
    assert (answer.status, answer.body["errors"][0]["field"]) == (400, "cadenceSeconds")


@pytest.mark.parametrize(
    ("declared", "told", "lead"),
    [(None, None, 60), (900, None, 900), (None, 900, 60), (900, 5, 5), (None, 5, 5)],
)
def test_a_reading_claims_its_meter_from_the_start_of_its_interval(
    api: Api, declared: int | None, told: float | None, lead: int
) -> None:
    if declared:
        declare(api, declared)
    fields = {"meterId": "METER-9"} | ({"intervalSeconds": told} if told else {})
    send(api, "vehicle", [vehicle(NOON, 1, **fields)])
    [link] = api.get("/v1/links/VEH-1").body["links"]
    assert datetime.fromisoformat(link["validFrom"]) == NOON - timedelta(seconds=lead)


def test_a_claim_moves_with_the_declared_cadence(
    api: Api, maintain: Callable[[], int], connection: psycopg.Connection[Row]
) -> None:
    send(api, "vehicle", [vehicle(NOON, 1, meterId="METER-9")])
    for seconds in (900, 300):
        declare(api, seconds, validFrom="2026-01-01T00:00:00Z")
        maintain()
        [link] = api.get("/v1/links/VEH-1").body["links"]
        assert datetime.fromisoformat(link["validFrom"]) == NOON - timedelta(seconds=seconds)
        assert find_differences(connection) == []


def test_intervals_of_many_hours_delay_nobody(api: Api, queues: Queues) -> None:
    readings = [
        meter(NOON, 5, meterId=f"METER-{number}", intervalSeconds=2_678_400) for number in range(80)
    ]
    assert send(api, "meter", readings, status=202)["accepted"] == 80
    # In messages that a worker gets through: 50,000 hours in each.
    bodies = [record["body"] for record in queues.receive("MeterBackfillQueue")]
    assert len(bodies) == 2
    assert queues.receive("MeterQueue") == []
