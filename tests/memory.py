"""A folder in memory, for servers whose data nobody needs after the tests.

A database of a test's own is some 1,300 files: on a disk, making them takes the kernel longer than
most tests take.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MEMORY = Path("/dev/shm")
PREFIX = "energy-tests-"
# What the processes of one test run need together, and as much again.
ROOM = 2 * 1024**3


@contextmanager
def memory_folder(otherwise: Path) -> Iterator[Path]:
    """A folder in memory, deleted at the end; `otherwise` where there is no room for one."""
    if not _has_room():
        yield otherwise
        return
    # One at a time: a folder that is not locked yet would be taken for one that was left.
    with _locked(MEMORY):
        for left in MEMORY.glob(f"{PREFIX}*"):
            with suppress(OSError), _locked(left, fcntl.LOCK_NB):
                shutil.rmtree(left)  # of a run that was killed
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=MEMORY))
        lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(lock)


def _has_room() -> bool:
    try:
        return shutil.disk_usage(MEMORY).free >= ROOM and os.access(MEMORY, os.W_OK)
    except OSError:
        return False


@contextmanager
def _locked(folder: Path, mode: int = 0) -> Iterator[None]:
    lock = _lock(folder, mode)
    try:
        yield
    finally:
        os.close(lock)


def _lock(folder: Path, mode: int = 0) -> int:
    """Lock a folder for as long as what is returned is open; a process that dies lets go of it."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | mode)
    except OSError:
        os.close(opened)
        raise
    return opened
