"""PUT, GET and DELETE /v1/links/{vehicleId}, and readings that name their meter."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from telemetry.database import Row
from tests.conftest import unpooled
from tests.integration.conftest import Api

pytestmark = unpooled

ROUTE = "/v1/links/VEH-001"
READING: dict[str, Any] = {
    "vehicleId": "VEH-001",
    "kwhDeliveredDc": 0.1,
    "batteryTemp": 25,
    "timestamp": "2026-02-10T10:01:00Z",
}


def at(time: str) -> str:
    return f"2026-02-10T{time}:00Z"


def put(api: Api, vehicle: str, meter: str, time: str) -> Any:
    answer = api.put(f"/v1/links/{vehicle}", {"meterId": meter, "validFrom": at(time)})
    assert answer.status in (200, 201)
    return answer.body


def listed(api: Api, vehicle: str = "VEH-001") -> list[tuple[str | None, ...]]:
    answer = api.get(f"/v1/links/{vehicle}")
    assert answer.status == 200
    assert answer.body["vehicleId"] == vehicle
    return [tuple(link.values()) for link in answer.body["links"]]


def send(api: Api, vehicle: str, meter: str | None, time: str, **changes: Any) -> None:
    named = {"vehicleId": vehicle, "meterId": meter, "timestamp": at(time)}
    assert api.post("/ingest/vehicle", READING | named | changes).status == 201


def test_a_vehicle_is_linked_before_it_and_its_meter_report(api: Api) -> None:
    assert api.get(ROUTE).status == 404
    made = api.put(ROUTE, {"meterId": "METER-7", "validFrom": "2026-02-10T15:30:00+05:30"})
    link = {"meterId": "METER-7", "validFrom": at("10:00"), "validTo": None, "source": "api"}
    assert (made.status, made.body) == (201, link)
    assert api.get(ROUTE).body == {"vehicleId": "VEH-001", "links": [link], "nextCursor": None}


def test_a_vehicle_without_links_has_an_empty_list_once_it_has_reported(api: Api) -> None:
    send(api, "VEH-001", None, "10:01")
    assert listed(api) == []


def test_a_link_put_again_changes_nothing(api: Api) -> None:
    body = {"meterId": "METER-1", "validFrom": at("10:00")}
    first, again = api.put(ROUTE, body), api.put(ROUTE, body)
    assert (first.status, again.status) == (201, 200)
    assert first.body == again.body
    assert len(listed(api)) == 1


def test_from_now_on_changes_nothing_where_it_is_so_already(api: Api) -> None:
    before = datetime.now(UTC)
    first = api.put(ROUTE, {"meterId": "METER-1"})
    again = api.put(ROUTE, {"meterId": "METER-1"})
    assert (first.status, again.status) == (201, 200)
    assert first.body == again.body
    assert before <= datetime.fromisoformat(first.body["validFrom"]) <= datetime.now(UTC)


def test_another_meter_for_the_same_instant_replaces(api: Api) -> None:
    put(api, "VEH-001", "METER-1", "10:00")
    put(api, "VEH-001", "METER-2", "10:00")
    assert listed(api) == [("METER-2", at("10:00"), None, "api")]


def test_a_charger_is_shared_in_turn(api: Api) -> None:
    for vehicle, time in (("VEH-3", "12:00"), ("VEH-1", "10:00"), ("VEH-2", "11:00")):
        put(api, vehicle, "METER-1", time)
    assert listed(api, "VEH-1") == [("METER-1", at("10:00"), at("11:00"), "api")]
    assert listed(api, "VEH-2") == [("METER-1", at("11:00"), at("12:00"), "api")]
    assert listed(api, "VEH-3") == [("METER-1", at("12:00"), None, "api")]


def test_a_vehicle_moves_within_the_hour_by_its_readings(api: Api) -> None:
    for meter, time in (("METER-2", "10:31"), ("METER-1", "10:01"), ("METER-1", "10:02")):
        send(api, "VEH-001", meter, time)
    assert listed(api) == [
        ("METER-2", at("10:30"), None, "reading"),
        ("METER-1", at("10:00"), at("10:30"), "reading"),
    ]


def test_of_two_vehicles_from_one_instant_the_greater_id_has_the_meter(api: Api) -> None:
    put(api, "VEH-2", "METER-1", "10:00")
    beaten = put(api, "VEH-1", "METER-1", "10:00")
    assert beaten["validTo"] == beaten["validFrom"]
    assert listed(api, "VEH-1") == []
    assert listed(api, "VEH-2") == [("METER-1", at("10:00"), None, "api")]


def test_at_one_instant_the_api_is_right_whichever_came_first(api: Api) -> None:
    send(api, "VEH-1", "METER-1", "10:01")
    put(api, "VEH-1", "METER-2", "10:00")
    put(api, "VEH-2", "METER-3", "10:00")
    send(api, "VEH-2", "METER-4", "10:01")
    assert listed(api, "VEH-1") == [("METER-2", at("10:00"), None, "api")]
    assert listed(api, "VEH-2") == [("METER-3", at("10:00"), None, "api")]


def test_a_link_of_a_reading_that_the_api_confirms_stays_when_the_reading_is_corrected(
    api: Api,
) -> None:
    send(api, "VEH-001", "METER-1", "10:01")
    put(api, "VEH-001", "METER-1", "10:00")
    send(api, "VEH-001", None, "10:01")
    assert listed(api) == [("METER-1", at("10:00"), None, "api")]


def test_a_correction_takes_a_link_back(api: Api) -> None:
    send(api, "VEH-001", "METER-1", "10:01")
    send(api, "VEH-001", None, "10:01")
    assert listed(api) == []


def test_an_ended_link_stays_ended_until_a_reading_names_a_meter(api: Api) -> None:
    send(api, "VEH-001", "METER-1", "10:01")
    ended = api.delete(f"{ROUTE}?validTo={at('11:00')}")
    assert (ended.status, ended.body["meterId"]) == (200, "METER-1")
    assert (ended.body["validFrom"], ended.body["validTo"]) == (at("10:00"), at("11:00"))
    assert api.delete(f"{ROUTE}?validTo={at('11:00')}").body == ended.body
    send(api, "VEH-001", None, "12:01")
    assert listed(api) == [("METER-1", at("10:00"), at("11:00"), "reading")]
    send(api, "VEH-001", "METER-1", "13:01")
    assert listed(api)[0] == ("METER-1", at("13:00"), None, "reading")


def test_nothing_is_ended_where_no_link_holds(api: Api) -> None:
    assert api.delete(ROUTE).status == 404
    put(api, "VEH-001", "METER-1", "10:00")
    assert api.delete(f"{ROUTE}?validTo={at('10:00')}").status == 404
    assert api.delete(ROUTE).status == 200
    again = api.delete(ROUTE)
    assert (again.status, again.body["message"]) == (404, "No link to end")


def test_a_link_that_ends_anyway_is_left_as_it_is(api: Api) -> None:
    put(api, "VEH-001", "METER-1", "10:00")
    put(api, "VEH-001", "METER-2", "11:00")
    assert api.delete(f"{ROUTE}?validTo={at('11:00')}").body["meterId"] == "METER-1"
    assert listed(api)[0] == ("METER-2", at("11:00"), None, "api")


def test_a_long_history_comes_in_pages(api: Api) -> None:
    for minute in range(5):
        put(api, "VEH-001", f"METER-{minute}", f"10:0{minute}")
    pages = list(_pages(api, 2))
    assert [len(page) for page in pages] == [2, 2, 1]
    meters = [link["meterId"] for page in pages for link in page]
    assert meters == [f"METER-{minute}" for minute in reversed(range(5))]


def _pages(api: Api, limit: int) -> Iterator[list[dict[str, Any]]]:
    cursor = ""
    while True:
        answer = api.get(f"{ROUTE}?limit={limit}{cursor}")
        yield answer.body["links"]
        if not answer.body["nextCursor"]:
            return
        cursor = f"&cursor={answer.body['nextCursor']}"


@pytest.mark.parametrize(
    ("method", "target", "body", "field"),
    [
        ("PUT", ROUTE, b"", "body"),
        ("PUT", ROUTE, b"[]", "body"),
        ("PUT", ROUTE, b"{}", "meterId"),
        ("PUT", ROUTE, b'{"meterId": null}', "meterId"),
        ("PUT", ROUTE, b'{"meterId": "a b"}', "meterId"),
        ("PUT", ROUTE, b'{"meterId": 7}', "meterId"),
        ("PUT", ROUTE, b'{"meterId": "M", "colour": 1}', "colour"),
        ("PUT", ROUTE, b'{"meterId": "M", "validFrom": "2026-02-10"}', "validFrom"),
        ("PUT", ROUTE, b'{"meterId": "M", "validFrom": 1707492600}', "validFrom"),
        ("PUT", ROUTE, b'{"meterId": "M", "validFrom": "1999-12-31T23:59:59Z"}', "validFrom"),
        ("PUT", ROUTE, b'{"meterId": "M", "validFrom": "2099-01-01T00:00:00Z"}', "validFrom"),
        ("PUT", "/v1/links/a%20b", b'{"meterId": "M"}', "vehicleId"),
        ("GET", "/v1/links/a%20b", b"", "vehicleId"),
        ("GET", f"{ROUTE}?limit=1001", b"", "limit"),
        ("GET", f"{ROUTE}?limit=1.5", b"", "limit"),
        ("GET", f"{ROUTE}?cursor=METER-1", b"", "cursor"),
        ("DELETE", "/v1/links/a%20b", b"", "vehicleId"),
        ("DELETE", f"{ROUTE}?validTo=now", b"", "validTo"),
        ("DELETE", f"{ROUTE}?validTo=1970-01-01T00:00:00Z", b"", "validTo"),
    ],
)
def test_what_is_wrong_is_refused_by_name(
    api: Api,
    connection: psycopg.Connection[Row],
    method: str,
    target: str,
    body: bytes,
    field: str,
) -> None:
    answer = api.request(method, target, body)
    assert answer.status == 400, answer.body
    assert [error["field"] for error in answer.body["errors"]] == [field]
    assert connection.execute("SELECT count(*) FROM links").fetchone() == (0,)
