"""What the stack may do and what it must have, held against the CloudFormation that SAM makes."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import pytest
from samtranslator.translator.transform import transform

from local import ROOT
from local.configuration import REGION, TEMPLATE
from local.template import load_yaml

Resources = Mapping[str, Any]

INFRA = sorted((ROOT / "infra").glob("*.yaml"))
# For these AWS takes no other resource than *.
# https://docs.aws.amazon.com/service-authorization/latest/reference/
WITHOUT_RESOURCE = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "xray:GetSamplingStatisticSummaries",
    # Their resources have no names before Lambda makes them.
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
}
WAITED_FOR = {"apigateway.amazonaws.com"}


class NoManagedPolicies:
    """SAM's list of them, which it would ask AWS for, and does not need here."""

    def load(self) -> dict[str, str]:
        return {}


@pytest.fixture(scope="module")
def deployed() -> Iterator[Resources]:
    """What CloudFormation gets of template.yaml."""
    template = deepcopy(load_yaml(TEMPLATE))
    for resource in template["Resources"].values():
        for name in {"CodeUri", "ContentUri"} & resource.get("Properties", {}).keys():
            resource["Properties"][name] = "s3://bucket/what-was-built"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        yield transform(template, {}, NoManagedPolicies())["Resources"]


@pytest.fixture(scope="module")
def functions(deployed: Resources) -> Resources:
    return of_type(deployed, "AWS::Lambda::Function")


def test_each_function_has_a_role_of_its_own_within_the_boundary(
    deployed: Resources, functions: Resources
) -> None:
    roles = [function["Role"]["Fn::GetAtt"][0] for function in functions.values()]
    assert set(Counter(roles).values()) == {1}
    for role in roles:
        assert deployed[role]["Properties"]["PermissionsBoundary"] == {"Ref": "FunctionBoundary"}


def test_what_a_role_allows_is_within_the_boundary(
    deployed: Resources, functions: Resources
) -> None:
    # Else it would be refused, on AWS alone.
    bounds = [
        (
            {action.lower() for action in listed(bound["Action"])},
            set(names(bound["Resource"])),
        )
        for bound in statements(deployed["FunctionBoundary"]["Properties"])
    ]
    for function in functions.values():
        role = deployed[function["Role"]["Fn::GetAtt"][0]]["Properties"]
        for statement in statements(role.get("Policies", [])):
            if statement["Effect"] == "Allow":
                for action in listed(statement["Action"]):
                    assert any(
                        action.lower().removesuffix("*") in actions
                        and set(names(statement["Resource"])) <= resources
                        for actions, resources in bounds
                    ), (action, statement["Resource"])


def test_no_policy_names_every_resource_where_one_could_be_named(deployed: Resources) -> None:
    templates = [deployed, *(load_yaml(file)["Resources"] for file in INFRA)]
    found = [
        statement
        for resources in templates
        for resource in resources.values()
        for statement in statements(resource.get("Properties", {}))
    ]
    assert len(found) > 10
    for statement in found:
        assert "*" not in listed(statement["Action"])
        if "*" in listed(statement.get("Resource", [])):
            assert set(listed(statement["Action"])) <= WITHOUT_RESOURCE


def test_a_worker_receives_from_its_own_queue_alone(
    deployed: Resources, functions: Resources
) -> None:
    sources = of_type(deployed, "AWS::Lambda::EventSourceMapping").values()
    queues = {
        called_function(source["FunctionName"]): source["EventSourceArn"] for source in sources
    }
    assert queues.keys() == {
        f"{stream}{lane}Function"
        for stream in ("Meter", "Vehicle")
        for lane in ("Worker", "Backfill")
    }
    for name, function in functions.items():
        role = deployed[function["Role"]["Fn::GetAtt"][0]]["Properties"]
        from_any = any("SQSQueueExecutionRole" in policy for policy in role["ManagedPolicyArns"])
        assert from_any == (name in queues)
        if from_any:
            deny = {
                "Effect": "Deny",
                "Action": "sqs:ReceiveMessage",
                "NotResource": queues[name],
            }
            assert deny in statements(role["Policies"])


def test_each_function_has_limits_and_logs_that_end(
    deployed: Resources, functions: Resources
) -> None:
    for name, function in functions.items():
        assert function["Timeout"] <= 900, name
        assert function["MemorySize"] >= 128, name
        group = deployed[function["LoggingConfig"]["LogGroup"]["Ref"]]
        assert group["Type"] == "AWS::Logs::LogGroup"
    for group in of_type(deployed, "AWS::Logs::LogGroup").values():
        assert group["RetentionInDays"] == {"Ref": "LogRetentionDays"}


