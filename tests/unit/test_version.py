"""The version stands in telemetry/__init__.py, and everything else that names it follows."""

import json
import re
import tomllib

from local import ROOT
from telemetry import __version__


def test_it_is_a_semantic_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == __version__


def test_the_document_of_the_api_carries_it() -> None:
    document = json.loads((ROOT / "docs/openapi.json").read_bytes())
    assert document["info"]["version"] == __version__


def test_the_project_takes_it_from_there() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["project"]["dynamic"] == ["version"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "telemetry.__version__"
    }


def test_no_other_file_writes_it_down() -> None:
    files = [ROOT / "template.yaml", ROOT / "Makefile", ROOT / "pyproject.toml"]
    for folder in ("layers/telemetry/python", "functions", "infra", "local"):
        files += [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.yaml")]
    named = {file for file in files if f'"{__version__}"' in file.read_text(encoding="utf-8")}
    assert named == {ROOT / "layers/telemetry/python/telemetry/__init__.py"}
