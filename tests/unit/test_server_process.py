"""How the server's own process begins and ends."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from local import ROOT
from local.configuration import REGION
from local.server_process import ENDING, stop_once


@pytest.fixture
def handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in ENDING]
    yield
    for number, handler in zip(ENDING, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("first", ENDING)
@pytest.mark.parametrize("second", ENDING)
def test_a_second_signal_does_not_wait_for_the_first(first: int, second: int) -> None:
    lock, stopped = threading.Lock(), threading.Event()

    def stop() -> None:
        if lock.acquire(timeout=60):
            signal.raise_signal(second)
            stopped.set()

    stop_once(stop)
    with lock:  # as the main thread may hold it
        signal.raise_signal(first)
    assert stopped.wait(120)


FIRST_MESSAGE = """
import sys
from local import server_process
from telemetry.errors import QueueUnavailable
from telemetry.queue import Queue

class Server:
    def __init__(self, *_, **__):
        pass

    def on_startup(self, _):
        pass

    signal_handler_interrupt = None

    def serve(self):
        before = set(sys.modules)
        try:
            Queue("http://127.0.0.1:1/0/Any").send("reading")
        except QueueUnavailable:
            loaded = set(sys.modules) - before
            print([name for name in loaded if name.startswith(("boto", "urllib3"))])

server_process.Granian = Server
server_process.serve(1)
"""


def test_no_request_waits_until_the_client_of_the_queue_is_loaded() -> None:
    aws = {"AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1", "AWS_REGION": REGION}
    keys = dict.fromkeys(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], "any")
    done = subprocess.run(
        [sys.executable, "-c", FIRST_MESSAGE],
        cwd=ROOT,
        env={**os.environ, **aws, **keys, "AWS_DEFAULT_REGION": REGION},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
