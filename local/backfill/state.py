"""How far a file has been sent, kept so that a kill leaves it whole; what was sent and refused."""

import csv
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from local import LocalError
from local.backfill.files import ReadingFile

_DISTINCT = """
    SELECT count(*) FROM (SELECT DISTINCT * FROM read_csv($1, header = false, auto_detect = false,
        columns = {'device': 'VARCHAR', 'time': 'VARCHAR'}))
"""


@dataclass
class State:
    """What is done of a file: so many of its rows, of which some were accepted, some refused.

    refused_bytes and sent_bytes are how long the files of refused rows and of sent readings were
    then; done, whether all rows are, and distinct, of how many readings those accepted were.
    """

    rows: int = 0
    accepted: int = 0
    refused: int = 0
    refused_bytes: int = 0
    sent_bytes: int = 0
    distinct: int = 0
    done: bool = False

    @property
    def summary(self) -> str:
        """What became of the rows, as a person reads it."""
        return (
            f"{self.rows:,} rows read: {self.distinct:,} distinct, "
            f"{self.accepted - self.distinct:,} replaced by a later row of the same reading, "
            f"{self.refused:,} refused"
        )


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

    @property
    def sent_path(self) -> Path:
        """Where SentReadings are kept meanwhile."""
        return self._path.with_suffix(".sent")

    def load(self) -> State:
        """Return what was saved last, at first an empty one.

        Of a version that did not keep which readings were sent, the sending begins anew.
        """
        try:
            saved = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return State()
        return State(**saved) if "distinct" in saved else State()

    def save(self, state: State) -> None:
        """Save it: after a kill there is this one or the one before."""
        written = self._path.with_suffix(".new")
        with written.open("w", encoding="utf-8") as file:
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        written.replace(self._path)


class SentReadings:
    """A file with device and time of each row that was accepted, to count what is distinct.

    There may be more of them than memory holds.
    """

    def __init__(self, path: Path, size: int) -> None:
        """Go on after so many bytes; what was written later is written again."""
        self._path = path
        path.touch(mode=0o600)
        os.truncate(path, size)

    def write(self, readings: Iterable[tuple[str, datetime]]) -> int:
        """Append readings, and return the size of the file with them safely in it."""
        with self._path.open("a", encoding="ascii") as file:
            file.writelines(f"{device},{time.astimezone(UTC)}\n" for device, time in readings)
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def count(self) -> int:
        """Return how many readings there are, each counted once."""
        if not self._path.stat().st_size:
            return 0
        with duckdb.connect(config={"temp_directory": str(self._path.parent)}) as connection:
            [(count,)] = connection.execute(_DISTINCT, [str(self._path)]).fetchall()
        return int(count)

    def delete(self) -> None:
        """Delete the file."""
        self._path.unlink()


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
