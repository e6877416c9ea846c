"""Dashboard, fleet, trend and direct invocation, through the real handler."""

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from local.databases import DatabaseUrls
from telemetry.database import Row, connect
from telemetry.rules import Rules
from telemetry.summaries import refresh_summaries
from telemetry.trends import bucket_bounds
from telemetry.verification import find_differences
from telemetry.zones import parse_zone
from tests.integration.conftest import Api

END = datetime(2026, 2, 10, 12, tzinfo=UTC)
FLEET_END = "2026-02-10T12:00:00Z"
# kWh AC and DC of a day, by the suffix of vehicle and meter.
CHARGED = {"A": (10, 9.2), "B": (10, 8.6), "C": (20, 16.4), "D": (10, 10.4), "E": (0.5, 0.4)}
STATUSES = {"A": "healthy", "B": "degraded", "C": "fault", "D": "implausible", "E": "insufficient"}


@pytest.fixture
def fleet(api: Api) -> Api:
    """A fleet that was heard from every second minute of a day."""
    times = [END - timedelta(minutes=minute) for minute in range(0, 1440, 2)]
    for suffix, (ac, dc) in CHARGED.items():
        meters = [
            {
                "meterId": f"METER-{suffix}",
                "kwhConsumedAc": ac / len(times),
                "voltage": 230,
                "timestamp": time.isoformat(),
            }
            for time in times
        ]
        vehicles = [
            {
                "vehicleId": f"VEH-{suffix}",
                "kwhDeliveredDc": dc / len(times),
                "batteryTemp": 25,
                "timestamp": time.isoformat(),
            }
            for time in times
        ]
        assert api.post("/v1/ingestion/meter/batch", meters).status == 201
        assert api.post("/v1/ingestion/vehicle/batch", vehicles).status == 201
    return api


def ids(body: dict[str, Any]) -> list[str]:
    return [item["vehicleId"] for item in body["items"]]


def test_the_fleet_is_ranked_by_what_it_loses(fleet: Api, urls: DatabaseUrls) -> None:
    computed = fleet.get(f"/v1/analytics/fleet?end={FLEET_END}").body
    assert ids(computed) == ["VEH-C", "VEH-B", "VEH-A", "VEH-E", "VEH-D"]
    assert {item["vehicleId"][-1]: item["status"] for item in computed["items"]} == STATUSES
    assert computed["items"][0]["lossKwh"] == 3.6
    totals = computed["totals"]
    assert (totals["vehicles"], totals["fault"], totals["healthy"]) == (5, 1, 1)
    assert totals["totalEnergyConsumedAc"] == 50.5
    assert totals["lossKwh"] == 5.5

    with connect(urls.owner) as owner:
        assert refresh_summaries(owner, END + timedelta(minutes=20), Rules()) == 5
    assert fleet.get("/v1/analytics/fleet").body == computed


# As while a version with other thresholds is deployed: both refresh the same hour.
def test_refreshes_by_two_rules_do_not_mix(
    fleet: Api, urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telemetry.summaries.CHUNK", 1)
    computed = fleet.get(f"/v1/analytics/fleet?end={FLEET_END}").body
    others = Rules(least_kwh=11)
    with connect(urls.owner) as first, connect(urls.owner) as second:
        for _ in range(3):
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(refresh_summaries, (first, second), (END, END), (Rules(), others)))
            assert find_differences(first) == []
            # Whichever was last: the other rules' fleet is computed.
            assert fleet.get(f"/v1/analytics/fleet?end={FLEET_END}").body == computed
        refresh_summaries(second, END, others)
        assert second.execute("SELECT finished, least_kwh FROM fleet_window").fetchall() == [
            (True, 11)
        ]
        insufficient = second.execute(
            "SELECT vehicles FROM fleet_totals WHERE status = 'insufficient'"
        ).fetchall()
    assert insufficient != [(computed["totals"]["insufficient"],)]
    assert fleet.get(f"/v1/analytics/fleet?end={FLEET_END}").body == computed


def test_a_window_that_is_begun_anew_by_other_rules_serves_nobody_until_it_is_finished(
    fleet: Api, urls: DatabaseUrls
) -> None:
    computed = fleet.get(f"/v1/analytics/fleet?end={FLEET_END}").body
    with connect(urls.owner) as owner:
        refresh_summaries(owner, END, Rules(least_kwh=11))
        owner.execute("SELECT begin_fleet_window(%s, %s, %s, %s)", (END, *Rules()))
    assert fleet.get(f"/v1/analytics/fleet?end={FLEET_END}").body == computed


