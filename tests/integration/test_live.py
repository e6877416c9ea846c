"""Live state: what each device reported last, its age and status, and the paged lists."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry import live
from telemetry.database import Database, Row
from telemetry.live import DeviceSelection, LiveDevices, Liveness, Status
from telemetry.pages import LastDevice, decode_cursor
from telemetry.readings import MeterReading, VehicleReading
from telemetry.store import store_meter_readings, store_vehicle_readings
from tests.conftest import unpooled
from tests.integration.conftest import Api, delete_all

pytestmark = unpooled

NOW = datetime(2026, 2, 10, 12, tzinfo=UTC)
MICROSECOND, MINUTE, HOUR = timedelta(microseconds=1), timedelta(minutes=1), timedelta(hours=1)
LIVENESS = Liveness(5 * MINUTE, HOUR)


def post_vehicle(api: Api, time: datetime, **values: object) -> None:
    body = {"vehicleId": "VEH-1", "kwhDeliveredDc": 0.25, "batteryTemp": -3.5, **values}
    answer = api.post("/v1/ingestion/vehicle", body | {"timestamp": time.isoformat()})
    assert answer.status == 201


def post_meter(api: Api, time: datetime, **values: object) -> None:
    body = {"meterId": "METER-1", "kwhConsumedAc": 0.5, "voltage": 231.5, **values}
    answer = api.post("/v1/ingestion/meter", body | {"timestamp": time.isoformat()})
    assert answer.status == 201


def test_a_vehicle_shows_its_newest_reading_and_the_newest_known_charge(api: Api) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    post_vehicle(api, now - 3 * MINUTE, soc=80)
    post_vehicle(api, now - 2 * MINUTE)
    post_vehicle(api, now - 4 * MINUTE, soc=20, kwhDeliveredDc=0)
    answer = api.get("/v1/live/vehicles/VEH-1")
    found = answer.body
    assert answer.status == 200
    assert 120 <= found.pop("ageSeconds") <= 130
    assert timedelta(0) <= datetime.fromisoformat(found.pop("receivedAt")) - now < MINUTE
    assert found == {
        "vehicleId": "VEH-1",
        "timestamp": f"{now - 2 * MINUTE:%Y-%m-%dT%H:%M:%SZ}",
        "kwhDeliveredDc": 0.25,
        "batteryTemp": -3.5,
        "soc": 80,
        "socTimestamp": f"{now - 3 * MINUTE:%Y-%m-%dT%H:%M:%SZ}",
        "status": "online",
        "cadenceSeconds": 60,
        "charging": True,
    }


def test_a_meter_shows_its_newest_reading(api: Api) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    post_meter(api, now - 2 * HOUR)
    found = api.get("/v1/live/meters/METER-1").body
    assert 7200 <= found.pop("ageSeconds") <= 7210
    assert datetime.fromisoformat(found.pop("receivedAt")) >= now
    assert found == {
        "meterId": "METER-1",
        "timestamp": f"{now - 2 * HOUR:%Y-%m-%dT%H:%M:%SZ}",
        "kwhConsumedAc": 0.5,
        "voltage": 231.5,
        "status": "offline",
        "cadenceSeconds": 60,
    }


def test_a_clock_that_is_ahead_gives_no_negative_age(api: Api) -> None:
    post_vehicle(api, datetime.now(UTC) + 2 * MINUTE, kwhDeliveredDc=0)
    found = api.get("/v1/live/vehicles/VEH-1").body
    assert (found["ageSeconds"], found["status"], found["charging"]) == (0, "online", False)
    assert (found["soc"], found["socTimestamp"]) == (None, None)


@pytest.mark.parametrize(("stream", "name"), [("meters", "Meter"), ("vehicles", "Vehicle")])
def test_a_device_that_never_reported_is_not_found(api: Api, stream: str, name: str) -> None:
    answer = api.get(f"/v1/live/{stream}/none")
    assert (answer.status, answer.body["message"]) == (404, f"{name} not found")
    assert answer.body["path"] == f"/v1/live/{stream}/none"
    assert api.get(f"/v1/live/{stream}").body == {"items": [], "nextCursor": None}


AGES: list[tuple[timedelta, Status]] = [
    (-MINUTE, "online"),
    (5 * MINUTE, "online"),
    (5 * MINUTE + MICROSECOND, "stale"),
    (HOUR, "stale"),
    (HOUR + MICROSECOND, "offline"),
    (timedelta(days=9000), "offline"),
]


def test_status_and_charging_follow_from_age(writer: Database, reader: Database) -> None:
    expected: dict[str, tuple[Status, bool | None]] = {}
    for age, status in AGES:
        for kwh in (0.0, 0.001):
            name = f"VEH-{len(expected)}"
            expected[name] = (status, kwh > 0 if status == "online" else None)
            store_vehicle_readings(writer, [vehicle(name, NOW - age, kwh, None)], NOW)
    devices = LiveDevices(reader, LIVENESS)
    for name, shown in expected.items():
        found = devices.find_vehicle(name, NOW)
        assert (found.status, found.charging) == shown
        for charging in (True, False):
            listed = devices.list_vehicles(DeviceSelection(), NOW, charging=charging).items
            assert (found in listed) == (shown[1] is charging)


def test_every_wrong_parameter_of_a_list_is_named(api: Api) -> None:
    answer = api.get("/v1/live/vehicles?status=idle&charging=perhaps&limit=1001&cursor=x")
    assert answer.status == 400
    assert {error["field"] for error in answer.body["errors"]} == {
        "status",
        "charging",
        "limit",
        "cursor",
    }
    for cursor in ("", "====", "é", "e30", "eyJkZXZpY2VfaWQiOiJcdTAwMDAifQ"):  # {}, an id of NUL
        answer = api.get(f"/v1/live/meters?cursor={quote(cursor)}")
        assert [error["field"] for error in answer.body["errors"]] == ["cursor"], cursor
    assert api.get("/v1/live/meters?limit=0").status == 400


def vehicle(vehicle_id: str, time: datetime, kwh: float, length: float | None) -> VehicleReading:
    return VehicleReading.model_construct(
        vehicle_id=vehicle_id,
        soc=None,
        kwh_delivered_dc=kwh,
        battery_temp=20.0,
        timestamp=time,
        interval_seconds=length,
    )


def meter(meter_id: str, time: datetime, kwh: float, length: float | None) -> MeterReading:
    return MeterReading.model_construct(
        meter_id=meter_id,
        kwh_consumed_ac=kwh,
        voltage=230.0,
        timestamp=time,
        interval_seconds=length,
    )


# How long intervals are, and how old a reading of such may be: online, and stale. One of more than
# an hour says nothing of how often the device reports.
LENGTHS: dict[float | None, tuple[int, int]] = {
    None: (300, 3600),
    5: (300, 3600),
    900: (1350, 3600),
    3600: (5400, 10800),
    7200: (300, 3600),
}
devices = st.dictionaries(
    st.text("Aa-:_.9", min_size=1, max_size=3),
    st.tuples(
        st.sampled_from([0, 299, 300, 301, 1350, 1351, 3600, 3601, 5400, 5401, 10800, 10801]),
        st.sampled_from([0.0, 1.5]),
        st.sampled_from(list(LENGTHS)),
    ),
    max_size=12,
)


def expected_status(age: int, length: float | None) -> Status:
    online, stale = LENGTHS[length]
    return "online" if age <= online else "stale" if age <= stale else "offline"


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    reported=devices,
    status=st.sampled_from([None, "online", "stale", "offline"]),
    charging=st.sampled_from([None, True, False]),
    limit=st.integers(1, 13),
    scanned=st.integers(1, 13),
)
def test_the_pages_of_any_selection_make_up_the_list(
    connection: psycopg.Connection[Row],
    writer: Database,
    reader: Database,
    reported: dict[str, tuple[int, float, float | None]],
    status: Status | None,
    charging: bool | None,
    limit: int,
    scanned: int,
) -> None:
    statuses = {name: expected_status(age, length) for name, (age, _, length) in reported.items()}
    expected = [name for name in sorted(reported) if status in {None, statuses[name]}]
    vehicles = [
        name
        for name in expected
        if charging is None or (statuses[name] == "online" and (reported[name][1] > 0) is charging)
    ]
    found = LiveDevices(reader, LIVENESS)
    delete_all(connection)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(live, "MOST_SCANNED", scanned)
        rows = [
            (name, NOW - timedelta(seconds=age), kwh, length)
            for name, (age, kwh, length) in reported.items()
        ]
        if rows:
            store_vehicle_readings(writer, [vehicle(*row) for row in rows], NOW)
            store_meter_readings(writer, [meter(*row) for row in rows], NOW)
        listed = [
            [item.vehicle_id for item in page]
            for page in pages(
                lambda selection: found.list_vehicles(selection, NOW, charging), status, limit
            )
        ]
        listed_meters = [
            [item.meter_id for item in page]
            for page in pages(lambda selection: found.list_meters(selection, NOW), status, limit)
        ]
    assert [name for page in listed for name in page] == vehicles
    assert [name for page in listed_meters for name in page] == expected
    if limit < scanned and status is None and charging is None:
        assert [len(page) for page in listed[:-1]] == [limit] * (len(listed) - 1)


def pages(fetch: Any, status: Status | None, limit: int) -> Sequence[list[Any]]:
    found, after = [], None
    while True:
        page = fetch(DeviceSelection(status, after, limit))
        assert len(page.items) <= limit
        found.append(page.items)
        if page.next_cursor is None:
            return found
        after = decode_cursor(LastDevice, page.next_cursor)


def test_a_device_that_reports_while_pages_are_read_is_listed_once(api: Api) -> None:
    now = datetime.now(UTC)
    names = [f"VEH-{number}" for number in range(10)]
    for name in names:
        post_vehicle(api, now - MINUTE, vehicleId=name)
    listed, cursor = [], ""
    while cursor is not None:
        page = api.get(
            f"/v1/live/vehicles?limit=3&status=online{cursor and '&cursor='}{cursor}"
        ).body
        listed += [item["vehicleId"] for item in page["items"]]
        cursor = page["nextCursor"]
        for name in names:
            post_vehicle(api, now, vehicleId=name)
        post_vehicle(api, now, vehicleId="VEH-0a")  # before where the first page ended
    assert listed == names
