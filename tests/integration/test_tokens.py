"""Requests with tokens, through the authorizer, on real handlers and a real DynamoDB API."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from local.configuration import read_local_template
from local.databases import DatabaseUrls
from local.queues import connect
from local.sqs import QueueServer
from local.tokens import make_claims, note_revocation
from telemetry.access import ROUTES, Scope
from telemetry.answers import FAULT_ID
from telemetry.database import Row
from telemetry.tokens import Claims, name_key, sign_token
from tests.integration.conftest import Answer, Api

# Who may do what is the same whatever server is behind.
pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True, scope="session")

KEY, NEXT_KEY = (Ed25519PrivateKey.from_private_bytes(bytes([n] * 32)) for n in (1, 2))
METER = {"kwhConsumedAc": 5.5, "voltage": 240.5, "timestamp": "2026-02-10T10:00:00Z"}
VEHICLE = {"kwhDeliveredDc": 5.06, "batteryTemp": 28.3, "timestamp": "2026-02-10T10:00:00Z"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueServer]:
    template = read_local_template({"DATABASE_URL": "postgresql://"})
    running = QueueServer(tmp_path_factory.mktemp("tables"))
    running.start(template.queues, template.tables)
    running.await_queues()
    yield running
    running.stop()


class Guarded:
    """The API where it asks for tokens, and who issues and revokes them."""

    def __init__(self, urls: DatabaseUrls, tables: QueueServer, **changes: str) -> None:
        keys = ",".join(name_key(key.public_key()) for key in (KEY, NEXT_KEY))
        changes = {"AUTH": "token", "TOKEN_KEYS": keys, **tables.environment, **changes}
        self.api = Api(urls, **changes)
        self.tables = connect(tables.environment, "dynamodb")

    def issue(
        self, *scopes: Scope, meters: Iterable[str] = (), vehicles: Iterable[str] = ()
    ) -> str:
        return sign_token(make_claims("test", scopes or Scope, meters, vehicles), KEY)

    def send(self, token: str, method: str, target: str, body: object = None) -> Answer:
        raw = b"" if body is None else json.dumps(body).encode()
        return self.api.request(method, target, raw, {"Authorization": f"Bearer {token}"})

    def revoke(self, claims: Claims) -> None:
        note_revocation(self.tables, "Revocations", claims.jti)

    def close(self) -> None:
        self.api.close()
        sys.modules.pop("authorizer_app")


@pytest.fixture
def environ(tables: QueueServer, monkeypatch: pytest.MonkeyPatch) -> QueueServer:
    for name, value in tables.environment.items():
        monkeypatch.setenv(name, value)
    return tables


@pytest.fixture
def guarded(urls: DatabaseUrls, environ: QueueServer) -> Iterator[Guarded]:
    opened = Guarded(urls, environ)
    yield opened
    opened.close()


def count(connection: psycopg.Connection[Row], table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row
    number: int = row[0]
    return number


TARIFF = {
    "currency": "EUR",
    "timeZone": "UTC",
    "pricePerKwh": 0.3,
    "validFrom": "2026-01-01T00:00:00Z",
}


def request_of(route: str) -> tuple[str, str, object]:
    """Return a request that a route takes, with whatever scope it asks for."""
    method, path = route.split()
    target = path.format(vehicleId="VEH-1", meterId="MTR-1", deviceId="MTR-1", faultId=FAULT_ID)
    if target == "/v1/analytics/performance":
        target += "?vehicleIds=VEH-1"
    body: Any = None
    if method == "POST":
        body = {"meterId": "MTR-1", **METER} if "meter" in path else {"vehicleId": "V", **VEHICLE}
        body = [body] if path.endswith("batch") else body
        said = {"by": "Ada", "why": "seen"}
        body = said if path.endswith("acknowledge") else body
        if path.startswith("/v1/voids"):
            body = said | {"meterId": "MTR-1", "timestamp": METER["timestamp"]}
        if path == "/v1/erasures":
            body = said | {"meterId": "MTR-1"}
    if method == "DELETE" and "links" not in path:
        target += "?validFrom=2026-01-01T00:00:00Z"
    if "/tariffs/" in path:
        return method, target, TARIFF if method == "PUT" else body
    if method == "PUT":
        body = {"meterId": "MTR-1"} if "links" in path else {"energy": "interval"}
    return method, target, body


def test_each_route_lets_in_its_scope_alone(guarded: Guarded) -> None:
    tokens = {
        scope: guarded.issue(scope, meters=["*"], vehicles=["*"]) for scope in reversed(Scope)
    }
    # A token has been let in on another route before: that must not let it in on this one.
    for token in tokens.values():
        assert guarded.send(token, "GET", "/").status == 200
    for route, needed in ROUTES.items():
        method, target, body = request_of(route)
        for scope, token in tokens.items():
            answer = guarded.send(token, method, target, body)
            if needed in {scope, None}:
                assert answer.status in {200, 201, 202, 404}, (route, scope, answer.body)
            else:
                assert answer.status == 403, (route, scope, answer.body)
                assert answer.body["message"] == f"This route needs the scope {needed}"
                assert answer.body["statusCode"] == 403
                assert answer.headers["x-request-id"]


def test_without_a_token_only_the_service_is_named(guarded: Guarded) -> None:
    for route in ROUTES:
        method, target, body = request_of(route)
        raw = json.dumps(body).encode()
        for headers in ({}, {"Authorization": ""}):
            answer = guarded.api.request(method, target, raw, headers)
            if route == "GET /":
                assert answer.status == 200
            else:
                assert (answer.status, answer.body) == (401, {"message": "Unauthorized"})


def test_a_token_that_is_not_accepted_is_forbidden_like_any_other(guarded: Guarded) -> None:
    good = guarded.issue()
    stranger = Ed25519PrivateKey.from_private_bytes(bytes([9] * 32))
    expired = make_claims("x", Scope)
    expired = expired.model_copy(update={"exp": expired.iat - 90, "iat": expired.iat - 900})
    refused = [
        "nonsense",
        good[:-9],
        good + "." + good,
        sign_token(make_claims("x", Scope), stranger),
        sign_token(expired, KEY),
        "a" * 9000,
    ]
    answers = {
        json.dumps((answer.status, answer.body))
        for answer in (guarded.send(token, "GET", "/health") for token in refused)
    }
    assert answers == {json.dumps((403, {"message": "Forbidden"}))}
    basic = guarded.api.request("GET", "/health", headers={"Authorization": f"Basic {good}"})
    assert basic.status == 403
    lower = guarded.api.request("GET", "/health", headers={"Authorization": f"bearer {good}"})
    assert lower.status in {200, 503}


def test_a_device_writes_for_itself_alone(
    guarded: Guarded, connection: psycopg.Connection[Row]
) -> None:
    token = guarded.issue(Scope.INGEST_METER, meters=["MTR-1", "DEPOT7-*"])
    for meter, status in (
        ("MTR-1", 201),
        ("DEPOT7-9", 201),
        ("DEPOT7", 403),
        ("MTR-11", 403),
        ("mtr-1", 403),
    ):
        answer = guarded.send(token, "POST", "/ingest/meter", {"meterId": meter, **METER})
        assert answer.status == status, meter
    assert answer.body["errors"] == [
        {"field": "meterId", "message": "The token is not for this device"}
    ]
    assert count(connection, "meter_telemetry_history") == 2


def test_a_refusal_does_not_tell_whether_a_device_exists(guarded: Guarded) -> None:
    meter = {"meterId": "MTR-1", **METER}
    assert guarded.send(guarded.issue(meters=["*"]), "POST", "/ingest/meter", meter).status == 201
    token = guarded.issue(Scope.INGEST_METER, meters=["MTR-9"])
    bodies = []
    for known_or_not in ("MTR-1", "MTR-2"):
        answer = guarded.send(
            token, "POST", "/v1/ingestion/meter", {**meter, "meterId": known_or_not}
        )
        bodies.append({**answer.body, "timestamp": None})
    assert bodies[0] == bodies[1]


def test_a_vehicle_names_only_meters_that_its_token_covers(
    guarded: Guarded, connection: psycopg.Connection[Row]
) -> None:
    token = guarded.issue(Scope.INGEST_VEHICLE, vehicles=["VEH-1"], meters=["MTR-1"])
    reading = {"vehicleId": "VEH-1", **VEHICLE}
    for fields, status in (
        ({}, 201),
        ({"meterId": None}, 201),
        ({"meterId": "MTR-1"}, 201),
        ({"meterId": "MTR-2"}, 403),
        ({"vehicleId": "VEH-2", "meterId": "MTR-1"}, 403),
    ):
        answer = guarded.send(token, "POST", "/ingest/vehicle", reading | fields)
        assert answer.status == status, (fields, answer.body)
    batch = [reading, reading | {"meterId": "MTR-2"}]
    answer = guarded.send(token, "POST", "/v1/ingestion/vehicle/batch", batch)
    assert (answer.status, answer.body["accepted"]) == (207, 1)
    [rejected] = answer.body["rejections"]
    assert (rejected["index"], rejected["status"]) == (1, 403)
    assert rejected["errors"][0]["field"] == "meterId"
    # Naming a meter is not writing its readings.
    assert guarded.send(token, "POST", "/ingest/meter", {"meterId": "MTR-1", **METER}).status == 403
    named = connection.execute("SELECT DISTINCT meter_id FROM vehicle_telemetry_history").fetchall()
    assert {row[0] for row in named} == {None, "MTR-1"}


def test_each_item_of_a_batch_is_judged_alone(
    guarded: Guarded, connection: psycopg.Connection[Row]
) -> None:
    token = guarded.issue(Scope.INGEST_METER, meters=["DEPOT7-*"])
    meters = ["DEPOT7-1", "MTR-1", "DEPOT7-2", "DEPOT7-bad id", "DEPOT8-1", "DEPOT7-3"]
    batch = [{"meterId": meter, **METER} for meter in meters]
    answer = guarded.send(token, "POST", "/v1/ingestion/meter/batch", batch)
    assert (answer.status, answer.body["status"]) == (207, "stored")
    assert (answer.body["accepted"], answer.body["rejected"]) == (3, 3)
    assert [(each["index"], each["status"]) for each in answer.body["rejections"]] == [
        (1, 403),
        (3, 400),
        (4, 403),
    ]
    stored = connection.execute("SELECT meter_id FROM meter_live_status ORDER BY 1").fetchall()
    assert [row[0] for row in stored] == ["DEPOT7-1", "DEPOT7-2", "DEPOT7-3"]


@pytest.mark.parametrize(
    ("meters", "status"),
    [(["MTR-1", "MTR-2"], 403), (["MTR-1", "bad id"], 400), (["bad id"], 400)],
)
def test_a_batch_of_which_nothing_is_taken_says_why(
    guarded: Guarded, meters: list[str], status: int
) -> None:
    token = guarded.issue(Scope.INGEST_METER, meters=["OTHER-*"])
    batch = [{"meterId": meter, **METER} for meter in meters]
    answer = guarded.send(token, "POST", "/v1/ingestion/meter/batch", batch)
    assert (answer.status, answer.body["statusCode"]) == (status, status)
    assert (answer.body["accepted"], answer.body["rejected"]) == (0, len(meters))


def test_a_revoked_token_is_refused_also_while_the_database_is_away(
    urls: DatabaseUrls, environ: QueueServer
) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    away = replace(urls, ingest=nowhere, read=nowhere)
    guarded = Guarded(away, environ, AUTHORIZER_CACHE_SECONDS="0")
    try:
        claims, other = make_claims("x", Scope, ["*"]), make_claims("x", Scope, ["*"])
        token = sign_token(claims, KEY)
        reading = {"meterId": "MTR-1", **METER}
        assert guarded.send(token, "POST", "/ingest/meter", reading).status == 202
        guarded.revoke(claims)
        answer = guarded.send(token, "POST", "/ingest/meter", reading)
        assert (answer.status, answer.body) == (403, {"message": "Forbidden"})
        still = guarded.send(sign_token(other, KEY), "POST", "/ingest/meter", reading)
        assert still.status == 202
    finally:
        guarded.close()


def test_the_gateway_remembers_a_token_for_as_long_as_the_template_says(
    urls: DatabaseUrls, environ: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded = Guarded(urls, environ, AUTHORIZER_CACHE_SECONDS="60")
    try:
        claims = make_claims("x", [Scope.ANALYTICS_READ])
        token = sign_token(claims, KEY)
        assert guarded.send(token, "GET", "/v1/live/meters").status == 200
        guarded.revoke(claims)
        assert guarded.send(token, "GET", "/v1/live/vehicles").status == 200
        later = time.monotonic() + 61
        monkeypatch.setattr("local.gateway.time.monotonic", lambda: later)
        assert guarded.send(token, "GET", "/v1/live/meters").status == 403
    finally:
        guarded.close()


def test_nobody_is_let_in_while_it_is_not_known_who_was_revoked(
    urls: DatabaseUrls, environ: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1")
    guarded = Guarded(urls, environ)
    try:
        answer = guarded.send(guarded.issue(), "GET", "/v1/live/meters")
        assert (answer.status, answer.body) == (500, {"message": "Internal Server Error"})
    finally:
        guarded.close()


def test_tokens_of_both_keys_work_while_keys_rotate(guarded: Guarded) -> None:
    claims: Claims = make_claims("x", [Scope.ANALYTICS_READ], life=timedelta(hours=2))
    for key in (KEY, NEXT_KEY):
        assert guarded.send(sign_token(claims, key), "GET", "/v1/live/meters").status == 200


def test_a_function_answers_nobody_whom_no_authorizer_saw(guarded: Guarded) -> None:
    context = SimpleNamespace(aws_request_id="x")
    for name in ("ingest_meter", "ingest_vehicle", "links", "devices", "tariffs", "analytics"):
        for route in ROUTES:
            method, target, body = request_of(route)
            event = {
                "version": "2.0",
                "routeKey": route,
                "rawPath": target,
                "rawQueryString": "",
                "headers": {},
                "body": json.dumps(body),
                "isBase64Encoded": False,
                "requestContext": {
                    "http": {"method": method, "path": target},
                    "requestId": "r",
                    "stage": "$default",
                },
            }
            answer = sys.modules[f"{name}_api"].handler(event, context)
            if route != "GET /":
                assert answer["statusCode"] == 401, (name, route)
                assert json.loads(answer["body"])["message"] == "Unauthorized"


def test_the_token_that_voided_a_reading_is_on_record(guarded: Guarded) -> None:
    everything = guarded.issue(meters=["*"])
    body = {"meterId": "METER-1", "timestamp": METER["timestamp"], "by": "Ada", "why": "a test"}
    reading = METER | {"meterId": "METER-1"}
    assert guarded.send(everything, "POST", "/ingest/meter", reading).status == 201
    claims = make_claims("ops", [Scope.READINGS_VOID], [], [])
    voided = guarded.send(sign_token(claims, KEY), "POST", "/v1/voids", body)
    assert voided.body["voided"]["tokenId"] == claims.jti
    other = make_claims("ops", [Scope.READINGS_VOID], [], [])
    withdrawn = guarded.send(sign_token(other, KEY), "POST", "/v1/voids/withdrawals", body).body
    said = [withdrawn[change]["tokenId"] for change in ("voided", "withdrawn")]
    assert said == [claims.jti, other.jti]


def test_ops_ask_directly_as_iam_lets_them(guarded: Guarded) -> None:
    assert guarded.api.ask({"vehicleId": "VEH-1"})["message"] == "Vehicle not found"
    assert guarded.api.ask({"vehicleIds": ["VEH-1"]})["unknown"] == ["VEH-1"]
    assert "totals" in guarded.api.ask({"fleet": {"hours": 24}})


def test_one_device_too_many_readings_and_the_others_are_taken(
    urls: DatabaseUrls, environ: QueueServer, connection: psycopg.Connection[Row]
) -> None:
    guarded = Guarded(urls, environ, DEVICE_RATE="1", DEVICE_BURST="3")
    try:
        token = guarded.issue(Scope.INGEST_METER, meters=["*"])
        batch = "/v1/ingestion/meter/batch"

        def reading(meter: str, minute: int) -> dict[str, Any]:
            return {"meterId": meter, **METER, "timestamp": f"2026-02-10T10:{minute:02}:00Z"}

        for minute in range(3):
            answer = guarded.send(token, "POST", "/ingest/meter", reading("BAD", minute))
            assert answer.status == 201
        answer = guarded.send(token, "POST", "/ingest/meter", reading("BAD", 3))
        assert answer.status == answer.body["statusCode"] == 429
        assert 30 < int(answer.headers["retry-after"]) <= 60
        assert answer.body["errors"][0]["field"] == "meterId"

        answer = guarded.send(token, "POST", batch, [reading("BAD", 4), reading("GOOD", 4)])
        assert (answer.status, answer.body["accepted"]) == (207, 1)
        assert [(each["index"], each["status"]) for each in answer.body["rejections"]] == [(0, 429)]
        answer = guarded.send(token, "POST", batch, [reading("BAD", 5)])
        assert answer.status == 429
        assert 30 < int(answer.headers["retry-after"]) <= 60
        # A backlog in one batch is taken whole, from whoever has been quiet.
        backlog = [reading("QUIET", minute) for minute in range(50)]
        assert guarded.send(token, "POST", batch, backlog).status == 201
        assert guarded.send(token, "POST", batch, backlog).status == 429
        assert count(connection, "meter_telemetry_history") == 3 + 1 + 50
    finally:
        guarded.close()


def test_a_backfill_needs_its_scope_beside_the_streams_and_has_no_rate(
    urls: DatabaseUrls, environ: QueueServer
) -> None:
    guarded = Guarded(urls, environ, DEVICE_RATE="1", DEVICE_BURST="1")
    try:
        target = "/v1/ingestion/meter/batch?mode=backfill"
        batch = [{"meterId": meter, **METER} for meter in ("MTR-1", "MTR-1", "OTHER")]
        gateway = guarded.issue(Scope.INGEST_METER, meters=["*"])
        answer = guarded.send(gateway, "POST", target, batch)
        assert (answer.status, answer.body["message"]) == (
            403,
            "This route needs the scope ingest:backfill",
        )
        alone = guarded.issue(Scope.BACKFILL, meters=["*"])
        assert guarded.send(alone, "POST", target, batch).status == 403
        both = guarded.issue(Scope.INGEST_METER, Scope.BACKFILL, meters=["MTR-*"])
        for _ in range(3):
            answer = guarded.send(both, "POST", target, batch)
            assert (answer.status, answer.body["accepted"]) == (207, 2)
            [rejection] = answer.body["rejections"]
            assert (rejection["index"], rejection["status"]) == (2, 403)
    finally:
        guarded.close()


def test_without_tokens_nobody_can_silence_a_device(urls: DatabaseUrls) -> None:
    api = Api(urls, DEVICE_RATE="1", DEVICE_BURST="1")
    try:
        for _ in range(5):
            assert api.post("/ingest/meter", {"meterId": "MTR-1", **METER}).status == 201
    finally:
        api.close()
