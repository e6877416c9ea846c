"""Real PostgreSQL servers, started here: the embedded one, 15 and PgBouncer where installed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from local.postgres import embedded_binaries, start_postgres
from telemetry.database import Row, connect
from telemetry.migrate import apply_migrations
from telemetry.partitions import make_partitions
from telemetry.verification import find_differences
from tests.pgbouncer import PGBOUNCER, start_pgbouncer
from tests.wire import at_port

POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
# Durability is not what these servers are for; they die with the test run.
FAST = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB"]

_numbers = count()


@dataclass(frozen=True)
class Server:
    """A server, and the pooler that clients reach it through, where there is one."""

    url: str
    pooler_port: int | None = None

    def pooled(self, url: str) -> str:
        """Lead a URL of this server the way that clients take."""
        return url if self.pooler_port is None else at_port(url, self.pooler_port)

    def direct(self, url: str) -> str:
        """Lead a URL past the pooler, to a session of its own."""
        port = urlsplit(self.url).port
        assert port is not None
        return at_port(url, port)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _server(tmp_path_factory, embedded_binaries())


@pytest.fixture(scope="session")
def postgres_15(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not POSTGRES_15.exists():
        pytest.skip(f"PostgreSQL 15 is not installed in {POSTGRES_15}")
    yield from _server(tmp_path_factory, POSTGRES_15)


@pytest.fixture(scope="session")
def pgbouncer(embedded: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not Path(PGBOUNCER).exists():
        pytest.skip("PgBouncer is not installed (Debian package pgbouncer)")
    users = {"postgres": urlsplit(embedded.url).password or ""}
    with start_pgbouncer(tmp_path_factory.mktemp("pgbouncer"), embedded.url, users) as port:
        yield Server(embedded.url, port)


@pytest.fixture(scope="session", params=["embedded", "postgres_15", "pgbouncer"])
def server(request: pytest.FixtureRequest) -> Server:
    """A server with a database `migrated`, to be cloned; started once, whatever comes between."""
    chosen: Server = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def empty_database(server: Server) -> Iterator[str]:
    """The URL of a database of the test's own, with nothing in it."""
    yield from _database(server, "template0")


@pytest.fixture
def database_url(server: Server) -> Iterator[str]:
    """The URL of a migrated database of the test's own; at the end it is what history says."""
    for url in _database(server, "migrated"):
        yield url
        with connect(url) as connection:
            assert find_differences(connection) == []


@pytest.fixture
def direct_url(server: Server, database_url: str) -> str:
    """The URL of the test's database past PgBouncer, for what belongs to one session."""
    return server.direct(database_url)


@pytest.fixture
def connection(direct_url: str) -> Iterator[psycopg.Connection[Row]]:
    """The test's own connection to its database."""
    with connect(direct_url) as opened:
        yield opened


def database_on(server: Server, name: str) -> str:
    return server.url.rsplit("/", 1)[0] + "/" + name


def _server(folders: pytest.TempPathFactory, binaries: Path) -> Iterator[Server]:
    running = start_postgres(folders.mktemp("postgres") / "data", binaries, options=FAST)
    try:
        server = Server(running.url)
        with connect(running.url) as connection:
            connection.execute("CREATE DATABASE migrated")
        with connect(database_on(server, "migrated")) as connection:
            apply_migrations(connection)
            make_partitions(connection, datetime.now(UTC))
        yield server
    finally:
        running.stop()


def _database(server: Server, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    identifiers = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
    with connect(server.url) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**identifiers))
        yield server.pooled(database_on(server, name))
        admin.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**identifiers))
