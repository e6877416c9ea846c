"""The README of the second ancestor system, as it stands."""

from typing import Any

import psycopg
import pytest

from telemetry.database import Row
from tests.integration.conftest import Api

METER: dict[str, Any] = {
    "meterId": "METER-001",
    "kwhConsumedAc": 45.23,
    "voltage": 240.5,
    "timestamp": "2024-02-09T15:30:00Z",
}
VEHICLE: dict[str, Any] = {
    "vehicleId": "VEH-001",
    "soc": 85,
    "kwhDeliveredDc": 32.15,
    "batteryTemp": 28.3,
    "timestamp": "2024-02-09T15:30:00Z",
}


def test_meter_reading_is_ingested(api: Api) -> None:
    answer = api.post("/v1/ingestion/meter", METER)
    assert answer.status == 201
    assert answer.body == {
        "success": True,
        "message": "Meter METER-001 data ingested successfully",
    }


def test_vehicle_reading_is_ingested(api: Api) -> None:
    answer = api.post("/v1/ingestion/vehicle", VEHICLE)
    assert answer.status == 201
    assert answer.body == {
        "success": True,
        "message": "Vehicle VEH-001 data ingested successfully",
    }


def test_performance_covers_the_day_before_the_latest_reading(api: Api) -> None:
    api.post("/v1/ingestion/meter", METER)
    api.post("/v1/ingestion/vehicle", VEHICLE)
    answer = api.get("/v1/analytics/performance/VEH-001")
    assert answer.status == 200
    expected = {
        "vehicleId": "VEH-001",
        "totalEnergyConsumedAc": 45.23,
        "totalEnergyDeliveredDc": 32.15,
        "efficiencyRatio": 71.08,
        "averageBatteryTemp": 28.3,
        "timeWindowStart": "2024-02-08T15:30:00Z",
        "timeWindowEnd": "2024-02-09T15:30:00Z",
        "dataPoints": 1,
    }
    assert {field: answer.body[field] for field in expected} == expected


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("meter_telemetry_history", "meter_id, kwh_consumed_ac, voltage, timestamp"),
        (
            "vehicle_telemetry_history",
            "vehicle_id, kwh_delivered_dc, battery_temp, soc, timestamp",
        ),
        ("meter_live_status", "meter_id, last_kwh_consumed_ac, last_voltage, updated_at"),
        (
            "vehicle_live_status",
            "vehicle_id, soc, last_kwh_delivered_dc, avg_battery_temp, updated_at",
        ),
    ],
)
def test_tables_hold_what_was_sent(
    api: Api, connection: psycopg.Connection[Row], table: str, columns: str
) -> None:
    api.post("/v1/ingestion/meter", METER)
    api.post("/v1/ingestion/vehicle", VEHICLE)
    [row] = connection.execute(f"SELECT {columns} FROM {table}".encode())
    sent = METER if table.startswith("meter") else VEHICLE
    values = {value for value in sent.values() if isinstance(value, int | float)}
    assert {float(value) for value in row[1:] if not hasattr(value, "year")} == values


def test_live_tables_have_one_row_a_device(api: Api, connection: psycopg.Connection[Row]) -> None:
    for minute in range(3):
        api.post("/v1/ingestion/meter", METER | {"timestamp": f"2024-02-09T15:3{minute}:00Z"})
    [(count, newest)] = connection.execute(
        "SELECT count(*), max(last_timestamp) FROM meter_live_status"
    )
    assert (count, newest.minute) == (1, 32)
