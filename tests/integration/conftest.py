"""The real handlers on the test's own database, called with the events of an HTTP API."""

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import sql

from local.configuration import queue_arn, queue_url, read_local_template
from local.databases import DatabaseUrls
from local.event import build_record
from local.gateway import Gateway
from local.queues import connect as connect_queues
from local.queues import connect as connect_storage
from local.queues import make_queues
from local.sqs import QueueServer
from telemetry.bucket import Bucket
from telemetry.database import Database, Row
from telemetry.recognition import LONGEST_FIELD_NAME
from tests.wire import Wire

# Seconds. What the product waits is for its clients: a machine that is busy takes longer now and
# then, and would change what is answered.
PATIENCE = 60.0
LIMITS = (
    "database.OPEN_TIMEOUT",
    "database.CONNECT_TIMEOUT",
    "ingestion.TIME_LIMIT",
    "ingestion.BACKFILL_TIMEOUT",
    "queue.CONNECT_TIMEOUT",
    "queue.AGAIN_WITHIN",
    "revocations.CONNECT_TIMEOUT",
    "revocations.READ_TIMEOUT",
)

_buckets = count()


@pytest.fixture(autouse=True)
def patience() -> Iterator[pytest.MonkeyPatch]:
    """Have functions that are loaded from now on wait; who tests their limits undoes it."""
    with pytest.MonkeyPatch.context() as patch:
        for limit in LIMITS:
            patch.setattr(f"telemetry.{limit}", PATIENCE)
        patch.setattr("telemetry.queue.Queue.__init__.__defaults__", (PATIENCE,))
        yield patch


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any


