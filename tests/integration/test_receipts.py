"""The audit trail: every receipt once, in order, whatever the page, and the one that counts."""

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urljoin

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.database import Database, Row
from telemetry.pages import decode_cursor
from telemetry.receipts import (
    LastReceipt,
    ReceiptSelection,
    list_meter_receipts,
    list_vehicle_receipts,
)
from tests.conftest import unpooled
from tests.integration.conftest import Api, delete_all
from tests.integration.oracle import START, Call, Event, Oracle, write

pytestmark = unpooled

NOON = datetime(2026, 2, 10, 12, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
STREAMS = ("meter", "vehicle")


def post(api: Api, stream: str, time: datetime, kwh: float = 1, **values: object) -> None:
    body: dict[str, object] = {"timestamp": time.isoformat(), **values}
    if stream == "meter":
        body |= {"meterId": "-1", "kwhConsumedAc": kwh, "voltage": 230.5}
    else:
        body |= {"vehicleId": "-1", "kwhDeliveredDc": kwh, "batteryTemp": -4.25}
    assert api.post(f"/v1/ingestion/{stream}", body).status == 201


def kwhs(page: dict[str, Any]) -> list[float]:
    return [item.get("kwhConsumedAc", item.get("kwhDeliveredDc")) for item in page["items"]]


def test_receipts_of_a_meter_are_in_device_time_and_the_last_of_each_reading_counts(
    api: Api,
) -> None:
    before = datetime.now(UTC)
    for time, kwh in ((NOON, 3.0), (NOON - MINUTE, 1.0), (NOON - MINUTE, 0.0004), (NOON, 3.0)):
        post(api, "meter", time, kwh)
    page = api.get("/v1/meters/-1/readings").body
    received = [datetime.fromisoformat(item.pop("receivedAt")) for item in page["items"]]
    assert before < received[0] < received[1]
    assert received[0] < received[3]
    lengths = {"intervalSeconds": 60, "toldSeconds": None}
    shared = {"meterId": "-1", "voltage": 230.5, "registerKwh": None} | lengths
    earlier, later = {"timestamp": "2026-02-10T11:59:00Z"}, {"timestamp": "2026-02-10T12:00:00Z"}
    assert page == {
        "from": "2026-02-09T12:00:00Z",
        "to": "2026-02-10T12:00:00Z",
        "nextCursor": None,
        "items": [
            shared | earlier | {"kwhConsumedAc": 1.0, "counts": False},
            shared | earlier | {"kwhConsumedAc": 0.0004, "counts": True},
            shared | later | {"kwhConsumedAc": 3.0, "counts": False},
            shared | later | {"kwhConsumedAc": 3.0, "counts": True},
        ],
    }


def test_a_vehicles_receipt_has_its_own_charge_and_meter_or_none(api: Api) -> None:
    post(api, "vehicle", NOON - MINUTE, 0.5, soc=80.5)
    post(api, "vehicle", NOON, meterId="METER-9")
    items = api.get("/v1/vehicles/-1/readings").body["items"]
    assert [item.pop("receivedAt") for item in items]
    assert items == [
        {
            "vehicleId": "-1",
            "timestamp": f"2026-02-10T{time}Z",
            "kwhDeliveredDc": kwh,
            "batteryTemp": -4.25,
            "soc": soc,
            "counts": True,
            "meterId": meter_id,
            "registerKwh": None,
            "intervalSeconds": 60,
            "toldSeconds": None,
        }
        for time, kwh, soc, meter_id in (
            ("11:59:00", 0.5, 80.5, None),
            ("12:00:00", 1.0, None, "METER-9"),
        )
    ]


def test_the_window_is_open_at_its_start_and_closed_at_its_end(api: Api) -> None:
    times = [NOON - 2 * DAY, NOON - DAY, NOON - DAY + MINUTE, NOON - MINUTE, NOON]
    for kwh, time in enumerate(times):
        post(api, "meter", time, kwh)

    def found(query: str) -> list[float]:
        return kwhs(api.get(f"/v1/meters/-1/readings?{query}").body)

    assert found("") == [2, 3, 4]
    assert found("to=2026-02-10T11:59:00Z") == [1, 2, 3]
    assert found("from=2026-02-08T11:59:59.999999Z") == [0, 1, 2, 3, 4]
    assert found("from=2026-02-08T12:00:00Z&to=2026-02-10T11:59:00Z") == [1, 2, 3]
    assert found("from=2026-02-08T13:00:00%2B01:00&to=now") == [1, 2, 3, 4]
    assert found("to=now") == found("from=2027-01-01T00:00:00Z") == []
    assert found("to=2000-01-01T00:00:00Z") == []


@pytest.mark.parametrize(("stream", "name"), [("meters", "Meter"), ("vehicles", "Vehicle")])
def test_a_device_that_never_reported_is_not_found(api: Api, stream: str, name: str) -> None:
    for accept in ("application/json", "text/csv"):
        answer = api.get(f"/v1/{stream}/none/readings", accept)
        assert (answer.status, answer.body["message"]) == (404, f"{name} not found")


def test_every_wrong_parameter_is_named(api: Api) -> None:
    answer = api.get("/v1/meters/-1/readings?from=soon&to=2100-01-01&limit=0&cursor=e30&tz=IST")
    assert answer.status == 400
    assert [error["field"] for error in answer.body["errors"]] == [
        "from",
        "to",
        "limit",
        "cursor",
        "tz",
    ]
    answer = api.get("/v1/meters/-1/readings?from=now&to=2026-02-10T12:00:00Z")
    assert answer.body["errors"] == [{"field": "from", "message": "Input should be before to"}]


def test_a_form_that_there_is_not_is_refused(api: Api) -> None:
    post(api, "meter", NOON)
    answer = api.get("/v1/meters/-1/readings", "text/html")
    assert (answer.status, answer.body["statusCode"]) == (406, 406)


def test_times_are_given_in_the_zone_asked_for(api: Api) -> None:
    # Lord Howe Island moves its clocks by half an hour; here back, on 5 April 2026 at 15:00 UTC.
    for hour in (14, 15):
        post(api, "meter", datetime(2026, 4, 5 - 1, hour, 30, tzinfo=UTC))
    page = api.get("/v1/meters/-1/readings?tz=Australia/Lord_Howe").body
    assert [item["timestamp"] for item in page["items"]] == [
        "2026-04-05T01:30:00+11:00",
        "2026-04-05T02:00:00+10:30",
    ]
    assert page["to"] == "2026-04-05T02:00:00+10:30"
    assert page["items"][0]["receivedAt"].endswith(("+10:30", "+11:00"))


@pytest.mark.parametrize("stream", STREAMS)
def test_csv_says_what_json_says_page_by_page(api: Api, stream: str) -> None:
    for minute in range(5):
        post(api, stream, NOON + minute * MINUTE, minute / 8, **soc_of(stream, minute))
        post(api, stream, NOON + minute * MINUTE, minute / 7)
    everything = api.get(f"/v1/{stream}s/-1/readings?tz=Asia/Kolkata").body["items"]
    target, rows, sizes = f"/v1/{stream}s/-1/readings?tz=Asia/Kolkata&limit=3", [], []
    while target:
        answer = api.get(target, "text/csv")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        page = list(csv.DictReader(io.StringIO(answer.body, newline=""), strict=True))
        rows += page
        sizes.append(len(page))
        link, _, relation = answer.headers.get("link", "").partition(">; ")
        assert relation in {"", 'rel="next"'}
        target = link and urljoin(target, link.removeprefix("<"))
    assert sizes == [3, 3, 3, 1]
    assert [{name: as_json(name, text) for name, text in row.items()} for row in rows] == everything


def soc_of(stream: str, minute: int) -> dict[str, object]:
    return {"soc": minute * 10.5} if stream == "vehicle" else {}


def as_json(name: str, text: str) -> object:
    if not text:
        return None
    if name.endswith("Id"):
        return text.removeprefix("'")
    if name in {"timestamp", "receivedAt"}:
        return text
    return text == "true" if name == "counts" else float(text)


@pytest.mark.parametrize("stream", STREAMS)
def test_pages_go_on_while_readings_come_in(api: Api, stream: str) -> None:
    for kwh in range(3):
        post(api, stream, NOON, kwh)
    post(api, stream, NOON + MINUTE, 3)
    path = f"/v1/{stream}s/-1/readings"
    first = api.get(f"{path}?limit=2").body
    assert (kwhs(first), [item["counts"] for item in first["items"]]) == ([0, 1], [False, False])
    # Behind the page, on its last reading, and beyond the window that the first page settled.
    for time, kwh in ((NOON - MINUTE, 4), (NOON, 5), (NOON + MINUTE, 6), (NOON + 2 * MINUTE, 7)):
        post(api, stream, time, kwh)
    rest = api.get(f"{path}?limit=9&cursor={first['nextCursor']}").body
    assert kwhs(rest) == [2, 5, 3, 6]
    assert [item["counts"] for item in rest["items"]] == [False, True, False, True]
    assert (rest["from"], rest["to"]) == (first["from"], first["to"])


events = st.builds(
    Event,
    device=st.integers(1, 2),
    offset=st.one_of(st.sampled_from([0.0, 60.0, -1.0]), st.integers(-90_000, 90_000).map(float)),
    watt_hours=st.integers(0, 10_000),
    soc=st.one_of(st.none(), st.integers(0, 100)),
    is_meter=st.booleans(),
    length=st.none() | st.sampled_from([5, 900, 100_000]),
)
edges = st.one_of(st.none(), st.sampled_from([0.0, 60.0]), st.integers(-90_000, 90_000).map(float))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    calls=st.lists(
        st.tuples(st.lists(events, min_size=1, max_size=6), st.integers(0, 3)),
        min_size=1,
        max_size=6,
    ),
    start=edges,
    end=edges,
    limit=st.integers(1, 9),
)
def test_the_pages_of_any_window_make_up_its_receipts(
    connection: psycopg.Connection[Row],
    writer: Database,
    reader: Database,
    calls: Sequence[tuple[list[Event], int]],
    start: float | None,
    end: float | None,
    limit: int,
) -> None:
    delete_all(connection)
    oracle = Oracle()
    for sent, seconds in calls:
        call = Call(sent, START + 3 * DAY + timedelta(seconds=seconds))
        oracle.take(call)
        write(writer, call)
    for device in {key[0] for key in oracle.history}:
        own = sorted(key[1:] for key in oracle.history if key[0] == device)
        window_end = own[-1][0] if end is None else START + timedelta(seconds=end)
        window_start = window_end - DAY if start is None else START + timedelta(seconds=start)
        if start is not None and end is not None and start >= end:
            continue
        latest = dict(own)
        expected = [
            (time, received, told(oracle, (device, time, received)), received == latest[time])
            for time, received in own
            if window_start < time <= window_end
        ]
        selection = ReceiptSelection(
            None if start is None else window_start, None if end is None else window_end
        )
        found = list(pages(reader, device, selection, limit))
        assert [row for page in found for row in page] == expected
        assert all(len(page) == limit for page in found[:-1])
        assert found[-1] or not expected


