"""A batch judges each item as the single route judges its reading."""

import json
import tracemalloc
from typing import Any

import pytest

from telemetry.acknowledgements import Acknowledgement
from telemetry.batches import MOST_READINGS, parse_batch
from telemetry.errors import BodyTooLarge, FieldError, InvalidRequest
from telemetry.intake import METERS
from telemetry.readings import MeterReading, VehicleReading
from telemetry.recognition import parse_reading
from tests.integration.test_validation import METER, VEHICLE, WRONG_VALUES


def errors_alone(kind: type[Any], body: str | bytes) -> Any:
    try:
        parse_reading(kind, body)
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
        index: errors
        for index, item in enumerate(items)
        if (errors := errors_alone(kind, json.dumps(item)))
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
        '["\ud800"]',
        json.dumps([METER]).encode() + b"x",
        json.dumps([METER] * (MOST_READINGS + 1)).encode(),
    ],
)
def test_what_is_no_array_of_readings_is_refused_as_a_whole(body: str | bytes) -> None:
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


WITHOUT_SOC = {name: value for name, value in VEHICLE.items() if name != "soc"}


@pytest.mark.parametrize("kind", [MeterReading, VehicleReading])
def test_a_name_that_is_given_twice_is_refused(kind: type[Any]) -> None:
    good = json.dumps(METER if kind is MeterReading else VEHICLE)
    for name, value in json.loads(good).items():
        repeated = f'{good[:-1]}, "{name}": {json.dumps(value)}}}'
        expected = [FieldError(name, "Field should be given once")]
        for body in (
            repeated,
            repeated.encode(),
            repeated.replace(name, f"\\u{ord(name[0]):04x}{name[1:]}", 1),
        ):
            assert errors_alone(kind, body) == expected
            for valid_only in ("", ", {}"):
                batch = parse_batch(kind, f"[{good}, {repeated}{valid_only}]")
                assert len(batch.readings) == 1
                assert (batch.rejections[0].index, list(batch.rejections[0].errors)) == (
                    1,
                    expected,
                )


def test_a_value_that_was_never_looked_at_is_found_too() -> None:
    # JSON's readers drop what comes first, whatever it is.
    for first in ('{"a": [{}]}', "[[]]", "null", "1e5", '""'):
        body = json.dumps(METER).replace('"voltage"', f'"voltage": {first}, "voltage"')
        assert errors_alone(MeterReading, body) == [
            FieldError("voltage", "Field should be given once")
        ]


def test_a_text_may_have_quotation_marks_where_any_may_stand() -> None:
    quoted = json.dumps({"by": 'Ada "the Countess"', "why": '"'})
    assert errors_alone(Acknowledgement, quoted) is None
    repeated = quoted.replace('"why"', '"why": "x", "why"')
    assert errors_alone(Acknowledgement, repeated) == [
        FieldError("why", "Field should be given once")
    ]


def test_optional_fields_come_or_not_without_being_taken_for_repeated() -> None:
    for soc in ({}, {"soc": None}, {"soc": 5}):
        for meter in ({}, {"meterId": None}, {"meterId": "M-1"}):
            item = WITHOUT_SOC | soc | meter
            assert errors_alone(VehicleReading, json.dumps(item)) is None
            assert parse_batch(VehicleReading, json.dumps([item, VEHICLE])).rejections == []
    # One short of a name, the other with one twice: together they have what two should.
    repeated = json.dumps(VEHICLE)[:-1] + ', "soc": 1}'
    batch = parse_batch(VehicleReading, f"[{json.dumps(WITHOUT_SOC)}, {repeated}]")
    assert [rejection.index for rejection in batch.rejections] == [1]


MANY = ",".join(f'"{number:x}":1' for number in range(30_000))


def test_an_item_of_unknown_fields_is_refused_without_naming_them() -> None:
    [rejection] = parse_batch(MeterReading, f"[{{{MANY}}}]").rejections
    assert [(error.field, error.message) for error in rejection.errors] == [
        ("body", "Input should have at most 50 fields")
    ]


def test_one_reading_is_refused_by_its_length_before_it_is_read() -> None:
    for body in (f"{{{MANY}}}", json.dumps(METER | {"meterId": "a" * 5_000_000})):
        with pytest.raises(BodyTooLarge):
            parse_reading(MeterReading, body)
    assert parse_reading(MeterReading, json.dumps(METER) + " " * 10_000)


def test_only_rejections_that_are_told_have_errors() -> None:
    rejections = parse_batch(MeterReading, json.dumps([{}] * 200)).rejections
    assert [bool(rejection.errors) for rejection in rejections] == [True] * 100 + [False] * 100


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
