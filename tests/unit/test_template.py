"""What the local stack reads from template.yaml."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from local import ROOT, LocalError
from local.configuration import queue_references, read_local_template
from local.databases import DatabaseUrls
from local.gateway import _pattern
from local.template import EventSource, Queue, Route, load_yaml, read_template

URLS = DatabaseUrls(
    *(
        f"postgresql://{user}"
        for user in ("owner", "ingest", "read", "alerts", "correct", "maintain")
    )
)
ENDPOINT = "http://127.0.0.1:4566"
OF_THE_STACK = {**queue_references(ENDPOINT), "ArchiveBucket": "archive", "AWS::StackName": "local"}
VALUES = {**URLS.parameters, **OF_THE_STACK}

CONTRACTS = {
    "GET /",
    "GET /health",
    "POST /ingest/meter",
    "POST /ingest/vehicle",
    "POST /v1/ingestion/meter",
    "POST /v1/ingestion/vehicle",
    "GET /v1/analytics/performance/{vehicleId}",
}


def test_the_template_routes_both_contracts() -> None:
    template = read_template(ROOT / "template.yaml", VALUES)
    assert {route.key for route in template.routes} >= CONTRACTS
    for function in template.functions.values():
        assert function.file.is_file()
    assert {
        name: function.environment.get("DATABASE_URL")
        for name, function in template.functions.items()
    } == {
        "AuthorizerFunction": None,
        "IngestMeterFunction": URLS.ingest,
        "IngestVehicleFunction": URLS.ingest,
        "MeterWorkerFunction": URLS.ingest,
        "VehicleWorkerFunction": URLS.ingest,
        "MeterBackfillFunction": URLS.ingest,
        "VehicleBackfillFunction": URLS.ingest,
        "DevicesFunction": URLS.ingest,
        "LinksFunction": URLS.ingest,
        "TariffsFunction": URLS.ingest,
        "AnalyticsFunction": URLS.read,
        "FaultMonitorFunction": URLS.alerts,
        "AcknowledgeFunction": URLS.alerts,
        "CorrectionsFunction": URLS.correct,
        "MigrateFunction": URLS.owner,
        "MaintainFunction": URLS.maintain,
    }


@pytest.mark.parametrize(("lane", "worker"), [("", "Worker"), ("Backfill", "Backfill")])
@pytest.mark.parametrize("stream", ["Meter", "Vehicle"])
def test_each_stream_has_a_queue_a_worker_and_dead_letters(
    stream: str, lane: str, worker: str
) -> None:
    template = read_template(ROOT / "template.yaml", VALUES)
    queues = {queue.name: queue.attributes for queue in template.queues}
    name = f"{stream}{lane}Queue"
    url = f"{ENDPOINT}/000000000000/{name}"
    dead = f"{ENDPOINT}/000000000000/{stream}{lane}DeadLetterQueue"
    api = template.functions[f"Ingest{stream}Function"].environment
    assert (api[f"{lane}_QUEUE_URL".upper().lstrip("_")], api["INGEST_MODE"]) == (url, "database")
    function = template.functions[f"{stream}{worker}Function"]
    assert function.environment["QUEUE_URL"] == url
    assert function.environment["DEAD_LETTER_QUEUE_URL"] == dead
    [source] = [each for each in template.event_sources if each.queue_arn == VALUES[f"{name}.Arn"]]
    assert source.function == function.name
    assert source.partial_failures
    policy = json.loads(queues[name]["RedrivePolicy"])
    assert policy["deadLetterTargetArn"] == VALUES[f"{stream}{lane}DeadLetterQueue.Arn"]
    # What AWS asks for: no message comes again while its worker still has time.
    hidden = int(queues[name]["VisibilityTimeout"])
    assert hidden >= 6 * function.timeout + source.window
    retention = int(queues[name]["MessageRetentionPeriod"])
    assert int(queues[f"{stream}{lane}DeadLetterQueue"]["MessageRetentionPeriod"]) >= retention


def test_live_readings_share_neither_queue_nor_worker_nor_concurrency_with_backfills() -> None:
    widened = read_template(ROOT / "template.yaml", {**VALUES, "BackfillConcurrency": "77"})
    backfills = {each.function for each in widened.event_sources if each.concurrency == 77}
    assert backfills == {"MeterBackfillFunction", "VehicleBackfillFunction"}
    lanes: list[set[str]] = [set(), set()]
    for source in widened.event_sources:
        lanes[source.function in backfills].add(source.queue_arn)
    assert lanes[0] == {VALUES[f"{stream}Queue.Arn"] for stream in ("Meter", "Vehicle")}
    assert lanes[1] == {VALUES[f"{stream}BackfillQueue.Arn"] for stream in ("Meter", "Vehicle")}
    # Nor do they keep concurrency of the account from the API.
    resources = load_yaml(ROOT / "template.yaml")["Resources"]
    for name in backfills:
        assert "ReservedConcurrentExecutions" not in resources[name]["Properties"]
    assert len(widened.event_sources) == 4


def test_an_event_source_and_its_queue_are_read_with_their_defaults(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(
        """
Parameters:
  Most: {Type: Number, Default: 7}
