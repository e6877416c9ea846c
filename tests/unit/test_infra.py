"""What template.yaml and infra/ promise a deployment and whoever is on call."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from cryptography.x509 import load_pem_x509_certificates

from local import ROOT
from local.configuration import TEMPLATE
from local.template import load_yaml
from telemetry.targets import PUBLISH_SECONDS

MIGRATIONS = ROOT / "layers/telemetry/python/telemetry/sql/migrations"
RESOURCES = load_yaml(TEMPLATE)["Resources"]
RUNBOOK = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
SERVING = [
    name
    for name, resource in RESOURCES.items()
    if resource["Type"] == "AWS::Serverless::Function"
    and name not in {"MigrateFunction", "MaintainFunction"}
]


def alarms() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for file in sorted((ROOT / "infra").glob("*.yaml")):
        for name, resource in load_yaml(file)["Resources"].items():
            if resource["Type"] == "AWS::CloudWatch::Alarm":
                yield name, resource["Properties"]


@pytest.mark.parametrize(("name", "properties"), list(alarms()))
def test_each_alarm_has_an_entry_in_the_runbook(name: str, properties: Mapping[str, Any]) -> None:
    entry = re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
    assert properties["AlarmDescription"]["Fn::Sub"].endswith(f": ${{Runbook}}#{entry}")
    assert f"\n### {entry.replace('-', ' ').capitalize()}\n" in RUNBOOK
    assert properties["AlarmActions"] == [{"Ref": "Topic"}]
    assert "TreatMissingData" in properties
    # As many metrics as CloudWatch allows, and their sum.
    assert len(properties.get("Metrics", [])) <= 11


@pytest.mark.parametrize(("name", "properties"), list(alarms()))
def test_no_alarm_looks_at_more_metrics_than_cloudwatch_takes(
    name: str, properties: Mapping[str, Any]
) -> None:
    metrics = [metric for metric in properties.get("Metrics", []) if "MetricStat" in metric]
    assert len(metrics) <= 10, name


def test_the_runbook_has_no_entry_without_an_alarm() -> None:
    entries = re.findall(r"^### (.*)$", RUNBOOK.split("\n## Alarms\n")[1], re.MULTILINE)
    known = {re.sub(r"(?<!^)(?=[A-Z])", " ", name).capitalize() for name, _ in alarms()}
    assert set(entries) == known


@pytest.mark.parametrize("name", SERVING)
def test_new_code_waits_for_the_schema_and_can_be_taken_back(name: str) -> None:
    function = RESOURCES[name]
    properties = function["Properties"]
    assert function["DependsOn"] == "Schema"
    assert properties["AutoPublishAlias"] == "live"
    # SAM looks at layers only with both: the code is in them.
    assert properties["AutoPublishAliasAllProperties"] is True
    for layer in ("DependenciesLayer", "TelemetryLayer"):
        assert RESOURCES[layer]["Properties"]["PublishLambdaVersion"] is True
    preference = properties["DeploymentPreference"]
    assert preference["Enabled"] == {"Ref": "Monitoring"}
    condition, [output], otherwise = preference["Alarms"]["Fn::If"]
    assert (condition, otherwise) == ("HasMonitoring", [])
    alarm = dict(alarms())[output["Fn::GetAtt"].removeprefix("Alarms.Outputs.")]
    assert name in {
        metric["MetricStat"]["Metric"]["Dimensions"][0]["Value"]["Ref"]
        for metric in alarm["Metrics"]
        if "MetricStat" in metric and metric["MetricStat"]["Metric"]["MetricName"] == "Errors"
    }


@pytest.mark.parametrize("name", SERVING)
def test_a_parameter_of_the_environment_makes_a_new_version(name: str) -> None:
    # Else the alias would go on with the old value. Those of NoEcho are not written down anywhere:
    # for them there is Release.
    parameters = load_yaml(TEMPLATE)["Parameters"]
    conditions = load_yaml(TEMPLATE)["Conditions"]
    used = set(_references(RESOURCES[name]["Properties"]["Environment"], conditions))
    described = RESOURCES[name]["Properties"]["VersionDescription"]["Fn::Sub"]
    shown = {entry for entry in used & set(parameters) if not parameters[entry].get("NoEcho")}
    named = set(re.findall(r"\$\{(\w+)\}", described))
    # And nothing else: Lambda publishes no version of a function that has not changed, and
    # CloudFormation takes that for a failure.
    assert named == shown | {"Release", "Architecture"}
    everywhere = load_yaml(TEMPLATE)["Globals"]["Function"]
    assert everywhere["Environment"]["Variables"]["RELEASE"] == {"Ref": "Release"}
    assert everywhere["Architectures"] == [{"Ref": "Architecture"}]


def test_whatever_is_deployed_asks_for_tokens() -> None:
    document = load_yaml(TEMPLATE)
    # No parameter, which could be set to something else and stay so.
    assert document["Globals"]["Function"]["Environment"]["Variables"]["AUTH"] == "token"
    for resource in RESOURCES.values():
        variables = resource.get("Properties", {}).get("Environment", {}).get("Variables", {})
        assert "AUTH" not in variables
    auth = RESOURCES["Api"]["Properties"]["Auth"]
    assert auth["DefaultAuthorizer"] in auth["Authorizers"]


def test_the_authorizer_can_ask_who_was_revoked_and_nothing_else() -> None:
    properties = RESOURCES["AuthorizerFunction"]["Properties"]
    [policy] = properties["Policies"]
    assert policy["Statement"] == {
        "Effect": "Allow",
        "Action": "dynamodb:GetItem",
        "Resource": {"Fn::GetAtt": "Revocations.Arn"},
    }
    # Outside the network that the database is in.
    assert properties["VpcConfig"] == {"Ref": "AWS::NoValue"}
    assert RESOURCES["Revocations"]["DeletionPolicy"] == "RetainExceptOnCreate"


def test_the_migration_has_more_time_than_its_function() -> None:
    timeout = RESOURCES["MigrateFunction"]["Properties"]["Timeout"]
    assert RESOURCES["Schema"]["Properties"]["ServiceTimeout"] > timeout


def test_migrations_run_for_new_code_and_for_another_database() -> None:
    properties = RESOURCES["Schema"]["Properties"]
    assert properties["Code"] == {"Ref": "TelemetryLayer"}
    made = {"Fn::GetAtt": "Database.Outputs.ClusterResourceId"}
    assert properties["Database"] == {"Fn::If": ["MakesDatabase", made, "existing"]}
    assert properties["Release"] == {"Ref": "Release"}


def test_the_database_listens_where_everybody_asks_for_it() -> None:
    database = load_yaml(ROOT / "infra/database.yaml")["Resources"]
    # CloudFormation's own default is MySQL's.
    assert database["Cluster"]["Properties"]["Port"] == 5432
    assert set(re.findall(r"Endpoint}:(\d+)/", TEMPLATE.read_text(encoding="utf-8"))) == {"5432"}


def test_rules_use_what_cloudformation_takes_in_rules() -> None:
    rules = str(load_yaml(TEMPLATE)["Rules"])
    used = set(re.findall(r"'(Fn::\w+|Condition)'", rules))
    assert used <= {"Fn::And", "Fn::Contains", "Fn::Equals", "Fn::Not", "Fn::Or"}


def test_a_database_is_made_only_where_its_certificates_are_known() -> None:
    bundle = ROOT / "layers/telemetry/python/telemetry/certificates/rds.pem"
    named = [
        certificate.subject.rfc4514_string()
        for certificate in load_pem_x509_certificates(bundle.read_bytes())
    ]
    known = set(re.findall(r"CN=Amazon RDS ([a-z-]+-\d) Root CA", " ".join(named)))
    rule = load_yaml(TEMPLATE)["Rules"]["SupportedRegion"]
    [assertion] = rule["Assertions"]
    regions, region = assertion["Assert"]["Fn::Contains"]
    assert (set(regions), region) == (known, {"Ref": "AWS::Region"})


@pytest.mark.parametrize("name", SERVING)
def test_who_sends_to_its_own_queue_may_do_so_as_long_as_an_outage_lasts(name: str) -> None:
    # Lambda stops after 16 rounds, some three hours, where nobody says that they are meant.
    properties = RESOURCES[name]["Properties"]
    received = [
        event["Properties"]["Queue"]
        for event in properties.get("Events", {}).values()
        if event["Type"] == "SQS"
    ]
    assert properties.get("RecursiveLoop") == ("Allow" if received else None)


def test_the_api_is_mapped_when_it_has_its_stage() -> None:
    assert RESOURCES["ApiFront"]["Properties"]["Parameters"]["Stage"] == {"Ref": "Api.Stage"}
    mapping = load_yaml(ROOT / "infra/api.yaml")["Resources"]["Mapping"]["Properties"]
    assert mapping["Stage"] == {"Ref": "Stage"}


def test_the_archive_is_kept_and_closed_to_the_public() -> None:
    bucket = RESOURCES["ArchiveBucket"]
    assert bucket["DeletionPolicy"] == "RetainExceptOnCreate"
    properties = bucket["Properties"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert properties["VersioningConfiguration"]["Status"] == "Enabled"
    # Nothing current goes by itself, and no role may delete a version.
    assert not any(
        "ExpirationInDays" in entry for entry in properties["LifecycleConfiguration"]["Rules"]
    )
    [of_the_bucket, _] = RESOURCES["MaintainFunction"]["Properties"]["Policies"]
    actions = [*("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")]
    assert of_the_bucket["Statement"]["Action"] == actions
    # The one way there, which lets nothing else through.
    network = load_yaml(ROOT / "infra/network.yaml")["Resources"]
    [_, allowed] = network["StorageEndpoint"]["Properties"]["PolicyDocument"]["Statement"]
    assert allowed["Action"] == actions


def test_a_change_is_published_before_its_transaction_is_ended() -> None:
    roles = (MIGRATIONS / "0001_roles.sql").read_text(encoding="utf-8")
    [allowed] = re.findall(r"idle_in_transaction_session_timeout = ''(\d+)s''", roles)
    assert int(allowed) > PUBLISH_SECONDS


def test_the_monitor_runs_alone_and_its_failures_are_told() -> None:
    properties = RESOURCES["FaultMonitorFunction"]["Properties"]
    assert properties["ReservedConcurrentExecutions"] == 1
    failures = properties["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]
    assert failures == {"Type": "SNS", "Destination": {"Ref": "AlarmTopic"}}
    assert RESOURCES["FaultTopic"]["Properties"]["KmsMasterKeyId"]


def test_the_proxy_gives_up_before_its_clients_do() -> None:
    database = load_yaml(ROOT / "infra/database.yaml")["Resources"]
    pool = database["ProxyTargets"]["Properties"]["ConnectionPoolConfigurationInfo"]
    functions = load_yaml(TEMPLATE)["Globals"]["Function"]
    assert pool["ConnectionBorrowTimeout"] < functions["Timeout"]
    assert database["Proxy"]["Properties"]["RequireTLS"] is True


def _references(value: Any, conditions: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(value, list):
        for entry in value:
            yield from _references(entry, conditions)
    elif isinstance(value, dict):
        for kind, argument in value.items():
            if kind == "Ref":
                yield argument
            elif kind == "Fn::If":
                yield from _references(conditions[argument[0]], conditions)
                yield from _references(argument[1:], conditions)
            elif kind == "Condition":
                yield from _references(conditions[argument], conditions)
            else:
                yield from _references(argument, conditions)
