"""What RDS Proxy asks of a client so that it can share connections, held against the wire.

A session that pins keeps its server connection to itself. The rules are those of "Avoiding pinning
an RDS Proxy" in the guide of Amazon Aurora; stored functions do not pin, whatever they do inside.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from local.configuration import read_local_template
from local.databases import DatabaseUrls
from telemetry.alerts import Watch, count_unpublished, evaluate_fleet, publish_changes
from telemetry.database import Database, Row, connect
from telemetry.faults import Notice
from telemetry.readings import MeterReading, VehicleReading
from telemetry.rules import Rules
from telemetry.store import (
    store_meter_reading,
    store_meter_readings,
    store_vehicle_reading,
    store_vehicle_readings,
)
from tests.integration.conftest import Api
from tests.integration.oracle import Call, Event, write
from tests.wire import Statement, Wire

# RDS Proxy pins above 16 KB; no text here grows with what it is about.
MOST_BYTES = 1024

# The beginnings of statements, and calls anywhere in them, that pin.
_PINNING = re.compile(
    r"""(?: \A | ; ) \s* (?:
        (?: SET | RESET | PREPARE | EXECUTE | DEALLOCATE | DISCARD
          | DECLARE | LISTEN | UNLISTEN | LOAD ) \b
      | CREATE \s+ (?: OR \s+ REPLACE \s+ )? (?: (?: GLOBAL | LOCAL ) \s+ )?
        TEMP (?: ORARY )? \b
    )
    | \b INTO \s+ TEMP (?: ORARY )? \b
    | \b (?: set_config | nextval | setval | currval | lastval
           | pg_ (?: try_ )? advisory_ (?: lock | unlock ) \w* ) "? \s* \(
    """,
    re.IGNORECASE | re.VERBOSE,
)
_NOT_SQL = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)


def pins(statement: Statement) -> bool:
    """Say whether RDS Proxy, having seen this, pins the session (or does not support it)."""
    too_long = len(statement.text.encode()) > 16 * 1024
    text = _NOT_SQL.sub(" ", statement.text)
    return bool(statement.prepared or too_long or _PINNING.search(text))


@pytest.mark.parametrize(
    "statement",
    [
        "SET x = 1",
        "set local x = 1",
        "RESET ALL",
        "select set_config('x', '1', false)",
        "SELECT pg_catalog.set_config('x', '1', true)",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "CREATE TEMP TABLE t (x int)",
        "create temporary view v as select 1",
        "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
        "CREATE TEMPORARY SEQUENCE s",
        "SELECT 1 AS x INTO TEMP t",
        "DECLARE c CURSOR FOR SELECT 1",
        "LISTEN x",
        "LOAD 'auto_explain'",
        "SELECT nextval('s')",
        "SELECT setval ('s', 1)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock_shared(1)",
        "SELECT pg_advisory_unlock_all()",
        "/* as ever */ SET x = 1",
        "BEGIN; SET x = 1; COMMIT",
        "SELECT " + "1 + " * 4300 + "1",
    ],
)
def test_what_pins_is_told(statement: str) -> None:
    assert pins(Statement(statement))


@pytest.mark.parametrize(
    "statement",
    [
        "SHOW server_version",
        "SELECT current_setting('x')",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT pg_try_advisory_xact_lock_shared(1)",
        "UPDATE t SET x = 1 -- ; SET x",
        "INSERT INTO t VALUES (1) ON CONFLICT (x) DO UPDATE SET x = 1",
        "SELECT 'it''s ; SET x = 1', 'nextval(1)'",
        "SELECT execute, listen FROM settings",
        "CREATE TABLE temperature (x int)",
        "BEGIN",
    ],
)
def test_what_does_not_pin_is_let_be(statement: str) -> None:
    assert not pins(Statement(statement))


def test_a_statement_that_the_protocol_names_pins() -> None:
    assert pins(Statement("SELECT 1", prepared="s1"))
    assert not pins(Statement("SELECT 1", prepared=""))


METER: dict[str, Any] = {
    "meterId": "METER-1",
    "kwhConsumedAc": 5.5,
    "voltage": 220,
    "timestamp": "2026-02-10T10:00:00Z",
}
VEHICLE: dict[str, Any] = {
    "vehicleId": "VEH-1",
    "soc": 80,
    "kwhDeliveredDc": 4.6,
    "batteryTemp": 32,
    "timestamp": "2026-02-10T10:00:00Z",
}
TARIFF: dict[str, Any] = {
    "currency": "EUR",
    "timeZone": "Europe/Berlin",
    "pricePerKwh": 0.3,
    "validFrom": "2026-01-01T00:00:00Z",
}
VERSION = "?validFrom=2026-01-01T00:00:00Z"
DECLARED = {"energy": "interval", "validFrom": "2030-01-01T00:00:00Z"}
LATE = {"timestamp": "2026-02-10T09:00:00Z"}
BAD = {"timestamp": "yesterday"}
ONE_STATEMENT = list("PBDES")


def assert_multiplexable(wire: Wire) -> None:
    assert [statement for statement in wire.statements if pins(statement)] == []
    assert max(len(text.encode()) for text, _ in wire.statements) <= MOST_BYTES
    assert wire.startups
    assert not any("options" in startup for startup in wire.startups)
    assert wire.cancels == 0


@pytest.fixture
def api(wire: Wire, urls: DatabaseUrls) -> Iterator[Api]:
    others = {name: wire.lead(getattr(urls, name)) for name in ("read", "alerts", "correct")}
    opened = Api(replace(urls, ingest=wire.url, **others))
    yield opened
    opened.close()


def test_no_route_pins(api: Api, wire: Wire, urls: DatabaseUrls) -> None:
    called = set()

    def post(path: str, body: object, expected: int) -> None:
        called.add(f"POST {path}")
        wire.messages.clear()
        assert api.post(path, body).status == expected
        assert wire.messages == (ONE_STATEMENT if expected == 201 else [])

    def get(route: str, target: str, expected: int) -> None:
        called.add(f"GET {route}")
        assert api.get(target).status == expected

    for stream, reading, correction in (
        ("meter", METER, {"kwhConsumedAc": 6}),
        ("vehicle", VEHICLE, {"kwhDeliveredDc": 5}),
    ):
        for path in ("/ingest/", "/v1/ingestion/"):
            for change in ({}, {}, correction, LATE, LATE):
                post(path + stream, reading | change, 201)
            post(path + stream, reading | BAD, 400)
        many = [reading | change for change in ({}, {}, correction, LATE, LATE)]
        post(f"/v1/ingestion/{stream}/batch", many, 201)
        post(f"/v1/ingestion/{stream}/batch", [reading | BAD], 400)
    for minute, meter in enumerate(("METER-1", "METER-1", "METER-2")):
        named = {"meterId": meter, "timestamp": f"2026-02-10T11:0{minute}:00Z"}
        post("/ingest/vehicle", VEHICLE | named, 201)
    report = "/v1/analytics/performance/{vehicleId}"
    for query in ("", "?end=now", "?end=2026-02-10T10:00:00Z"):
        get(report, f"/v1/analytics/performance/VEH-1{query}", 200)
    get(report, "/v1/analytics/performance/VEH-1?hours=8784", 200)
    get(report, "/v1/analytics/performance/VEH-2", 404)
    dashboard = "/v1/analytics/performance"
    get(dashboard, f"{dashboard}?vehicleIds={','.join(f'VEH-{n}' for n in range(100))}", 200)
    fleet = "/v1/analytics/fleet"
    get(fleet, fleet, 200)
    get(fleet, f"{fleet}?status=fault&hours=48&limit=1", 200)
    faults = "/v1/analytics/faults"
    get(faults, f"{faults}?state=open&vehicleId=VEH-1", 200)
    called.add(f"POST {faults}/{{faultId}}/acknowledge")
    unknown = f"{faults}/6f1c5bd0-3c57-4d0a-9a0b-b1a1b4b9a1c2/acknowledge"
    assert api.post(unknown, {"by": "Ada", "why": "seen"}).status == 404
    trend = "/v1/analytics/vehicles/{vehicleId}/trend"
    get(trend, "/v1/analytics/vehicles/VEH-1/trend?bucket=day&buckets=366&tz=Asia/Kolkata", 200)
    get(trend, "/v1/analytics/vehicles/VEH-2/trend", 404)
    get(report, "/v1/analytics/performance/VEH-1?end=soon", 400)
    for stream, device in (("meter", "METER-1"), ("vehicle", "VEH-1")):
        get(f"/v1/live/{stream}s", f"/v1/live/{stream}s?status=offline&limit=1", 200)
        get(f"/v1/live/{stream}s/{{{stream}Id}}", f"/v1/live/{stream}s/{device}", 200)
        readings = f"/v1/{stream}s/{{{stream}Id}}/readings"
        first = api.get(f"/v1/{stream}s/{device}/readings?limit=1").body["nextCursor"]
        for query in ("", "?from=2026-02-10T09:00:00Z&to=now", f"?cursor={first}"):
            get(readings, f"/v1/{stream}s/{device}/readings{query}", 200)
        get(readings, f"/v1/{stream}s/none/readings", 404)
    said = {"meterId": "METER-1", "timestamp": "2000-01-01T00:00:00Z", "by": "Ada", "why": "a test"}
    for route, query, method, body, expected in (
        ("/v1/voids", "", "POST", said, 404),
        ("/v1/voids/withdrawals", "", "POST", said, 404),
        ("/v1/voids", "?limit=1", "GET", None, 200),
        ("/v1/erasures", "", "POST", {"meterId": "M", "by": "Ada", "why": "a test"}, 202),
        ("/v1/erasures", "?limit=1", "GET", None, 200),
        ("/v1/links/{vehicleId}", "", "PUT", {"meterId": "METER-3"}, 201),
        ("/v1/links/{vehicleId}", "", "PUT", {"meterId": "METER-3"}, 200),
        ("/v1/links/{vehicleId}", "", "PUT", {"meterId": "?"}, 400),
        ("/v1/links/{vehicleId}", "?limit=1", "GET", None, 200),
        ("/v1/links/{vehicleId}", "?limit=0", "GET", None, 400),
        ("/v1/links/{vehicleId}", "", "DELETE", None, 200),
        ("/v1/links/{vehicleId}", "", "DELETE", None, 404),
        ("/v1/devices/{deviceId}", "", "PUT", {"energy": "register"}, 201),
        ("/v1/devices/{deviceId}", "", "PUT", DECLARED, 201),
        ("/v1/devices/{deviceId}", "", "PUT", DECLARED, 200),
        ("/v1/devices/{deviceId}", "", "GET", None, 200),
        ("/v1/devices/{deviceId}", f"?validFrom={DECLARED['validFrom']}", "DELETE", None, 200),
        ("/v1/devices", "?limit=1", "GET", None, 200),
        ("/v1/tariffs/fleet", "", "PUT", TARIFF, 201),
        ("/v1/tariffs/fleet", "", "PUT", TARIFF, 200),
        ("/v1/tariffs/fleet", "", "PUT", {}, 400),
        ("/v1/tariffs/fleet", "", "GET", None, 200),
        (report, "", "GET", None, 200),  # with prices
        (fleet, "?sort=cost&end=2026-02-10T12:00:00Z", "GET", None, 200),
        ("/v1/tariffs/meters/{meterId}", "", "PUT", TARIFF | {"currency": "USD"}, 409),
        ("/v1/tariffs/meters/{meterId}", "", "PUT", TARIFF, 201),
        ("/v1/tariffs/meters/{meterId}", "", "GET", None, 200),
        ("/v1/tariffs/meters/{meterId}", VERSION, "DELETE", None, 200),
        ("/v1/tariffs/meters/{meterId}", VERSION, "DELETE", None, 404),
        ("/v1/tariffs/fleet", VERSION, "DELETE", None, 200),
    ):
        called.add(f"{method} {route}")
        target = route.format(vehicleId="VEH-1", meterId="METER-1", deviceId="METER-1") + query
        assert api.request(method, target, json.dumps(body).encode()).status == expected
    get("/health", "/health", 200)
    get("/", "/", 200)

    template = read_local_template(urls.environment)
    assert called == {route.key for route in template.routes}
    assert_multiplexable(wire)


def test_the_monitor_does_not_pin(wire: Wire, urls: DatabaseUrls) -> None:
    charger = [
        Event(1, 0, wh, None, is_meter=is_meter) for wh, is_meter in ((2000, True), (1, False))
    ]
    store = Database(urls.ingest)
    write(store, Call(charger, NOON))
    store.close()
    received: list[Notice] = []

    class Receiver:
        def publish(self, notices: Sequence[Notice]) -> list[Notice]:
            received.extend(notices)
            return list(notices)

    with connect(wire.lead(urls.alerts)) as connection:
        rules = Rules(least_coverage=0)
        evaluate_fleet(connection, rules, Watch(), NOON + timedelta(hours=1))
        publish_changes(connection, Receiver())
        count_unpublished(connection)
    assert len(received) == 1
    assert_multiplexable(wire)


NOON = datetime(2026, 2, 10, 12, tzinfo=UTC)
ACCEPTED = datetime(2026, 2, 11, tzinfo=UTC)


@pytest.fixture
def database(wire: Wire) -> Iterator[Database]:
    opened = Database(wire.url)
    yield opened
    opened.close()


def meters(count: int) -> list[MeterReading]:
    return [
        MeterReading.model_construct(
            meter_id=f"METER-{number % 997}",
            kwh_consumed_ac=1.0,
            voltage=230.0,
            timestamp=NOON + timedelta(seconds=number),
        )
        for number in range(count)
    ]


def vehicles(count: int) -> list[VehicleReading]:
    return [
        VehicleReading.model_construct(
            vehicle_id=f"VEH-{number % 997}",
            soc=50.0,
            kwh_delivered_dc=1.0,
            battery_temp=25.0,
            timestamp=NOON + timedelta(seconds=number),
        )
        for number in range(count)
    ]


def test_no_batch_pins(wire: Wire, database: Database) -> None:
    store_meter_reading(database, meters(1)[0], ACCEPTED)
    store_vehicle_reading(database, vehicles(1)[0], ACCEPTED)
    for size in (1, 2, 100, 10_000):
        wire.messages.clear()
        store_meter_readings(database, meters(size), ACCEPTED)
        store_vehicle_readings(database, vehicles(size), ACCEPTED)
        assert wire.messages == ONE_STATEMENT * 2
    assert_multiplexable(wire)
    assert len(set(wire.statements)) == 4, "a text that varies with the batch"


@pytest.mark.parametrize("delivered", [False, True])
def test_a_write_whose_answer_is_lost_is_stored_once(
    wire: Wire, database: Database, connection: psycopg.Connection[Row], delivered: bool
) -> None:
    stored = "SELECT count(*) FROM meter_telemetry_history WHERE received_at = %s"
    database.fetch("SELECT 1")
    for number, _ in enumerate(ONE_STATEMENT, 1):
        accepted = ACCEPTED + timedelta(seconds=number)
        found_when_cut: list[Any] = []

        def cut(accepted: datetime = accepted, found: list[Any] = found_when_cut) -> None:
            found += connection.execute(stored, (accepted,)).fetchall()
            wire.cut()

        wire.trap(number, cut, delivered=delivered)
        store_meter_reading(database, meters(1)[0], accepted)
        committed = delivered and number == len(ONE_STATEMENT)
        assert found_when_cut == [(int(committed),)]
        assert connection.execute(stored, (accepted,)).fetchall() == [(1,)]
    assert len(wire.startups) == 1 + len(ONE_STATEMENT)
    assert connection.execute("SELECT count(*) FROM meter_telemetry_history").fetchone() == (5,)
