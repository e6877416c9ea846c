"""Starts the whole system, keeps it running, and stops everything it started."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import IO

from local import ROOT, LocalError, sam
from local.configuration import asks_for_tokens, read_local_template
from local.console import readable, say
from local.databases import DatabaseUrls, OwnDatabase, check_database_url, write_state
from local.folder import ACCEPTED_KEYS, lock_folder, write_file
from local.processes import KeptProcess, Process
from local.server import WORKERS, check_port, get_health, start_server
from local.sqs import QueueServer
from telemetry.access import Scope

READY_SECONDS = 120
HOUR_SECONDS = 3600

EXAMPLES = """\
Ready: {url}{docs}

  curl -X POST {url}/v1/ingestion/meter -H 'Content-Type: application/json' \\
    -d '{{"meterId": "METER-001", "kwhConsumedAc": 5.5, "voltage": 240.5, \
"timestamp": "2026-02-10T10:00:00Z"}}'
  curl -X POST {url}/v1/ingestion/vehicle -H 'Content-Type: application/json' \\
    -d '{{"vehicleId": "VEH-001", "soc": 85, "kwhDeliveredDc": 5.06, "batteryTemp": 28.3, \
"timestamp": "2026-02-10T10:00:00Z"}}'
  curl {url}/v1/analytics/performance/VEH-001

Ctrl-C stops it; the data stay in {folder}.
"""

TOKENS = """\
Each request but `GET /` needs a token. One for everything, in a second terminal:

  TOKEN=$(make -s token ARGS="issue me --scope ingest:meter --scope ingest:vehicle \
--scope ingest:backfill --scope analytics:read --scope links:write --scope devices:write \
--scope faults:write --scope readings:void --scope tariffs:write --scope devices:erase \
--meters '*' --vehicles '*'")
  curl -H "Authorization: Bearer $TOKEN" …
