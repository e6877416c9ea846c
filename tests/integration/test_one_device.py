"""One device's odd data costs nobody else an answer, and its own is short."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from local.databases import DatabaseUrls
from telemetry.alerts import Watch, evaluate_fleet
from telemetry.database import Database, Row, connect
from telemetry.errors import DatabaseUnavailable
from telemetry.readings import VehicleReading
from telemetry.rules import Rules
from telemetry.store import store_vehicle_readings
from telemetry.summaries import refresh_summaries
from telemetry.verification import find_differences
from tests.conftest import unpooled
from tests.integration.conftest import Api

END = datetime(2026, 2, 10, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
REPORTS = (
    "/v1/analytics/performance/VEH-odd?end=2026-02-10T12:00:00Z",
    "/v1/analytics/performance?vehicleIds=VEH-odd,VEH-even&end=2026-02-10T12:00:00Z",
    "/v1/analytics/vehicles/VEH-odd/trend?end=2026-02-10T12:00:00Z&buckets=24",
    "/v1/analytics/fleet?end=2026-02-10T12:00:00Z",
)


@pytest.fixture
def owner(urls: DatabaseUrls) -> Iterator[psycopg.Connection[Row]]:
    with connect(urls.owner) as connection:
        yield connection
        assert find_differences(connection) == []


def charge(api: Api, suffix: str, ac: float, dc: float, minutes: int = 0) -> None:
    at = {"timestamp": (END - minutes * MINUTE).isoformat()}
    meter = {"meterId": f"METER-{suffix}", "kwhConsumedAc": ac, "voltage": 230}
    vehicle = {"vehicleId": f"VEH-{suffix}", "kwhDeliveredDc": dc, "batteryTemp": 25}
    assert api.post("/v1/ingestion/meter", meter | at).status == 201
    assert api.post("/v1/ingestion/vehicle", vehicle | at).status == 201


def ask_all(api: Api) -> list[Any]:
    answers = [api.get(report) for report in REPORTS]
    assert [answer.status for answer in answers] == [200] * len(REPORTS)
    return [answer.body for answer in answers]


@pytest.mark.parametrize("kwh", [1e-30, 5e-324, 1e-10])
def test_next_to_no_energy_is_none(api: Api, owner: psycopg.Connection[Row], kwh: float) -> None:
    charge(api, "even", 10, 9)
    charge(api, "odd", kwh, 5)
    performance, dashboard, _, fleet = ask_all(api)
    assert performance["acEnergyConsumed"] == 0
    assert performance["efficiencyRatio"] is None
    assert performance["reasons"]["efficiency"] == "no AC energy was consumed"
    assert [each["efficiencyRatio"] for each in dashboard["vehicles"]] == [None, 90]
    assert fleet["totals"]["totalEnergyConsumedAc"] == 10
    refresh_summaries(owner, END, Rules())
    assert ask_all(api)[3]["items"] == fleet["items"]


# A register may grow by less than a device would send.
def test_an_efficiency_beyond_all_sense_is_null_and_says_so(
    api: Api, owner: psycopg.Connection[Row]
) -> None:
    charge(api, "even", 10, 9)
    assert api.put("/v1/devices/METER-odd", {"energy": "register"}).status == 201
    charge(api, "odd", 1, 5, minutes=1)
    charge(api, "odd", 1 + 1e-14, 5)
    performance, dashboard, _, _ = ask_all(api)
    assert (performance["efficiency"], performance["efficiencyRatio"]) == (None, None)
    assert performance["reasons"]["efficiencyRatio"] == "DC is more than 100 times AC"
    assert performance["status"] == "insufficient"
    assert dashboard["vehicles"][1]["efficiencyRatio"] == 90


def test_a_price_of_next_to_nothing_is_none(api: Api, owner: psycopg.Connection[Row]) -> None:
    charge(api, "even", 10, 9)
    charge(api, "odd", 10, 8)
    tariff = {
        "currency": "EUR",
        "timeZone": "UTC",
        "pricePerKwh": 5e-324,
        "kgCo2PerKwh": 5e-324,
        "validFrom": "2026-01-01T00:00:00Z",
    }
    assert api.put("/v1/tariffs/fleet", tariff).status == 201
    assert api.get("/v1/tariffs/fleet").body["versions"][0]["pricePerKwh"] == 0
    page = api.get(f"{REPORTS[3]}&limit=1&sort=cost").body
    assert page["items"][0]["lossCost"] == 0
    rest = api.get(f"/v1/analytics/fleet?limit=1&cursor={quote(page['nextCursor'])}")
    assert (rest.status, rest.body["items"][0]["lossCost"]) == (200, 0)


def name_meters(urls: DatabaseUrls, count: int, begin: datetime = END - timedelta(hours=1)) -> None:
    """Have VEH-odd tell another meter a second."""
    readings = [
        VehicleReading.model_construct(
            vehicle_id="VEH-odd",
            soc=None,
            kwh_delivered_dc=0.01,
            battery_temp=25,
            timestamp=begin + timedelta(seconds=number),
            meter_id=f"METER-{number % 100}",
        )
        for number in range(count)
    ]
    with closing(Database(urls.ingest)) as store:
        store_vehicle_readings(store, readings, END)


def test_of_many_links_a_hundred_are_listed(api: Api, urls: DatabaseUrls) -> None:
    name_meters(urls, 1440)
    answer = api.get(REPORTS[0]).body
    assert len(answer["pairing"]) == 100
    assert answer["pairingOmitted"] == 1340
    assert "100 meters fed VEH-odd" in answer["reasons"]["meterId"]


def test_a_vehicle_with_more_links_than_minutes_is_not_judged(
    api: Api, owner: psycopg.Connection[Row], urls: DatabaseUrls
) -> None:
    charge(api, "even", 10, 9)
    name_meters(urls, 1441)
    performance, dashboard, _, fleet = ask_all(api)
    assert (performance["status"], performance["pairing"]) == ("insufficient", [])
    assert "VEH-odd has more links in the window than may count" in performance["statusReason"]
    assert performance["reasons"]["lossKwh"] == performance["statusReason"]
    assert performance["dcEnergyDelivered"] == 14.41
    assert dashboard["vehicles"][1]["efficiencyRatio"] == 90
    refresh_summaries(owner, END, Rules())
    assert ask_all(api)[3]["items"] == fleet["items"]
    longer = api.get(f"{REPORTS[0]}&hours=25").body
    assert (len(longer["pairing"]), longer["pairingOmitted"]) == (100, 1341)
    assert longer["reasons"]["acEnergyConsumed"] == "none of 100 meters has readings in the window"


@unpooled
@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        ("PERFORM pg_sleep(60)", "statement timeout"),
        ("RAISE numeric_value_out_of_range", "numeric_value_out_of_range"),
    ],
)
def test_others_are_judged_where_one_vehicle_cannot_be(
    api: Api, urls: DatabaseUrls, trouble: str, why: str
) -> None:
    for suffix in ("a", "odd", "z"):
        for minutes in range(0, 180, 2):
            charge(api, suffix, 1, 0.7, minutes)
    with connect(urls.owner) as connection:
        connection.execute(
            f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN {trouble}; RETURN NEW; END$$""".encode()
        )
        connection.execute(
            """CREATE TRIGGER refused BEFORE INSERT ON charger_window FOR EACH ROW
               WHEN (NEW.vehicle_id = 'VEH-odd') EXECUTE FUNCTION refuse()"""
        )
        connection.execute("GRANT EXECUTE ON FUNCTION refuse TO telemetry_alerts")
    rules = Rules(least_coverage=0)
    impatient = f"{urls.alerts}?options=-c%20statement_timeout%3D400ms"
    with connect(impatient) as connection:
        judged = evaluate_fleet(connection, rules, Watch(timedelta(hours=3)), END)
    assert judged.failed.keys() == {"VEH-odd"}
    assert why in judged.failed["VEH-odd"]
    faults = api.get("/v1/analytics/faults").body["items"]
    assert {fault["vehicleId"] for fault in faults} == {"VEH-a", "VEH-z"}