def test_a_late_reading_shows_in_the_fleet_at_once(fleet: Api, urls: DatabaseUrls) -> None:
    with connect(urls.owner) as owner:
        refresh_summaries(owner, END, Rules())
    late = {"meterId": "METER-A", "kwhConsumedAc": 90, "voltage": 230}
    late["timestamp"] = (END - timedelta(minutes=1)).isoformat()
    assert fleet.post("/v1/ingestion/meter", late).status == 201
    heard = {"vehicleId": "VEH-A", "kwhDeliveredDc": 0, "batteryTemp": 25}
    heard["timestamp"] = late["timestamp"]
    assert fleet.post("/v1/ingestion/vehicle", heard).status == 201
    first = fleet.get("/v1/analytics/fleet?limit=1").body["items"][0]
    assert (first["vehicleId"], first["lossKwh"]) == ("VEH-A", 90.8)


def test_the_newest_reading_shows_too_where_its_hour_was_summed(
    fleet: Api, urls: DatabaseUrls
) -> None:
    with connect(urls.owner) as owner:
        refresh_summaries(owner, END + timedelta(hours=3), Rules())
    for device, kwh, hours in (
        ("METER-A", 90, 1),
        ("VEH-A", 45, 1),
        ("METER-B", 50, 3),  # the window's last instant
        ("VEH-C", 25, 3),
    ):
        newest: dict[str, Any] = {"timestamp": (END + timedelta(hours=hours)).isoformat()}
        if device.startswith("METER"):
            newest |= {"meterId": device, "kwhConsumedAc": kwh, "voltage": 230}
            assert fleet.post("/v1/ingestion/meter", newest).status == 201
        else:
            newest |= {"vehicleId": device, "kwhDeliveredDc": kwh, "batteryTemp": 25}
            assert fleet.post("/v1/ingestion/vehicle", newest).status == 201
    summarized = {
        item["vehicleId"]: item["lossKwh"]
        for item in fleet.get("/v1/analytics/fleet").body["items"]
    }
    for vehicle_id in ("VEH-A", "VEH-B", "VEH-C"):
        alone = fleet.get(f"/v1/analytics/performance/{vehicle_id}?end=2026-02-10T15:00:00Z").body
        assert alone["lossKwh"] == summarized[vehicle_id]
    assert summarized["VEH-A"] > 45


def test_a_vehicle_that_has_its_meter_back_shows_in_the_fleet_at_once(
    fleet: Api, urls: DatabaseUrls
) -> None:
    since = {"validFrom": (END - timedelta(days=2)).isoformat()}
    for vehicle_id in ("VEH-A", "VEH-B"):
        fleet.put(f"/v1/links/{vehicle_id}", {"meterId": "METER-D"} | since)
    with connect(urls.owner) as owner:
        refresh_summaries(owner, END, Rules())
    for meter_of_b, lost_by_a in (("METER-D", None), ("METER-B", 0.8)):
        fleet.put("/v1/links/VEH-B", {"meterId": meter_of_b} | since)
        [vehicle] = [
            item
            for item in fleet.get("/v1/analytics/fleet").body["items"]
            if item["vehicleId"] == "VEH-A"
        ]
        assert vehicle["lossKwh"] == lost_by_a


def test_a_shorter_window_that_ends_with_the_summarized_one_is_not_that_one(
    fleet: Api, urls: DatabaseUrls
) -> None:
    computed = fleet.get(f"/v1/analytics/fleet?hours=12&end={FLEET_END}").body
    with connect(urls.owner) as owner:
        refresh_summaries(owner, END, Rules())
    assert fleet.get(f"/v1/analytics/fleet?hours=12&end={FLEET_END}").body == computed
    assert computed["items"][0]["lossKwh"] == 1.8


def test_the_window_before_is_kept_for_whoever_is_reading_its_pages(
    connection: psycopg.Connection[Row],
) -> None:
    ends = [END + timedelta(hours=hours) for hours in range(3)]
    for end in ends:
        refresh_summaries(connection, end, Rules())
    kept = connection.execute("SELECT window_end FROM fleet_window ORDER BY 1").fetchall()
    assert kept == [(end,) for end in ends[1:]]


def test_the_fleet_is_filtered_and_paged(fleet: Api) -> None:
    query = f"end={FLEET_END}&limit=2"
    assert ids(fleet.get(f"/v1/analytics/fleet?status=fault&{query}").body) == ["VEH-C"]
    found: list[str] = []
    page = fleet.get(f"/v1/analytics/fleet?{query}").body
    while True:
        found += ids(page)
        if page["nextCursor"] is None:
            break
        page = fleet.get(f"/v1/analytics/fleet?limit=2&cursor={page['nextCursor']}").body
    assert found == ["VEH-C", "VEH-B", "VEH-A", "VEH-E", "VEH-D"]


