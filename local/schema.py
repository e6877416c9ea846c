"""Writes layers/telemetry/schema.sql: what all migrations together make of an empty database."""

import os
import subprocess
import tempfile
from pathlib import Path

from local import ROOT
from local.databases import database_urls, make_database
from local.postgres import embedded_binaries, start_postgres
from telemetry.database import connect
from telemetry.migrate import apply_migrations

SCHEMA = ROOT / "layers/telemetry/schema.sql"

_HEADER = """\
-- The schema that all migrations make, without the partitions of history. Written by `make schema`
-- to be read; what is applied are the migrations.
"""


def render_schema(url: str) -> str:
    """Return the text of schema.sql for a database that the migrations were applied to."""
    dumped = subprocess.run(
        [str(embedded_binaries() / "pg_dump"), "--schema-only", "--no-owner", "--dbname", url]
        + ["--exclude-table=*_history_2*", "--exclude-table=*_history_default"],
        env={**os.environ, "PGTZ": "UTC"},  # instants are written in the zone of the machine else
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # Remarks say little beside the objects' own names; \\restrict carries a random token.
    lines = [line for line in dumped.splitlines() if not line.startswith(("--", "\\"))]
    paragraphs = [part.strip() for part in "\n".join(lines).split("\n\n") if part.strip()]
    return _HEADER + "\n" + "\n\n".join(paragraphs) + "\n"


def write_schema() -> None:
    """Apply the migrations on a server of its own and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        server = start_postgres(Path(folder) / "postgres", embedded_binaries())
        try:
            make_database(server, "migrated")
            url = database_urls(server, "migrated").owner
            with connect(url) as connection:
                apply_migrations(connection)
            SCHEMA.write_text(render_schema(url), encoding="utf-8")
        finally:
            server.stop()
    print(f"Wrote {SCHEMA.relative_to(ROOT)}")
