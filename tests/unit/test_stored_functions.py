"""The house of SQL: how long functions are, how deep a reading goes, and what all streams have."""

import re
from typing import NamedTuple

import pytest

from local import ROOT
from telemetry.migrate import shipped_migrations
from telemetry.stored_functions import fill, shipped_functions
from telemetry.streams import METERS, STREAMS, VEHICLES, Column, Stream
from tests.integration.released import RELEASES, released_migrations

SQL = ROOT / "layers/telemetry/python/telemetry/sql"
LONGEST = 150
DEEPEST = 3
# What computes something of its arguments, and reads no table of readings.
FORMULAS = {"register_energy", "hash_device"}

DEFINITION = re.compile(
    r"^CREATE OR REPLACE FUNCTION (\w+)((?:(?!^CREATE ).)*?)"
    r"(?:\bAS (\$\w*\$)(.*?)\3;|\bRETURN\s[^;]*;)",
    re.DOTALL | re.MULTILINE,
)


class Function(NamedTuple):
    name: str
    lines: int
    is_inlined: bool
    body: str


def functions() -> dict[str, Function]:
    found = {}
    for file in shipped_functions():
        for match in DEFINITION.finditer(file.statements):
            name, head, _, body = match.groups()
            is_inlined = "LANGUAGE plpgsql" not in head and "SET search_path" not in head
            found[name] = Function(name, match[0].count("\n") + 1, is_inlined, body or "")
    return found


FUNCTIONS = functions()


def depth(name: str, above: tuple[str, ...] = ()) -> int:
    """Return how many functions are in each other, at most, where this one is called."""
    assert name not in above, f"{name} calls itself: {above}"
    called = set(re.findall(r"\b(\w+)\s*\(", FUNCTIONS[name].body)) & FUNCTIONS.keys()
    below = [depth(each, (*above, name)) for each in called - FORMULAS]
    return max(below, default=0) + (not FUNCTIONS[name].is_inlined)


def test_every_function_is_found() -> None:
    statements = "".join(file.statements for file in shipped_functions())
    assert len(FUNCTIONS) == len(re.findall(r"^CREATE OR REPLACE FUNCTION", statements, re.M)) > 90


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_can_be_read_at_once(name: str) -> None:
    assert FUNCTIONS[name].lines <= LONGEST


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.startswith("store_")])
def test_a_reading_goes_through_few_functions(name: str) -> None:
    assert depth(name) <= DEEPEST


@pytest.mark.parametrize("release", RELEASES)
def test_released_migrations_are_never_edited(release: str) -> None:
    shipped = {migration.name: migration for migration in shipped_migrations()}
    for migration in released_migrations(release):
        assert shipped[migration.name].checksum == migration.checksum, migration.name


def test_functions_and_what_keeps_state_stand_apart() -> None:
    for file in (SQL / "migrations").glob("*.sql"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"CREATE (OR REPLACE )?FUNCTION", text), file
        called = set(re.findall(r"\b(\w+)\s*\(", text)) & FUNCTIONS.keys()
        assert called == set(), file
    for file in (SQL / "functions").glob("*.sql"):
        made = set(re.findall(r"^(CREATE (?!OR REPLACE)\w+|ALTER|DROP)", file.read_text(), re.M))
        assert made == set(), file


def test_there_is_no_sql_in_texts_of_sql() -> None:
    executed = re.compile(r"\bEXECUTE (?!ON FUNCTION|FUNCTION)")
    for file in (SQL / "functions").glob("*.sql"):
        assert not executed.search(file.read_text(encoding="utf-8")), file


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_placeholder_is_filled_from_the_description_of_the_stream(stream: Stream) -> None:
    more = stream._replace(
        values=(*stream.values, Column("frequency_hz", "numeric", "Hz", "hz_sum", "last_hz"))
    )
    assert fill("{stream} {device} {energy}", more) == (
        f"{stream.name} {stream.name}_id {stream.energy.name}"
    )
    assert fill("{columns e}", more).endswith(', e."frequency_hz"')
    assert fill("{told e}", more).endswith(', e."frequency_hz"')
    assert fill("{sums}", more).endswith(", hz_sum")
    assert fill("{shown}", more).endswith("last_hz = newest.frequency_hz")


def test_a_line_may_be_of_one_stream() -> None:
    text = "a\nb  -- of vehicles\nc  -- of meters\n"
    assert (fill(text, METERS), fill(text, VEHICLES)) == (
        "a\nc  -- of meters\n",
        "a\nb  -- of vehicles\n",
    )


def test_a_placeholder_that_there_is_not_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        fill("{stream} {nothing}", METERS)