"""


class Stack:
    """The folder that a local system lives in, and how to run one there."""

    def __init__(
        self,
        folder: Path,
        port: int,
        given_database: DatabaseUrls | None = None,
        database_port: int = 0,
        *,
        through_sam: bool = False,
    ) -> None:
        """Serve on the port, on a database of one's own (0: on any port) or on a given one.

        through_sam serves by `sam local start-api`, in containers.
        """
        self.folder = folder
        self.port = port
        self._given_database = given_database
        self._database = OwnDatabase(folder, database_port)
        self._through_sam = through_sam
        # What this process itself asks with, where the system asks for tokens.
        self._token = ""
        # No threading.Event: a signal that comes while its lock is held would wait for itself.
        self._stopping = False

    @property
    def url(self) -> str:
        """Where the API is served."""
        return f"http://localhost:{self.port}"

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM. Raises LocalError with what hinders it."""
        with ExitStack() as undo:
            self._follow_signals()
            undo.enter_context(lock_folder(self.folder))
            check_port(self.port)
            if self._through_sam:
                sam.find_bridge()
                sam.build()
            log = undo.enter_context((self.folder / "server.log").open("a", encoding="utf-8"))
            queues, environ = self._start_stores(undo)
            write_file(self.folder, "url", self.url + "\n")
            if not self._stopping:
                self._migrate(environ, log)
                queues.await_queues()
            if not self._stopping:
                self._serve(environ, undo, log)
            say("Stopping …")
        say("Stopped.")

    def _follow_signals(self) -> None:
        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stopping = True

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, stop)
        self._database.follow_signals()

    def _rests(self, seconds: float) -> bool:
        """Wait; return whether it was told to stop."""
        if not self._stopping:
            time.sleep(seconds)
        return self._stopping

    def _start_stores(self, undo: ExitStack) -> tuple[QueueServer, dict[str, str]]:
        """Start what keeps readings; return the queues and the environment of what uses both."""
        queues = QueueServer(self.folder)
        environ = function_environ(queues.environment)
        by_token = asks_for_tokens(environ)
        if by_token and self._through_sam:
            raise LocalError("`sam local` does without tokens: try them with `make run AUTH=token`")
        if by_token:
            from local.tokens import accept_keys, sign_own_token

            environ["TOKEN_KEYS"] = accept_keys(self.folder)
            self._token = sign_own_token(self.folder, Scope.ANALYTICS_READ)
        else:
            write_file(self.folder, ACCEPTED_KEYS, "")
        template = read_local_template({**environ, "DATABASE_URL": "postgresql://not-known-yet"})
        undo.callback(queues.stop)
        queues.start(template.queues, template.tables)  # while the database starts
        urls = self._start_database(undo)
        write_file(self.folder, "database-url", urls.owner + "\n")
        write_file(self.folder, "maintain-database-url", urls.maintain + "\n")
        return queues, environ | urls.environment

    def _start_database(self, undo: ExitStack) -> DatabaseUrls:
        if not self._given_database:
            write_state(self.folder, "starting")
            undo.callback(self._database.stop)
            return self._database.start()
        for name, url in self._given_database.environment.items():
            check_database_url(name, url)
        say("Using the PostgreSQL that DATABASE_URL names")
        write_state(self.folder, "given")
        return self._given_database

    def _migrate(self, environ: Mapping[str, str], log: IO[str]) -> None:
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
            if not line.startswith('{"_aws":'):  # a metric for CloudWatch
                self._show(line, log)
        if done.returncode:
            raise LocalError("the migrations cannot be applied: see above")
        if not self._given_database:
            self._database.admit_users()

    def _serve(self, environ: Mapping[str, str], undo: ExitStack, log: IO[str]) -> None:
        def show(line: str) -> None:
            self._show(line, log)

        workers = KeptProcess(
            "the queues' workers",
            lambda: Process([sys.executable, "-m", "local", "poll"], environ, show),
        )
        undo.callback(workers.stop)
        if self._through_sam:
            say(f"Starting `sam local start-api` on {self.url}")
            sam.remove_containers(self.folder)  # of one that was killed
            undo.callback(sam.remove_containers, self.folder)
            server = sam.start_sam(self.folder, self.port, environ, show)
        else:
            say(f"Starting {WORKERS} worker processes on {self.url}")
            server = start_server(self.port, environ, show)
        undo.callback(server.stop)
        if self._await_health(server):
            workers.start()
            docs = "" if self._through_sam else f"   (documentation: {self.url}/docs)"
            say("\n" + EXAMPLES.format(url=self.url, docs=docs, folder=self.folder))
            if self._token:
                say(TOKENS)
        self._keep_running(server, environ, undo, log)

    def _await_health(self, server: Process) -> bool:
        """Return whether the system became healthy; False where it was told to stop before."""
        deadline = time.monotonic() + (sam.READY_SECONDS if self._through_sam else READY_SECONDS)
        while not self._rests(0.2):
            status, answer = get_health(self.url, self._token)
            if status == 200:
                return True
            if server.ended:
                raise LocalError(f"the server ended: see {self.folder / 'server.log'}")
            if time.monotonic() > deadline:
                raise LocalError(f"the system does not become healthy: {answer}")
        return False

    def _keep_running(
        self, server: Process, environ: Mapping[str, str], undo: ExitStack, log: IO[str]
    ) -> None:
        def show(line: str) -> None:
            if not line.startswith("{") or '"level":' in line:  # else a metric, or what it returns
                self._show(line, log)

        # As the schedules in the template; a system that just started has no fault to find.
        due = {"MaintainFunction": time.monotonic()}
        due["FaultMonitorFunction"] = due["MaintainFunction"] + HOUR_SECONDS
        while not self._rests(0.2):
            if server.ended:
                raise LocalError(f"the server ended: see {self.folder / 'server.log'}")
            if not self._given_database:
                self._database.keep_up()
            if not self._given_database and not self._database.runs:
                continue
            for function, at in due.items():
                if time.monotonic() > at:
                    # What fails is in the log, and tried again in an hour.
                    command = [sys.executable, "-m", "local", "invoke", function]
                    undo.callback(Process(command, environ, show).stop)
                    due[function] = at + HOUR_SECONDS

    def _show(self, line: str, log: IO[str]) -> None:
        text = readable(line)
        # Whatever happens to the terminal or the disk: workers that nobody reads from would block.
        with contextlib.suppress(OSError):
            log.write(text + "\n")
            log.flush()
        try:
            print(text, flush=True)
        except OSError:
            self._stopping = True  # the terminal is gone, and with it who could press Ctrl-C


def function_environ(queues: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of functions: this one's, and where the queues are.

    As on AWS: without the account and the proxy of whoever started this.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AWS_") and not name.lower().endswith("_proxy")
    } | dict(queues)
