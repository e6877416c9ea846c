"""Readings on their way through the queue: what goes in comes out, and nothing else."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.errors import MessageUnusable
from telemetry.intake import METERS, VEHICLES
from telemetry.messages import MOST_MESSAGE_BYTES, pack, unpack
from telemetry.readings import MeterReading, VehicleReading

ACCEPTED = datetime(2026, 2, 10, 12, 0, 0, 999_999, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

ids = st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True).filter(lambda text: text.strip("."))
kwhs = st.floats(0, 10_000)
times = st.integers(1, 800_000_000).map(
    lambda seconds: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


def build(kind: type[Any], *values: Any) -> Any:
    return kind.model_construct(**dict(zip(kind.model_fields, values, strict=True)))


lengths = st.none() | st.floats(1, 2_678_400).map(lambda seconds: round(seconds, 6))
meters = st.builds(
    build, st.just(MeterReading), ids, kwhs, st.none() | st.floats(0, 1_000), times, lengths
)
vehicles = st.builds(
    build,
    st.just(VehicleReading),
    ids,
    st.none() | st.floats(0, 100),
    kwhs,
    st.none() | st.floats(-60, 150),
    st.none() | ids,
    times,
    lengths,
)


@given(st.lists(meters, min_size=1, max_size=20), st.lists(vehicles, min_size=1, max_size=20))
def test_what_goes_in_comes_out(
    some_meters: list[MeterReading], some_vehicles: list[VehicleReading]
) -> None:
    [(count, body)] = pack(METERS, some_meters, ACCEPTED)
    message = unpack(METERS, body)
    assert (count, message.readings) == (len(some_meters), some_meters)
    assert message.receipts == [ACCEPTED + n * MICROSECOND for n in range(count)]
    [(count, body)] = pack(VEHICLES, some_vehicles, ACCEPTED)
    assert (count, unpack(VEHICLES, body).readings) == (len(some_vehicles), some_vehicles)


@pytest.mark.parametrize(("id_length", "messages"), [(10, 1), (64, 2)])
def test_a_batch_is_cut_where_it_does_not_fit_into_a_message(id_length: int, messages: int) -> None:
    readings = [
        VehicleReading.model_construct(
            vehicle_id=f"{number:0{id_length}}",
            soc=50.5,
            kwh_delivered_dc=0.115,
            battery_temp=28.3,
            timestamp=ACCEPTED,
        )
        for number in range(10_000)
    ]
    packed = pack(VEHICLES, readings, ACCEPTED)
    assert len(packed) == messages
    assert all(len(body.encode()) <= MOST_MESSAGE_BYTES for _, body in packed)
    unpacked = [unpack(VEHICLES, body) for _, body in packed]
    assert [reading for message in unpacked for reading in message.readings] == readings
    receipts = [receipt for message in unpacked for receipt in message.receipts]
    assert receipts == [ACCEPTED + number * MICROSECOND for number in range(10_000)]


def test_a_field_that_no_reading_has_takes_no_room_and_an_older_message_lacks_it() -> None:
    bare = VehicleReading.model_construct(
        vehicle_id="VEH-1", kwh_delivered_dc=1.0, battery_temp=2.0, timestamp=ACCEPTED
    )
    named = bare.model_copy(update={"meter_id": "METER-1"})
    [(_, body)] = pack(VEHICLES, [bare], ACCEPTED)
    assert set(json.loads(body)["readings"]) == {
        *("vehicleId", "kwhDeliveredDc", "batteryTemp", "timestamp")
    }
    assert unpack(VEHICLES, body).readings == [bare]
    [(_, body)] = pack(VEHICLES, [bare, named], ACCEPTED)
    assert unpack(VEHICLES, body).readings == [bare, named]


GOOD: dict[str, Any] = {
    "stream": "meter",
    "receivedAt": "2026-02-10T12:00:00Z",
    "readings": {
        "meterId": ["METER-1", "METER-2"],
        "kwhConsumedAc": [1, 2.5],
        "voltage": [230, 231],
        "timestamp": ["2026-02-10T11:59:00Z"] * 2,
    },
}


def columns(**changes: Any) -> dict[str, Any]:
    return GOOD | {"readings": GOOD["readings"] | changes}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("", "Invalid JSON"),
        ("garbage", "Invalid JSON"),
        ("[]", "Input should be an object"),
        ({}, "stream: Field required; receivedAt: Field required; readings: Field required"),
        (GOOD | {"stream": "vehicle"}, "a message of stream 'vehicle', not 'meter'"),
        (GOOD | {"receivedAt": "yesterday"}, "receivedAt: Input should be an RFC 3339 time"),
        (GOOD | {"more": 1}, "more: Extra inputs are not permitted"),
        (GOOD | {"readings": {}}, "readings: Dictionary should have at least 1 item"),
        (columns(voltage=[230]), "columns with 1 to 10000 readings each"),
        (columns(voltage=[230, "x"]), "1 of 2 readings are not valid; reading 1: voltage: "),
        (columns(colour=["red", "red"]), "2 of 2 readings are not valid; reading 0: colour: "),
    ],
)
def test_what_can_never_be_stored_says_why(message: Any, reason: str) -> None:
    body = message if isinstance(message, str) else json.dumps(message)
    assert unpack(METERS, json.dumps(GOOD)).receipts[1].microsecond == 1
    with pytest.raises(MessageUnusable) as raised:
        unpack(METERS, body)
    assert str(raised.value).startswith(reason) or reason in str(raised.value)
