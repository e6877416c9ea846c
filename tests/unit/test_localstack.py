"""What localstack/ brings: the template written out for MiniStack, and the compose file."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from local import ROOT
from local.configuration import REGION, TEMPLATE, read_local_template
from local.databases import ALERTS, CORRECT, INGEST, READ
from local.template import load_yaml
from localstack.expand import expand

LOCALSTACK = ROOT / "localstack"
COMPOSE: dict[str, Any] = yaml.safe_load((LOCALSTACK / "compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def expanded() -> dict[str, Any]:
    """What deploy.sh makes of the template."""
    template = deepcopy(load_yaml(TEMPLATE))
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        for name in {"CodeUri", "ContentUri"} & properties.keys():
            properties[name] = "s3://deployments/code"
        if "TemplateURL" in properties:
            properties["TemplateURL"] = "http://localhost:4566/deployments/nested.template"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        return expand(template, {"Monitoring": "false", "WorkerConcurrency": "7"})


def test_each_route_of_the_template_is_a_resource_with_its_authorizer(
    expanded: dict[str, Any],
) -> None:
    resources = expanded["Resources"]
    routes = of_type(resources, "AWS::ApiGatewayV2::Route")
    template = read_local_template({"DATABASE_URL": "postgresql://any", "AUTH": "token"})
    assert {route["RouteKey"]: "AuthorizerId" in route for route in routes} == {
        route.key: route.authorizer is not None for route in template.routes
    }
    called = {}
    for route in routes:
        [integration] = re.findall(r"\$\{(\w+)\}", route["Target"]["Fn::Sub"])
        uri = resources[integration]["Properties"]["IntegrationUri"]["Fn::Sub"]
        [called[route["RouteKey"]]] = re.findall(r"functions/\$\{(\w+)Aliaslive\}", uri)
    assert called == {route.key: route.function for route in template.routes}
    [api] = of_type(resources, "AWS::ApiGatewayV2::Api")
    assert "Body" not in api


def test_what_an_emulator_lacks_is_left_out(expanded: dict[str, Any]) -> None:
    kinds = {resource["Type"] for resource in expanded["Resources"].values()}
    assert not {kind for kind in kinds if kind.startswith("AWS::CodeDeploy::")}
    assert expanded["Resources"]["Alarms"]["Condition"] == "HasMonitoring"


def test_limits_of_concurrency_are_numbers(expanded: dict[str, Any]) -> None:
    mappings = of_type(expanded["Resources"], "AWS::Lambda::EventSourceMapping")
    limits = [each["ScalingConfig"]["MaximumConcurrency"] for each in mappings]
    assert sorted(limits) == [2, 2, 7, 7]  # those of backfills have their default


def test_the_compose_file_pins_its_images_to_what_is_tried_elsewhere() -> None:
    images = {name: service["image"] for name, service in COMPOSE["services"].items()}
    assert all(re.fullmatch(r"[\w./-]+:v?\d+(\.\d+)+(-\w+)?", image) for image in images.values())
    pins = (ROOT / "requirements/ministack.txt").read_text(encoding="utf-8")
    [ministack] = re.findall(r"^ministack==(\S+)", pins, re.MULTILINE)
    assert images["ministack"] == f"ministackorg/ministack:{ministack}-full"
    engine = load_yaml(TEMPLATE)["Parameters"]["EngineVersion"]["Default"]
    assert images["postgres"] == f"postgres:{engine}"


def test_the_compose_file_opens_nothing_beyond_this_machine_and_keeps_no_secret() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    # Whoever reaches it is let in without a password.
    assert "ports" not in COMPOSE["services"]["postgres"]
    token = COMPOSE["services"]["localstack"]["environment"]["LOCALSTACK_AUTH_TOKEN"]
    assert token == "${LOCALSTACK_AUTH_TOKEN:-}"


def test_the_compose_file_mounts_files_that_there_are() -> None:
    mounted = [
        Path(volume.partition(":")[0])
        for service in COMPOSE["services"].values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    assert len(mounted) == 3
    assert all((LOCALSTACK / file).is_file() for file in mounted)


def test_who_goes_through_the_pooler_is_known_to_it() -> None:
    users = re.findall(r'^"(\w+)" ""$', (LOCALSTACK / "init/users.txt").read_text(), re.MULTILINE)
    assert sorted(users) == sorted([INGEST, READ, ALERTS, CORRECT])
    script = (LOCALSTACK / "deploy.sh").read_text(encoding="utf-8")
    assert sorted(re.findall(r"postgresql://(\w+)@pgbouncer:6432/", script)) == sorted(users)


def of_type(resources: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each["Properties"] for each in resources.values() if each["Type"] == kind]
