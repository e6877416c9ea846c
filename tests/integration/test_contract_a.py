"""The README and the SQL test guide of the first ancestor system, as they stand."""

from typing import Any

import psycopg

from telemetry import __version__
from telemetry.database import Row
from tests.integration.conftest import Api

METER: dict[str, Any] = {
    "meterId": "MTR_001",
    "kwhConsumedAc": 5.5,
    "voltage": 220,
    "timestamp": "2026-02-10T10:00:00Z",
}
VEHICLE: dict[str, Any] = {
    "vehicleId": "VEH_001",
    "kwhDeliveredDc": 4.6,
    "batteryTemp": 32,
    "timestamp": "2026-02-10T10:00:00Z",
}


def test_root_says_which_service_this_is(api: Api) -> None:
    answer = api.get("/")
    assert answer.status == 200
    assert answer.body == {
        "service": "Energy Ingestion Engine",
        "status": "running",
        "version": __version__,
    }


def test_readings_come_back_as_performance(api: Api) -> None:
    meter = api.post("/ingest/meter", METER)
    assert (meter.status, meter.body["success"]) == (201, True)
    vehicle = api.post("/ingest/vehicle", VEHICLE)
    assert (vehicle.status, vehicle.body["success"]) == (201, True)

    answer = api.get("/v1/analytics/performance/VEH_001")
    assert answer.status == 200
    expected = {
        "vehicleId": "VEH_001",
        "acEnergyConsumed": 5.5,
        "dcEnergyDelivered": 4.6,
        "efficiency": 0.84,
        "avgBatteryTemp": 32,
    }
    assert {field: answer.body[field] for field in expected} == expected


def test_unknown_vehicle_is_not_found(api: Api) -> None:
    answer = api.get("/v1/analytics/performance/UNKNOWN")
    assert answer.status == 404
    timestamp = answer.body.pop("timestamp")
    assert timestamp.endswith("Z")
    assert answer.body == {
        "statusCode": 404,
        "path": "/v1/analytics/performance/UNKNOWN",
        "message": "Vehicle not found",
    }


def test_history_grows_with_every_telemetry_sent(
    api: Api, connection: psycopg.Connection[Row]
) -> None:
    for sent in range(1, 4):
        assert api.post("/ingest/meter", METER).status == 201
        assert api.post("/ingest/vehicle", VEHICLE).status == 201
        for view in ("meter_history", "vehicle_history"):
            [(count,)] = connection.execute(f"SELECT COUNT(*) FROM {view};".encode())
            assert count == sent


def test_new_values_under_an_old_timestamp_replace_the_one_live_row(
    api: Api, connection: psycopg.Connection[Row]
) -> None:
    api.post("/ingest/meter", METER)
    api.post("/ingest/meter", METER | {"kwhConsumedAc": 7.25, "voltage": 231})
    cursor = connection.execute("SELECT * FROM meter_live_state WHERE meter_id = 'MTR_001';")
    columns = [column.name for column in cursor.description or []]
    assert columns == ["meter_id", "kwh_consumed_ac", "voltage", "last_updated_at"]
    [row] = cursor.fetchall()
    assert (row[0], float(row[1]), row[2]) == ("MTR_001", 7.25, 231)

    api.post("/ingest/vehicle", VEHICLE | {"soc": 40})
    api.post("/ingest/vehicle", VEHICLE | {"kwhDeliveredDc": 6.1})
    cursor = connection.execute("SELECT * FROM vehicle_live_state WHERE vehicle_id = 'VEH_001';")
    columns = [column.name for column in cursor.description or []]
    assert columns == ["vehicle_id", "soc", "kwh_delivered_dc", "battery_temp", "last_updated_at"]
    [row] = cursor.fetchall()
    assert (row[0], row[1], float(row[2]), float(row[3])) == ("VEH_001", 40, 6.1, 32)


def test_history_views_have_the_columns_of_the_guide(connection: psycopg.Connection[Row]) -> None:
    for view, columns in {
        "meter_history": ["meter_id", "kwh_consumed_ac", "voltage", "timestamp"],
        "vehicle_history": ["vehicle_id", "soc", "kwh_delivered_dc", "battery_temp", "timestamp"],
    }.items():
        cursor = connection.execute(f"SELECT * FROM {view}".encode())
        assert [column.name for column in cursor.description or []] == columns
