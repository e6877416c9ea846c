"""Migrations and partitions: applied once, whoever asks, however often."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from local.configuration import read_local_template
from local.databases import DatabaseUrls
from local.runtime import Environment
from local.tables import PAGE, render_tables
from telemetry.database import connect
from telemetry.errors import MigrationChanged
from telemetry.migrate import Migration, _apply, apply_migrations, shipped_migrations
from telemetry.partitions import make_partitions
from tests.conftest import Server, unpooled

pytestmark = unpooled  # the owner is direct


def test_all_migrations_on_an_empty_database_make_the_tables_of_the_docs(
    empty_database: DatabaseUrls,
) -> None:
    with connect(empty_database.owner) as connection:
        apply_migrations(connection)
        assert render_tables(connection) == PAGE.read_text(encoding="utf-8"), "make tables"


def test_users_that_another_owner_made_are_taken_as_they_are(server: Server) -> None:
    with connect(server.url) as admin:
        # The roles are there. From PostgreSQL 16 on only who made them can change and grant them.
        admin.execute("CREATE ROLE other_owner LOGIN CREATEROLE PASSWORD 'other'")
        admin.execute("CREATE DATABASE of_another OWNER other_owner")
        admin.execute("GRANT telemetry_maintain TO other_owner")
        try:
            url = make_conninfo(
                server.url, user="other_owner", password="other", dbname="of_another"
            )
            with connect(url) as connection:
                assert apply_migrations(connection)
                assert make_partitions(connection, datetime.now(UTC))
        finally:
            admin.execute("DROP DATABASE of_another WITH (FORCE)")
            admin.execute("DROP ROLE other_owner")


def test_a_second_run_finds_nothing_to_do(empty_database: DatabaseUrls) -> None:
    with connect(empty_database.owner) as connection:
        assert apply_migrations(connection) == [entry.name for entry in shipped_migrations()]
        assert apply_migrations(connection) == []
        now = datetime.now(UTC)
        assert make_partitions(connection, now)
        assert make_partitions(connection, now) == []


def test_runs_at_once_apply_each_migration_once(empty_database: DatabaseUrls) -> None:
    def bring_up(_: int) -> tuple[list[str], list[str]]:
        with connect(empty_database.owner) as connection:
            return apply_migrations(connection), make_partitions(connection, datetime.now(UTC))

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(bring_up, range(4)))
    applied = [name for migrations, _ in done for name in migrations]
    assert sorted(applied) == [entry.name for entry in shipped_migrations()]
    made = [name for _, partitions in done for name in partitions]
    assert len(made) == len(set(made)) > 0


def test_a_failing_migration_leaves_the_ones_before_it(empty_database: DatabaseUrls) -> None:
    good = Migration("0001_good", "CREATE TABLE good (x int)")
    bad = Migration("0002_bad", "CREATE TABLE bad (x int); SELECT 1/0")
    with connect(empty_database.owner) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            list(_apply(connection, [good, bad]))
        found = connection.execute(
            """SELECT to_regclass('good'), to_regclass('bad'),
                      (SELECT count(*) FROM schema_migrations)"""
        ).fetchone()
    assert found == ("good", None, 1)


def test_a_changed_migration_is_refused(empty_database: DatabaseUrls) -> None:
    with connect(empty_database.owner) as connection:
        list(_apply(connection, [Migration("0001_one", "SELECT 1")]))
        with pytest.raises(MigrationChanged, match="0001_one"):
            list(_apply(connection, [Migration("0001_one", "SELECT 2")]))


def test_the_migration_function_brings_a_database_up(empty_database: DatabaseUrls) -> None:
    template = read_local_template(empty_database.environment)
    migrate = Environment(template.functions["MigrateFunction"])
    first = migrate.invoke({}, "request-1")
    assert first["migrations"] == [entry.name for entry in shipped_migrations()]
    assert first["partitions"] > 0
    with connect(empty_database.owner) as connection:
        # A day further ahead, so that midnight between the two calls asks for no more.
        make_partitions(connection, datetime.now(UTC) + timedelta(days=1))
    assert migrate.invoke({}, "request-2") == {"migrations": [], "zones": [], "partitions": 0}
