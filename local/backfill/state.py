"""How far a file has been sent, kept so that a kill leaves it whole; and the rows refused."""

import csv
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from local import LocalError
from local.backfill.files import ReadingFile


@dataclass
class State:
    """What is done of a file: so many of its rows, of which some were accepted, some refused.

    refused_bytes is how long the file of refused rows was then; done, whether all rows are.
    """

    rows: int = 0
    accepted: int = 0
    refused: int = 0
    refused_bytes: int = 0
    done: bool = False


class StateFile:
    """Keeps a State for one content of a file and one URL, whatever the file is called."""

    def __init__(self, folder: Path, file: ReadingFile, url: str) -> None:
        key = hashlib.sha256(f"{file.digest} {url}".encode()).hexdigest()
        self._path = folder / "backfill" / f"{key}.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who sends this; raise LocalError where somebody else does."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise LocalError("this file is being sent there by another process") from None
            yield

    def load(self) -> State:
        """Return what was saved last, at first an empty one."""
        try:
            return State(**json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return State()

    def save(self, state: State) -> None:
        """Save it: after a kill there is this one or the one before."""
        written = self._path.with_suffix(".new")
        with written.open("w", encoding="utf-8") as file:
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        written.replace(self._path)


class Refusals:
    """The file beside a file of readings that takes its refused rows: line, reason, cells.

    It can be mended and sent as it is.
    """

    def __init__(self, file: ReadingFile, size: int) -> None:
        """Go on after so many bytes; what was written later is written again."""
        self.path = file.path.with_name(file.path.name + ".refused.csv")
        self._own = [
            number for number, name in enumerate(file.columns) if name not in {"line", "reason"}
        ]
        if not size:
            self.path.unlink(missing_ok=True)
        elif self.path.exists():
            os.truncate(self.path, size)
        self._header = ["line", "reason", *(file.columns[number] for number in self._own)]

    def write(self, refused: Sequence[tuple[int, str, Sequence[Any]]]) -> int:
        """Append rows, and return the size of the file with them safely in it."""
        if not refused and not self.path.exists():
            return 0
        with self.path.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = csv.writer(file)
            if not file.tell():
                lines.writerow(self._header)
            for line, reason, cells in refused:
                whole = len(cells) > max(self._own)
                own = [cells[number] for number in self._own] if whole else cells
                lines.writerow([line, reason, *own])
            file.flush()
            os.fsync(file.fileno())
            return file.tell()
