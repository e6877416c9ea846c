"""The folder that a local system lives in: who runs there, and the files that say so."""

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from local import LocalError

# The file with the public keys of the tokens that the system accepts; empty where it asks for none.
ACCEPTED_KEYS = "accepted-keys"


def lock_folder(folder: Path) -> IO[str]:
    """Make this process the one that runs a system there, until the file returned is closed."""
    if pid := running_pid(folder):
        raise _already_running(pid)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+", encoding="ascii")
    except OSError as error:
        raise LocalError(f"cannot use {folder}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody else was faster
        raise _already_running(running_pid(folder)) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _already_running(pid: int | None) -> LocalError:
    return LocalError(f"already running here (process {pid}): use it, or `make stop` first")


def running_pid(folder: Path) -> int | None:
    """Return the process that runs a system in the folder, None where there is none.

    It is that one still where the folder was deleted meanwhile. Raises LocalError.
    """
    found = _find_system(folder)
    return found[0] if found else None


def _find_system(folder: Path) -> tuple[int, Path] | None:
    """Return the process that runs a system in the folder, and the lock that it holds."""
    for file in _locks(folder):
        try:
            with file.open(encoding="ascii") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    if pid := int(lock.read() or 0):  # else it is about to say who it is
                        return pid, file
        except FileNotFoundError:
            pass
        except OSError as error:
            raise LocalError(f"cannot use {folder}: {error.strerror}") from None
    return None


def _locks(folder: Path) -> Iterator[Path]:
    """Yield the folder's lock, then those that were deleted while a process has them open.

    Of the latter only Linux tells.
    """
    yield folder / "lock"
    deleted = f"{folder / 'lock'} (deleted)"
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # another user's, or it ended meanwhile
            for opened in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(opened.readlink()) == deleted:
                        yield opened


def send_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to who runs a system. Raises LocalError."""
    try:
        os.kill(pid, number)
    except PermissionError:
        raise LocalError(f"process {pid} is another user's") from None


def stop(folder: Path) -> bool:
    """Stop the system in the folder and wait for its end; return whether there was one."""
    found = _find_system(folder)
    if found is None:
        return False
    pid, held = found
    send_signal(pid, signal.SIGTERM)
    with contextlib.suppress(FileNotFoundError), held.open(encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # is free when everything has stopped
    return True


def read_file(folder: Path, name: str) -> str:
    """Return what the system wrote into a file of its folder. Raises LocalError."""
    try:
        return (folder / name).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if pid := running_pid(folder):
            raise LocalError(
                f"{folder / name} was deleted while process {pid} runs there: "
                "`make stop`, then `make run`"
            ) from None
        raise LocalError("nothing was started here yet: `make run`") from None
    except OSError as error:
        raise LocalError(f"cannot read {error.filename}: {error.strerror}") from None


def write_file(folder: Path, name: str, text: str) -> None:
    """Write a file of the folder that only its owner can read."""
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