def test_the_fleet_as_csv(fleet: Api) -> None:
    answer = fleet.get(f"/v1/analytics/fleet?end={FLEET_END}", accept="text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.body)))
    assert [(row["vehicleId"], row["lossKwh"]) for row in rows][:2] == [
        ("VEH-C", "3.6"),
        ("VEH-B", "1.4"),
    ]


def test_a_dashboard_names_what_it_does_not_know(fleet: Api) -> None:
    found = fleet.get("/v1/analytics/performance?vehicleIds=VEH-B,VEH-404,VEH-A").body
    assert found["unknown"] == ["VEH-404"]
    assert [vehicle["vehicleId"] for vehicle in found["vehicles"]] == ["VEH-B", "VEH-A"]
    alone = fleet.get("/v1/analytics/performance/VEH-A").body
    assert found["vehicles"][1] == {name: value for name, value in alone.items() if name != "gaps"}


@pytest.mark.parametrize("given", ["", "VEH 1", ",", ",".join(["VEH-1"] * 101)])
def test_a_dashboard_refuses_what_are_no_ids(api: Api, given: str) -> None:
    answer = api.get(f"/v1/analytics/performance?vehicleIds={given.replace(' ', '%20')}")
    assert answer.status == 400
    assert answer.body["errors"][0]["field"] == "vehicleIds"


def test_days_are_those_of_the_zone(fleet: Api) -> None:
    zone = "Asia/Kolkata"  # half past: 18:30 UTC is midnight
    found = fleet.get(f"/v1/analytics/vehicles/VEH-A/trend?bucket=day&buckets=3&tz={zone}").body[
        "items"
    ]
    assert [item["start"] for item in found] == [
        f"2026-02-{day:02}T00:00:00+05:30" for day in (8, 9, 10)
    ]
    counted = [
        sum(1 for minute in range(0, 1440, 2) if start < END - timedelta(minutes=minute) <= end)
        for start, end in (
            (datetime.fromisoformat(item["start"]), datetime.fromisoformat(item["end"]))
            for item in found
        )
    ]
    assert [item["dataPoints"] for item in found] == counted
    assert sum(counted) == 720


def test_days_change_their_length_with_the_clocks() -> None:
    berlin = parse_zone("Europe/Berlin")
    end = datetime.combine(date(2026, 3, 30), datetime.min.time(), berlin)
    bounds = bucket_bounds("day", 2, end, berlin)
    lengths = [(b - a) // timedelta(hours=1) for a, b in pairwise(bounds)]
    assert lengths == [24, 23]


@pytest.mark.parametrize(
    ("zone", "bucket", "change"),
    [
        ("Australia/Lord_Howe", "hour", datetime(2026, 4, 4, 15, tzinfo=UTC)),
        ("Australia/Lord_Howe", "hour", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
        ("Pacific/Apia", "day", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ],
)
def test_every_reading_is_in_one_bucket_where_clocks_change(
    api: Api, zone: str, bucket: str, change: datetime
) -> None:
    for minutes in (-70, -20, 0, 15, 25, 40, 80):
        time = change + timedelta(minutes=minutes)
        charge = {
            "vehicleId": "VEH-1",
            "kwhDeliveredDc": 1,
            "batteryTemp": 25,
            "timestamp": time.isoformat(),
        }
        assert api.post("/ingest/vehicle", charge).status == 201
        found = api.get(f"/v1/analytics/vehicles/VEH-1/trend?bucket={bucket}&tz={zone}").body
        last = found["items"][-1]
        start, end = (datetime.fromisoformat(last[bound]) for bound in ("start", "end"))
        assert start < time <= end
    assert sum(item["dataPoints"] for item in found["items"]) == 7
    assert all(item["start"] != item["end"] for item in found["items"])


def test_the_trend_is_the_performance_of_each_hour(fleet: Api) -> None:
    found = fleet.get("/v1/analytics/vehicles/VEH-C/trend?buckets=2").body["items"]
    assert len(found) == 2
    for item in found:
        end = item["end"].replace("+", "%2B")
        alone = fleet.get(f"/v1/analytics/performance/VEH-C?hours=1&end={end}").body
        assert item["totalEnergyConsumedAc"] == alone["totalEnergyConsumedAc"] == 0.833
        assert item["status"] == alone["status"]


def test_ops_ask_the_function_directly(fleet: Api) -> None:
    assert fleet.ask({"vehicleId": "VEH-A"}) == (fleet.get("/v1/analytics/performance/VEH-A").body)
    asked = {"fleet": {"status": "fault", "end": FLEET_END}}
    assert ids(fleet.ask(asked)) == ["VEH-C"]
    refused = fleet.ask({"vehicleId": "VEH-404"})
    assert (refused["statusCode"], refused["message"]) == (404, "Vehicle not found")