class Api:
    """Calls a route of template.yaml as a client would, without a socket between."""

    def __init__(self, urls: DatabaseUrls, **changes: str) -> None:
        """changes: of the environment that template.yaml is read with."""
        environ = {**os.environ, **urls.environment, **changes}
        self.gateway = Gateway(read_local_template(environ))
        functions = (
            *("ingest_meter", "ingest_vehicle", "links", "devices", "alerts", "corrections"),
            *("tariffs", "analytics"),
        )
        self._environments = [f"{function}_api" for function in functions]
        self.bodies: set[str] = set()  # those of requests, of which a part may be a field's name

    @property
    def application(self) -> Gateway:
        """The same for a WSGI server."""
        return self.gateway

    def request(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        parts = urlsplit(target)
        if len(body) > LONGEST_FIELD_NAME:
            self.bodies.add(body.decode(errors="replace"))
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": parts.path.encode().decode("latin-1"),
            "QUERY_STRING": quote(parts.query, safe="=&%:+"),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": "application/json",
            "wsgi.input": io.BytesIO(body),
            **{
                f"HTTP_{name.upper().replace('-', '_')}": value
                for name, value in (headers or {}).items()
            },
        }
        started: list[tuple[str, list[tuple[str, str]]]] = []
        chunks = self.gateway(environ, lambda *start: started.append(start))
        [(status, answer_headers)] = started
        found, text = dict(answer_headers), b"".join(chunks).decode()
        is_json = found["content-type"] == "application/json"
        return Answer(int(status.split()[0]), found, json.loads(text) if is_json else text)

    def get(self, target: str, accept: str | None = None) -> Answer:
        return self.request("GET", target, headers={"Accept": accept} if accept else None)

    def post(self, target: str, body: object) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", target, raw)

    def put(self, target: str, body: object) -> Answer:
        return self.request("PUT", target, json.dumps(body).encode())

    def delete(self, target: str) -> Answer:
        return self.request("DELETE", target)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Invoke the analytics function directly, as ops do."""
        context = SimpleNamespace(aws_request_id="direct")
        answer: dict[str, Any] = sys.modules["analytics_api"].handler(question, context)
        return answer

    def close(self) -> None:
        """End the execution environments, whose connections would outlive the test."""
        for name in self._environments:
            environment = sys.modules.pop(name)
            environment.database.close()
            getattr(environment, "replica", environment.database).close()


@pytest.fixture(scope="module")
def queue_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueServer]:
    running = QueueServer(tmp_path_factory.mktemp("queues"))
    running.start(read_local_template({"DATABASE_URL": "postgresql://"}).queues)
    running.await_queues()
    yield running
    running.stop()


@dataclass
class Queues:
    """The real queues, as an event source mapping sees them."""

    client: Any
    endpoint: str

    def receive(self, name: str = "MeterQueue") -> list[dict[str, Any]]:
        received = self.client.receive_message(
            QueueUrl=queue_url(self.endpoint, name),
            MaxNumberOfMessages=10,
            VisibilityTimeout=0,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return [build_record(entry, queue_arn(name)) for entry in received.get("Messages", [])]

    def send(self, body: str, name: str = "MeterQueue") -> None:
        self.client.send_message(QueueUrl=queue_url(self.endpoint, name), MessageBody=body)


@pytest.fixture
def queues(queue_server: QueueServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queues]:
    for name, value in queue_server.environment.items():
        monkeypatch.setenv(name, value)
    client = connect_queues(queue_server.environment)
    template = read_local_template({"DATABASE_URL": "postgresql://"})
    for url in make_queues(client, template.queues).values():
        client.purge_queue(QueueUrl=url)
    yield Queues(client, queue_server.endpoint)
    client.close()


def delete_all(connection: psycopg.Connection[Row]) -> None:
    """Empty every table but that of the migrations; connection is an owner's or a superuser's."""
    rows = connection.execute(
        """SELECT relname FROM pg_class
           WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
             AND NOT relispartition AND relname != 'archive_horizon'
             AND relname NOT IN ('schema_migrations', 'schema_functions')"""
    ).fetchall()
    for (table,) in rows:
        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))


@pytest.fixture
def api(urls: DatabaseUrls, caplog: pytest.LogCaptureFixture) -> Iterator[Api]:
    opened = Api(urls)
    yield opened
    opened.close()
    logged = logged_text(caplog)
    assert [secret for secret in (*secrets_of(urls), *opened.bodies) if secret in logged] == []


def logged_text(caplog: pytest.LogCaptureFixture) -> str:
    """Return all that was logged, with every key that a line has beside its message."""
    return "\n".join(
        json.dumps(vars(record) | {"text": record.getMessage()}, default=str, ensure_ascii=False)
        for record in caplog.get_records("call")
    )


def secrets_of(urls: DatabaseUrls) -> list[str]:
    """Return what no log may have, whatever happens."""
    passwords = [urlsplit(url).password or "" for url in urls.environment.values()]
    return [*passwords, "postgresql://", "password=", "Bearer "]


@pytest.fixture
def writer(urls: DatabaseUrls) -> Iterator[Database]:
    """The database as the ingest functions reach it."""
    opened = Database(urls.ingest)
    yield opened
    opened.close()


@pytest.fixture
def reader(urls: DatabaseUrls) -> Iterator[Database]:
    """The database as the analytics function reaches it."""
    opened = Database(urls.read)
    yield opened
    opened.close()


@pytest.fixture
def wire(urls: DatabaseUrls) -> Iterator[Wire]:
    """A way to the test's database that listens in, and that can freeze and break."""
    opened = Wire(urls.ingest)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueServer]:
    running = QueueServer(tmp_path_factory.mktemp("storage"))
    running.start(read_local_template({"DATABASE_URL": "postgresql://"}).queues)
    running.await_queues()
    yield running
    running.stop()


@pytest.fixture
def s3(storage: QueueServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    return connect_storage(storage.environment, "s3")


def make_bucket(s3: Any) -> str:
    name = f"archive-{next(_buckets)}"
    s3.create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": s3.meta.region_name}
    )
    return name


@pytest.fixture
def bucket(s3: Any) -> Bucket:
    """A bucket of the test's own."""
    return Bucket(make_bucket(s3))
