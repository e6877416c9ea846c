"""What template.yaml says: which functions there are, and which routes lead to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local import LocalError


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
class Route:
    """One route of the HTTP API."""

    method: str
    path: str
    function: str

    @property
    def key(self) -> str:
        """The route key as the HTTP API writes it."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Template:
    """The functions by their logical id, and the routes."""

    functions: Mapping[str, Function]
    routes: tuple[Route, ...]


class _Loader(yaml.SafeLoader):
    """YAML with the short forms of CloudFormation: `!Ref x` is `{"Ref": "x"}`."""


def _intrinsic(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    return {name if name in {"Ref", "Condition"} else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _intrinsic)


def load_yaml(path: Path) -> dict[str, Any]:
    """Return a template as CloudFormation's JSON form."""
    document: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506
    return document


def read_template(path: Path, values: Mapping[str, str]) -> Template:
    """Read a template, resolving references from values.

    Raises LocalError, naming what is referred to and not among the values.
    """
    document = load_yaml(path)
    defaults = document.get("Globals", {}).get("Function", {})
    functions: dict[str, Function] = {}
    routes: list[Route] = []
    for name, resource in document["Resources"].items():
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        properties = resource["Properties"]
        module, attribute = properties["Handler"].rsplit(".", 1)
        variables = {
            **defaults.get("Environment", {}).get("Variables", {}),
            **properties.get("Environment", {}).get("Variables", {}),
        }
        functions[name] = Function(
            name=name,
            file=path.parent / properties["CodeUri"] / f"{module}.py",
            attribute=attribute,
            environment={key: _resolve(value, values, name) for key, value in variables.items()},
            timeout=properties.get("Timeout", defaults.get("Timeout", 3)),
            memory=properties.get("MemorySize", defaults.get("MemorySize", 128)),
        )
        routes += [
            Route(event["Properties"]["Method"].upper(), event["Properties"]["Path"], name)
            for event in properties.get("Events", {}).values()
            if event["Type"] == "HttpApi"
        ]
    return Template(functions, tuple(routes))


def _resolve(value: Any, values: Mapping[str, str], where: str) -> str:
    if not isinstance(value, dict):
        return str(value)
    [(kind, argument)] = value.items()
    if kind == "Ref" and argument in values:
        return values[argument]
    raise LocalError(f"template.yaml: {where} refers to {kind} {argument}, unknown here")
