"""A batch judges each item as the single route judges its reading."""

import json
from typing import Any

import pytest

from telemetry.batches import MOST_READINGS, parse_batch
from telemetry.errors import InvalidRequest
from telemetry.readings import MeterReading, VehicleReading, parse_reading
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
