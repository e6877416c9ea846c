"""The write path: history, live row, hourly rollup and links in one transaction and round trip.

The work is done by the stored functions of store.sql, store_…_readings.sql and links.sql.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from telemetry.binary import (
    FLOAT8,
    FLOAT8_ARRAY,
    INT8,
    TEXT,
    TEXT_ARRAY,
    TIMESTAMPTZ,
    TIMESTAMPTZ_ARRAY,
    encode_consecutive_times,
    encode_float,
    encode_floats,
    encode_ids,
    encode_optional_floats,
    encode_optional_ids,
    encode_rollup_place,
    encode_time,
    encode_times,
)
from telemetry.database import Database
from telemetry.readings import MeterReading, VehicleReading, count_hours

_STORE_METER_READING = b"SELECT store_meter_reading($1, $2, $3, $4, $5, $6, $7)"
_STORE_METER_READINGS = b"SELECT * FROM store_meter_readings($1, $2, $3, $4, $5)"
_STORE_METER_INTERVALS = b"SELECT * FROM store_meter_intervals($1, $2, $3, $4, $5, $6)"
_STORE_VEHICLE_READING = b"SELECT store_vehicle_reading($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_STORE_VEHICLE_READINGS = b"SELECT * FROM store_vehicle_readings($1, $2, $3, $4, $5, $6, $7)"
_STORE_VEHICLE_INTERVALS = b"SELECT * FROM store_vehicle_intervals($1, $2, $3, $4, $5, $6, $7, $8)"

_METER_TYPES = (TEXT, TIMESTAMPTZ, TIMESTAMPTZ, FLOAT8, FLOAT8, TIMESTAMPTZ, INT8)
_VEHICLE_TYPES = (
    *(TEXT, TIMESTAMPTZ, TIMESTAMPTZ, FLOAT8, FLOAT8, FLOAT8, TEXT),
    *(TIMESTAMPTZ, INT8),
)
_METER_ARRAYS = (TEXT_ARRAY, TIMESTAMPTZ_ARRAY, TIMESTAMPTZ_ARRAY, FLOAT8_ARRAY, FLOAT8_ARRAY)
_VEHICLE_ARRAYS = (*_METER_ARRAYS, FLOAT8_ARRAY, TEXT_ARRAY)


# What a call is given beyond the time limit of one reading: for each, and each hour that it is in.
SECONDS_A_READING = 0.0001

# When the API accepted readings: all at one time, or each at its own.
Receipts = datetime | Sequence[datetime]


class Resent(NamedTuple):
    """How many of the readings stored were known already: with the same values, or with others."""

    duplicates: int
    corrections: int


def store_meter_reading(database: Database, reading: MeterReading, received_at: datetime) -> None:
    """Store one reading; when this returns, it is durable.

    received_at is when the API accepted it. Storing the same reading with the same received_at
    again changes nothing. Raises DatabaseUnavailable.
    """
    if reading.interval_seconds is not None:
        store_meter_readings(database, [reading], received_at)
        return
    database.call(
        _STORE_METER_READING,
        _METER_TYPES,
        (
            reading.meter_id.encode(),
            encode_time(reading.timestamp),
            encode_time(received_at),
            encode_float(reading.kwh),
            None if reading.voltage is None else encode_float(reading.voltage),
            *encode_rollup_place(reading.timestamp),
        ),
    )


def store_vehicle_reading(
    database: Database, reading: VehicleReading, received_at: datetime
) -> None:
    """Store one reading, as store_meter_reading does."""
    if reading.interval_seconds is not None:
        store_vehicle_readings(database, [reading], received_at)
        return
    database.call(
        _STORE_VEHICLE_READING,
        _VEHICLE_TYPES,
        (
            reading.vehicle_id.encode(),
            encode_time(reading.timestamp),
            encode_time(received_at),
            encode_float(reading.kwh),
            None if reading.battery_temp is None else encode_float(reading.battery_temp),
            None if reading.soc is None else encode_float(reading.soc),
            None if reading.meter_id is None else reading.meter_id.encode(),
            *encode_rollup_place(reading.timestamp),
        ),
    )


def store_meter_readings(
    database: Database, readings: Sequence[MeterReading], received_at: Receipts
) -> Resent:
    """Store readings in one transaction, as store_meter_reading does each of them.

    Readings that were accepted at one time get receipt times a microsecond apart: of two receipts
    of one reading in one request the later counts.
    """
    columns = (
        encode_ids([reading.meter_id for reading in readings]),
        encode_times([reading.timestamp for reading in readings]),
        _encode_receipts(received_at, len(readings)),
        encode_floats([reading.kwh for reading in readings]),
        encode_optional_floats([reading.voltage for reading in readings]),
    )
    return _store_many(
        database, (_STORE_METER_READINGS, _STORE_METER_INTERVALS), _METER_ARRAYS, columns, readings
    )


def store_vehicle_readings(
    database: Database, readings: Sequence[VehicleReading], received_at: Receipts
) -> Resent:
    """Store readings in one transaction, as store_meter_readings does."""
    meters = [reading.meter_id for reading in readings]
    columns = (
        encode_ids([reading.vehicle_id for reading in readings]),
        encode_times([reading.timestamp for reading in readings]),
        _encode_receipts(received_at, len(readings)),
        encode_floats([reading.kwh for reading in readings]),
        encode_optional_floats([reading.battery_temp for reading in readings]),
        encode_optional_floats([reading.soc for reading in readings]),
        encode_optional_ids(meters) if any(meters) else None,
    )
    return _store_many(
        database,
        (_STORE_VEHICLE_READINGS, _STORE_VEHICLE_INTERVALS),
        _VEHICLE_ARRAYS,
        columns,
        readings,
    )


def _store_many(
    database: Database,
    statements: tuple[bytes, bytes],
    types: tuple[int, ...],
    columns: tuple[bytes | None, ...],
    readings: Sequence[MeterReading] | Sequence[VehicleReading],
) -> Resent:
    """Call the first statement, or the second where readings tell how long they are."""
    plain, with_lengths = statements
    lengths = [reading.interval_seconds for reading in readings]
    patience = (len(readings) + count_hours(readings)) * SECONDS_A_READING
    if any(lengths):
        columns, types = (*columns, encode_optional_floats(lengths)), (*types, FLOAT8_ARRAY)
    row = database.call(with_lengths if any(lengths) else plain, types, columns, patience)
    return Resent(*(int(count or 0) for count in row))


def _encode_receipts(received_at: Receipts, count: int) -> bytes:
    if isinstance(received_at, datetime):
        return encode_consecutive_times(received_at, count)
    return encode_times(received_at)
