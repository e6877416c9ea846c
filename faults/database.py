"""A PostgreSQL server that can be killed, frozen, stopped, and run out of disk."""

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from psycopg.errors import DeadlockDetected, LockNotAvailable, QueryCanceled

from local import LocalError
from local.databases import DATABASE, DatabaseUrls, admit_users, database_urls, make_database
from local.postgres import embedded_binaries, start_postgres
from telemetry.database import Row, connect
from telemetry.migrate import apply_migrations
from telemetry.partitions import make_partitions

# How the workers' sessions call themselves.
WORKER = "worker"
LOCKED_SECONDS = 60
# A worker that is stopped at this table is in the middle of a write.
_LOCK = "LOCK TABLE meter_live_status, vehicle_live_status IN ACCESS EXCLUSIVE MODE"
_WAITING_WORKERS = """
    SELECT count(DISTINCT query) FROM pg_stat_activity
    WHERE application_name = %s AND wait_event_type = 'Lock'
"""


class BreakableDatabase:
    """A server with the database of the system; it is made, and migrated, when this is."""

    def __init__(self, folder: Path, disk: Path | None) -> None:
        """disk is a small file system for what the tables hold; None where there is none."""
        self._data = folder / "postgres"
        self._disk = disk
        self._server = start_postgres(self._data, embedded_binaries())
        self.port = urlsplit(self._server.url).port or 0
        make_database(self._server, DATABASE)
        if disk is not None:
            self._move_to(disk)
        with connect(self.urls(self.port).owner) as connection:
            apply_migrations(connection)
            make_partitions(connection, datetime.now(UTC))
        admit_users(self._server)

    def urls(self, port: int) -> DatabaseUrls:
        """Return how the users reach the database at a port, such as that of a relay."""
        moved = self._server.url.replace(f":{self.port}/", f":{port}/")
        return database_urls(replace(self._server, url=moved), DATABASE)

    def start(self) -> None:
        """Start it again."""
        self._server = start_postgres(self._data, embedded_binaries(), port=self.port)

    def stop(self) -> None:
        """Stop it in good order, even if it is frozen."""
        self.thaw()
        self._server.stop()

    def kill(self) -> None:
        """End all its processes at once, as a power cut does."""
        self._signal(signal.SIGKILL)
        self._server.process.wait()

    def freeze(self) -> None:
        """Let none of its processes do anything; their connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let its processes go on."""
        self._signal(signal.SIGCONT)

    def fill_disk(self) -> None:
        """Leave no space on the small file system."""
        with self._ballast.open("wb", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        ballast.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free_disk(self) -> None:
        """Make space again."""
        self._ballast.unlink()

    def log(self) -> str:
        """Return what the server said since it was started last."""
        return self._data.with_name("postgres.log").read_text(encoding="utf-8", errors="replace")

    def refuse_vehicle(self, vehicle_id: str) -> None:
        """Have PostgreSQL find fault with the data of any reading of a vehicle."""
        with connect(self.urls(self.port).owner) as owner:
            owner.execute(
                """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                   $$BEGIN RAISE 'refused' USING ERRCODE = 'data_exception'; END$$"""
            )
            owner.execute(
                sql.SQL(
                    """CREATE TRIGGER refuse BEFORE INSERT ON vehicle_telemetry_history
                       FOR EACH ROW WHEN (NEW.vehicle_id = {}) EXECUTE FUNCTION refuse()"""
                ).format(sql.Literal(vehicle_id))
            )

    @contextmanager
    def workers_in_mid_write(self) -> Iterator[None]:
        """Hold up the workers of both streams in the middle of a write for the block."""
        with (
            connect(self.urls(self.port).owner, autocommit=False) as holder,
            connect(self._server.url) as watcher,
        ):
            deadline = time.monotonic() + LOCKED_SECONDS
            while not _lock_out_writers(holder):
                if time.monotonic() > deadline:
                    raise LocalError("the tables are never free")
            while watcher.execute(_WAITING_WORKERS, (WORKER,)).fetchall() != [(2,)]:
                if time.monotonic() > deadline:
                    raise LocalError("the workers write nothing")
            yield
            holder.rollback()

    @property
    def _ballast(self) -> Path:
        assert self._disk is not None
        return self._disk / "ballast"

    def _signal(self, number: signal.Signals) -> None:
        server = self._server.process.pid
        # It first: it would start others in the place of those that end.
        for process in (server, *children_of(server)):
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def _move_to(self, disk: Path) -> None:
        place = disk / "tables"
        place.mkdir(mode=0o700)
        os.chown(place, self._data.stat().st_uid, self._data.stat().st_gid)
        with connect(self._server.url) as admin:
            admin.execute(
                sql.SQL("CREATE TABLESPACE small LOCATION {}").format(sql.Literal(str(place)))
            )
            admin.execute(
                sql.SQL("ALTER DATABASE {} SET TABLESPACE small").format(sql.Identifier(DATABASE))
            )


def children_of(process: int) -> list[int]:
    """Return the processes that a process started, none where it ended."""
    try:
        found = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in found.split()]


def _lock_out_writers(connection: psycopg.Connection[Row]) -> bool:
    """Return whether the lock was had: who takes it loses deadlocks with ops beside the load."""
    try:
        connection.execute(_LOCK)
    except (DeadlockDetected, LockNotAvailable, QueryCanceled):
        connection.rollback()
        return False
    return True
