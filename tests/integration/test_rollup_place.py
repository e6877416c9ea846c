"""Which rollup hour and minute a reading belongs to: worked out by the layer and by PostgreSQL."""

from datetime import UTC, datetime, timedelta

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.binary import encode_rollup_place
from telemetry.database import Row

EDGES = st.builds(
    lambda hours, beside: (
        datetime(2000, 1, 1, 1, tzinfo=UTC) + timedelta(hours=hours, microseconds=beside)
    ),
    st.integers(0, 400_000),
    st.sampled_from([-1, 0, 1, 59_999_999, 60_000_000, 60_000_001]),
)
TIMES = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001
    datetime(2099, 12, 31),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(EDGES | TIMES, min_size=1))
def test_the_layer_and_postgresql_agree(
    connection: psycopg.Connection[Row], times: list[datetime]
) -> None:
    stored = connection.execute(
        """
        SELECT timestamptz_send(hour), int8send(minute_bit(ts, hour))
        FROM unnest(%s::timestamptz[]) AS ts, rollup_hour(ts) AS hour
        """,
        (times,),
    ).fetchall()
    assert stored == [encode_rollup_place(time) for time in times]
