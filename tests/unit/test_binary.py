"""Columns are encoded as PostgreSQL reads them: compared with psycopg's own adaptation."""

from datetime import UTC, datetime, timedelta

from psycopg.adapt import PyFormat, Transformer

from telemetry.binary import encode_consecutive_times, encode_floats, encode_ids, encode_times


def dumped(values: list[object]) -> bytes:
    dumper = Transformer().get_dumper(values, PyFormat.BINARY)
    return bytes(dumper.dump(values) or b"")


def test_columns_are_what_psycopg_makes_of_them() -> None:
    ids = ["a", "METER-001", "A.b_c:d-9" * 7, "0" * 64]
    floats = [0.0, -60.0, 0.1, 1e-300, 10_000.0]
    first = datetime(2026, 2, 10, 10, 0, 0, 999_998, UTC)
    following = [first + timedelta(microseconds=number) for number in range(5)]
    times = [
        datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(2000, 1, 1, tzinfo=UTC),
        datetime(2099, 12, 31, 23, 59, 59, 1, UTC),
    ]
    assert encode_ids(ids) == dumped([*ids])
    assert encode_floats(floats) == dumped([*floats])
    assert encode_times(times) == dumped([*times])
    assert encode_consecutive_times(first, 5) == encode_times(following) == dumped([*following])
