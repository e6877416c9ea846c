"""How the server's own process ends."""

import signal
import threading
from collections.abc import Iterator

import pytest

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
