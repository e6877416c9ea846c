"""Real PostgreSQL servers, started here: the embedded one, and 15 where it is installed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from local.postgres import RunningPostgres, embedded_binaries, start_postgres
from telemetry.database import Row, connect
from telemetry.migrate import apply_migrations
from telemetry.partitions import make_partitions
from telemetry.verification import find_differences

POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
# Durability is not what these servers are for; they die with the test run.
FAST = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB"]

_numbers = count()


@pytest.fixture(scope="session", params=["embedded", "15"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningPostgres]:
    """A server with a database `migrated`, to be cloned."""
    binaries = embedded_binaries() if request.param == "embedded" else POSTGRES_15
    if not binaries.exists():
        pytest.skip(f"PostgreSQL 15 is not installed in {POSTGRES_15}")
    running = start_postgres(tmp_path_factory.mktemp("postgres") / "data", binaries, options=FAST)
    try:
        with connect(running.url) as connection:
            connection.execute("CREATE DATABASE migrated")
        with connect(database_on(running, "migrated")) as connection:
            apply_migrations(connection)
            make_partitions(connection, datetime.now(UTC))
        yield running
    finally:
        running.stop()


@pytest.fixture
def empty_database(server: RunningPostgres) -> Iterator[str]:
    """The URL of a database of the test's own, with nothing in it."""
    yield from _database(server, "template0")


@pytest.fixture
def database_url(server: RunningPostgres) -> Iterator[str]:
    """The URL of a migrated database of the test's own; at the end it is what history says."""
    for url in _database(server, "migrated"):
        yield url
        with connect(url) as connection:
            assert find_differences(connection) == []


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Row]]:
    """A connection to the test's database."""
    with connect(database_url) as opened:
        yield opened


def database_on(server: RunningPostgres, name: str) -> str:
    return server.url.rsplit("/", 1)[0] + "/" + name


def _database(server: RunningPostgres, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    identifiers = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
    with connect(server.url) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**identifiers))
        yield database_on(server, name)
        admin.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**identifiers))
