"""What template.yaml says: which functions there are, and which routes and queues lead to them."""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local import LocalError
from local.intrinsics import Resolver


@dataclass(frozen=True)
class Function:
    """One AWS::Serverless::Function, its values resolved."""

    name: str
    file: Path
    attribute: str
    environment: Mapping[str, str]
    timeout: float
    memory: int


@dataclass(frozen=True)
class Authorizer:
    """A Lambda authorizer (payload format 2.0, simple responses) of the HTTP API."""

    function: str
    header: str
    cache_seconds: int


@dataclass(frozen=True)
class Route:
    """One route of the HTTP API; without an authorizer it is open."""

    method: str
    path: str
    function: str
    authorizer: Authorizer | None = None

    @property
    def key(self) -> str:
        """The route key as the HTTP API writes it."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Queue:
    """One AWS::SQS::Queue: its logical id, and its attributes as SetQueueAttributes takes them."""

    name: str
    attributes: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """One AWS::DynamoDB::Table: its logical id, and what CreateTable takes of its definition."""

    name: str
    definition: Mapping[str, Any]


@dataclass(frozen=True)
class EventSource:
    """One event source mapping: which queue leads to which function, and how."""

    function: str
    queue_arn: str
    batch_size: int
    window: int
    concurrency: int
    partial_failures: bool


@dataclass(frozen=True)
class Template:
    """The functions by their logical id, and what leads to them."""

    functions: Mapping[str, Function]
    routes: tuple[Route, ...]
    queues: tuple[Queue, ...]
    tables: tuple[Table, ...]
    event_sources: tuple[EventSource, ...]


class _Loader(yaml.CSafeLoader):
    """YAML with the short forms of CloudFormation: `!Ref x` is `{"Ref": "x"}`."""


def _intrinsic(loader: yaml.CSafeLoader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    return {name if name in {"Ref", "Condition"} else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _intrinsic)


@functools.cache
def load_yaml(path: Path) -> Mapping[str, Any]:
    """Return a template as CloudFormation's JSON form."""
    document: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506
    return document


def queue_names(path: Path) -> list[str]:
    """Return the logical ids of a template's queues."""
    return [name for name, _ in _resources(load_yaml(path), "AWS::SQS::Queue")]


def read_template(path: Path, values: Mapping[str, str]) -> Template:
    """Read a template, resolving references from values and from the parameters' defaults.

    A queue's values are those of `!Ref` (its URL) and of `!GetAtt` (`MeterQueue.Arn`); a table has
    its logical id for a name. Raises LocalError, naming what is referred to and not known.
    """
    document = load_yaml(path)
    parameters = document.get("Parameters", {})
    known = {
        name: str(parameter["Default"])
        for name, parameter in parameters.items()
        if "Default" in parameter
    } | dict(values)
    known |= {name: name for name, _ in _resources(document, "AWS::DynamoDB::Table")}
    for name, parameter in parameters.items():
        allowed = [str(value) for value in parameter.get("AllowedValues", ())]
        if allowed and known.get(name, allowed[0]) not in allowed:
            raise LocalError(f"{name} is one of {', '.join(allowed)}, not {known[name]}")
    resolver = Resolver(path.name, document.get("Conditions", {}), known)
    defaults = document.get("Globals", {}).get("Function", {})
    functions: dict[str, Function] = {}
    routes: list[Route] = []
    event_sources: list[EventSource] = []
    for name, properties in _resources(document, "AWS::Serverless::Function"):
        functions[name] = _function(path.parent, name, properties, defaults, resolver)
        for event in properties.get("Events", {}).values():
            details = event.get("Properties", {})
            if event["Type"] == "HttpApi":
                authorizer = _authorizer(document, details, resolver)
                routes.append(Route(details["Method"].upper(), details["Path"], name, authorizer))
            elif event["Type"] == "SQS":
                event_sources.append(_event_source(name, resolver.resolve(details, name)))
    queues = tuple(
        _queue(name, resolver.resolve(properties, name))
        for name, properties in _resources(document, "AWS::SQS::Queue")
    )
    tables = tuple(
        Table(
            name,
            {
                key: resolver.resolve(properties[key], name)
                for key in ("AttributeDefinitions", "KeySchema", "BillingMode")
            },
        )
        for name, properties in _resources(document, "AWS::DynamoDB::Table")
    )
    return Template(functions, tuple(routes), queues, tables, tuple(event_sources))


def _resources(document: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, resource in document["Resources"].items():
        if resource["Type"] == kind:
            yield name, resource.get("Properties", {})


def _function(
    folder: Path,
    name: str,
    properties: Mapping[str, Any],
    defaults: Mapping[str, Any],
    resolver: Resolver,
) -> Function:
    module, attribute = properties["Handler"].rsplit(".", 1)
    variables = {
        **defaults.get("Environment", {}).get("Variables", {}),
        **properties.get("Environment", {}).get("Variables", {}),
    }
    return Function(
        name=name,
        file=folder / properties["CodeUri"] / f"{module}.py",
        attribute=attribute,
        environment={key: str(value) for key, value in resolver.resolve(variables, name).items()},
        timeout=properties.get("Timeout", defaults.get("Timeout", 3)),
        memory=properties.get("MemorySize", defaults.get("MemorySize", 128)),
    )


def _authorizer(
    document: Mapping[str, Any], event: Mapping[str, Any], resolver: Resolver
) -> Authorizer | None:
    """Return what asks for a token on a route: its event's choice, or else its API's."""
    if "ApiId" not in event:
        return None
    api = document["Resources"][event["ApiId"]["Ref"]].get("Properties", {})
    auth = api.get("Auth", {})
    chosen = event.get("Auth", {}).get("Authorizer", auth.get("DefaultAuthorizer", "NONE"))
    if chosen == "NONE":
        return None
    details = auth["Authorizers"][chosen]
    identity = resolver.resolve(details["Identity"], chosen)
    [header] = identity["Headers"]
    function = next(iter(details["FunctionArn"].values())).partition(".")[0]
    return Authorizer(function, header.lower(), int(identity["ReauthorizeEvery"]))


def _event_source(function: str, properties: Mapping[str, Any]) -> EventSource:
    # Where the template is silent, what AWS takes.
    return EventSource(
        function=function,
        queue_arn=properties["Queue"],
        batch_size=int(properties.get("BatchSize", 10)),
        window=int(properties.get("MaximumBatchingWindowInSeconds", 0)),
        concurrency=int(properties.get("ScalingConfig", {}).get("MaximumConcurrency", 1000)),
        partial_failures="ReportBatchItemFailures" in properties.get("FunctionResponseTypes", ()),
    )


def _queue(name: str, properties: Mapping[str, Any]) -> Queue:
    return Queue(
        name,
        {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in properties.items()
        },
    )
