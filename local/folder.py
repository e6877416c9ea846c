"""The folder that a local system lives in: who runs there, and the files that say so."""

import fcntl
import os
import signal
from pathlib import Path
from typing import IO

from local import LocalError

# The file with the public keys of the tokens that the system accepts; empty where it asks for none.
ACCEPTED_KEYS = "accepted-keys"


def lock_folder(folder: Path) -> IO[str]:
    """Make this process the one that runs a system there, until the file returned is closed."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+", encoding="ascii")
    except OSError as error:
        raise LocalError(f"cannot use {folder}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = running_pid(folder)
        raise LocalError(
            f"already running here (process {pid}): use it, or `make stop` first"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def running_pid(folder: Path) -> int | None:
    """Return the process that runs a system in the folder, None where there is none."""
    try:
        with (folder / "lock").open(encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(lock.read() or 0)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LocalError(f"cannot use {folder}: {error.strerror}") from None
    return None


def send_signal(folder: Path, number: signal.Signals) -> bool:
    """Send a signal to who runs a system in the folder; return whether anybody does."""
    pid = running_pid(folder)
    if pid is None:
        return False
    try:
        os.kill(pid, number)
    except PermissionError:
        raise LocalError(f"process {pid} is another user's") from None
    return True


def stop(folder: Path) -> bool:
    """Stop the system in the folder and wait for its end; return whether there was one."""
    if not send_signal(folder, signal.SIGTERM):
        return False
    with (folder / "lock").open(encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # is free when everything has stopped
    return True


def read_file(folder: Path, name: str) -> str:
    """Return what the system wrote into a file of its folder. Raises LocalError."""
    try:
        return (folder / name).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise LocalError("nothing was started here yet: `make run`") from None
    except OSError as error:
        raise LocalError(f"cannot read {error.filename}: {error.strerror}") from None


def write_file(folder: Path, name: str, text: str) -> None:
    """Write a file of the folder that only its owner can read."""
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
