"""Applies what the database has to have: numbered migrations of what keeps state, then functions.

The migration function, the local stack and the tests use it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import NamedTuple

import psycopg

from telemetry.database import Row
from telemetry.errors import MigrationChanged
from telemetry.stored_functions import FunctionFile, apply_functions, shipped_functions

LOCK_KEY = 0x656E6572_6D696772  # "enermigr"

_CREATE_LEDGER = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        name       text PRIMARY KEY,
        checksum   text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""


class Migration(NamedTuple):
    """One file of `sql/migrations`: tables, types, indexes, views, roles; never a function."""

    name: str
    statements: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file's text."""
        return hashlib.sha256(self.statements.encode()).hexdigest()


def shipped_migrations() -> list[Migration]:
    """Return the migrations that this version of the code comes with, in their order."""
    files = resources.files("telemetry").joinpath("sql", "migrations").iterdir()
    return [
        Migration(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in sorted(files, key=lambda file: file.name)
        if file.name.endswith(".sql")
    ]


def apply_migrations(connection: psycopg.Connection[Row]) -> list[str]:
    """Apply what is missing, each migration in a transaction of its own; return their names.

    The functions come with the last one: nobody sees them beside tables that they do not fit. Safe
    to run twice, and twice at once: the second run waits for each lock and skips.
    Raises MigrationChanged, and psycopg.Error where a migration fails; the ones before it stay.
    """
    return list(_apply(connection, shipped_migrations(), shipped_functions()))


def _apply(
    connection: psycopg.Connection[Row],
    migrations: list[Migration],
    functions: Sequence[FunctionFile] = (),
) -> Iterator[str]:
    for migration in migrations:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
            connection.execute(_CREATE_LEDGER)
            applied = connection.execute(
                "SELECT checksum FROM schema_migrations WHERE name = %s", (migration.name,)
            ).fetchone()
            if applied is None:
                connection.execute(migration.statements.encode())
                connection.execute(
                    "INSERT INTO schema_migrations (name, checksum) VALUES (%s, %s)",
                    (migration.name, migration.checksum),
                )
            elif applied[0] != migration.checksum:
                raise MigrationChanged(migration.name)
            if functions and migration is migrations[-1]:
                apply_functions(connection, functions)
        if applied is None:
            yield migration.name
