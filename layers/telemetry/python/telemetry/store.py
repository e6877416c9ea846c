"""The write path: history, live row and hourly rollup in one transaction and one round trip.

The work is done by the stored functions of migrations 0002 and 0003.
"""

from collections.abc import Sequence
from datetime import datetime

from telemetry.arrays import (
    encode_consecutive_times,
    encode_floats,
    encode_ids,
    encode_optional_floats,
    encode_times,
)
from telemetry.database import Database
from telemetry.readings import MeterReading, VehicleReading

_STORE_METER_READING = "SELECT store_meter_reading(%s, %s, %s, %s, %s)"
_STORE_METER_READINGS = """
    SELECT store_meter_readings(
        %s::text[], %s, %s, %s, %s)
"""
_STORE_VEHICLE_READING = "SELECT store_vehicle_reading(%s, %s, %s, %s, %s, %s)"
_STORE_VEHICLE_READINGS = """
    SELECT store_vehicle_readings(
        %s::text[], %s, %s, %s, %s, %s)
"""


def store_meter_reading(database: Database, reading: MeterReading, received_at: datetime) -> None:
    """Store one reading; when this returns, it is durable.

    received_at is when the API accepted it. Storing the same reading with the same received_at
    again changes nothing. Raises DatabaseUnavailable.
    """
    database.fetch(
        _STORE_METER_READING,
        (
            reading.meter_id,
            reading.timestamp,
            received_at,
            reading.kwh_consumed_ac,
            reading.voltage,
        ),
    )


def store_vehicle_reading(
    database: Database, reading: VehicleReading, received_at: datetime
) -> None:
    """Store one reading, as store_meter_reading does."""
    database.fetch(
        _STORE_VEHICLE_READING,
        (
            reading.vehicle_id,
            reading.timestamp,
            received_at,
            reading.kwh_delivered_dc,
            reading.battery_temp,
            reading.soc,
        ),
    )


def store_meter_readings(
    database: Database, readings: Sequence[MeterReading], received_at: datetime
) -> None:
    """Store readings that were accepted together, as store_meter_reading does each of them.

    Each gets a receipt time of its own, a microsecond after the one before: of two receipts of one
    reading in one request the later counts.
    """
    database.fetch(
        _STORE_METER_READINGS,
        (
            encode_ids([reading.meter_id for reading in readings]),
            encode_times([reading.timestamp for reading in readings]),
            encode_consecutive_times(received_at, len(readings)),
            encode_floats([reading.kwh_consumed_ac for reading in readings]),
            encode_floats([reading.voltage for reading in readings]),
        ),
    )


def store_vehicle_readings(
    database: Database, readings: Sequence[VehicleReading], received_at: datetime
) -> None:
    """Store readings that were accepted together, as store_meter_reading does each of them."""
    database.fetch(
        _STORE_VEHICLE_READINGS,
        (
            encode_ids([reading.vehicle_id for reading in readings]),
            encode_times([reading.timestamp for reading in readings]),
            encode_consecutive_times(received_at, len(readings)),
            encode_floats([reading.kwh_delivered_dc for reading in readings]),
            encode_floats([reading.battery_temp for reading in readings]),
            encode_optional_floats([reading.soc for reading in readings]),
        ),
    )
