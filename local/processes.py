"""The processes of a local system: started, kept running, and stopped with all they started."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from local import ROOT, LocalError
from local.console import say

STOP_SECONDS = 15
PAUSE_SECONDS = 1


class Process:
    """A process and its children, which end when the thread ends that started it."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        output: Path | Callable[[str], None],
    ) -> None:
        """Start it; what it prints is appended to a file, or given away line by line."""
        bound = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        with contextlib.ExitStack() as opened:
            self._popen = subprocess.Popen(
                [*bound, *command],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=opened.enter_context(output.open("ab"))
                if isinstance(output, Path)
                else subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal reaches the whole group; only the stack decides who stops.
                start_new_session=True,
            )
        self._shown = threading.Thread(target=self._show_all, args=(output,))
        self._shown.start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._popen.pid

    @property
    def ended(self) -> bool:
        """Whether it ended."""
        return self._popen.poll() is not None

    def wait(self) -> None:
        """Return when it has ended."""
        self._popen.wait()

    def stop(self) -> None:
        """End it, and whatever it leaves behind."""
        if not self.ended:
            self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)  # children whose parent died before them
        self._popen.wait()
        self._shown.join()

    def _show_all(self, show: Path | Callable[[str], None]) -> None:
        if self._popen.stdout is None or isinstance(show, Path):
            return
        with self._popen.stdout as lines:
            for line in lines:
                show(line.decode("utf-8", "replace").rstrip("\n"))


class KeptProcess:
    """A process that is started again whenever it ends, while everything else goes on."""

    def __init__(
        self,
        name: str,
        start: Callable[[], Process],
        prepare: Callable[[Process], None] = lambda _: None,
    ) -> None:
        """prepare returns when a process that was just started is of use, or raises an error."""
        self._name = name
        self._start = start
        self._prepare = prepare
        self._process: Process | None = None
        self._first: Future[None] = Future()
        self._stopping = threading.Event()
        # Starting and stopping exclude each other.
        self._turn = threading.Lock()
        # A process ends with the thread that started it: so one thread starts all of them.
        self._keeper = threading.Thread(target=self._keep, name=name)

    def start(self) -> None:
        """Begin to start it."""
        self._keeper.start()

    def await_prepared(self) -> None:
        """Return when it is of use for the first time; raise what prevents that."""
        self._first.result()

    def stop(self) -> None:
        """End it for good."""
        with self._turn:
            self._stopping.set()
            if self._process is not None:
                self._process.stop()
        if self._keeper.is_alive():
            self._keeper.join()

    def _keep(self) -> None:
        while True:
            with self._turn:
                if self._stopping.is_set():
                    break
                self._process = process = self._start()
            try:
                self._prepare(process)
            except Exception as error:  # noqa: BLE001 - raised where it is awaited, or told
                process.stop()
                if not self._first.done():
                    self._first.set_exception(error)
                    return
                if not self._stopping.is_set():
                    say(str(error))
            else:
                if not self._first.done():
                    self._first.set_result(None)
                process.wait()
                process.stop()
            if self._stopping.wait(PAUSE_SECONDS):
                break
            say(f"{self._name} ended: starting it again")
        if not self._first.done():
            self._first.set_exception(LocalError(f"{self._name} was stopped before it was ready"))
