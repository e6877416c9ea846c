"""The server's own process, `python -m local.server_process PORT`: granian with local.gateway."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from local.queues import connect
from local.server import WORKERS

ENDING = (signal.SIGTERM, signal.SIGINT)


def serve(port: int) -> None:
    """Serve until a signal ends it."""
    # What that loads is there in each worker then, which is forked from this process. Else the
    # first request of a worker that PostgreSQL does not take waits for it: on a machine with other
    # work longer than its time limit, at which the worker ends and the client hears nothing.
    connect(os.environ).close()
    server = Granian(
        "local.gateway:build_application",
        port=port,
        interface=Interfaces.WSGI,
        workers=WORKERS,
        blocking_threads=1,
        log_level=LogLevels.error,
        respawn_failed_workers=True,
        workers_kill_timeout=5,
        factory=True,
    )
    server.on_startup(partial(stop_once, server.signal_handler_interrupt))
    server.serve()


def stop_once(stop: Callable[[], None]) -> None:
    """Have the first signal end the server.

    Granian's own handler takes a lock. A second signal, which a process may get whose starter is
    killed (one for each of its threads that dies), would wait for that lock within the handler of
    the first: for ever.
    """

    def take(*_: object) -> None:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        threading.Thread(target=stop).start()

    for number in ENDING:
        signal.signal(number, take)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