def test_a_new_link_costs_the_same_however_many_the_meter_had(
    owner: psycopg.Connection[Row], api: Api
) -> None:
    def rows_read() -> int:
        charge(api, "odd", 1, 0.9)
        with owner.transaction():
            before = count_rows(owner)
            owner.execute(
                """SELECT claim_meters(
                       ARRAY[ROW('VEH-odd', %s::timestamptz, NULL, 'METER-odd')::link_claim])""",
                (END,),
            )
            owner.execute(
                """SELECT mark_meter_summaries(ARRAY[ROW('METER-odd', %s)::reading_key])""", (END,)
            )
            found = count_rows(owner) - before
            raise psycopg.Rollback
        return found

    few = rows_read()
    owner.execute(
        """INSERT INTO links (vehicle_id, valid_from, meter_id, source)
           SELECT 'VEH-' || number %% 100, %s - number * interval '1 minute', 'METER-odd', 'api'
           FROM generate_series(2, 20001) AS number""",
        (END,),
    )
    assert rows_read() <= few + 20


def count_rows(connection: psycopg.Connection[Row]) -> int:
    [(found,)] = connection.execute(
        "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'links'"
    )
    return int(found)


@unpooled
def test_a_statement_that_was_given_up_ends(urls: DatabaseUrls) -> None:
    unlimited = f"{urls.read}?options=-c%20statement_timeout%3D0"
    with (
        closing(Database(unlimited, time_limit=0.5)) as reader,
        pytest.raises(DatabaseUnavailable),
    ):
        reader.fetch("SELECT 'given up', pg_sleep(600)")
    running = """SELECT FROM pg_stat_activity
                 WHERE query LIKE '%%given up%%' AND pid != pg_backend_pid()
                   AND datname = current_database()"""
    with connect(urls.owner) as connection:
        while connection.execute(running).fetchone():
            pass  # ends by the test run's time limit if it goes on
