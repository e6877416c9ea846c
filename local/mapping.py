"""Event source mappings on this machine: queues are polled and workers invoked, as Lambda does it.

Each execution environment is a process: it receives messages, calls the handler, and deletes what
the handler does not want again. What it does want comes back after the visibility timeout.
"""

import json
import math
import multiprocessing
import os
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.configuration import queue_url, read_local_template
from local.event import build_record
from local.queues import MOST_MESSAGES, connect
from local.runtime import Environment, watch_time_limits
from local.template import EventSource, Function

# Of each queue, whatever concurrency the template allows: there are few processors here.
MOST_ENVIRONMENTS = 2
# Lambda waits for 20. A process that is told to end waits for its answer, because SQS may have
# given it messages.
WAIT_SECONDS = 1
PAUSE_SECONDS = 1
# Lambda takes no larger event.
MOST_EVENT_BYTES = 6 * 1024 * 1024

Message = dict[str, Any]
Record = dict[str, Any]


class Poller:
    """Receives the messages of one event source and has them handled."""

    def __init__(self, source: EventSource, environment: Environment, client: Any) -> None:
        self._source = source
        self._environment = environment
        self._client = client
        self._url = queue_url(client.meta.endpoint_url, source.queue_arn.rpartition(":")[2])

    def poll(self) -> None:
        """Wait a while for messages, invoke the function with them, delete what it is done with.

        Raises botocore's errors where the queue does not answer.
        """
        for records in split_records(self._gather()):
            failed = self._invoke(records)
            self._delete([record for record in records if record["messageId"] not in failed])

    def _gather(self) -> list[Record]:
        """Receive messages until a batch is full or its window is over."""
        messages = self._receive(self._source.batch_size, WAIT_SECONDS)
        ends = time.monotonic() + self._source.window
        while messages and (free := self._source.batch_size - len(messages)) > 0:
            left = ends - time.monotonic()
            if left <= 0:
                break
            messages += self._receive(free, math.ceil(left))
        return [build_record(message, self._source.queue_arn) for message in messages]

    def _receive(self, most: int, seconds: int) -> list[Message]:
        answer = self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=min(most, MOST_MESSAGES),
            WaitTimeSeconds=seconds,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages: list[Message] = answer.get("Messages", [])
        return messages

    def _invoke(self, records: Sequence[Record]) -> set[str]:
        """Return the ids of the messages that shall come again."""
        request_id = str(uuid.uuid4())
        messages = {record["messageId"] for record in records}
        try:
            returned = self._environment.invoke({"Records": list(records)}, request_id)
        except Exception as error:  # noqa: BLE001 - as Lambda: reported, and the messages come again
            print(f"{self._source.function} {request_id} raised {error!r}", flush=True)
            return messages
        return failed_messages(returned, messages) if self._source.partial_failures else set()

    def _delete(self, records: Sequence[Record]) -> None:
        for first in range(0, len(records), MOST_MESSAGES):
            entries = [
                {"Id": str(number), "ReceiptHandle": record["receiptHandle"]}
                for number, record in enumerate(records[first : first + MOST_MESSAGES])
            ]
            self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)


def split_records(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Yield records in events that are as large as Lambda takes them."""
    event: list[Record] = []
    size = 0
    for record in records:
        more = len(json.dumps(record).encode())
        if event and size + more > MOST_EVENT_BYTES - 1024:
            yield event
            event, size = [], 0
        event.append(record)
        size += more
    if event:
        yield event


def failed_messages(returned: Any, messages: set[str]) -> set[str]:
    """Return which of the messages a handler's partial batch response wants again.

    Those are all of them where the response is none, or names a message that was not there.
    """
    if not returned:
        return set()
    try:
        failures = returned.get("batchItemFailures") or ()
        failed = {entry["itemIdentifier"] for entry in failures}
    except (AttributeError, KeyError, TypeError):
        return messages
    return failed if failed <= messages else messages


class _Ending:
    """Whether SIGTERM came. A process finishes what it is doing before it ends."""

    def __init__(self) -> None:
        # No threading.Event: a second signal while its lock is held would wait for itself.
        self.wanted = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.wanted = True


def poll() -> None:
    """Keep the execution environments of all event sources running until SIGTERM."""
    ending = _Ending()
    template = read_local_template(os.environ)
    # Forked, so that what all of them need is loaded once.
    context = multiprocessing.get_context("fork")

    def start(source: EventSource) -> ForkProcess:
        function = template.functions[source.function]
        process = context.Process(target=run_environment, args=(source, function))
        process.start()
        return process

    running = {
        start(source): source
        for source in template.event_sources
        for _ in range(min(source.concurrency, MOST_ENVIRONMENTS))
    }
    while not ending.wanted:
        wait([process.sentinel for process in running], timeout=0.2)
        for process in [process for process in running if not process.is_alive()]:
            time.sleep(PAUSE_SECONDS)
            source = running.pop(process)
            print(f"{source.function}: another execution environment starts", flush=True)
            running[start(source)] = source
    while alive := [process for process in running if process.is_alive()]:
        for process in alive:
            process.terminate()  # more than once: at first it has no handler of its own
        wait([process.sentinel for process in alive], timeout=0.2)


def run_environment(source: EventSource, function: Function) -> None:
    """Be an execution environment of a function until SIGTERM."""
    ending = _Ending()
    watch_time_limits()
    parent = multiprocessing.parent_process()
    poller = Poller(source, Environment(function), connect(os.environ))
    answers = True
    while not ending.wanted and parent is not None and parent.is_alive():
        try:
            poller.poll()
            answers = True
        except (BotoCoreError, ClientError) as error:
            if answers:
                print(f"{function.name}: the queue does not answer: {error}", flush=True)
            answers = False
            time.sleep(PAUSE_SECONDS)