def told(oracle: Oracle, receipt: tuple[str, datetime, datetime]) -> tuple[Any, ...]:
    """Return energy, then voltage or temperature and charge."""
    kwh, beside, _, *charge = oracle.history[receipt]
    return kwh, beside, *charge


def pages(
    reader: Database, device: str, selection: ReceiptSelection, limit: int
) -> Iterator[list[tuple[Any, ...]]]:
    after = None
    while True:
        asked = ReceiptSelection(selection.start, selection.end, after, limit)
        if device.startswith("MTR"):
            meter = list_meter_receipts(reader, device, asked)
            cursor = meter.next_cursor
            yield [
                (
                    item.timestamp,
                    item.received_at,
                    (Decimal(str(item.kwh_consumed_ac)), item.voltage),
                    item.counts,
                )
                for item in meter.items
            ]
        else:
            vehicle = list_vehicle_receipts(reader, device, asked)
            cursor = vehicle.next_cursor
            yield [
                (
                    item.timestamp,
                    item.received_at,
                    (Decimal(str(item.kwh_delivered_dc)), item.battery_temp, item.soc),
                    item.counts,
                )
                for item in vehicle.items
            ]
        if cursor is None:
            return
        after = decode_cursor(LastReceipt, cursor)


def test_a_forged_cursor_is_refused_or_harmless(api: Api) -> None:
    post(api, "meter", NOON)
    for cursor in ("x", "é", "=", "A" * 3000, "eyJzdGFydCI6MX0", "bnVsbA"):
        answer = api.get(f"/v1/meters/-1/readings?cursor={quote(cursor)}")
        assert (answer.status, answer.body["errors"][0]["field"]) == (400, "cursor")
