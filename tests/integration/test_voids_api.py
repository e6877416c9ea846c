"""POST and GET /v1/voids, POST /v1/voids/withdrawals: what follows from them, and what stays."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from local.databases import DatabaseUrls
from telemetry.database import Row, connect
from telemetry.rules import Rules
from telemetry.summaries import refresh_summaries
from telemetry.verification import find_differences
from tests.conftest import unpooled
from tests.integration.conftest import Api

pytestmark = unpooled

SAID = {"by": "Ada Lovelace", "why": "The meter was being tested"}
NOON = "2026-02-10T12:00:00Z"
OF_METER = {"meterId": "METER-1", "timestamp": NOON} | SAID
OF_VEHICLE = {"vehicleId": "VEH-1", "timestamp": NOON} | SAID


def at(time: str) -> str:
    return f"2026-02-10T{time}:00Z"


def meter(time: str, kwh: float = 1.0) -> dict[str, Any]:
    return {"meterId": "METER-1", "kwhConsumedAc": kwh, "voltage": 230, "timestamp": at(time)}


def vehicle(time: str, **changes: Any) -> dict[str, Any]:
    values = {"vehicleId": "VEH-1", "kwhDeliveredDc": 0.9, "batteryTemp": 25}
    return values | {"timestamp": at(time)} | changes


def send(api: Api, *readings: dict[str, Any]) -> None:
    for reading in readings:
        assert (
            api.post(f"/ingest/{'meter' if 'voltage' in reading else 'vehicle'}", reading).status
            == 201
        )


def live(api: Api) -> dict[str, Any]:
    body: dict[str, Any] = api.get("/v1/live/meters/METER-1").body
    return {name: value for name, value in body.items() if name != "ageSeconds"}


def report(api: Api) -> tuple[Any, ...]:
    answer = api.get("/v1/analytics/performance/VEH-1?end=2026-02-10T13:00:00Z")
    assert answer.status == 200
    return tuple(
        answer.body[name] for name in ("acEnergyConsumed", "dcEnergyDelivered", "dataPoints")
    )


def test_a_voided_reading_leaves_every_number_and_stays_on_record(api: Api) -> None:
    send(api, meter("11:00"), meter("12:00", 500), meter("12:00", 900), vehicle("12:00"))
    assert report(api)[0] == 901
    before = datetime.now(UTC)
    answer = api.post("/v1/voids", OF_METER)
    assert answer.status == 201
    voided = answer.body.pop("voided")
    assert before <= datetime.fromisoformat(voided.pop("at")) <= datetime.now(UTC)
    assert voided == {**SAID, "tokenId": None}
    receipts = answer.body.pop("receipts")
    assert [receipt["kwhConsumedAc"] for receipt in receipts] == [500, 900]
    assert answer.body == {
        "meterId": "METER-1",
        "vehicleId": None,
        "timestamp": NOON,
        "withdrawn": None,
        "pending": False,
    }
    assert report(api)[0] == 1
    assert api.get("/v1/live/meters/METER-1").body["timestamp"] == at("11:00")
    listed = api.get(f"/v1/meters/METER-1/readings?to={NOON}").body["items"]
    assert [item["kwhConsumedAc"] for item in listed] == [1]


def test_who_voids_first_stands(api: Api) -> None:
    send(api, meter("12:00"))
    first = api.post("/v1/voids", OF_METER)
    again = api.post("/v1/voids", OF_METER | {"by": "Somebody else"})
    assert (first.status, again.status) == (201, 200)
    assert again.body == first.body


def test_what_is_sent_of_a_voided_reading_is_kept_and_does_not_count(api: Api) -> None:
    send(api, meter("11:00"), meter("12:00"), vehicle("12:00"))
    api.post("/v1/voids", OF_METER)
    send(api, meter("12:00", 7), meter("12:30", 2))
    batch = api.post("/v1/ingestion/meter/batch", [meter("12:00", 8), meter("12:45", 4)])
    assert (batch.status, batch.body["accepted"]) == (201, 2)
    assert report(api)[0] == 7
    [listed] = api.get("/v1/voids?meterId=METER-1").body["items"]
    assert [receipt["kwhConsumedAc"] for receipt in listed["receipts"]] == [1, 7, 8]


def test_what_is_sent_of_a_voided_reading_does_not_count_beside_the_first_newer_one(
    api: Api,
) -> None:
    send(api, meter("11:00"), meter("12:00"), vehicle("11:00"), vehicle("12:00"))
    for body in (OF_METER, OF_VEHICLE):
        assert api.post("/v1/voids", body).status == 201
    for stream, make in (("meter", meter), ("vehicle", vehicle)):
        batch = [make("12:00"), make("12:30")]
        assert api.post(f"/v1/ingestion/{stream}/batch", batch).status == 201
    assert report(api) == (2, 1.8, 2)


def test_a_withdrawn_void_is_as_if_it_had_never_been_and_stays_listed(api: Api) -> None:
    send(api, meter("11:00"), meter("12:00", 5), vehicle("12:00"))
    before = report(api), live(api)
    api.post("/v1/voids", OF_METER)
    answer = api.post("/v1/voids/withdrawals", OF_METER | {"why": "It was right"})
    assert (answer.status, answer.body["receipts"]) == (200, [])
    assert answer.body["withdrawn"]["why"] == "It was right"
    assert (report(api), live(api)) == before
    again = api.post("/v1/voids/withdrawals", OF_METER)
    assert (again.status, again.body) == (200, answer.body)
    # It may be voided anew.
    assert api.post("/v1/voids", OF_METER).status == 201
    assert [item["withdrawn"] is None for item in api.get("/v1/voids").body["items"]] == [
        True,
        False,
    ]


def test_a_device_of_which_all_is_voided_is_unknown_until_it_reports(api: Api) -> None:
    send(api, vehicle("12:00", soc=50))
    assert api.post("/v1/voids", OF_VEHICLE).status == 201
    assert api.get("/v1/live/vehicles/VEH-1").status == 404
    send(api, vehicle("12:00", soc=51))
    assert api.get("/v1/live/vehicles/VEH-1").status == 404
    send(api, vehicle("11:00"))
    assert api.get("/v1/live/vehicles/VEH-1").body["soc"] is None
    send(api, vehicle("12:00", soc=52))
    assert api.get("/v1/live/vehicles/VEH-1").body["timestamp"] == at("11:00")


def test_the_state_of_charge_is_the_one_before(api: Api) -> None:
    send(api, vehicle("11:00", soc=50), vehicle("12:00", soc=90), vehicle("12:30"))
    api.post("/v1/voids", OF_VEHICLE)
    assert api.get("/v1/live/vehicles/VEH-1").body["soc"] == 50
    # With a newer reading in one batch.
    batch = [vehicle("12:00", soc=91), vehicle("12:45")]
    assert api.post("/v1/ingestion/vehicle/batch", batch).status == 201
    found = api.get("/v1/live/vehicles/VEH-1").body
    assert (found["soc"], found["timestamp"]) == (50, at("12:45"))


def test_a_link_goes_with_the_reading_that_made_it(api: Api) -> None:
    send(api, vehicle("12:00", meterId="METER-1"), vehicle("12:30", meterId="METER-1"))
    [link] = api.get("/v1/links/VEH-1").body["links"]
    assert link["validFrom"] == at("11:59")
    api.post("/v1/voids", OF_VEHICLE)
    [link] = api.get("/v1/links/VEH-1").body["links"]
    assert link["validFrom"] == at("12:29")
    api.post("/v1/voids/withdrawals", OF_VEHICLE)
    [link] = api.get("/v1/links/VEH-1").body["links"]
    assert link["validFrom"] == at("11:59")


def test_days_and_the_fleets_window_follow(api: Api, connection: psycopg.Connection[Row]) -> None:
    send(api, meter("12:00"), vehicle("12:00"), {**vehicle("12:00"), "vehicleId": "VEH-2"})

    def fleet() -> tuple[Any, ...]:
        body = api.get("/v1/analytics/fleet?end=2026-02-10T13:00:00Z").body
        kwh = {item["vehicleId"]: item["totalEnergyDeliveredDc"] for item in body["items"]}
        [(days,)] = connection.execute("SELECT count(*) FROM vehicle_daily_rollup")
        return kwh, days

    # The window that is summarized, and days later the days.
    for now, days in (("2026-02-10T13:00:00+00:00", (0, 0)), ("2026-02-12T00:00:00+00:00", (2, 1))):
        refresh_summaries(connection, datetime.fromisoformat(now), Rules())
        assert fleet() == ({"VEH-1": 0.9, "VEH-2": 0.9}, days[0])
        assert api.post("/v1/voids", OF_VEHICLE).status == 201
        assert fleet() == ({"VEH-2": 0.9}, days[1])
        assert find_differences(connection) == []
        api.post("/v1/voids/withdrawals", OF_VEHICLE)
        assert find_differences(connection) == []


def test_voids_are_listed_page_by_page(api: Api) -> None:
    times = [f"12:{minute:02}" for minute in range(5)]
    send(api, *(meter(time) for time in times), vehicle("12:00"))
    for time in times:
        api.post("/v1/voids", OF_METER | {"timestamp": at(time)})
    api.post("/v1/voids", OF_VEHICLE)
    assert [item["vehicleId"] for item in api.get("/v1/voids?vehicleId=VEH-1").body["items"]] == [
        "VEH-1"
    ]
    seen, cursor = [], ""
    while cursor is not None:
        page = api.get(f"/v1/voids?limit=2{cursor and '&cursor=' + cursor}").body
        seen += [item["timestamp"] for item in page["items"]]
        cursor = page["nextCursor"]
    assert seen == [NOON, *map(at, reversed(times))]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (SAID | {"timestamp": NOON}, "body"),
        (OF_METER | {"vehicleId": "VEH-1"}, "body"),
        (OF_METER | {"why": ""}, "why"),
        (OF_METER | {"by": "\0"}, "by"),
        (OF_METER | {"timestamp": "2026-02-10T12:00:00"}, "timestamp"),
        (OF_METER | {"x": 1}, "x"),
        ({"meterId": "METER-1", "timestamp": NOON, "why": "x"}, "by"),
    ],
)
def test_what_is_not_said_rightly_is_refused(api: Api, body: object, field: str) -> None:
    for target in ("/v1/voids", "/v1/voids/withdrawals"):
        answer = api.post(target, body)
        assert (answer.status, answer.body["errors"][0]["field"]) == (400, field)


def test_what_was_never_there_is_not_found(api: Api) -> None:
    send(api, meter("11:00"))
    assert api.post("/v1/voids", OF_METER).body["message"] == "Reading not found"
    assert api.post("/v1/voids", OF_VEHICLE).status == 404
    assert api.post("/v1/voids/withdrawals", OF_METER).body["message"] == "Void not found"
    assert api.get("/v1/voids?meterId=METER-1&vehicleId=VEH-1").status == 400
    assert api.get("/v1/voids").body == {"items": [], "nextCursor": None}


def test_verification_finds_a_voided_reading_that_counts(urls: DatabaseUrls, api: Api) -> None:
    send(api, meter("11:00"), meter("12:00"))
    api.post("/v1/voids", OF_METER)
    with connect(urls.owner) as owner:
        owner.execute("INSERT INTO meter_telemetry_history SELECT * FROM meter_void_receipt")
        owner.execute("UPDATE meter_live_status SET voided_to = '-infinity'")
        found = [entry for entry in find_differences(owner) if entry.table == "meter_void"]
        assert {(entry.expected, entry.stored) for entry in found} == {
            ("voided", "in history"),
            ("guarded", "up to -infinity"),
        }
        owner.execute("DELETE FROM meter_void")
        [entry] = [entry for entry in find_differences(owner) if entry.table == "meter_void"]
        assert (entry.expected, entry.stored) == ("counts", "set aside")
        # As it should be with neither void nor receipt.
        owner.execute("DELETE FROM meter_void_receipt")
        owner.execute("DELETE FROM meter_telemetry_history WHERE timestamp = %s", (NOON,))


def test_a_voided_reading_is_never_in_the_way_of_newer_ones(api: Api) -> None:
    """The way of one reading by itself is left only up to the time of what was voided."""
    send(api, *(meter(f"12:{minute:02}") for minute in range(3)))
    for minute in (0, 1, 2):
        api.post("/v1/voids", OF_METER | {"timestamp": at(f"12:{minute:02}")})
    assert api.get("/v1/live/meters/METER-1").status == 404
    start = datetime.fromisoformat(NOON)
    for minute in range(-3, 6):
        send(api, meter((start + timedelta(minutes=minute)).strftime("%H:%M")))
    assert api.get("/v1/live/meters/METER-1").body["timestamp"] == at("12:05")
    send(api, vehicle("12:00"))
    assert report(api)[0] == 6
