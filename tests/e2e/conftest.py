"""The system of `make run`, in a folder and on a port of its own."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pytest

from local import ROOT
from local.folder import stop
from local.postgres import free_port
from local.queues import Queues, connect
from local.server import get_health

# Ends what hangs.
SECONDS = 120


class Api(Protocol):
    """Whatever serves the routes."""

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]: ...


def send_request(
    url: str, method: str, path: str, body: object = None, token: str | None = None
) -> tuple[int, Any]:
    """Return the status and the JSON of the answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as answer:
        return answer.code, json.loads(answer.read())


def request_until(
    wanted: int, send: Callable[..., tuple[int, Any]], *request: Any
) -> tuple[int, Any]:
    """Send a request until it is answered so, or otherwise than by 202 and 503; return the answer.

    Both say that something took longer than a request waits: an execution environment started, or
    the machine has other work.
    """
    deadline = time.monotonic() + SECONDS
    while (answered := send(*request))[0] in {202, 503} - {wanted}:
        assert time.monotonic() < deadline
        time.sleep(0.5)  # the circuit may be open
    return answered


@dataclass
class LocalSystem:
    """A folder, a port, and the commands of `python -m local` on them."""

    folder: Path
    port: int
    # Of its own, because tests run side by side, and a stopped database leaves its port.
    database_port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    # Whether the terminal has gone away: what is printed from now on fails.
    hung_up: bool = False
    _said: list[str] = field(default_factory=list)
    _reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def environ(self, **changes: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        return {
            **kept,
            # Whatever the year is, history keeps what tests send of 2024, and nothing of 2020.
            "HISTORY_RETENTION": str((datetime.now(UTC) - datetime(2024, 1, 1, tzinfo=UTC)).days),
            "LOCAL_DIR": str(self.folder),
            "PORT": str(self.port),
            "DATABASE_PORT": str(self.database_port),
            **changes,
        }

    def start(self, *options: str, **changes: str) -> None:
        """Start, and return when it says that it is ready."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local", "run", *options],
            cwd=ROOT,
            env=self.environ(**changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._said = []
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(ready,), daemon=True)
        self._reader.start()
        ready.wait()
        assert any(line.startswith("Ready: ") for line in self._said), "".join(self._said)

    def _read(self, ready: threading.Event) -> None:
        """Read what it prints to the end: where nobody does, it waits once the pipe is full."""
        assert self.process is not None
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._said.append(line)
                if line.startswith("Ready: "):
                    ready.set()
                if self.hung_up:
                    break
        ready.set()

    def command(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "local", *arguments],
            cwd=ROOT,
            env=self.environ(**changes),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    @property
    def queues(self) -> Queues:
        """The queues of the running system."""
        return Queues.of_system(self.folder)

    def send(self, queue: str, body: str) -> None:
        """Put a message on a queue of the running system."""
        self._sqs().send_message(QueueUrl=self._queue_url(queue), MessageBody=body)

    def hide_messages_for(self, seconds: int, queue: str) -> None:
        """Have what a worker wants again come after that time, not after the template's."""
        self._sqs().set_queue_attributes(
            QueueUrl=self._queue_url(queue), Attributes={"VisibilityTimeout": str(seconds)}
        )

    def _sqs(self) -> Any:
        return connect(json.loads((self.folder / "sqs.json").read_text()))

    def _queue_url(self, name: str) -> str:
        url: str = json.loads((self.folder / "queues.json").read_text())[name]
        return url

    def finish(self) -> str:
        """Wait for the end of a system that was told to stop; return what it said."""
        assert self.process is not None
        assert self._reader is not None
        self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return "".join(self._said)

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        return send_request(self.url, method, path, body)


@pytest.fixture
def system(tmp_path: Path) -> Iterator[LocalSystem]:
    """A system that is not running yet."""
    made = LocalSystem(tmp_path / "local", free_port())
    yield made
    stop(made.folder)
    if made.process is not None:
        made.finish()
    assert get_health(made.url)[0] is None