def test_what_comes_in_is_limited_before_it_reaches_the_database(deployed: Resources) -> None:
    for source in of_type(deployed, "AWS::Lambda::EventSourceMapping").values():
        lane = "Backfill" if "Backfill" in called_function(source["FunctionName"]) else "Worker"
        assert source["ScalingConfig"]["MaximumConcurrency"] == {"Ref": f"{lane}Concurrency"}
    [stage] = of_type(deployed, "AWS::ApiGatewayV2::Stage").values()
    assert stage["DefaultRouteSettings"].keys() >= {"ThrottlingRateLimit", "ThrottlingBurstLimit"}


def test_nothing_that_is_called_without_waiting_fails_unseen(
    deployed: Resources, functions: Resources
) -> None:
    permissions = of_type(deployed, "AWS::Lambda::Permission").values()
    called = {
        called_function(permission["FunctionName"])
        for permission in permissions
        if permission["Principal"] not in WAITED_FOR
    }
    called |= {
        name
        for resource in deployed.values()
        for name in names(resource.get("Properties", {}).get("ServiceToken", []))
    }
    configured = {
        called_function(settings["FunctionName"])
        for settings in of_type(deployed, "AWS::Lambda::EventInvokeConfig").values()
        if settings["DestinationConfig"]["OnFailure"]["Destination"]
    }
    assert "MigrateFunction" in called
    assert called <= configured
    for rule in of_type(deployed, "AWS::Events::Rule").values():
        assert all(target["DeadLetterConfig"]["Arn"] for target in rule["Targets"])
    for source in of_type(deployed, "AWS::Lambda::EventSourceMapping").values():
        [queue] = names(source["EventSourceArn"])
        assert deployed[queue]["Properties"]["RedrivePolicy"]["deadLetterTargetArn"]


def test_each_queue_is_encrypted(deployed: Resources) -> None:
    for name, queue in of_type(deployed, "AWS::SQS::Queue").items():
        assert queue["SqsManagedSseEnabled"] is True, name


def test_no_check_is_left_out_without_a_reason() -> None:
    lines = (ROOT / ".checkov.yaml").read_text(encoding="utf-8").splitlines()
    left_out = [number for number, line in enumerate(lines) if "- CKV" in line]
    assert left_out
    assert all(lines[number - 1].lstrip().startswith("# ") for number in left_out)
    checked = load_yaml(ROOT / ".checkov.yaml")["file"]
    assert checked == [str(file.relative_to(ROOT)) for file in (TEMPLATE, *INFRA)]
    for file in (TEMPLATE, *INFRA):
        assert not re.search(r"checkov:skip|ignore_checks", file.read_text(encoding="utf-8"))


def of_type(resources: Resources, kind: str) -> dict[str, Any]:
    """Return the properties of the resources of a type by logical id."""
    return {
        name: resource["Properties"]
        for name, resource in resources.items()
        if resource["Type"] == kind
    }


def statements(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the statements of the policies in a value, but for those of who may take a role."""
    if isinstance(value, list):
        for entry in value:
            yield from statements(entry)
    elif isinstance(value, dict):
        if "Effect" in value:
            if "sts:AssumeRole" not in listed(value["Action"]):
                yield value
        else:
            for entry in value.values():
                yield from statements(entry)


def called_function(name: Any) -> str:
    """Return the logical id of the function that is called by its name or its alias."""
    [found] = names(name)
    return found.removesuffix("Aliaslive")


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def names(value: Any) -> Iterator[str]:
    """Yield the logical ids that a value refers to, those of a nested stack with the output."""
    if isinstance(value, list):
        for entry in value:
            yield from names(entry)
    elif isinstance(value, dict):
        for kind, argument in value.items():
            if kind == "Ref":
                yield argument
            elif kind == "Fn::GetAtt":
                path = argument if isinstance(argument, str) else ".".join(argument)
                yield _target(path)
            elif kind == "Fn::Sub":
                text, *values = listed(argument)
                known = values[0] if values else {}
                yield from (
                    _target(path)
                    for path in re.findall(r"\$\{([\w.]+)\}", text)
                    if path not in known
                )
                yield from names(list(known.values()))
            else:
                yield from names(argument)


def _target(path: str) -> str:
    return path if ".Outputs." in path else path.partition(".")[0]
