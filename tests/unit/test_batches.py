"""A batch judges each item as the single route judges its reading."""

import json
import tracemalloc
from typing import Any

import pytest

from telemetry.batches import MOST_READINGS, parse_batch
from telemetry.errors import BodyTooLarge, InvalidRequest
from telemetry.readings import MeterReading, VehicleReading, parse_reading
from telemetry.streams import METERS
from tests.integration.test_validation import METER, VEHICLE, WRONG_VALUES


def errors_alone(kind: type[Any], item: object) -> Any:
    try:
        parse_reading(kind, json.dumps(item))
    except InvalidRequest as error:
        return error.errors
    return None


@pytest.mark.parametrize(("kind", "good"), [(MeterReading, METER), (VehicleReading, VEHICLE)])
def test_each_item_is_judged_as_if_it_came_alone(kind: type[Any], good: dict[str, Any]) -> None:
    items: list[Any] = [good]
    for field, value in WRONG_VALUES:
        if field in good or field == "colour":
            items += [good | {field: value}, good]
    items += [{}, [], None, "text", 1, good | {"voltage": 1, "soc": "x"}]
    batch = parse_batch(kind, json.dumps(items))
    assert [reading == batch.readings[0] for reading in batch.readings].count(False) == 0
    rejected = {rejection.index: list(rejection.errors) for rejection in batch.rejections}
    assert rejected == {
        index: errors for index, item in enumerate(items) if (errors := errors_alone(kind, item))
    }
    assert sorted([*batch.indexes, *rejected]) == list(range(len(items)))
    assert {rejection.status for rejection in batch.rejections} == {400}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"null",
        b"[NaN]",
        b"[" * 100_000,
        b"[\xff]",
        json.dumps([METER]).encode() + b"x",
        json.dumps([METER] * (MOST_READINGS + 1)).encode(),
    ],
)
def test_what_is_no_array_of_readings_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_batch(MeterReading, body)
    assert [error.field for error in raised.value.errors] == ["body"]


FIELDS = "{" + ",".join(f'"{number}":1' for number in range(600_000)) + "}"


@pytest.mark.parametrize(
    "items",
    [
        FIELDS,
        ",".join(["{}"] * 2_000_000),
        ",".join(['{"":' * 150 + "1" + "}" * 150] * 8_000),
        ",".join(["[" * 150 + "]" * 150] * 9_000),
    ],
    ids=["fields", "objects", "nested objects", "nested arrays"],
)
def test_what_would_cost_more_to_refuse_than_10000_readings_to_take_is_not_read(items: str) -> None:
    for body in (f"[{items}]", f"[{items}]".encode()):
        tracemalloc.start()
        try:
            with pytest.raises(InvalidRequest) as refused:
                parse_batch(MeterReading, body)
            assert "than 10,000 readings need" in refused.value.errors[0].message
            # Nothing was made of the body.
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()
    with pytest.raises(BodyTooLarge):
        parse_reading(MeterReading, items)


def test_the_longest_batch_is_far_from_that() -> None:
    longest = {**VEHICLE, "vehicleId": "V" * 64, "meterId": "M" * 64, "soc": 99.99}
    batch = parse_batch(VehicleReading, json.dumps([longest] * MOST_READINGS, indent=1))
    assert len(batch.readings) == MOST_READINGS


def test_a_sorted_batch_knows_where_its_items_were() -> None:
    meters = ["B", "A", "?", "B", "A"]
    items = [METER | {"meterId": meter, "voltage": number} for number, meter in enumerate(meters)]
    batch = parse_batch(MeterReading, json.dumps(items))
    batch.sort(METERS.order)
    # What is equal stays in its order: of a reading that came twice the last one counts.
    assert [(each.meter_id, each.voltage) for each in batch.readings] == [
        *(("A", 1), ("A", 4), ("B", 0), ("B", 3))
    ]
    assert list(batch.indexes) == [1, 4, 0, 3]
    assert [rejection.index for rejection in batch.rejections] == [2]
