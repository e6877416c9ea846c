"""Does what erasures ask for (erasures.sql): in history day by day, in the archive file by file.

Each step is a transaction that leaves every number as history says, and is safe to repeat: a run
that is killed anywhere is continued by the next. First history, the oldest day first, so that a
device is soon out of sight; then the archive, the newest day first; then what is small, and the id.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from telemetry.archive import Archive, Go
from telemetry.database import Row
from telemetry.parquet import LAYOUTS, METERS, VEHICLES, Layout, to_microseconds
from telemetry.replacements import Replacement, Replacements

_DAY = timedelta(days=1)
Stored = tuple[Any, ...]

# The days, (day, day + 24 h], of which a device has rollups, in history and in the archive.
_DAYS = """
    SELECT DISTINCT day_of(hour) AS day, hour < archived_to AS is_archived
    FROM {stream}_hourly_rollup, archive_horizon
    WHERE {device} = %s AND stream = '{stream}'
    ORDER BY day
"""
# Receipts that the rollups do not have, for want of a row: there should be none.
_STRAYS = """
    SELECT DISTINCT day_of(rollup_hour("timestamp")) AS day FROM {history}
    WHERE {device} = %s AND received_at <= %s ORDER BY day
"""
_RESTORED = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname ~ %s
"""


@dataclass(frozen=True)
class _Erasure:
    """What is to be erased: everything of a device that was accepted up to an instant."""

    erasure_id: UUID
    stream: str
    device_id: str
    asked_at: datetime

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.stream]