Resources:
  Jobs:
    Type: AWS::SQS::Queue
    Properties:
      SqsManagedSseEnabled: true
      VisibilityTimeout: 60
      RedrivePolicy: {deadLetterTargetArn: !GetAtt [Dead, Arn], maxReceiveCount: 3}
  Dead:
    Type: AWS::SQS::Queue
  Work:
    Type: AWS::Serverless::Function
    Properties:
      Handler: worker.handler
      CodeUri: work
      Events:
        Plain: {Type: SQS, Properties: {Queue: !GetAtt Jobs.Arn}}
        Full:
          Type: SQS
          Properties:
            Queue: !GetAtt Jobs.Arn
            BatchSize: 100
            MaximumBatchingWindowInSeconds: 5
            FunctionResponseTypes: [ReportBatchItemFailures]
            ScalingConfig: {MaximumConcurrency: !Ref Most}
""",
        encoding="utf-8",
    )
    found = read_template(template, {"Jobs.Arn": "arn:jobs", "Dead.Arn": "arn:dead"})
    plain = EventSource("Work", "arn:jobs", 10, 0, 1000, partial_failures=False)
    full = replace(plain, batch_size=100, window=5, concurrency=7, partial_failures=True)
    assert found.event_sources == (plain, full)
    policy = '{"deadLetterTargetArn": "arn:dead", "maxReceiveCount": 3}'
    assert found.queues == (
        Queue(
            "Jobs",
            {"SqsManagedSseEnabled": "true", "VisibilityTimeout": "60", "RedrivePolicy": policy},
        ),
        Queue("Dead", {}),
    )


def test_the_mode_comes_from_the_environment_and_is_checked() -> None:
    environ = {**URLS.environment, "AWS_ENDPOINT_URL_SQS": ENDPOINT}
    template = read_local_template({**environ, "INGEST_MODE": "queue"})
    for name in ("IngestMeterFunction", "IngestVehicleFunction"):
        assert template.functions[name].environment["INGEST_MODE"] == "queue"
    with pytest.raises(LocalError, match="IngestMode is one of database, queue, not both"):
        read_local_template({**environ, "INGEST_MODE": "both"})


def test_a_bus_takes_the_place_of_the_topic() -> None:
    bus = "arn:aws:events:eu-central-1:000000000000:event-bus/faults"
    functions = read_template(ROOT / "template.yaml", VALUES | {"FaultEventBus": bus}).functions
    assert functions["FaultMonitorFunction"].environment["ALERT_TARGET"] == bus


def test_an_unknown_reference_is_named() -> None:
    values = {name: value for name, value in VALUES.items() if name != "MeterQueue"}
    with pytest.raises(LocalError, match="IngestMeterFunction refers to Ref MeterQueue, unknown"):
        read_template(ROOT / "template.yaml", values)


def test_without_a_database_the_template_makes_one() -> None:
    values = {
        **OF_THE_STACK,
        "Database.Outputs.ProxyEndpoint": "proxy.example",
        "Database.Outputs.ClusterEndpoint": "cluster.example",
        "Database.Outputs.ReplicaEndpoint": "replica.example",
        "Database.Outputs.OwnerSecret": "arn:secret",
        "ReadReplica": "true",
    }
    functions = dict(read_template(ROOT / "template.yaml", values).functions)
    assert functions.pop("AuthorizerFunction").environment.keys() & {"DATABASE_URL"} == set()
    checked = "sslmode=verify-full&sslrootcert=/opt/python/telemetry/certificates"
    migrate = functions.pop("MigrateFunction").environment
    assert migrate["DATABASE_URL"] == (
        f"postgresql://telemetry_owner@cluster.example:5432/telemetry?{checked}/rds.pem"
    )
    assert migrate["DATABASE_PASSWORD_FROM"] == "iam"
    assert migrate["OWNER_SECRET"] == "arn:secret"
    maintain = functions.pop("MaintainFunction").environment  # past the proxy as well
    assert maintain["DATABASE_URL"] == migrate["DATABASE_URL"].replace("_owner", "_maintain")
    assert maintain["DATABASE_PASSWORD_FROM"] == "iam"
    users = {
        "AnalyticsFunction": "telemetry_read",
        "FaultMonitorFunction": "telemetry_alerts",
        "AcknowledgeFunction": "telemetry_alerts",
        "CorrectionsFunction": "telemetry_correct",
    }
    for name, function in functions.items():
        user = users.get(name, "telemetry_ingest")
        assert function.environment["DATABASE_PASSWORD_FROM"] == "iam"
        assert function.environment["DATABASE_URL"] == (
            f"postgresql://{user}@proxy.example:5432/telemetry?{checked}/proxy.pem"
        )
    topic = functions["FaultMonitorFunction"].environment["ALERT_TARGET"]
    assert topic == "arn:aws:sns:eu-central-1:000000000000:FaultTopic"
    assert "replica.example" in functions["AnalyticsFunction"].environment["REPLICA_DATABASE_URL"]


def test_an_unknown_function_of_the_template_language_is_named(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(
        """
Resources:
  One:
    Type: AWS::Serverless::Function
    Properties:
      Handler: api.handler
      CodeUri: functions/one
      Environment: {Variables: {QUEUE: !GetAtt Queue.Arn}}
""",
        encoding="utf-8",
    )
    with pytest.raises(LocalError, match=r"One refers to Fn::GetAtt Queue.Arn"):
        read_template(template, {})


def test_path_variables_match_one_segment_or_the_rest() -> None:
    one = _pattern(Route("GET", "/v1/{id}/x", "F"))
    matched = one.fullmatch("/v1/a.b/x")
    assert matched
    assert matched.groupdict() == {"id": "a.b"}
    assert not one.fullmatch("/v1/a/b/x")
    rest = _pattern(Route("GET", "/files/{path+}", "F")).fullmatch("/files/a/b")
    assert rest
    assert rest.groupdict() == {"path": "a/b"}
