"""What documents tell a person to type is there to be typed."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from botocore import xform_name
from botocore.loaders import Loader
from botocore.model import ServiceModel

from faults.injections import FAULTS
from local import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNBOOK = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
# Alarms have their entries by tests/unit/test_infra.py.
SYMPTOMS = {
    "Slow analytics",
    "Latency spike",
    "Queue growing",
    "Dead letters",
    "Database full",
    "Fail-over",
    "Bad deploy",
    "Clock-skewed device",
    "Duplicate device ids",
}
FOLDERS = "tests|docs|layers|local|functions|infra|events"
# Options of the AWS CLI itself.
OF_EACH = {"query", "output", "region", "cli-binary-format"}
CLI_NAMES = {"deploy": "codedeploy"}


def entries() -> Iterator[tuple[str, str]]:
    for entry in re.split(r"^### ", RUNBOOK, flags=re.MULTILINE)[1:]:
        name, text = entry.split("\n", 1)
        yield name, re.split(r"^## ", text, flags=re.MULTILINE)[0]


def code(document: Path) -> Iterator[str]:
    """What a document shows as code: blocks line by line, and spans."""
    text = document.read_text(encoding="utf-8")
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose))


def aws_commands() -> Iterator[str]:
    """Those with their parameters; without, it is only a name for them."""
    for document in DOCUMENTS:
        for line in code(document):
            yield from re.findall(r"(?:^|[{ ])(aws [a-z].* --.*)", line)


def anchor_of(heading: str) -> str:
    """What GitHub makes of it."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


def test_no_recipe_leaves_a_file_in_the_tree() -> None:
    for block in re.findall(r"^```sh\n(.*?)^```", RUNBOOK, re.MULTILINE | re.DOTALL):
        commands = re.sub(r"<[^>\n]*>", "X", block)  # placeholders
        written = re.findall(r"(?:>\s*|key --file )([\w$./-]+\.[a-z]+)", commands)
        assert {name.partition("/")[0] for name in written} <= {"$d"}, block
        if written:
            assert "d=$(mktemp -d)\n" in block
            assert "rm -r $d" in block


def test_each_symptom_has_an_entry() -> None:
    assert {name for name, _ in entries()} >= SYMPTOMS


@pytest.mark.parametrize(("name", "text"), list(entries()), ids=lambda value: value[:20])
def test_each_entry_says_what_is_seen_and_why_and_what_to_do(name: str, text: str) -> None:
    assert re.findall(r"^\*(You see|Why|Do):\*", text, re.MULTILINE) == ["You see", "Why", "Do"]


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    named = {
        target
        for document in DOCUMENTS
        for line in code(document)
        for target in re.findall(r"(?:^|\(|[^a-z] )make (?:-s )?([a-z][a-z0-9-]*)", line)
    }
    assert named - targets == set()
    assert {"run", "psql", "redrive"} <= named


def test_every_file_and_test_that_is_named_exists() -> None:
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    for document in DOCUMENTS:
        for line in code(document):
            for file in re.findall(
                r"(?<![\w./])(?:tests|docs|layers|local|functions|infra)/[\w./-]*\w", line
            ):
                assert (ROOT / file).exists() or not Path(file).suffix, f"{document.name}: {file}"
            for test in re.findall(r"^test_\w+$", line):
                assert f"def {test}(" in tests, f"{document.name}: {test}"


def test_every_fault_that_shows_something_exists() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    [section] = re.findall(r"^## What happens when X dies\n(.*?)^## ", text, re.M | re.S)
    named = set(re.findall(r"\*([^*\n]+)\*", section)) - {"italics"}
    assert len(named) > 8
    assert named <= {fault.name for fault in FAULTS}
    shown = [line.split("|")[-2] for line in section.splitlines() if line.startswith("| ")][1:]
    assert [cell for cell in shown if not re.search(r"\*|test_|not tried", cell)] == []


def test_every_link_leads_somewhere() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            file = document.parent / path if path else document
            assert file.exists(), f"{document.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = {
                    re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings
                }
                assert anchor in anchors, f"{document.name}: {target}"


@pytest.mark.parametrize("command", sorted(set(aws_commands())))
def test_aws_takes_what_is_typed(command: str) -> None:
    # A placeholder, or what another command says, is one word.
    command = re.sub(r"\$\([^)]*\)|<[^>]*>", "X", command)
    shell = shlex.shlex(command, posix=True, punctuation_chars=True)
    shell.whitespace_split = True
    words = list(takewhile(lambda word: not set(word) <= set("|&;<>()"), shell))
    service, operation = words[1], words[2]
    loader = Loader()
    name = CLI_NAMES.get(service, service)
    model = ServiceModel(loader.load_service_model(name, "service-2"), name)
    operations = {xform_name(each, "-"): each for each in model.operation_names}
    if operation == "wait":
        operation = words[3]
        waiters = loader.load_service_model(name, "waiters-2")["waiters"]
        operations = {xform_name(each, "-"): waiters[each]["operation"] for each in waiters}
    assert operation in operations, f"{service} has no {operation}"
    taken = model.operation_model(operations[operation]).input_shape
    assert taken is not None
    members = {xform_name(member, "-"): member for member in taken.members}
    given = {word.removeprefix("--").removeprefix("no-") for word in words if word[:2] == "--"}
    assert given - OF_EACH <= set(members)
    assert {xform_name(member, "-") for member in taken.required_members} <= given
