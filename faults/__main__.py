"""`make faults`: break the running system in every way, then look for what was lost or doubled."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from rich.console import Console

from faults.checker import (
    find_strangers,
    judge,
    judge_queues,
    judge_registers,
    judge_requests,
    read_stored,
)
from faults.injections import FAULTS, POISONS, Fault
from faults.load import Load
from faults.operators import Operators
from faults.report import print_table
from faults.system import System
from local import ROOT, LocalError
from local.console import CommandParser
from telemetry.database import connect
from telemetry.verification import find_differences

# With what stopping takes, five minutes.
MOST_SECONDS = 285
DRAIN_SECONDS = 60
# Of the table, where nobody looks at a terminal.
LEAST_WIDTH = 134
DISK_BYTES = 256 * 1024 * 1024
# Set in the namespace in which this process may mount a small file system.
_MAY_MOUNT = "FAULTS_MAY_MOUNT"

Say = Callable[[str], None]


def main() -> None:
    """Inject all faults; exit with 1 where anything was lost, doubled or wrong."""
    parser = CommandParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="each fault for a shorter time")
    options = parser.parse_args()
    _enter_namespace()
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, _give_up)
    signal.alarm(MOST_SECONDS)
    console, began = Console(), time.monotonic()
    console.width = max(console.width, LEAST_WIDTH)

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:4.0f} s  {text}", highlight=False)

    (ROOT / ".local").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=ROOT / ".local"))
    try:
        mistakes = _run(folder, options.short, console, say)
    except LocalError as error:
        mistakes = [str(error)]
    for mistake in mistakes:
        console.print(mistake, markup=False, highlight=False, soft_wrap=True)
    if mistakes:
        sys.exit(f"FAILED; the logs are in {folder}")
    shutil.rmtree(folder)
    say("Nothing that was acknowledged is lost, nothing is doubled")


def _run(folder: Path, short: bool, console: Console, say: Say) -> list[str]:
    """Return what went wrong, in words."""
    with ExitStack() as undo:
        say("starting the system")
        disk = _mount_small_disk(folder, undo)
        system = System(folder, disk, undo)
        load = Load(system.port)
        operators = Operators(system, load)
        operators.declare()
        operators.start()
        faults = []
        for fault in FAULTS:
            if fault.needs_disk and disk is None:
                say(f"{fault.name}: SKIPPED, no small file system can be mounted here")
                continue
            faults.append(fault)
            try:
                operators.erase(_inject(fault, system, load, short, say))
            except LocalError as error:  # somebody waits in vain: enough was seen
                load.complaints.append(str(error))
                break
        say("waiting until the queues are empty")
        system.await_empty_queues(DRAIN_SECONDS)
        operators.stop()
        load.complaints += operators.complaints
        say("ops: " + ", ".join(f"{count} × {what}" for what, count in operators.done.items()))
        say("reading everything back")
        return _check(system, load, faults, console)


def _inject(fault: Fault, system: System, load: Load, short: bool, say: Say) -> str:
    """Return the vehicle that reported during this fault alone."""
    first = len(load.requests)
    with load.during(fault.name) as gone:
        try:
            fault.inject(system, load, short)
        except LocalError as error:  # it had no effect, and everything works
            load.complaints.append(f"{fault.name}: {error}")
    requests = load.requests[first:]
    statuses = Counter(str(request.status or "no answer") for request in requests)
    said = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
    longest = max(request.seconds for request in requests)
    say(f"{fault.name}: {said}; longest {longest:.2f} s")
    if str(fault.must_see) not in statuses:
        load.complaints.append(f"{fault.name}: nothing was answered {fault.must_see}")
    return gone


def _check(system: System, load: Load, faults: Sequence[Fault], console: Console) -> list[str]:
    with connect(system.database.urls(system.database.port).owner) as connection:
        stored = read_stored(connection)
        differences = find_differences(connection)
        grown = judge_registers(connection, load.registers)
    verdicts = judge([fault.name for fault in faults], load.sent, stored)
    judge_requests(verdicts, load.requests, system.handling_seconds())
    print_table(console, verdicts)
    letters = list(system.queues.dead_letters())
    return [
        *load.complaints,
        *(example for verdict in verdicts for example in verdict.examples),
        *find_strangers(load.sent, stored),
        *grown,
        *(f"not what history says: {difference}" for difference in differences),
        *judge_queues(system.queues.depths(), letters, POISONS),
    ]


def _enter_namespace() -> None:
    """Start anew where this process may mount a file system that nobody else sees.

    Who is not root may do so as the root of a user namespace, unless the kernel forbids it.
    """
    if _MAY_MOUNT in os.environ or shutil.which("unshare") is None:
        return
    for options in (["--mount"], ["--mount", "--user", "--map-root-user"]):
        allowed = subprocess.run(["unshare", *options, "true"], capture_output=True, check=False)
        if allowed.returncode == 0:
            os.environ[_MAY_MOUNT] = "1"
            again = ["unshare", *options, sys.executable, "-m", "faults", *sys.argv[1:]]
            os.execvp("unshare", again)  # noqa: S606 - no shell is wanted


def _mount_small_disk(folder: Path, undo: ExitStack) -> Path | None:
    """Return a file system of DISK_BYTES, None where there can be none."""
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "faults", str(disk)]
    if _MAY_MOUNT not in os.environ or subprocess.run(command, check=False).returncode:
        return None
    undo.callback(subprocess.run, ["umount", str(disk)], check=True)
    return disk


def _give_up(number: int, _frame: FrameType | None) -> None:
    took = f"it took more than {MOST_SECONDS} seconds"
    sys.exit("faults: " + (took if number == signal.SIGALRM else "it was ended"))


if __name__ == "__main__":
    main()
