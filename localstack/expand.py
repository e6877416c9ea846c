"""A packaged template as MiniStack takes it: `python -m localstack.expand TEMPLATE NAME=VALUE …`.

What is printed is the plain CloudFormation that SAM makes of it, changed where MiniStack 1.5.33
differs from AWS:

- It ignores the OpenAPI document of an HTTP API, which would have no routes: each becomes a
  resource of its own.
- A number that comes from a parameter stays a text. As a limit of concurrency that ends the polling
  of every queue: it is written out.

It is given to `sam deploy`, which takes a nested template for packaged only where its URL is AWS's.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from samtranslator.translator.transform import transform

from local.console import CommandParser
from local.template import load_yaml

Properties = dict[str, Any]

# The properties of an authorizer in OpenAPI, and those of a resource.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html
AUTHORIZER_PROPERTIES = {
    "identitySource": "IdentitySource",
    "authorizerUri": "AuthorizerUri",
    "authorizerPayloadFormatVersion": "AuthorizerPayloadFormatVersion",
    "authorizerResultTtlInSeconds": "AuthorizerResultTtlInSeconds",
    "enableSimpleResponses": "EnableSimpleResponses",
}


class _NoManagedPolicies:
    """SAM's list of managed policies, which it would ask AWS for, and does not need here."""

    def load(self) -> dict[str, str]:
        return {}


def expand(template: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return what MiniStack takes of a template of AWS::Serverless.

    template -- in JSON form, its code in S3
    given -- parameters that have another value than their default
    """
    expanded: dict[str, Any] = transform(deepcopy(template), dict(given), _NoManagedPolicies())
    parameters = expanded["Parameters"]
    defaults = {name: parameter.get("Default") for name, parameter in parameters.items()}
    values = {**defaults, **given}
    resources = expanded["Resources"]
    for name, resource in list(resources.items()):
        properties = resource.get("Properties", {})
        match resource["Type"]:
            case "AWS::ApiGatewayV2::Api":
                resources.update(_split(name, properties))
            case "AWS::Lambda::EventSourceMapping":
                scaling = properties["ScalingConfig"]
                scaling["MaximumConcurrency"] = int(values[scaling["MaximumConcurrency"]["Ref"]])
            case "AWS::CloudFormation::Stack":
                path = urlsplit(properties["TemplateURL"]).path
                properties["TemplateURL"] = f"https://s3.amazonaws.com{path}"
    return expanded


def _split(api: str, properties: Properties) -> Iterator[tuple[str, dict[str, Any]]]:
    """Take the OpenAPI document out of an API; yield the resources that say the same."""

    def make(kind: str, name: str, **details: Any) -> tuple[str, dict[str, Any]]:
        resource = {"ApiId": {"Ref": api}, **details}
        return f"{api}{name}", {"Type": f"AWS::ApiGatewayV2::{kind}", "Properties": resource}

    document = properties.pop("Body")
    properties |= {"Name": document["info"]["title"], "ProtocolType": "HTTP"}
    for name, scheme in document["components"]["securitySchemes"].items():
        details = scheme["x-amazon-apigateway-authorizer"]
        yield make(
            "Authorizer",
            name,
            Name=name,
            AuthorizerType=details["type"].upper(),
            **{ours: details[theirs] for theirs, ours in AUTHORIZER_PROPERTIES.items()},
        )
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    for number, (key, operation) in enumerate(operations):
        details = operation["x-amazon-apigateway-integration"]
        yield make(
            "Integration",
            f"Integration{number}",
            IntegrationType=details["type"].upper(),
            IntegrationMethod=details["httpMethod"],
            IntegrationUri=details["uri"],
            PayloadFormatVersion=details["payloadFormatVersion"],
        )
        route = {
            "RouteKey": key,
            "Target": {"Fn::Sub": f"integrations/${{{api}Integration{number}}}"},
        }
        for scheme in operation["security"]:
            [name] = scheme
            if name != "NONE":  # so SAM calls that of an open route
                route |= {"AuthorizationType": "CUSTOM", "AuthorizerId": {"Ref": f"{api}{name}"}}
        yield make("Route", f"Route{number}", **route)


def main() -> None:
    """Print the expanded template."""
    parser = CommandParser(description="Expand a packaged template for MiniStack.")
    parser.add_argument("template", type=Path)
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE")
    options = parser.parse_args()
    # It names each feature that it has not been switched on for.
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    given = dict(parameter.split("=", 1) for parameter in options.parameters)
    print(json.dumps(expand(load_yaml(options.template), given)))


if __name__ == "__main__":
    main()
