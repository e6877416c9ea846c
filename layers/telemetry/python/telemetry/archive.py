"""The archive: history past retention as Parquet files in S3, one a day and stream.

A partition is detached first, so that nobody changes it any more; then each of its days is copied,
read back and compared; when all of it is there, it is dropped. A run that is killed anywhere is
continued by the next. What comes for these days afterwards is telemetry.late's.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from psycopg import sql

from telemetry.bucket import Bucket
from telemetry.database import Row
from telemetry.errors import ArchiveDamaged, ArchiveDiffers, DayNotArchived
from telemetry.parquet import LAYOUTS, Fingerprint, Layout, Workbench
from telemetry.partitions import RANGES, attach_partition, change_locked

# Partitions detached in one transaction, for which every writer of the stream waits.
MOST_AT_ONCE = 8
# Attaching reads the receipts that came for archived days; with more of them it waits.
MOST_LATE = 10_000
DAY = timedelta(days=1)

_DUE = f"""
    SELECT name, range_start, range_end
    FROM ({RANGES}) AS part
    WHERE inhparent = to_regclass(%s) AND name != %s AND range_end <= %s
    ORDER BY 2
    LIMIT %s
"""
_ADD_FILE = """
    INSERT INTO archive_files (stream, day, number, key, bytes, sha256, readings, kwh, checksum)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
# What the first register that stays in history follows. One look-up a device that was declared.
_KEEP_REGISTERS = """
    INSERT INTO register_baselines (device_id, stream, "timestamp", register_kwh)
    SELECT device_id, %(stream)s, last."timestamp", last.register_kwh
    FROM devices
    CROSS JOIN LATERAL (
        SELECT * FROM {history} h
        WHERE h.{device} = device_id AND h."timestamp" >= %(start)s AND h."timestamp" < %(end)s
        ORDER BY h."timestamp" DESC, h.received_at DESC
        LIMIT 1
    ) AS last
    ON CONFLICT (device_id, stream) DO UPDATE SET
        "timestamp" = excluded."timestamp", register_kwh = excluded.register_kwh
"""
Go = Callable[[], bool]


@dataclass(frozen=True)
class StoredFile:
    """A file that is in the archive as it should be."""

    stream: str
    day: date
    number: int
    size: int
    sha256: str
    fingerprint: Fingerprint
    key: str

    @staticmethod
    def name(layout: Layout, day: date, number: int, revision: str = "") -> str:
        """Return the key of a file in the bucket; revision tells one from what it replaces."""
        name = f"{number:04}-{revision}" if revision else f"{number:04}"
        return f"readings/stream={layout.stream}/date={day}/{name}.parquet"

    def register(self, connection: psycopg.Connection[Row]) -> None:
        """Count it as part of the archive."""
        head = (self.stream, self.day, self.number, self.key, self.size, self.sha256)
        connection.execute(_ADD_FILE, (*head, *self.fingerprint))


@dataclass(frozen=True)
class OpenedFile:
    """A file of the archive, fetched and checked."""

    number: int
    key: str
    path: Path
    fingerprint: Fingerprint


@dataclass(frozen=True)
class OpenedDay:
    """A day's files, and what to read them with."""

    folder: Path
    listed: list[OpenedFile]
    workbench: Workbench

    @property
    def files(self) -> list[Path]:
        """Where they are."""
        return [file.path for file in self.listed]

    @property
    def totals(self) -> Fingerprint:
        """What they hold together."""
        found = [file.fingerprint for file in self.listed]
        return Fingerprint(
            sum(file.readings for file in found),
            sum((file.kwh for file in found), Decimal()),
            sum((file.checksum for file in found), Decimal()),
        )


