"""The migration function as a custom resource of CloudFormation, which waits for its answer."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.errors import ConnectionTimeout

from local.configuration import read_local_template
from local.databases import DatabaseUrls
from local.runtime import Environment
from telemetry.database import CONNECT_TIMEOUT, connect
from telemetry.deployment import IAM_USERS, MOST_TRIES, admit_by_iam, connect_owner, deploy
from telemetry.migrate import shipped_migrations
from tests.conftest import Server, unpooled
from tests.wire import Wire

pytestmark = unpooled


class CloudFormation(HTTPServer):
    """Takes answers at the address that it gives with each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.answers: list[tuple[str | None, dict[str, Any]]] = []
        self.refusals = 0

    def event(self, request_type: str) -> dict[str, Any]:
        return {
            "RequestType": request_type,
            "ResponseURL": f"http://127.0.0.1:{self.server_port}/answer?signed",
            "StackId": "arn:stack",
            "RequestId": "request",
            "LogicalResourceId": "Schema",
            "ResourceProperties": {"Code": "arn:layer"},
        }


class _Answers(BaseHTTPRequestHandler):
    server: CloudFormation

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answers.append((self.headers["Content-Type"], json.loads(body)))
        self.send_response(503 if self.server.refusals else 200)
        self.server.refusals = max(0, self.server.refusals - 1)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    with CloudFormation() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def migrate(urls: DatabaseUrls) -> Environment:
    return Environment(read_local_template(urls.environment).functions["MigrateFunction"])


def test_a_deployment_brings_the_schema_up(
    empty_database: DatabaseUrls, cloudformation: CloudFormation
) -> None:
    function = migrate(empty_database)
    for request_type in ("Create", "Update", "Delete"):
        function.invoke(cloudformation.event(request_type), "request")
    success = {
        "Status": "SUCCESS",
        "Reason": "",
        "PhysicalResourceId": "schema",
        "StackId": "arn:stack",
        "RequestId": "request",
        "LogicalResourceId": "Schema",
    }
    assert cloudformation.answers == [("", success)] * 3
    with connect(empty_database.owner) as connection:
        applied = connection.execute("SELECT name FROM schema_migrations ORDER BY name").fetchall()
    assert [name for (name,) in applied] == [entry.name for entry in shipped_migrations()]


def test_a_migration_that_fails_fails_the_deployment(
    connection: psycopg.Connection[Any], urls: DatabaseUrls, cloudformation: CloudFormation
) -> None:
    connection.execute("UPDATE schema_migrations SET checksum = 'x' WHERE name LIKE '0002%'")
    function = migrate(urls)
    with pytest.raises(Exception, match="0002_streams was changed"):
        function.invoke(cloudformation.event("Update"), "request")
    [(_, answer)] = cloudformation.answers
    assert answer["Status"] == "FAILED"
    assert answer["Reason"].startswith("MigrationChanged: migration 0002_streams")


@pytest.mark.usefixtures("server")
def test_an_answer_fits_and_is_given_again_where_it_is_not_taken(
    cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telemetry.deployment.PAUSE", 0)
    cloudformation.refusals = MOST_TRIES - 1

    def fail() -> None:
        raise ValueError("é" * 5000)

    with pytest.raises(ValueError, match="é"):
        deploy(cloudformation.event("Create"), fail)
    assert len(cloudformation.answers) == MOST_TRIES
    assert len(json.dumps(cloudformation.answers[-1][1])) < 4096
    cloudformation.refusals = MOST_TRIES
    with pytest.raises(OSError, match="503"):
        deploy(cloudformation.event("Delete"), fail)


def test_deleting_the_stack_touches_no_database(
    empty_database: DatabaseUrls, cloudformation: CloudFormation
) -> None:
    migrate(empty_database).invoke(cloudformation.event("Delete"), "request")
    with connect(empty_database.owner) as connection:
        found = connection.execute("SELECT to_regclass('schema_migrations')").fetchone()
    assert found == (None,)


@pytest.mark.parametrize("accepted", ["token", "password"])
def test_the_owner_comes_by_a_token_or_else_by_the_password_of_a_new_database(
    server: Server, urls: DatabaseUrls, accepted: str
) -> None:
    with connect(server.url) as admin:
        admin.execute(f"CREATE ROLE new_owner LOGIN PASSWORD '{accepted}'".encode())
    url = make_conninfo(urls.owner, user="new_owner")
    token, password = (lambda _: "token"), (lambda _: "password")
    try:
        with connect_owner(url, token, password) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("new_owner",)
        if accepted == "password":
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                connect_owner(url, token, None)
    finally:
        with connect(server.url) as admin:
            admin.execute("DROP ROLE new_owner")


def test_the_owner_waits_for_a_slow_login(urls: DatabaseUrls) -> None:
    wire = Wire(urls.owner)
    wire.freeze()
    threading.Timer(CONNECT_TIMEOUT + 0.5, wire.thaw).start()
    with connect_owner(wire.url, None, None) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    wire.close()


def test_where_a_token_is_not_answered_no_password_is_tried(
    urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telemetry.deployment.PATIENT_TIMEOUT", 0.2)
    wire = Wire(urls.owner)
    wire.freeze()
    with pytest.raises(ConnectionTimeout, match=r"no connection within 0\.2 s"):
        connect_owner(wire.url, lambda _: "token", lambda _: pytest.fail("asked for a password"))
    wire.close()


def test_users_are_admitted_by_iam_where_rds_is(server: Server, urls: DatabaseUrls) -> None:
    with connect(server.url) as admin:
        admin.execute("CREATE ROLE rds_iam")
        admin.execute("GRANT rds_iam TO telemetry_owner WITH ADMIN OPTION")
        try:
            with connect(urls.owner) as owner:
                admit_by_iam(owner)
                admit_by_iam(owner)
            members = admin.execute(
                """SELECT member::regrole::text FROM pg_auth_members
                   WHERE roleid = 'rds_iam'::regrole ORDER BY 1"""
            ).fetchall()
            assert {name for (name,) in members} == set(IAM_USERS)
        finally:
            admin.execute("REVOKE rds_iam FROM telemetry_owner CASCADE")
            admin.execute("DROP ROLE rds_iam")
