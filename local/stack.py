"""Starts the whole system, keeps it running, and stops everything it started."""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import IO

from local import ROOT, LocalError
from local.console import readable, say
from local.databases import DatabaseUrls, admit_users, database_urls, make_database
from local.postgres import RunningPostgres, embedded_binaries, free_port, start_postgres

DATABASE = "telemetry"
DATABASE_PORT = 54329
READY_SECONDS = 60
STOP_SECONDS = 15
DAY_SECONDS = 24 * 3600
# Writers spend most of a request waiting for the disk: a few more processes than processors.
WORKERS = max(4, 3 * (os.cpu_count() or 1))

EXAMPLES = """\
Ready: {url}   (documentation: {url}/docs)

  curl -X POST {url}/v1/ingestion/meter -H 'Content-Type: application/json' \\
    -d '{{"meterId": "METER-001", "kwhConsumedAc": 5.5, "voltage": 240.5, \
"timestamp": "2026-02-10T10:00:00Z"}}'
  curl -X POST {url}/v1/ingestion/vehicle -H 'Content-Type: application/json' \\
    -d '{{"vehicleId": "VEH-001", "soc": 85, "kwhDeliveredDc": 5.06, "batteryTemp": 28.3, \
"timestamp": "2026-02-10T10:00:00Z"}}'
  curl {url}/v1/analytics/performance/VEH-001

Ctrl-C stops it; the data stay in {folder}.
"""


