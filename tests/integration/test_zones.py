"""One release of the IANA database decides local times, whatever system and PostgreSQL have."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import psycopg

from local.configuration import read_local_template
from local.databases import DatabaseUrls
from local.runtime import Environment
from telemetry.database import Database, Row
from telemetry.rules import Rules
from telemetry.summaries import refresh_summaries
from telemetry.tariffs import FLEET, put_tariff
from telemetry.verification import find_differences
from tests.conftest import unpooled
from tests.integration.conftest import Api
from tests.integration.prices import ZONES
from tests.integration.test_tariffs import HOUR, MONDAY, charge, make_tariff

pytestmark = unpooled

NIGHT = {"days": ["mon"], "from": "00:00", "to": "06:00", "pricePerKwh": 0.1}
BODY = {
    "currency": "EUR",
    "timeZone": "Africa/Casablanca",
    "pricePerKwh": 0.3,
    "periods": [NIGHT],
    "validFrom": "2026-01-01T00:00:00Z",
}
# Puts tariffs, and says when the days of a trend begin and what the hours around changes cost.
SCRIPT = """
import json, sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo
from telemetry.database import Database, connect
from telemetry.tariffs import Tariff, put_tariff
from telemetry.trends import bucket_bounds
from telemetry.zones import parse_zone
ingest, owner, body, *names = sys.argv[1:]
print([ZoneInfo(name).utcoffset(datetime(2026, 7, 1)) for name in names], file=sys.stderr)
database = Database(ingest)
ends = [datetime(2026, month, 15, tzinfo=UTC) for month in (3, 4, 11)]
with connect(owner) as connection:
    connection.execute("SET timezone = 'UTC'")
    for name in names:
        tariff = Tariff.model_validate_json(json.dumps(json.loads(body) | {"timeZone": name}))
        put_tariff(database, "METER-1", tariff)
        bounds = [bucket_bounds("day", 31, end, parse_zone(name)) for end in ends]
        starts = [end - timedelta(days=31) for end in ends]
        prices = connection.execute(
            "SELECT * FROM hour_prices(%s, %s, %s)", (["METER-1"] * 3, starts, ends)
        ).fetchall()
        print(name, bounds, sorted(prices, key=lambda row: row[1]))
database.close()
"""


def test_another_zone_database_before_the_systems_changes_no_answer(
    urls: DatabaseUrls, tmp_path: Path
) -> None:
    for name in ZONES:  # as if all of the world kept the time of Tokyo
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        shutil.copy(str(files("tzdata").joinpath("zoneinfo", "Asia", "Tokyo")), path)
    command = [sys.executable, "-c", SCRIPT, urls.ingest, urls.owner, json.dumps(BODY), *ZONES]
    said = [
        subprocess.run(
            command,
            env={**os.environ, "PYTHONTZPATH": path, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        for path in ("", str(tmp_path))
    ]
    assert said[0].stdout == said[1].stdout
    assert said[0].stderr != said[1].stderr  # it was read


def test_hours_are_priced_by_the_offsets_of_the_code_alone(
    urls: DatabaseUrls, writer: Database, connection: psycopg.Connection[Row]
) -> None:
    api = Api(urls)
    assert api.put("/v1/tariffs/fleet", BODY | {"timeZone": "UTC"}).status == 201
    api.close()
    # No server knows this zone.
    connection.execute("UPDATE zone_offset SET time_zone = 'Mars/Olympus', release = 'test'")
    connection.execute("UPDATE zone_offset SET utc_offset = '-2 hours'")
    connection.execute("UPDATE tariff SET time_zone = 'Mars/Olympus'")
    rows = connection.execute(
        "SELECT hour, price_per_kwh::float FROM hour_prices(%s, %s, %s)",
        ([FLEET], [MONDAY], [MONDAY + 10 * HOUR]),
    ).fetchall()
    cheap = [(hour - MONDAY) / HOUR for hour, price in rows if price == 0.1]
    assert sorted(cheap) == [2, 3, 4, 5, 6, 7]


def test_a_deployment_brings_tariffs_to_its_release_and_health_says_so_before(
    api: Api, urls: DatabaseUrls, writer: Database, connection: psycopg.Connection[Row]
) -> None:
    assert api.put("/v1/tariffs/fleet", BODY).status == 201
    charge(writer, 1, 24)
    refresh_summaries(connection, MONDAY + 24 * HOUR, Rules(by_name=True))
    kept = connection.execute("SELECT * FROM zone_offset ORDER BY starts").fetchall()
    connection.execute("UPDATE zone_offset SET release = '2024a', utc_offset = '9 hours'")
    health = api.get("/health")
    assert (health.status, health.body["timeZones"]["ok"]) == (503, False)
    assert "Africa/Casablanca" in health.body["timeZones"]["detail"]
    migrate = Environment(read_local_template(urls.environment).functions["MigrateFunction"])
    assert migrate.invoke({}, "request-1")["zones"] == ["Africa/Casablanca"]
    assert connection.execute("SELECT * FROM zone_offset ORDER BY starts").fetchall() == kept
    assert connection.execute("SELECT bool_and(stale) FROM vehicle_summary").fetchall() == [(True,)]
    assert api.get("/health").status == 200
    assert migrate.invoke({}, "request-2")["zones"] == []


def test_offsets_of_a_newer_release_stay_while_old_code_puts_tariffs(
    api: Api, writer: Database, connection: psycopg.Connection[Row]
) -> None:
    put_tariff(writer, FLEET, make_tariff(time_zone="Europe/Berlin"))
    connection.execute("UPDATE zone_offset SET release = '9999z', utc_offset = '37 minutes'")
    put_tariff(writer, "METER-1", make_tariff(time_zone="Europe/Berlin"))
    assert connection.execute("SELECT DISTINCT utc_offset FROM zone_offset").fetchall() == [
        (timedelta(minutes=37),)
    ]
    assert api.get("/health").status == 200


def test_offsets_that_are_not_the_releases_are_a_difference(
    writer: Database, connection: psycopg.Connection[Row]
) -> None:
    put_tariff(writer, FLEET, make_tariff(time_zone="Europe/Berlin"))
    change = (
        "UPDATE zone_offset SET utc_offset = utc_offset + %s * interval '1 hour' WHERE starts = %s"
    )
    october = datetime(2026, 10, 25, 1, tzinfo=UTC)
    connection.execute(change, (1, october))
    [difference] = find_differences(connection)
    assert (difference.table, difference.device) == ("zone_offset", "Europe/Berlin")
    connection.execute(change, (-1, october))
