"""A Lambda execution environment in this process: a function, its context and its deadline."""

import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from local.template import Function

Handler = Callable[[dict[str, Any], "Context"], Any]


@dataclass(frozen=True)
class Context:
    """The context object that Lambda gives a handler."""

    function_name: str
    memory_limit_in_mb: int
    aws_request_id: str
    deadline: float
    function_version: str = "$LATEST"

    @property
    def invoked_function_arn(self) -> str:
        """The name under which this function would have been invoked."""
        return f"arn:aws:lambda:local:000000000000:function:{self.function_name}"

    def get_remaining_time_in_millis(self) -> int:
        """Return the time left before the invocation is ended (ms)."""
        return max(0, int((self.deadline - time.monotonic()) * 1000))


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def load_module(function: Function) -> ModuleType:
    """Import a function's module under a name of its own, with its own environment in place."""
    name = f"{function.file.parent.name}_{function.file.stem}"
    spec = importlib.util.spec_from_file_location(name, function.file)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {function.file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _environment({"AWS_LAMBDA_FUNCTION_NAME": function.name, **function.environment}):
        spec.loader.exec_module(module)
    return module


class Environment:
    """Runs one invocation at a time, within the function's timeout."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._handler: Handler = getattr(load_module(function), function.attribute)

    def invoke(self, event: dict[str, Any], request_id: str) -> Any:
        """Call the handler and return what it returns; its exceptions pass through."""
        function = self._function
        with time_limit(function.timeout, f"{function.name} {request_id}") as deadline:
            context = Context(function.name, function.memory, request_id, deadline)
            return self._handler(event, context)


class _Watchdog:
    def __init__(self) -> None:
        self.deadline = float("inf")
        self.watched = ""

    def start(self) -> None:
        threading.Thread(target=self._watch, name="timeout", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(0.25)
            if time.monotonic() > self.deadline:
                print(f"{self.watched} timed out; its process ends here", flush=True)
                os._exit(1)


_watchdog = _Watchdog()


def watch_time_limits() -> None:
    """Start to enforce the time limits of this process."""
    _watchdog.start()


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[float]:
    """End the process where this lasts longer; yield the deadline in monotonic seconds.

    That is what Lambda does: a client waits no longer, and the next event finds a new environment.
    """
    _watchdog.deadline, _watchdog.watched = time.monotonic() + seconds, what
    try:
        yield _watchdog.deadline
    finally:
        _watchdog.deadline = float("inf")
