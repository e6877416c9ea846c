"""The database of a server of our own and its users: who owns, writes, reads and so on.

None of them is a superuser, as on a managed server: what works here works there.
"""

import contextlib
import hmac
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal
from urllib.parse import urlsplit

from psycopg import sql

from local import LocalError
from local.console import say
from local.folder import read_file, running_pid, send_signal, write_file
from local.postgres import RunningPostgres, embedded_binaries, free_port, start_postgres
from local.processes import PAUSE_SECONDS
from telemetry.database import connect

OWNER, INGEST, READ = "telemetry_owner", "telemetry_ingest", "telemetry_read"
MAINTAIN = "telemetry_maintain"
ALERTS = "telemetry_alerts"
CORRECT = "telemetry_correct"
DATABASE = "telemetry"
PREFERRED_PORT = 54329

# What a system says of its database in its folder; "given" is one that DATABASE_URL names.
State = Literal["starting", "running", "stopped", "given"]


@dataclass(frozen=True)
class DatabaseUrls:
    """How each user reaches one database."""

    owner: str
    ingest: str
    read: str
    alerts: str
    correct: str
    maintain: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "DatabaseUrls":
        """Return DATABASE_URL, and those with INGEST_ and so on before it.

        Where only the first is set, one user does everything.
        """
        owner = environ["DATABASE_URL"]
        return cls(
            owner,
            environ.get("INGEST_DATABASE_URL") or owner,
            environ.get("READ_DATABASE_URL") or owner,
            environ.get("ALERTS_DATABASE_URL") or owner,
            environ.get("CORRECT_DATABASE_URL") or owner,
            environ.get("MAINTAIN_DATABASE_URL") or owner,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The variables that from_environment reads."""
        return {
            "DATABASE_URL": self.owner,
            "INGEST_DATABASE_URL": self.ingest,
            "READ_DATABASE_URL": self.read,
            "MAINTAIN_DATABASE_URL": self.maintain,
            "ALERTS_DATABASE_URL": self.alerts,
            "CORRECT_DATABASE_URL": self.correct,
        }

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of template.yaml."""
        return {
            "OwnerDatabaseUrl": self.owner,
            "IngestDatabaseUrl": self.ingest,
            "ReadDatabaseUrl": self.read,
            "MaintainDatabaseUrl": self.maintain,
            "AlertsDatabaseUrl": self.alerts,
            "CorrectDatabaseUrl": self.correct,
        }


def check_database_url(name: str, url: str) -> None:
    """Raise LocalError, which does not show it, where a URL is none of PostgreSQL."""
    if not url.startswith(("postgresql://", "postgres://")):
        raise LocalError(f"{name} does not begin with postgresql://")


def database_urls(server: RunningPostgres, name: str) -> DatabaseUrls:
    """Return how the users reach a database of the server."""
    address = urlsplit(server.url).netloc.rpartition("@")[2]
    return DatabaseUrls(
        *(
            f"postgresql://{user}:{password_of(server, user)}@{address}/{name}"
            for user in (OWNER, INGEST, READ, ALERTS, CORRECT, MAINTAIN)
        )
    )


def password_of(server: RunningPostgres, user: str) -> str:
    """Return a user's password: another on each server, the same at each start."""
    key = urlsplit(server.url).password or ""
    return hmac.new(key.encode(), user.encode(), "sha256").hexdigest()


def make_database(server: RunningPostgres, name: str) -> None:
    """Make the database and its owner where they do not exist."""
    with connect(server.url) as admin:
        if not admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (OWNER,)).fetchone():
            # As the master user of a managed server: CREATEROLE, for migrations make the others,
            # and whoever is on call sees all statements and cancels them.
            admin.execute(
                sql.SQL(
                    "CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}"
                    " IN ROLE pg_monitor, pg_signal_backend"
                ).format(sql.Identifier(OWNER), sql.Literal(password_of(server, OWNER)))
            )
        if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            admin.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(
                    sql.Identifier(name), sql.Identifier(OWNER)
                )
            )


def admit_users(server: RunningPostgres) -> None:
    """Give the users that the migrations made their passwords."""
    with connect(server.url) as admin:
        for user in (INGEST, READ, ALERTS, CORRECT, MAINTAIN):
            admin.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(user), sql.Literal(password_of(server, user))
                )
            )