class Eraser:
    """Erases devices, by a connection of the maintenance's that commits each statement."""

    def __init__(self, connection: psycopg.Connection[Row], archive: Archive) -> None:
        self._connection = connection
        self._archive = archive
        self._files = Replacements(connection, archive)

    def erase(self, go: Go) -> int:
        """Work on all erasures that are pending, the oldest first; return how many are done now.

        Ends early where go says so. Raises ArchiveUnavailable, ArchiveDamaged and ArchiveDiffers.
        """
        self._files.delete_leftovers()
        rows = self._connection.execute(
            """SELECT erasure_id, stream, device_id, asked_at FROM erasure
               WHERE device_id IS NOT NULL ORDER BY asked_at, erasure_id"""
        ).fetchall()
        return sum(self._erase_device(_Erasure(*row), go) for row in rows)

    def count(self) -> int:
        """Return how many erasures are pending."""
        [(found,)] = self._connection.execute(
            "SELECT count(*) FROM erasure WHERE device_id IS NOT NULL"
        )
        return int(found)

    def _erase_device(self, erasure: _Erasure, go: Go) -> bool:
        for step in self._steps(erasure):
            if not go() or not step:
                return False
        if not go():
            return False
        self._erase_restored(erasure)
        return self._repeat("SELECT finish_erasure(%s)", (erasure.erasure_id,))

    def _steps(self, erasure: _Erasure) -> Iterator[bool]:
        """Do the steps one by one; yield before each, false where one has to wait."""
        layout = erasure.layout
        days = self._days(layout, erasure.device_id)
        present = {day for day, is_archived in days if not is_archived}
        erased = (erasure.device_id, erasure.asked_at)
        strays = self._connection.execute(layout.fill(_STRAYS), erased)
        present.update(day for (day,) in strays)
        # The newest first: no register is stored again that goes next.
        for day in sorted(present, reverse=True):
            yield True
            self._erase_day(erasure, day, [])
        fed = []
        if layout is METERS:
            rows = self._connection.execute(
                "SELECT DISTINCT vehicle_id FROM links WHERE meter_id = %s", (erasure.device_id,)
            ).fetchall()
            fed = [(vehicle, self._days(VEHICLES, vehicle)) for (vehicle,) in rows]
        for vehicle, of_vehicle in fed:
            for day, _ in of_vehicle:
                yield True
                self._repeat(
                    "SELECT erase_meter_name(%s, %s, %s)", (erasure.erasure_id, vehicle, day)
                )

        archived = [day for day, is_archived in days if is_archived]
        reaching: list[Stored] = []
        for of_rollup in sorted({day.date() for day in archived}, reverse=True):
            # The reading that ended with the day is in the file of the next.
            for file_day in (of_rollup + _DAY, of_rollup):
                yield not self._is_closed(layout, file_day)
            reaching = self._erase_archived_day(erasure, of_rollup, reaching)
        for file_day in sorted(
            {
                day.date() + after
                for _, of_vehicle in fed
                for day, is_archived in of_vehicle
                if is_archived
                for after in (timedelta(0), _DAY)
            }
        ):
            yield not self._is_closed(VEHICLES, file_day)
            with ExitStack() as stack:
                self._exchange(erasure, self._rewrite(erasure, VEHICLES, file_day, stack)[0])

    def _erase_day(self, erasure: _Erasure, day: datetime, survivors: list[dict[str, Any]]) -> None:
        said = (erasure.erasure_id, day, json.dumps(survivors))
        self._repeat(f"SELECT erase_{erasure.stream}_day(%s, %s, %s)", said)

    def _repeat(self, statement: str, said: tuple[object, ...]) -> bool:
        """Run what works in parts, so that nobody waits long for a lock, until one is the last."""
        done = None
        while done is None:
            [(done,)] = self._connection.execute(statement.encode(), said)
        return bool(done)

    def _erase_archived_day(
        self, erasure: _Erasure, day: date, reaching: list[Stored]
    ) -> list[Stored]:
        """Erase a day of the archive; reaching are readings that stay and end later.

        Return those of them, and of the day's, that began before it.
        """
        start = datetime.combine(day, time(), UTC)
        first = to_microseconds(start)
        last = first + 86_400_000_000
        with ExitStack() as stack:
            replaced, kept = [], reaching
            for file_day in (day, day + _DAY):
                more, rows = self._rewrite(erasure, erasure.layout, file_day, stack)
                replaced += more
                kept = kept + [row for row in rows if first < row[1] <= last]
            survivors = [erasure.layout.as_record(row) for row in kept]
            self._exchange(erasure, replaced, (start, survivors))
        newest = {row[1]: row for row in sorted(kept, key=lambda row: row[2])}
        return [row for row in newest.values() if row[1] - (row[-1] or 60) * 1_000_000 < first]

    def _rewrite(
        self, erasure: _Erasure, layout: Layout, day: date, stack: ExitStack
    ) -> tuple[list[Replacement], list[Stored]]:
        """Put files without the device beside a day's; return both, and what they have of it."""
        opened = stack.enter_context(self._archive.open_day(layout, day))
        replaced = self._files.write(
            *(layout, day, opened, erasure.erasure_id.hex[:12]),
            partial(
                opened.workbench.keep_others,
                layout,
                column=erasure.layout.device,
                device_id=erasure.device_id,
                until=erasure.asked_at,
            ),
        )
        rows: list[Stored] = []
        if layout is erasure.layout:
            asked_at = to_microseconds(erasure.asked_at)
            found = opened.workbench.find_devices(layout, opened.files, [erasure.device_id])
            rows = [row for row in found if row[2] > asked_at]
        return replaced, rows

    def _exchange(
        self,
        erasure: _Erasure,
        replaced: list[Replacement],
        day: tuple[datetime, list[dict[str, Any]]] | None = None,
    ) -> None:
        with self._connection.transaction():
            self._files.exchange(replaced)
            if day:
                self._erase_day(erasure, *day)
            if replaced:
                self._connection.execute(
                    """UPDATE erasure SET receipts = receipts + %s, files = files + %s
                       WHERE erasure_id = %s""",
                    (sum(entry.receipts for entry in replaced), len(replaced), erasure.erasure_id),
                )
        self._files.delete_leftovers()

    def _erase_restored(self, erasure: _Erasure) -> None:
        """Erase the device from days that were brought back from the archive."""
        layout = erasure.layout
        said = (erasure.device_id, erasure.asked_at)
        for name in self._restored(layout):
            statement = sql.SQL("DELETE FROM {} WHERE {} = %s AND received_at <= %s")
            self._connection.execute(
                statement.format(sql.Identifier(name), sql.Identifier(layout.device)), said
            )
        if layout is METERS:
            for name in self._restored(VEHICLES):
                statement = sql.SQL(
                    "UPDATE {} SET meter_id = NULL WHERE meter_id = %s AND received_at <= %s"
                )
                self._connection.execute(statement.format(sql.Identifier(name)), said)

    def _restored(self, layout: Layout) -> list[str]:
        rows = self._connection.execute(
            _RESTORED, (rf"^{layout.history}_\d{{4}}_\d\d_\d\d_restored$",)
        )
        return [name for (name,) in rows]

    def _days(self, layout: Layout, device_id: str) -> list[tuple[datetime, bool]]:
        rows = self._connection.execute(layout.fill(_DAYS), (device_id,))
        return [(day.astimezone(UTC), is_archived) for day, is_archived in rows]

    def _is_closed(self, layout: Layout, day: date) -> bool:
        """Return whether a day is being moved into the archive just now."""
        start = datetime.combine(day, time(), UTC)
        found = self._connection.execute(
            """SELECT FROM archive_closed
               WHERE stream = %s AND range_start < %s AND range_end > %s""",
            (layout.stream, start + _DAY, start),
        )
        return found.fetchone() is not None
