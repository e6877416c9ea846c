"""Real PostgreSQL servers, started here: the embedded one, 15 and PgBouncer where installed."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql

from local.databases import (
    ALERTS,
    CORRECT,
    INGEST,
    OWNER,
    READ,
    DatabaseUrls,
    admit_users,
    database_urls,
    make_database,
    password_of,
)
from local.postgres import RunningPostgres, embedded_binaries, start_postgres
from telemetry.database import Row, connect
from telemetry.migrate import apply_migrations
from telemetry.partitions import (
    DAYS_AHEAD,
    END_OF_PARTITIONS,
    HISTORIES,
    attach_partition,
    make_partitions,
)
from telemetry.verification import find_differences
from tests.memory import memory_folder
from tests.pgbouncer import PGBOUNCER, start_pgbouncer
from tests.wire import at_port

POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
# Durability is not what these servers are for; they die with the test run.
FAST = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB"]

# No example is wrong because the machine was slow. One that is wrong is printed with what makes it
# again, for the database of examples may be gone with the machine.
settings.register_profile("tests", settings(), deadline=None, print_blob=True)
settings.load_profile("tests")

_numbers = count()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print, for each test that failed, the command that repeats it alone."""
    failed = [
        report.nodeid
        for outcome in ("failed", "error")
        for report in terminalreporter.getreports(outcome)
    ]
    if failed:
        terminalreporter.section("to repeat a failure alone")
    for name in dict.fromkeys(failed):
        terminalreporter.write_line(f'make test ARGS="{shlex.quote(name)}"')


@dataclass(frozen=True)
class Server:
    """A server, and the pooler that clients reach it through, where there is one."""

    running: RunningPostgres
    pooler_port: int | None = None

    @property
    def url(self) -> str:
        """How a superuser reaches it, past the pooler."""
        return self.running.url

    def superuser_url(self, urls: DatabaseUrls) -> str:
        """Return how a superuser reaches a database, past the pooler."""
        return self.url.rsplit("/", 1)[0] + urlsplit(urls.owner).path

    def urls(self, name: str) -> DatabaseUrls:
        """Return how the users reach a database: the owner past the pooler, as on AWS."""
        urls = database_urls(self.running, name)
        if self.pooler_port is None:
            return urls
        return replace(
            urls,
            ingest=at_port(urls.ingest, self.pooler_port),
            read=at_port(urls.read, self.pooler_port),
            alerts=at_port(urls.alerts, self.pooler_port),
            correct=at_port(urls.correct, self.pooler_port),
        )


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the data of servers."""
    with memory_folder(tmp_path_factory.mktemp("data")) as folder:
        yield folder


@pytest.fixture(scope="session")
def embedded(memory: Path) -> Iterator[Server]:
    yield from _server(memory / "embedded", embedded_binaries())


@pytest.fixture(scope="session")
def postgres_15(memory: Path) -> Iterator[Server]:
    if not POSTGRES_15.exists():
        pytest.skip(f"PostgreSQL 15 is not installed in {POSTGRES_15}")
    yield from _server(memory / "postgres_15", POSTGRES_15)


@pytest.fixture(scope="session")
def pgbouncer(embedded: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not Path(PGBOUNCER).exists():
        pytest.skip("PgBouncer is not installed (Debian package pgbouncer)")
    users = {name: password_of(embedded.running, name) for name in (INGEST, READ, ALERTS, CORRECT)}
    users["postgres"] = urlsplit(embedded.url).password or ""
    folder = tmp_path_factory.mktemp("pgbouncer")
    with start_pgbouncer(folder, embedded.url, users) as port:
        yield Server(embedded.running, port)


@pytest.fixture(scope="session", params=["embedded", "postgres_15", "pgbouncer"])
def server(request: pytest.FixtureRequest) -> Server:
    """A server with a database `migrated`, to be cloned; started once, whatever comes between."""
    chosen: Server = request.getfixturevalue(request.param)
    return chosen


# For what belongs to one session, or is the same whoever is before the server.
unpooled = pytest.mark.parametrize(
    "server", ["embedded", "postgres_15"], indirect=True, scope="session"
)


@pytest.fixture
def empty_database(server: Server) -> Iterator[DatabaseUrls]:
    """A database of the test's own, with nothing in it."""
    with database(server, "template0") as urls:
        yield urls


@pytest.fixture
def urls(server: Server) -> Iterator[DatabaseUrls]:
    """A migrated database of the test's own; at the end it is what history says."""
    with database(server, "migrated") as urls:
        yield urls
        with connect(urls.owner) as connection:
            assert find_differences(connection) == []


@pytest.fixture
def connection(urls: DatabaseUrls) -> Iterator[psycopg.Connection[Row]]:
    """The owner's connection to the test's database."""
    with connect(urls.owner) as opened:
        yield opened


@pytest.fixture
def superuser_url(server: Server, urls: DatabaseUrls) -> str:
    """How a superuser reaches the test's database."""
    return server.superuser_url(urls)


@pytest.fixture
def admin(superuser_url: str) -> Iterator[psycopg.Connection[Row]]:
    """A superuser's connection to the test's database."""
    with connect(superuser_url) as opened:
        yield opened


def _server(data: Path, binaries: Path) -> Iterator[Server]:
    running = start_postgres(data, binaries, options=FAST)
    try:
        make_database(running, "migrated")
        with connect(database_urls(running, "migrated").owner) as connection:
            apply_migrations(connection)
            make_few_partitions(connection, datetime.now(UTC))
        admit_users(running)
        server = Server(running)
        with connect(server.url) as superuser:
            for role in (OWNER, "postgres"):
                # What tests compare with takes PostgreSQL 15 longer to compile than to run.
                superuser.execute(f"ALTER ROLE {role} SET jit = off".encode())
        yield server
    finally:
        running.stop()


@cache
def template_at(server: Server, now: datetime) -> str:
    """Return the name of a migrated database whose partitions were made at an instant."""
    name = f"migrated_at_{now:%Y_%m_%d_%H%M%S}"
    make_database(server.running, name)
    with connect(server.urls(name).owner) as owner:
        apply_migrations(owner)
        make_partitions(owner, now)
    return name


def make_few_partitions(connection: psycopg.Connection[Row], now: datetime) -> None:
    """Make partitions that reach as far as those of make_partitions, but fewer days.

    There they are cut only where readings of now may lie on both sides: each test copies all
    partitions, and computes anew what all of them hold. Months and years are as they always are.
    """
    day = timedelta(days=1)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    make_partitions(connection, today.replace(day=1), days_ahead=0)
    for history in HISTORIES:
        [(start,)] = connection.execute(END_OF_PARTITIONS, ([history],))
        for end in (today - day, today, today + day, today + (DAYS_AHEAD + 1) * day):
            if end > start:
                name = f"{history}_{start.astimezone(UTC):%Y_%m_%d}"
                with connection.transaction():
                    table, parent = sql.Identifier(name), sql.Identifier(history)
                    connection.execute(
                        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(table, parent)
                    )
                    attach_partition(connection, history, name, start, end)
                start = end


@contextmanager
def database(server: Server, template: str) -> Iterator[DatabaseUrls]:
    """A copy of a database that nobody uses, until it ends."""
    name = f"test_{next(_numbers)}"
    names = [sql.Identifier(part) for part in (name, template, OWNER)]
    with connect(server.url) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*names))
        try:
            yield server.urls(name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(names[0]))