class OwnDatabase:
    """The database of a system that runs in a folder, stopped and started while the rest goes on.

    Signals ask for that: SIGUSR1 to stop it, SIGUSR2 to start it.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        """port 0 takes the preferred one if it is free, and any other if not."""
        self._folder = folder
        self._data = folder / "postgres"
        self._server: RunningPostgres | None = None
        self._port = port
        self._wanted = True
        # Why it could not be started again, and when (monotonic seconds) that is tried once more.
        self._hindrance = ""
        self._try_at = 0.0

    @property
    def runs(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._server is not None

    def start(self) -> DatabaseUrls:
        """Start the server, which is made where there is none. Raises LocalError."""
        for name in [name for name in os.environ if name.startswith("PG")]:
            del os.environ[name]  # libpq's settings are for other servers than our own
        known = self._data.exists()
        say("Starting PostgreSQL" if known else "Making and starting a PostgreSQL server")
        # Always the same while the system runs: everybody knows the URL.
        self._port = self._port or free_port(PREFERRED_PORT)
        self._server = start_postgres(self._data, embedded_binaries(), port=self._port)
        make_database(self._server, DATABASE)
        write_state(self._folder, "running")
        return database_urls(self._server, DATABASE)

    def admit_users(self) -> None:
        """Let in the users that the migrations made."""
        if self._server is not None:
            admit_users(self._server)

    def follow_signals(self) -> None:
        """Note from now on what signals ask for; keep_up does it."""

        def note(number: int, _frame: FrameType | None) -> None:
            self._wanted = number == signal.SIGUSR2

        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, note)

    def keep_up(self) -> None:
        """Stop or start the server as it was asked for, and start it again where it ended unasked.

        What hinders that is said once, and it is tried again each second. Raises LocalError where
        the data are gone.
        """
        if self._server is not None and self._server.process.poll() is not None:
            self._server = None
            self._note_end()
        if self._wanted and self._server is None:
            self._start_again()
        elif not self._wanted and read_file(self._folder, "database-state") != "stopped":
            say("Stopping PostgreSQL; `make db-start` starts it again")
            self.stop()
            write_state(self._folder, "stopped")

    def _note_end(self) -> None:
        log = self._data.with_name("postgres.log")
        kept = log.with_suffix(".ended.log")
        with contextlib.suppress(FileNotFoundError):
            log.replace(kept)
        say(f"PostgreSQL ended (see {kept}): starting it again")

    def _start_again(self) -> None:
        if not self._data.exists():
            raise LocalError(f"{self._data} is gone: the next `make run` begins anew")
        if time.monotonic() < self._try_at:
            return
        write_state(self._folder, "starting")
        try:
            self._server = start_postgres(self._data, embedded_binaries(), port=self._port)
        except LocalError as error:
            # Such as a process of the one before that has not ended yet.
            if str(error) != self._hindrance:
                say(f"{error}; trying again")
            self._hindrance = str(error)
            self._try_at = time.monotonic() + PAUSE_SECONDS
            return
        self._hindrance = ""
        say("PostgreSQL runs again")
        write_state(self._folder, "running")

    def stop(self) -> None:
        """Stop the server where it runs."""
        if self._server is not None:
            self._server.stop()
            self._server = None


def write_state(folder: Path, state: State) -> None:
    """Say in the folder how the database of its system fares."""
    write_file(folder, "database-state", state)


def switch_database(folder: Path, state: Literal["running", "stopped"]) -> None:
    """Have the system in a folder start or stop its database, and wait for that.

    Raises LocalError where it has none.
    """
    pid = running_pid(folder)
    if pid is None:
        raise LocalError("nothing is running here: `make run`")
    if read_file(folder, "database-state") == "given":
        raise LocalError("the database is not this system's own: DATABASE_URL names it")
    send_signal(pid, signal.SIGUSR2 if state == "running" else signal.SIGUSR1)
    while read_file(folder, "database-state") != state:
        if running_pid(folder) is None:
            raise LocalError(f"the system ended: see {folder / 'server.log'}")
        time.sleep(0.05)
