"""Writes docs/tables.md: the tables, views and types that the migrations make."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

from local import ROOT
from local.databases import database_urls, make_database
from local.postgres import embedded_binaries, start_postgres
from telemetry.database import Row, connect
from telemetry.migrate import apply_migrations

PAGE = ROOT / "docs/tables.md"

_HEADER = """\
# Tables

The tables, views and types of the database, without the partitions of history. `make tables` writes
this page from the database that the migrations make; the functions are in
`layers/telemetry/python/telemetry/sql/functions`.
"""
_RELATIONS = """
    SELECT oid, relname, relkind::text, obj_description(oid, 'pg_class')
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'c')
      AND NOT relispartition
    ORDER BY relkind NOT IN ('r', 'p'), relkind, relname
"""
_COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod),
           CASE WHEN attnotnull THEN 'not null' ELSE '' END,
           coalesce(pg_get_expr(adbin, adrelid), ''),
           coalesce(col_description(attrelid, attnum), '')
    FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
    WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
"""
_INDEXES = """
    SELECT indisprimary, indisunique,
           regexp_replace(pg_get_indexdef(indexrelid), '^.* USING btree ', '')
    FROM pg_index WHERE indrelid = %s
    ORDER BY NOT indisprimary, 3
"""
_KINDS = {"r": "", "p": ", partitioned by `timestamp`", "v": ", a view", "c": ", a type"}


def render_tables(connection: psycopg.Connection[Row]) -> str:
    """Return the text of the page for a database that the migrations were applied to."""
    return _HEADER + "".join(_render(connection))


def _render(connection: psycopg.Connection[Row]) -> Iterator[str]:
    for oid, name, kind, comment in connection.execute(_RELATIONS).fetchall():
        yield f"\n## {name}{_KINDS[kind]}\n"
        if comment:
            yield f"\n{comment}\n"
        yield "\n| column | type | | default | |\n|---|---|---|---|---|\n"
        for row in connection.execute(_COLUMNS, (oid,)):
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n"
        indexes = [
            f"- {'primary key' if primary else 'unique' if unique else 'index'} `{definition}`\n"
            for primary, unique, definition in connection.execute(_INDEXES, (oid,))
        ]
        if indexes:
            yield "\n" + "".join(indexes)


def write_tables() -> None:
    """Apply the migrations on a server of its own and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        server = start_postgres(Path(folder) / "postgres", embedded_binaries())
        try:
            make_database(server, "migrated")
            with connect(database_urls(server, "migrated").owner) as connection:
                apply_migrations(connection)
                PAGE.write_text(render_tables(connection), encoding="utf-8")
        finally:
            server.stop()
    print(f"Wrote {PAGE.relative_to(ROOT)}")