class Stack:
    """The folder that a local system lives in, and how to run one there."""

    def __init__(self, folder: Path, port: int, given_database: DatabaseUrls | None = None) -> None:
        self.folder = folder
        self.port = port
        self._given_database = given_database
        self._stopping = threading.Event()
        self._postgres: RunningPostgres | None = None

    @property
    def url(self) -> str:
        """Where the API is served."""
        return f"http://localhost:{self.port}"

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM. Raises LocalError with what hinders it."""
        with ExitStack() as undo:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, self._stop_on)
            undo.enter_context(self._lock())
            self._check_port()
            log = undo.enter_context((self.folder / "server.log").open("a", encoding="utf-8"))
            urls = self._start_database(undo)
            environ = {**os.environ, **urls.environment}
            self._write_private("database-url", urls.owner + "\n")
            self._write_private("url", self.url + "\n")
            if not self._stopping.is_set():
                self._migrate(environ, log)
                if self._postgres:
                    admit_users(self._postgres)
            if not self._stopping.is_set():
                server = self._start_server(environ, undo, log)
                if self._await_health(server):
                    say("\n" + EXAMPLES.format(url=self.url, folder=self.folder))
                self._keep_running(server, environ, log)
            say("Stopping …")
        say("Stopped.")

    def _stop_on(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping.set()

    def _lock(self) -> IO[str]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("a+", encoding="ascii")
        except OSError as error:
            raise LocalError(f"cannot use {self.folder}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = running_pid(self.folder)
            raise LocalError(
                f"already running here (process {pid}): use it, or `make stop` first"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        return lock

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise LocalError(f"cannot use port {self.port}: {error.strerror}") from None
                remedy = f"choose another, as in `make run PORT={self.port + 1}`"
                raise LocalError(f"port {self.port} is in use: {remedy}") from None

    def _start_database(self, undo: ExitStack) -> DatabaseUrls:
        if self._given_database:
            for name, url in self._given_database.environment.items():
                if not url.startswith(("postgresql://", "postgres://")):
                    raise LocalError(f"{name} does not begin with postgresql://")
            say("Using the PostgreSQL that DATABASE_URL names")
            return self._given_database
        for name in [name for name in os.environ if name.startswith("PG")]:
            del os.environ[name]  # libpq's settings are for other servers than our own
        data = self.folder / "postgres"
        say("Starting PostgreSQL" if data.exists() else "Making and starting a PostgreSQL server")
        self._postgres = start_postgres(data, embedded_binaries(), port=free_port(DATABASE_PORT))
        undo.callback(self._postgres.stop)
        make_database(self._postgres, DATABASE)
        return database_urls(self._postgres, DATABASE)

    def _migrate(self, environ: dict[str, str], log: IO[str]) -> None:
        say("Applying migrations and making partitions")
        # As on AWS: the migration function, in an execution environment of its own.
        done = subprocess.run(
            [sys.executable, "-m", "local", "invoke", "MigrateFunction"],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,  # a Ctrl-C is for this process, which waits for that one
        )
        lines = (done.stdout + done.stderr).splitlines()
        for line in lines if done.returncode else lines[:-1]:  # the last is what it returned
            self._show(line, log)
        if done.returncode:
            raise LocalError("the migrations cannot be applied: see above")

    def _start_server(
        self, environ: dict[str, str], undo: ExitStack, log: IO[str]
    ) -> subprocess.Popen[str]:
        say(f"Starting {WORKERS} worker processes on {self.url}")
        bound = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        server = subprocess.Popen(
            [*bound, sys.executable, "-m", "granian", "local.gateway:build_application"]
            + ["--factory", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(self.port)]
            + ["--workers", str(WORKERS), "--blocking-threads", "1", "--log-level", "error"]
            + ["--respawn-failed-workers", "--workers-kill-timeout", "5"],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        shown = threading.Thread(target=self._show_all, args=(server, log))
        shown.start()

        def stop() -> None:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)  # workers whose parent died before them
            server.wait()
            shown.join()

        undo.callback(stop)
        return server

    def _await_health(self, server: subprocess.Popen[str]) -> bool:
        """Return whether the system became healthy; False where it was told to stop before."""
        deadline = time.monotonic() + READY_SECONDS
        while not self._stopping.wait(0.2):
            status, answer = get_health(self.url)
            if status == 200:
                return True
            if server.poll() is not None:
                raise LocalError(f"the server ended: see {self.folder / 'server.log'}")
            if time.monotonic() > deadline:
                raise LocalError(f"the system does not become healthy: {answer}")
        return False

    def _keep_running(
        self, server: subprocess.Popen[str], environ: dict[str, str], log: IO[str]
    ) -> None:
        migrate_at = time.monotonic() + DAY_SECONDS
        while not self._stopping.wait(0.2):
            if server.poll() is not None:
                raise LocalError(f"the server ended: see {self.folder / 'server.log'}")
            if self._postgres and self._postgres.process.poll() is not None:
                raise LocalError(f"PostgreSQL ended: see {self.folder / 'postgres.log'}")
            if time.monotonic() > migrate_at:  # as the schedule in the template
                self._migrate(environ, log)
                migrate_at += DAY_SECONDS

    def _show_all(self, server: subprocess.Popen[str], log: IO[str]) -> None:
        assert server.stdout is not None
        for line in server.stdout:
            self._show(line.rstrip("\n"), log)

    def _show(self, line: str, log: IO[str]) -> None:
        text = readable(line)
        # Whatever happens to the terminal or the disk: workers that nobody reads from would block.
        with contextlib.suppress(OSError):
            log.write(text + "\n")
            log.flush()
        try:
            print(text, flush=True)
        except OSError:
            self._stopping.set()  # the terminal is gone, and with it who could press Ctrl-C

    def _write_private(self, name: str, text: str) -> None:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")


def get_health(url: str) -> tuple[int | None, str]:
    """Return the status and the text of `GET /health`; no status where nothing answers."""
    try:
        # Straight there: a proxy of the environment does not know this machine's ports.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url}/health", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read().decode()
    except OSError as error:
        return None, str(error)


def running_pid(folder: Path) -> int | None:
    """Return the process that runs a system in the folder, None where there is none."""
    try:
        with (folder / "lock").open(encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(lock.read() or 0)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LocalError(f"cannot use {folder}: {error.strerror}") from None
    return None


def stop(folder: Path) -> bool:
    """Stop the system in the folder and wait for its end; return whether there was one."""
    pid = running_pid(folder)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        raise LocalError(f"process {pid} is another user's") from None
    with (folder / "lock").open(encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # is free when everything has stopped
    return True
