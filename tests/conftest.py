"""Real PostgreSQL servers, started here: the embedded one, and 15 where it is installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from local.databases import OWNER, DatabaseUrls, admit_users, database_urls, make_database
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
        make_database(running, "migrated")
        with connect(database_urls(running, "migrated").owner) as connection:
            apply_migrations(connection)
            make_partitions(connection, datetime.now(UTC))
        admit_users(running)
        yield running
    finally:
        running.stop()


@pytest.fixture
def empty_database(server: RunningPostgres) -> Iterator[DatabaseUrls]:
    """A database of the test's own, with nothing in it."""
    with _database(server, "template0") as urls:
        yield urls


@pytest.fixture
def urls(server: RunningPostgres) -> Iterator[DatabaseUrls]:
    """A migrated database of the test's own; at the end it is what history says."""
    with _database(server, "migrated") as urls:
        yield urls
        with connect(urls.owner) as connection:
            assert find_differences(connection) == []


@pytest.fixture
def connection(urls: DatabaseUrls) -> Iterator[psycopg.Connection[Row]]:
    """The owner's connection to the test's database."""
    with connect(urls.owner) as opened:
        yield opened


@pytest.fixture
def superuser_url(server: RunningPostgres, urls: DatabaseUrls) -> str:
    """How a superuser reaches the test's database."""
    return server.url.rsplit("/", 1)[0] + urlsplit(urls.owner).path


@pytest.fixture
def admin(superuser_url: str) -> Iterator[psycopg.Connection[Row]]:
    """A superuser's connection to the test's database."""
    with connect(superuser_url) as opened:
        yield opened


@contextmanager
def _database(server: RunningPostgres, template: str) -> Iterator[DatabaseUrls]:
    name = f"test_{next(_numbers)}"
    names = [sql.Identifier(part) for part in (name, template, OWNER)]
    with connect(server.url) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*names))
        try:
            yield database_urls(server, name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(names[0]))
