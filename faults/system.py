"""The system of `make run` in parts, each of which can be broken while the others go on."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from faults.database import WORKER, BreakableDatabase, children_of
from faults.relay import Relay
from local import LocalError
from local.configuration import read_local_template
from local.postgres import free_port
from local.processes import Process
from local.queues import Queues, connect
from local.server import get_health, start_server
from local.sqs import QueueServer
from local.stack import READY_SECONDS, function_environ
from local.template import Queue

# Seconds that a message is hidden from other workers. The template has 181, six times the timeout
# of a worker and its batching window; this is still longer than a worker waits for a database that
# does not answer (its window, 2 s for a connection, 6 s and a little more for the call).
VISIBILITY = 12
# What the API writes of a request.
_HANDLED = re.compile(r".* POST \S+ \d+ ([\d.]+) ms (\S+)")


class System:
    """The processes of a running system, their relays, and its queues."""

    def __init__(self, folder: Path, disk: Path | None, undo: ExitStack) -> None:
        """Start everything in a folder. Raises LocalError."""
        self._folder = folder
        self._log = undo.enter_context((folder / "server.log").open("a", encoding="utf-8"))
        queue_server = QueueServer(folder)
        template = read_local_template({"DATABASE_URL": "postgresql://not-known-yet"})
        undo.callback(queue_server.stop)
        queue_server.start(tuple(_hidden_for(queue, VISIBILITY) for queue in template.queues))
        self.database = BreakableDatabase(folder, disk)
        undo.callback(self.database.stop)
        self.database_relay = Relay(self.database.port)
        queue_server.await_queues()
        self._urls: dict[str, str] = json.loads((folder / "queues.json").read_text("utf-8"))
        self._client = connect(queue_server.environment)
        self.queues = Queues(self._client, self._urls)
        self.queue_relay = Relay(urlsplit(queue_server.endpoint).port or 0)

        urls = self.database.urls(self.database_relay.port)
        environ = (
            function_environ(queue_server.environment)
            | urls.environment
            | {"AWS_ENDPOINT_URL_SQS": f"http://127.0.0.1:{self.queue_relay.port}"}
        )
        self.port = free_port()
        self._server = start_server(self.port, environ, self._show)
        undo.callback(self._server.stop)
        named = f"{urls.ingest}?application_name={WORKER}"
        self._workers = Process(
            [sys.executable, "-m", "local", "poll"],
            environ | {"INGEST_DATABASE_URL": named},
            self._show,
        )
        undo.callback(self._workers.stop)
        self._await_health()

    def set_queues(self, visibility: int, most_receives: int) -> None:
        """Have messages come again after that time, and be dead letters after so many times."""
        for name in self._urls:
            attributes = self._attributes(name)
            changed = {"VisibilityTimeout": str(visibility)}
            if "RedrivePolicy" in attributes:
                policy = json.loads(attributes["RedrivePolicy"])
                changed["RedrivePolicy"] = json.dumps(policy | {"maxReceiveCount": most_receives})
            self._client.set_queue_attributes(QueueUrl=self._urls[name], Attributes=changed)

    def send(self, queue: str, body: str) -> None:
        """Put a message on a queue, past the relay."""
        self._client.send_message(QueueUrl=self._urls[queue], MessageBody=body)

    def kill_api(self) -> None:
        """Kill the API's execution environments; others take their place."""
        _kill_children(self._server)

    def kill_workers(self) -> None:
        """Kill the execution environments of the queues' workers; others take their place."""
        _kill_children(self._workers)

    def await_empty_queues(self, seconds: int) -> None:
        """Return when all queues but those of dead letters are empty, or after that time."""
        # Not by the clock: a machine that was asleep gets its time.
        for _ in range(seconds * 10):
            if not any(depth.waiting or depth.in_flight for depth in self.queues.depths()):
                return
            time.sleep(0.1)

    def handling_seconds(self) -> dict[str, float]:
        """Return how long the API handled each request, by its id."""
        lines = (self._folder / "server.log").read_text("utf-8").splitlines()
        found = (_HANDLED.fullmatch(line) for line in lines)
        return {match[2]: float(match[1]) / 1000 for match in found if match}

    def _attributes(self, name: str) -> Mapping[str, Any]:
        answer = self._client.get_queue_attributes(
            QueueUrl=self._urls[name], AttributeNames=["All"]
        )
        attributes: dict[str, Any] = answer["Attributes"]
        return attributes

    def _await_health(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while (found := get_health(f"http://127.0.0.1:{self.port}"))[0] != 200:
            if self._server.ended or time.monotonic() > deadline:
                raise LocalError(f"the system does not become healthy: {found[1]}")
            time.sleep(0.1)

    def _show(self, line: str) -> None:
        self._log.write(line + "\n")
        self._log.flush()


def _hidden_for(queue: Queue, seconds: int) -> Queue:
    return replace(queue, attributes={**queue.attributes, "VisibilityTimeout": str(seconds)})


def _kill_children(parent: Process) -> None:
    for process in children_of(parent.pid):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