class Archive:
    """Moves history into a bucket, by a connection of the maintenance's."""

    def __init__(self, connection: psycopg.Connection[Row], bucket: Bucket) -> None:
        self._connection = connection
        self._bucket = bucket

    def close_partitions(self, before: datetime) -> int:
        """Detach the partitions that end up to an instant; return how many.

        From then on a late reading of their time is looked for in the archive. Writers wait for
        some milliseconds, and never longer than LOCK_LIMIT. Raises LockNotAvailable.
        """
        found = 0
        for layout in LAYOUTS.values():
            while rows := self._due(layout, before, MOST_AT_ONCE):
                if self._has_many_late(layout):
                    break
                if not change_locked(self._connection, partial(self._close, layout, rows)):
                    break  # another run was faster
                found += len(rows)
        return found

    def first_due(self, before: datetime) -> datetime | None:
        """Return where the first partition begins that ends up to an instant."""
        due = [rows[0][1] for each in LAYOUTS.values() if (rows := self._due(each, before, 1))]
        return min(due, default=None)

    def move_closed(self, go: Go) -> int:
        """Copy detached partitions day by day and drop them; return the number of receipts moved.

        Ends early, to be continued, where go says so before a day. Raises ArchiveUnavailable, and
        ArchiveDiffers where a file is not what history was: the partition stays then.
        """
        moved = 0
        closed = self._connection.execute(
            "SELECT name, stream, range_start, range_end FROM archive_closed ORDER BY 3, 2"
        ).fetchall()
        for name, stream, start, end in closed:
            for day in self._days_to_move(LAYOUTS[stream], name, start, end):
                if not go():
                    return moved
                moved += self._move_day(LAYOUTS[stream], name, day)
            change_locked(self._connection, partial(self._drop, name, stream, start, end))
        return moved

    def count_waiting(self, before: datetime) -> int:
        """Return how many partitions are past retention and not wholly in the archive."""
        [(closed,)] = self._connection.execute("SELECT count(*) FROM archive_closed")
        due = (len(self._due(layout, before, 10_000)) for layout in LAYOUTS.values())
        return int(closed) + sum(due)

    def restore_day(self, day: date) -> dict[str, int]:
        """Make a table of each stream with the receipts of a day; return their names and sizes.

        They are tables of their own, no part of history; telemetry_read may read them. Raises
        DayNotArchived, ArchiveUnavailable, ArchiveDamaged and ArchiveDiffers.
        """
        made = {}
        for layout in LAYOUTS.values():
            with self.open_day(layout, day) as opened:
                if opened.files:
                    name = f"{layout.history}_{day:%Y_%m_%d}_restored"
                    copy = opened.folder / "restored.csv"
                    opened.workbench.write_csv(layout, opened.files, copy)
                    self._fill(layout, name, copy, opened.totals)
                    made[name] = opened.totals.readings
        if not made:
            raise DayNotArchived(day)
        return made

    @contextmanager
    def open_day(self, layout: Layout, day: date) -> Iterator[OpenedDay]:
        """Fetch a day's files and keep them until it ends.

        Raises ArchiveUnavailable and ArchiveDamaged.
        """
        rows = self._connection.execute(
            """SELECT number, key, sha256, readings, kwh, checksum FROM archive_files
               WHERE stream = %s AND day = %s ORDER BY number""",
            (layout.stream, day),
        ).fetchall()
        with self._workplace() as (folder, workbench):
            files = []
            for number, key, sha256, *fingerprint in rows:
                file = folder / f"{number}.parquet"
                self._bucket.get(key, file)
                if _hash(file) != sha256:
                    raise ArchiveDamaged(key)
                files.append(OpenedFile(number, key, file, Fingerprint(*fingerprint)))
            yield OpenedDay(folder, files, workbench)

    def store_file(
        self,
        layout: Layout,
        day: date,
        number: int,
        source: Path,
        *,
        workbench: Workbench,
        expected: Fingerprint | None = None,
        key: str | None = None,
    ) -> StoredFile:
        """Put a CSV file's receipts into the bucket, read them back, and compare.

        expected is what they were where they come from; None: what the CSV file holds. The file is
        part of the archive when it is registered; key is its name, where another has its number.
        Raises ArchiveUnavailable and ArchiveDiffers.
        """
        written, back = source.with_suffix(".parquet"), source.with_suffix(".back")
        workbench.write(layout, source, written)
        stored = StoredFile(
            layout.stream,
            day,
            number,
            written.stat().st_size,
            _hash(written),
            expected or workbench.take_fingerprint(layout, [written]),
            key or StoredFile.name(layout, day, number),
        )
        self._bucket.put(written, stored.key)
        self._bucket.get(stored.key, back)
        found = workbench.take_fingerprint(layout, [back])
        if found != stored.fingerprint or _hash(back) != stored.sha256:
            raise ArchiveDiffers(stored.key, str(stored.fingerprint), str(found))
        return stored

    def delete_object(self, key: str) -> None:
        """Delete an object that is no part of the archive. Raises ArchiveUnavailable."""
        self._bucket.delete(key)

    def _due(self, layout: Layout, before: datetime, most: int) -> list[Row]:
        asked = (layout.history, layout.archived, before, most)
        return self._connection.execute(_DUE, asked).fetchall()

    def _has_many_late(self, layout: Layout) -> bool:
        if not self.has_table(layout.archived):
            return False
        statement = sql.SQL("SELECT FROM {} OFFSET {} LIMIT 1").format(
            sql.Identifier(layout.archived), MOST_LATE
        )
        return self._connection.execute(statement).fetchone() is not None

    def has_table(self, name: str) -> bool:
        """Return whether a table is there."""
        [(found,)] = self._connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name,))
        return bool(found)

    def _close(self, layout: Layout, rows: list[Row]) -> str | None:
        if self._due(layout, rows[-1][2], MOST_AT_ONCE) != rows:
            return None
        history, archived = sql.Identifier(layout.history), sql.Identifier(layout.archived)
        self._connection.execute(
            layout.fill(_KEEP_REGISTERS),
            {"stream": layout.stream, "start": rows[0][1], "end": rows[-1][2]},
        )
        for name, start, end in rows:
            self._connection.execute(
                sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(history, sql.Identifier(name))
            )
            self._connection.execute(
                "INSERT INTO archive_closed VALUES (%s, %s, %s, %s)",
                (name, layout.stream, start, end),
            )
        # One partition for all that is archived: their number stays that of the days retained.
        if self.has_table(layout.archived):
            [(first,)] = self._connection.execute(
                f"SELECT range_start FROM ({RANGES}) AS part WHERE oid = to_regclass(%s)",
                (layout.archived,),
            )
            statement = "ALTER TABLE {} DETACH PARTITION {}"
            self._connection.execute(sql.SQL(statement).format(history, archived))
        else:
            first = rows[0][1]
            statement = "CREATE TABLE {1} (LIKE {0} INCLUDING ALL)"
            self._connection.execute(sql.SQL(statement).format(history, archived))
        attach_partition(self._connection, layout.history, layout.archived, first, rows[-1][2])
        self._connection.execute(
            "UPDATE archive_horizon SET archived_to = %s WHERE stream = %s",
            (rows[-1][2], layout.stream),
        )
        return layout.archived

    def _days_to_move(
        self, layout: Layout, name: str, start: datetime, end: datetime
    ) -> Iterator[date]:
        """Yield the days of a detached partition that have receipts and no file yet."""
        table = sql.Identifier(name)
        if end - start > DAY:
            statement = 'CREATE INDEX IF NOT EXISTS {} ON {} ("timestamp")'
            index = sql.Identifier(f"{name}_timestamp")
            self._connection.execute(sql.SQL(statement).format(index, table))
        statement = 'SELECT min("timestamp") FROM {} WHERE "timestamp" >= {}'
        while True:
            [(found,)] = self._connection.execute(sql.SQL(statement).format(table, start))
            if found is None:
                return
            day = found.astimezone(UTC).date()
            file = self._connection.execute(
                "SELECT FROM archive_files WHERE stream = %s AND day = %s AND number = 0",
                (layout.stream, day),
            )
            if file.fetchone() is None:
                yield day
            start = datetime.combine(day, time(), UTC) + DAY

    def _move_day(self, layout: Layout, name: str, day: date) -> int:
        start = datetime.combine(day, time(), UTC)
        where = sql.SQL('FROM {} WHERE "timestamp" >= {} AND "timestamp" < {}').format(
            sql.Identifier(name), start, start + DAY
        )
        with self._workplace() as (folder, workbench):
            source = folder / "day.csv"
            self._copy(
                sql.SQL("SELECT {} {} ORDER BY {}").format(
                    sql.SQL(layout.as_numbers),
                    where,
                    sql.SQL(", ").join(map(sql.Identifier, list(layout.columns)[:3])),
                ),
                source,
            )
            expected = self._take_fingerprint(layout, where)
            stored = self.store_file(layout, day, 0, source, workbench=workbench, expected=expected)
        stored.register(self._connection)
        return stored.fingerprint.readings

    def _copy(self, query: sql.Composable, target: Path) -> None:
        statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(query)
        with (
            self._connection.cursor() as cursor,
            cursor.copy(statement) as copy,
            target.open("wb") as file,
        ):
            for block in copy:
                file.write(block)

    def _take_fingerprint(self, layout: Layout, where: sql.Composable) -> Fingerprint:
        columns = sql.SQL(layout.fingerprint_in_postgres)
        [row] = self._connection.execute(sql.SQL("SELECT {} {}").format(columns, where))
        return Fingerprint(*row)

    def _drop(self, name: str, stream: str, start: datetime, end: datetime) -> None:
        table = sql.Identifier(name)
        [(receipts,)] = self._connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table))
        [(stored,)] = self._connection.execute(
            """SELECT coalesce(sum(readings), 0) FROM archive_files
               WHERE stream = %s AND number = 0 AND day >= %s AND day < %s""",
            (stream, start.astimezone(UTC).date(), end.astimezone(UTC).date()),
        )
        if receipts != stored:
            raise ArchiveDiffers(name, f"{receipts} receipts", f"{stored} receipts")
        self._connection.execute(sql.SQL("DROP TABLE {}").format(table))
        self._connection.execute("DELETE FROM archive_closed WHERE name = %s", (name,))

    def _fill(self, layout: Layout, name: str, source: Path, expected: Fingerprint) -> None:
        table, history = sql.Identifier(name), sql.Identifier(layout.history)
        columns = sql.SQL(", ").join(map(sql.Identifier, layout.columns))
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
            cursor.execute(sql.SQL("CREATE TABLE {} (LIKE {})").format(table, history))
            statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(table, columns)
            with cursor.copy(statement) as copy, source.open("rb") as file:
                while block := file.read(1 << 20):
                    copy.write(block)
            found = self._take_fingerprint(layout, sql.SQL("FROM {}").format(table))
            if found != expected:
                raise ArchiveDiffers(name, str(expected), str(found))
            cursor.execute(sql.SQL("GRANT SELECT ON {} TO telemetry_read").format(table))

    @contextmanager
    def _workplace(self) -> Iterator[tuple[Path, Workbench]]:
        with TemporaryDirectory(prefix="archive-") as name:
            workbench = Workbench(Path(name))
            try:
                yield Path(name), workbench
            finally:
                workbench.close()


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
