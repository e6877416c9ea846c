"""The functions in PostgreSQL: files of SQL, applied as a whole wherever they differ.

Each file of `sql/functions` has the functions of a subject, with the grants of each. One that names
`{stream}` is applied for each stream: `{name}` in it is filled from telemetry.streams, `{name x}`
with the columns of x, and a line that ends with `-- of vehicles` is left out for meters.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

import psycopg

from telemetry.database import Row
from telemetry.streams import LENGTH, REGISTER, STREAMS, Stream

_PLACEHOLDER = re.compile(r"\{(\w+)(?: (\w+))?\}")
_OF_STREAM = re.compile(r"\s*-- of (\w+)s$")

_IN_FORCE = """
    SELECT name, checksum FROM schema_functions
    WHERE applied_at = (SELECT max(applied_at) FROM schema_functions)
"""
# What this transaction has made or replaced and no file before has.
_MADE = """
    SELECT array_agg(oid::regprocedure::text) FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace
      AND xmin = pg_current_xact_id()::xid AND oid::regprocedure::text != ALL (%s)
"""
_APPLIED = """
    INSERT INTO schema_functions AS known (name, checksum, applied_at, signatures)
    VALUES (%s, %s, now(), %s)
    ON CONFLICT (name, checksum) DO UPDATE SET applied_at = now()
"""
_GONE = """
    SELECT DISTINCT to_regprocedure(signature)::text
    FROM schema_functions, unnest(signatures) AS signature
    WHERE signature != ALL (%s) AND to_regprocedure(signature) IS NOT NULL
"""


class FunctionFile(NamedTuple):
    """A file's name, and the SQL that it comes to."""

    name: str
    statements: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the SQL."""
        return hashlib.sha256(self.statements.encode()).hexdigest()


@cache
def shipped_functions() -> list[FunctionFile]:
    """Return the files that this version of the code comes with, filled, in the order of names."""
    files = resources.files("telemetry").joinpath("sql", "functions").iterdir()
    texts = {
        file.name.removesuffix(".sql"): file.read_text(encoding="utf-8")
        for file in files
        if file.name.endswith(".sql")
    }
    return [
        FunctionFile(
            name,
            "".join(fill(text, stream) for stream in STREAMS.values())
            if "{stream}" in text
            else text,
        )
        for name, text in sorted(texts.items())
    ]


def apply_functions(connection: psycopg.Connection[Row], shipped: Sequence[FunctionFile]) -> None:
    """Bring the functions to this version, in the caller's transaction.

    Nothing is done where the database has them. A function that no file has any more is dropped:
    only such as a file had. Raises psycopg.Error.
    """
    in_force = connection.execute(_IN_FORCE).fetchall()
    if sorted(in_force) == [(file.name, file.checksum) for file in shipped]:
        return
    # Files call each other in any order; each body is checked where it is first used, and by tests.
    connection.execute("SET LOCAL check_function_bodies = off")
    made: list[str] = []
    for file in shipped:
        connection.execute(file.statements.encode())
        [(signatures,)] = connection.execute(_MADE, (made,))
        connection.execute(_APPLIED, (file.name, file.checksum, signatures or []))
        made += signatures or []
    for (name,) in connection.execute(_GONE, (made,)).fetchall():
        connection.execute(f"DROP FUNCTION {name}".encode())


def fill(text: str, stream: Stream) -> str:
    """Return a text of both streams as this one's."""
    lines = [
        line
        for line in text.splitlines(keepends=True)
        if (of := _OF_STREAM.search(line.rstrip())) is None or of[1] == stream.name
    ]
    names = dict(_names(stream))
    return _PLACEHOLDER.sub(lambda found: names[found[1]](found[2]), "".join(lines))


def _names(stream: Stream) -> Iterator[tuple[str, Callable[[str | None], str]]]:
    """What placeholders stand for; each is given the alias of the rows, or None."""

    def listed(items: Iterable[str]) -> Callable[[str | None], str]:
        text = ", ".join(items)
        return lambda _: text

    def of(alias: str | None, column: str) -> str:
        return f'{alias + "." if alias else ""}"{column}"'

    others = (stream.energy, REGISTER, LENGTH)
    told = [value.name for value in stream.values if value not in others]
    yield "stream", listed([stream.name])
    yield "device", listed([stream.device])
    yield "history", listed([stream.history])
    yield "energy", listed([stream.energy.name])
    yield "energy_sum", listed([stream.energy.sum])
    yield "columns", lambda alias: ", ".join(of(alias, name) for name in stream.columns)
    # What a device said, which tells one receipt of a reading from another.
    yield (
        "told",
        lambda alias: ", ".join(
            [
                f"coalesce({of(alias, REGISTER.name)}, {of(alias, stream.energy.name)})",
                *(of(alias, name) for name in told),
            ]
        ),
    )
    yield "sums", listed(value.sum for value in stream.summed)
    yield "typed_sums", listed(f"{value.sum} numeric" for value in stream.summed)
    yield "zeros", listed("0" for _ in stream.summed)
    # Of readings in (after, until]: the part of the energy that flowed there; of the others those
    # that ended there.
    yield (
        "shared",
        listed(
            f'sum(energy_by(until, {v.name}, seconds, "timestamp")'
            f' - energy_by(after, {v.name}, seconds, "timestamp"))'
            if v == stream.energy
            else f'sum({v.name}) FILTER (WHERE "timestamp" <= until)'
            for v in stream.summed
        ),
    )
    yield "resummed", lambda alias: ", ".join(f"sum({of(alias, v.sum)})" for v in stream.summed)
    yield (
        "differences",
        listed(
            f"coalesce(event.{v.name}, 0) - coalesce(old.{v.name}, 0) AS {v.sum}"
            for v in stream.summed
        ),
    )
    yield "added", listed(f"{v.sum} = rollup.{v.sum} + excluded.{v.sum}" for v in stream.summed)
    yield "replaced", listed(f"{v.sum} = excluded.{v.sum}" for v in stream.summed)
    # What `counted` added to an hour, in which `ended` readings of it ended.
    yield (
        "subtracted",
        listed(
            f"{v.sum} = rollup.{v.sum} - kwh_there"
            if v == stream.energy
            else f"{v.sum} = rollup.{v.sum} - ended * coalesce(counted.{v.name}, 0)"
            for v in stream.summed
        ),
    )
    yield "live_columns", listed(value.live for value in stream.always_shown)
    yield "live_zeros", listed("0" for _ in stream.always_shown)
    yield "shown", listed(f"{v.live} = newest.{v.name}" for v in stream.shown)
