"""The readings that are written, and the two ways to write them: the limit's and ours."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from telemetry.readings import MeterReading, VehicleReading

BATCH = 10_000
MINUTE = timedelta(minutes=1)
START = datetime(2026, 1, 10, tzinfo=UTC)
# Readings are less than three weeks after START, and this month has been one partition since.
PARTITION = "meter_telemetry_history_2026_01"
# The meters that send single readings and batches over HTTP, or one reading a call.
METERS = range(10_000)
# The minutes after START that a history has which is to be short: 500,000 readings of METERS.
SHORT = range(951, 1001)


def make_readings(
    devices: range, minutes: Sequence[int], order: random.Random, seconds: float | None = None
) -> list[MeterReading]:
    """Return a reading of each device at each of the minutes after START, in random order.

    Device ids have ten characters; readings tell how many seconds they are of.
    """
    readings = [
        MeterReading.model_construct(
            meter_id=f"MTR_{device:06}",
            kwh_consumed_ac=order.randrange(1, 500) / 1000,
            voltage=order.randrange(2200, 2400) / 10,
            timestamp=START + minute * MINUTE,
            interval_seconds=seconds,
        )
        for device in devices
        for minute in minutes
    ]
    order.shuffle(readings)
    return readings


def make_vehicle_reading(
    vehicle_id: str, timestamp: datetime, kwh: float, soc: float | None = None
) -> VehicleReading:
    """Return a reading of a vehicle that names no meter."""
    return VehicleReading.model_construct(
        vehicle_id=vehicle_id,
        soc=soc,
        kwh_delivered_dc=kwh,
        battery_temp=28.3,
        timestamp=timestamp,
    )


def format_meter(reading: MeterReading) -> dict[str, str | float | None]:
    """Return a reading as the API takes it."""
    return {
        "meterId": reading.meter_id,
        "kwhConsumedAc": reading.kwh_consumed_ac,
        "voltage": reading.voltage,
        "timestamp": f"{reading.timestamp:%Y-%m-%dT%H:%M:%SZ}",
    }


def split(readings: Sequence[MeterReading]) -> Iterator[Sequence[MeterReading]]:
    """Yield batches of BATCH readings."""
    for start in range(0, len(readings), BATCH):
        yield readings[start : start + BATCH]


def copy_readings(
    connection: psycopg.Connection[Any], readings: Sequence[MeterReading], received_at: datetime
) -> None:
    """Write readings into history alone by COPY: the limit. One transaction."""
    received = received_at.isoformat()
    lines = [
        f"{reading.meter_id}\t{reading.timestamp.isoformat()}\t{received}"
        f"\t{reading.kwh_consumed_ac}\t{reading.voltage}\n"
        for reading in readings
    ]
    columns = 'meter_id, "timestamp", received_at, kwh_consumed_ac, voltage'
    with connection.cursor().copy(f"COPY meter_telemetry_history ({columns}) FROM STDIN") as copy:
        copy.write("".join(lines))
