"""template.yaml as it is deployed: by localstack/deploy.sh, to MiniStack, without Docker.

Functions run from what `sam build` made, each in processes of its own, on the Python of Lambda.
"""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from local import ROOT
from local.configuration import read_local_template
from local.databases import (
    ALERTS,
    CORRECT,
    DATABASE,
    INGEST,
    READ,
    DatabaseUrls,
    admit_users,
    make_database,
    password_of,
)
from local.postgres import RunningPostgres, embedded_binaries, free_port, start_postgres
from local.processes import Process
from local.queues import Queues, connect
from local.tokens import make_claims, note_revocation
from telemetry.access import Scope
from telemetry.intake import METERS
from telemetry.messages import pack
from telemetry.readings import MeterReading
from telemetry.tokens import name_key, sign_token
from tests.conftest import FAST, Server
from tests.e2e.conftest import SECONDS, request_until, send_request
from tests.e2e.test_contract import LONG_AGO, METER_A, check_contracts
from tests.e2e.test_local_stack import processes_of
from tests.pgbouncer import PGBOUNCER, start_pgbouncer

pytestmark = pytest.mark.emulator

MINISTACK = ROOT / ".venv-ministack/bin/python"


@dataclass
class Deployment:
    """The stack on an emulator, and the database that it was given."""

    folder: Path
    endpoint: str
    postgres: RunningPostgres
    urls: DatabaseUrls
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    api: str = ""

    def deploy(self, *parameters: str) -> None:
        """Deploy, as its user does; keeps where the API is."""
        temporary = self.folder / "temporary"
        temporary.mkdir(exist_ok=True)
        environ = os.environ | self.urls.environment | {"AWS_ENDPOINT_URL": self.endpoint}
        done = subprocess.run(
            [str(ROOT / "localstack/deploy.sh"), f"TokenKeys={name_key(self.key.public_key())}"]
            + list(parameters),
            env={**environ, "TMPDIR": str(temporary)},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        log = self.folder / "ministack.log"
        assert done.returncode == 0, done.stdout + done.stderr + log.read_text(encoding="utf-8")
        assert list(temporary.iterdir()) == []  # nothing is left behind
        self.api = done.stdout.splitlines()[-1]

    def token(self, *scopes: Scope) -> tuple[str, str]:
        """Return a token for all devices, and its id."""
        claims = make_claims("test", scopes, ["*"], ["*"])
        return sign_token(claims, self.key), claims.jti

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request that may do everything."""
        return send_request(self.api, method, path, body, self.token(*Scope)[0])

    def client(self, service: str) -> Any:
        region = {"AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL_SQS": self.endpoint}
        return connect(
            {**region, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}, service
        )

    @property
    def outputs(self) -> dict[str, str]:
        """What the stack says of itself."""
        client = self.client("cloudformation")
        [stack] = client.describe_stacks(StackName="energy-ingestion-engine")["Stacks"]
        return {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}

    @property
    def queues(self) -> Queues:
        """The queues of meters."""
        outputs = self.outputs
        urls = [outputs["MeterQueueUrl"], outputs["MeterDeadLetterQueueUrl"]]
        return Queues(self.client("sqs"), {url.rpartition("/")[2]: url for url in urls})

    def send(self, output: str, body: str) -> None:
        self.client("sqs").send_message(QueueUrl=self.outputs[output], MessageBody=body)

    def invoke(self, output: str, event: str) -> dict[str, Any]:
        """Invoke a function directly and return its answer."""
        done = self.client("lambda").invoke(FunctionName=self.outputs[output], Payload=event)
        answer: dict[str, Any] = json.loads(done["Payload"].read())
        assert "FunctionError" not in done, answer
        return answer

    def count(self, meter: str) -> int:
        """Return how many receipts of a meter are in history."""
        with psycopg.connect(self.urls.owner) as connection:
            row = connection.execute(
                "SELECT count(*) FROM meter_telemetry_history WHERE meter_id = %s", (meter,)
            ).fetchone()
        assert row is not None
        return int(row[0])

    def stop_database(self) -> None:
        self.postgres.stop()

    def start_database(self, port: int = 0) -> None:
        self.postgres = start_postgres(
            self.folder / "postgres/data", embedded_binaries(), port=port, options=FAST
        )


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        with ExitStack() as undo:
            yield deploy(folder, undo)
        # A function's process ends when nobody asks it any more.
        await_true(lambda: processes_of(folder) == [])


def deploy(folder: Path, undo: ExitStack) -> Deployment:
    """Start what the stack needs, and deploy it there."""
    (folder / "postgres").mkdir()
    postgres = start_postgres(folder / "postgres/data", embedded_binaries(), options=FAST)
    make_database(postgres, DATABASE)
    urls = Server(postgres).urls(DATABASE)
    made = Deployment(folder, start_ministack(folder, undo), postgres, urls)
    undo.callback(made.stop_database)
    if Path(PGBOUNCER).exists():  # as RDS Proxy is before Aurora
        users = {user: password_of(postgres, user) for user in (INGEST, READ, ALERTS, CORRECT)}
        users["postgres"] = urlsplit(postgres.url).password or ""
        (folder / "pgbouncer").mkdir()
        port = undo.enter_context(start_pgbouncer(folder / "pgbouncer", postgres.url, users))
        made.urls = Server(postgres, port).urls(DATABASE)
    made.deploy()
    # The deployment made them.
    admit_users(postgres)
    return made


def start_ministack(folder: Path, undo: ExitStack) -> str:
    """Start it with all that it keeps in the folder; return its address."""
    port = free_port()
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": "eu-central-1",
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "DOCKER_HOST": f"unix://{folder}/none",
    }
    process = Process(
        [str(MINISTACK), "-m", "ministack"],
        {"PATH": os.environ["PATH"], **settings},
        folder / "ministack.log",
    )
    undo.callback(process.stop)
    endpoint = f"http://127.0.0.1:{port}"
    await_true(lambda: process.ended or answers(f"{endpoint}/_ministack/health"))
    assert not process.ended, (folder / "ministack.log").read_text(encoding="utf-8")
    return endpoint


def test_every_route_is_there_and_asks_for_a_token_where_the_template_says_so(
    deployment: Deployment,
) -> None:
    client = deployment.client("apigatewayv2")
    [api] = client.get_apis()["Items"]
    deployed = {
        route["RouteKey"]: route["AuthorizationType"] == "CUSTOM"
        for route in client.get_routes(ApiId=api["ApiId"])["Items"]
    }
    template = read_local_template({"DATABASE_URL": "postgresql://any", "AUTH": "token"})
    assert deployed == {route.key: route.authorizer is not None for route in template.routes}


def test_both_contracts(deployment: Deployment) -> None:
    check_contracts(deployment)


def test_a_request_is_let_in_by_its_token(deployment: Deployment) -> None:
    def ask(token: str | None, path: str = "/v1/live/meters") -> tuple[int, Any]:
        return send_request(deployment.api, "GET", path, token=token)

    assert ask(None, "/")[0] == 200
    assert ask(None) == (401, {"message": "Unauthorized"})
    assert ask("stolen") == (403, {"message": "Forbidden"})
    reader, _ = deployment.token(Scope.ANALYTICS_READ)
    assert ask(reader)[0] == 200
    writer, _ = deployment.token(Scope.INGEST_METER)
    status, answer = ask(writer)
    assert (status, answer["message"]) == (403, "This route needs the scope analytics:read")
    revoked, token_id = deployment.token(Scope.ANALYTICS_READ)
    table = deployment.outputs["RevocationsTable"]
    note_revocation(deployment.client("dynamodb"), table, token_id)
    assert ask(revoked) == (403, {"message": "Forbidden"})


def test_of_a_batch_from_the_queue_only_what_was_not_stored_comes_again(
    deployment: Deployment,
) -> None:
    mappings = deployment.client("lambda")
    outputs = deployment.outputs
    [mapping] = mappings.list_event_source_mappings(EventSourceArn=outputs["MeterQueueArn"])[
        "EventSourceMappings"
    ]
    assert "ReportBatchItemFailures" in mapping["FunctionResponseTypes"]
    # Longer than a worker takes that has no database, and shorter than the template's.
    deployment.client("sqs").set_queue_attributes(
        QueueUrl=outputs["MeterQueueUrl"], Attributes={"VisibilityTimeout": "10"}
    )
    port = int(deployment.urls.owner.rpartition(":")[2].partition("/")[0])
    # All three wait before the worker sees the first of them.
    mappings.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    deployment.stop_database()
    for meter in ("QUEUED-1", "QUEUED-2"):
        body = METER_A | {"meterId": meter, "timestamp": "2026-02-10T12:00:00Z"}
        status, answer = request_until(202, deployment.request, "POST", "/ingest/meter", body)
        assert (status, answer.get("status")) == (202, "queued")
    deployment.send("MeterQueueUrl", "noise")
    [depth] = deployment.queues.depths()
    assert depth.waiting == 3
    mappings.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)

    # What can never be stored is gone, with its reason; the others are back, however often.
    def left() -> tuple[int, bool]:
        [depth] = deployment.queues.depths()
        return depth.waiting + depth.in_flight, depth.dead > 0

    await_true(lambda: left() == (2, True))
    for letter in deployment.queues.dead_letters():
        assert letter.body == "noise"
        assert letter.reason

    deployment.start_database(port)
    await_true(lambda: left() == (0, True))
    assert [deployment.count(meter) for meter in ("QUEUED-1", "QUEUED-2")] == [1, 1]


def test_dead_letters_are_sent_back_and_stored_where_they_can_be(deployment: Deployment) -> None:
    reading = MeterReading.model_validate_json(
        json.dumps(METER_A | {"meterId": "DEAD-1", "timestamp": "2026-02-10T12:00:00Z"})
    )
    [(_, body)] = pack(METERS, [reading], datetime.now(UTC))
    deployment.send("MeterDeadLetterQueueUrl", body)
    deployment.send("MeterDeadLetterQueueUrl", "noise")
    assert {letter.body for letter in deployment.queues.dead_letters()} == {body, "noise"}
    assert sum(deployment.queues.redrive().values()) >= 2
    await_true(lambda: deployment.count("DEAD-1") == 1)
    await_true(lambda: {letter.body for letter in deployment.queues.dead_letters()} == {"noise"})


def test_backfills_go_through_a_queue_of_their_own(deployment: Deployment) -> None:
    body = [METER_A | {"meterId": "PAST-1", "timestamp": "2026-01-10T12:00:00Z"}]
    path = "/v1/ingestion/meter/batch?mode=backfill"
    assert request_until(202, deployment.request, "POST", path, body)[0] == 202
    await_true(lambda: deployment.count("PAST-1") == 1)


def test_what_a_schedule_starts_works_here(deployment: Deployment) -> None:
    assert (
        request_until(201, deployment.request, "POST", "/ingest/meter", METER_A | LONG_AGO)[0]
        == 201
    )
    deployment.invoke("MaintainFunctionName", "{}")
    restored = deployment.invoke("MaintainFunctionName", '{"restore": "2020-02-10"}')
    assert sum(restored.values()) > 0
    deployment.invoke("FaultMonitorFunctionName", "{}")


def test_another_deployment_changes_what_runs(deployment: Deployment) -> None:
    deployment.deploy("IngestMode=queue", "Release=next")
    body = METER_A | {"meterId": "AFTER-1", "timestamp": "2026-02-10T12:00:00Z"}
    assert request_until(202, deployment.request, "POST", "/ingest/meter", body)[0] == 202
    await_true(lambda: deployment.count("AFTER-1") == 1)


def await_true(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True
