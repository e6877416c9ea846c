"""docs/configuration.md names the environment variables that the code reads, and no others."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from local import ROOT
from local.configuration import PARAMETERS, TEMPLATE
from local.template import load_yaml

IN_PYTHON = re.compile(r'(?:environ(?:\.get)?[\[(]|_read\(|_port\()"([A-Z_]+)"')
IN_SHELL = re.compile(r"\$\{([A-Z_]+):-")
IN_MAKE = re.compile(r"^([A-Z_]+) \?=", re.MULTILINE)
SCRIPTS = ("local", "layers", "localstack")
# Of WSGI, not of the process; and of every process or execution environment.
NOT_OURS = {"event.py", "gateway.py"}
OF_THE_SYSTEM = {"PATH", "HOME", "LD_PRELOAD", "_HANDLER"}


def read_by_the_code() -> Iterator[str]:
    for folder in ("layers/telemetry/python", "functions", "local"):
        for file in (ROOT / folder).rglob("*.py"):
            if file.name not in NOT_OURS:
                yield from IN_PYTHON.findall(file.read_text(encoding="utf-8"))
                yield from re.findall(r'"(POWERTOOLS_[A-Z_]+)"', file.read_text(encoding="utf-8"))
    scripts = [script for folder in SCRIPTS for script in (ROOT / folder).glob("*.sh")]
    for script in [*scripts, ROOT / "localstack/compose.yaml"]:
        yield from IN_SHELL.findall(script.read_text(encoding="utf-8"))
    for makefile in [ROOT / "Makefile", *ROOT.glob("*/*/Makefile")]:
        text = makefile.read_text(encoding="utf-8")
        yield from IN_MAKE.findall(text)
        yield from IN_SHELL.findall(text.replace("$$", "$"))
    yield from PARAMETERS
    document = load_yaml(TEMPLATE)
    for function in (document["Globals"]["Function"], *functions_of(document["Resources"])):
        yield from function.get("Environment", {}).get("Variables", {})


def functions_of(resources: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for resource in resources.values():
        if resource["Type"] == "AWS::Serverless::Function":
            yield resource["Properties"]


def documented(file: Path) -> list[str]:
    rows = re.findall(r"^\| (`[^|]*`) \|", file.read_text(encoding="utf-8"), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)]


def test_every_variable_is_documented_once() -> None:
    named = documented(ROOT / "docs/configuration.md")
    assert sorted(named) == sorted(set(read_by_the_code()) - OF_THE_SYSTEM)


def test_the_example_has_only_variables_that_there_are() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = re.findall(r"^#? ?([A-Z_]+)=", text, re.MULTILINE)
    assert "DATABASE_URL" in named
    assert set(named) <= set(documented(ROOT / "docs/configuration.md"))


def test_the_configurations_of_sam_name_parameters_that_there_are() -> None:
    configurations = tomllib.loads((ROOT / "samconfig.toml").read_text(encoding="utf-8"))
    assert {"default", "local", "staging", "production"} <= set(configurations)
    parameters = load_yaml(TEMPLATE)["Parameters"]
    for stage in ("staging", "production"):
        deploy = configurations[stage]["deploy"]["parameters"]
        for override in deploy["parameter_overrides"]:
            name, _, value = override.partition("=")
            allowed = [str(entry) for entry in parameters[name].get("AllowedValues", [value])]
            assert value in allowed
        assert f"stage={stage}" in deploy["tags"]
