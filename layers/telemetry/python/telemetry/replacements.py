"""Files of the archive that take the place of others, where receipts leave it: erased or voided.

A file is never changed. Another object takes its place in archive_files, in the transaction that
takes its receipts out of the rollups, and it is deleted afterwards. Each object that is not in
archive_files, not yet or no longer, is noted in archive_leftover. Whoever does this runs alone
(telemetry.maintenance.alone): another run would take what this one is about to count in for left
over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import psycopg

from telemetry.archive import Archive, OpenedDay, OpenedFile, StoredFile
from telemetry.database import Row
from telemetry.parquet import Layout

_REPLACE = """
    UPDATE archive_files
    SET key = %s, sha256 = %s, bytes = %s, readings = %s, kwh = %s, checksum = %s
    WHERE stream = %s AND day = %s AND number = %s AND key = %s
"""


@dataclass(frozen=True)
class Replacement:
    """A file of the archive, and the one that takes its place."""

    old: OpenedFile
    new: StoredFile

    @property
    def receipts(self) -> int:
        """How many are gone."""
        return self.old.fingerprint.readings - self.new.fingerprint.readings


class Replacements:
    """Makes replacements, by a connection of the maintenance's that commits each statement."""

    def __init__(self, connection: psycopg.Connection[Row], archive: Archive) -> None:
        self._connection = connection
        self._archive = archive

    def write(
        self,
        layout: Layout,
        day: date,
        opened: OpenedDay,
        revision: str,
        choose_kept: Callable[[Path], None],
    ) -> list[Replacement]:
        """Put new files beside those of a day's that do not keep everything; return both.

        choose_kept has the day's workbench choose what stays of a file. Raises ArchiveUnavailable
        and ArchiveDiffers.
        """
        workbench, replaced = opened.workbench, []
        for file in opened.listed:
            choose_kept(file.path)
            expected = workbench.take_kept_fingerprint(layout)
            if expected == file.fingerprint:
                continue
            source = file.path.with_suffix(".kept.csv")
            workbench.write_kept(layout, source)
            key = StoredFile.name(layout, day, file.number, revision)
            self._connection.execute(
                "INSERT INTO archive_leftover VALUES (%s) ON CONFLICT DO NOTHING", (key,)
            )
            stored = self._archive.store_file(
                *(layout, day, file.number, source),
                workbench=workbench,
                expected=expected,
                key=key,
            )
            replaced.append(Replacement(file, stored))
        return replaced

    def exchange(self, replaced: Sequence[Replacement]) -> None:
        """Count the new files in instead of the old ones, in the caller's transaction.

        Raises psycopg.Rollback where another run was faster.
        """
        for old, new in ((entry.old, entry.new) for entry in replaced):
            changed = self._connection.execute(
                _REPLACE,
                (
                    *(new.key, new.sha256, new.size, *new.fingerprint),
                    *(new.stream, new.day, new.number, old.key),
                ),
            )
            if not changed.rowcount:
                raise psycopg.Rollback
            self._connection.execute("DELETE FROM archive_leftover WHERE key = %s", (new.key,))
            self._connection.execute("INSERT INTO archive_leftover VALUES (%s)", (old.key,))

    def delete_leftovers(self) -> None:
        """Delete the objects that are no part of the archive. Raises ArchiveUnavailable."""
        for (key,) in self._connection.execute("SELECT key FROM archive_leftover").fetchall():
            used = self._connection.execute("SELECT FROM archive_files WHERE key = %s", (key,))
            if not used.fetchone():
                self._archive.delete_object(key)
            self._connection.execute("DELETE FROM archive_leftover WHERE key = %s", (key,))
