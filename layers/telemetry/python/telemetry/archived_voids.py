"""Does what voids of archived readings say: takes the readings out of files and out of all sums.

A void is pending where it takes the archive to do that (voids.sql). All that are pending of a
day are one transaction: other files take the place of the day's, the receipts are set aside, and
what was computed of them follows. A run that is killed anywhere is continued by the next.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import date
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg

from telemetry.archive import Archive, Go, OpenedDay
from telemetry.database import Row
from telemetry.parquet import LAYOUTS, Layout, from_microseconds, to_microseconds, write_rows
from telemetry.replacements import Replacement, Replacements

# Voids that are done together: so many devices are locked meanwhile, at the most.
MOST = 200
_MINUTE = 60_000_000
_HOUR = 60 * _MINUTE

Key = tuple[str, int]
Stored = tuple[Any, ...]

# Not while days are being moved: what is the newest before a reading may be in none of both places.
_PENDING = """
    SELECT {device}, "timestamp" FROM {stream}_void
    WHERE pending AND NOT EXISTS (SELECT FROM archive_closed WHERE stream = '{stream}')
    ORDER BY "timestamp", {device}
"""
# The last hour before in which a device was heard from, and whether history has the newest of it.
_HOUR_BEFORE = """
    SELECT hour, EXISTS (
        SELECT FROM {history} h
        WHERE h.{device} = %(id)s AND h."timestamp" > hour AND h."timestamp" < %(ts)s
          AND h."timestamp" <= hour + interval '1 hour'
          AND NOT EXISTS (SELECT FROM {stream}_void void
                          WHERE (void.{device}, void."timestamp") = (h.{device}, h."timestamp")
                            AND pending))
    FROM {stream}_hourly_rollup
    WHERE {device} = %(id)s AND hour < %(before)s AND hour < %(ts)s AND readings > 0
    ORDER BY hour DESC
    LIMIT 1
"""
_SETTLE = "SELECT settle_{stream}_voids(%s, %s, %s::jsonb[], %s::jsonb[])"


class ArchivedVoids:
    """Settles voids that are pending, by a connection of the maintenance's."""

    def __init__(self, connection: psycopg.Connection[Row], archive: Archive) -> None:
        self._connection = connection
        self._archive = archive
        self._files = Replacements(connection, archive)

    def settle(self, go: Go) -> int:
        """Settle what is pending, and return how many voids that were.

        Ends early where go says so. A void that has to wait for something else stays pending.
        Raises ArchiveUnavailable, ArchiveDamaged and ArchiveDiffers.
        """
        self._files.delete_leftovers()
        settled = 0
        for layout in LAYOUTS.values():
            waiting: set[Key] = set()
            while go() and (keys := self._find_some(layout, waiting)):
                stuck = self._settle_some(layout, keys)
                waiting |= stuck
                settled += 0 if stuck else len(keys)
        return settled

    def count(self) -> int:
        """Return how many voids are pending."""
        statement = "SELECT count(*) FROM {stream}_void WHERE pending"
        counts = (self._connection.execute(layout.fill(statement)) for layout in LAYOUTS.values())
        return sum(count for [(count,)] in counts)

    def _find_some(self, layout: Layout, waiting: Collection[Key]) -> list[Key]:
        """Return the oldest that need not wait, of one day."""
        rows = self._connection.execute(layout.fill(_PENDING), {})
        keys = [key for device, at in rows if (key := (device, to_microseconds(at))) not in waiting]
        return [key for key in keys if _day(key[1]) == _day(keys[0][1])][:MOST]

    def _settle_some(self, layout: Layout, keys: Sequence[Key]) -> set[Key]:
        """Settle voids of one day, or none of them; return those that are in the way of it."""
        day = _day(keys[0][1])
        shelf = _Shelf(self._archive, layout, sorted({device for device, _ in keys}))
        with self._archive.open_day(layout, day) as opened:
            leaving = opened.folder / "leaving.csv"
            write_rows(leaving, keys)
            replaced = self._files.write(
                *(layout, day, opened, uuid4().hex[:12]),
                partial(opened.workbench.keep_all_but, layout, keys=leaving),
            )
            shelf.put(day, opened)
        receipts = [[row for row in shelf.read(key[0], day) if row[1] == key[1]] for key in keys]
        others = [self._find_others(shelf, key, frozenset(keys)) for key in keys]
        stuck = self._exchange(layout, keys, replaced, receipts, others)
        self._files.delete_leftovers()
        return stuck

    def _find_others(self, shelf: "_Shelf", key: Key, leaving: Collection[Key]) -> list[Stored]:
        """Return what else the archive has of a reading's minute, and its newest before it."""
        device, at = key
        minute = (at - 1) // _MINUTE * _MINUTE
        rows = [
            row
            for row in shelf.read_between(device, minute, minute + _MINUTE)
            if row[:2] not in leaving
        ]
        for hour, is_in_history in self._hours_before(shelf.layout, key):
            before = [
                row
                for row in shelf.read_between(device, hour, hour + _HOUR)
                if row[1] < at and row[:2] not in leaving
            ]
            rows += before[-1:]
            if before or is_in_history:
                break
        return rows

    def _hours_before(self, layout: Layout, key: Key) -> Iterator[tuple[int, bool]]:
        device, at = key
        asked = {"id": device, "ts": from_microseconds(at), "before": "infinity"}
        statement = layout.fill(_HOUR_BEFORE)
        while row := self._connection.execute(statement, asked).fetchone():
            hour, is_in_history = row
            yield to_microseconds(hour), is_in_history
            asked["before"] = hour

    def _exchange(
        self,
        layout: Layout,
        keys: Sequence[Key],
        replaced: Sequence[Replacement],
        *rows: Sequence[Sequence[Stored]],
    ) -> set[Key]:
        stuck: set[Key] = set()
        columns = [
            [device for device, _ in keys],
            [from_microseconds(at) for _, at in keys],
            *(
                [json.dumps([layout.as_record(row) for row in of_key]) for of_key in column]
                for column in rows
            ),
        ]
        with self._connection.transaction():
            [(outcomes,)] = self._connection.execute(layout.fill(_SETTLE), columns)
            stuck.update(
                key
                for key, outcome in zip(keys, outcomes, strict=True)
                if outcome in ("waiting", "withdrawn")
            )
            if stuck:
                raise psycopg.Rollback
            self._files.exchange(replaced)
        return stuck


class _Shelf:
    """What the archive has of some devices: each day is fetched once."""

    def __init__(self, archive: Archive, layout: Layout, devices: Sequence[str]) -> None:
        self.layout = layout
        self._archive = archive
        self._devices = devices
        self._days: dict[date, dict[str, list[Stored]]] = {}

    def put(self, day: date, opened: OpenedDay) -> None:
        """Have what a day's files have of the devices."""
        rows = opened.workbench.find_devices(self.layout, opened.files, self._devices)
        self._days[day] = {}
        for row in sorted(rows, key=lambda row: row[:3]):
            self._days[day].setdefault(row[0], []).append(row)

    def read(self, device: str, day: date) -> list[Stored]:
        """Return a device's receipts of a day, in the order of time and receipt."""
        if day not in self._days:
            with self._archive.open_day(self.layout, day) as opened:
                self.put(day, opened)
        return self._days[day].get(device, [])

    def read_between(self, device: str, start: int, end: int) -> list[Stored]:
        """Return those after an instant, up to and including another."""
        days = sorted({_day(start), _day(end)})
        return [row for day in days for row in self.read(device, day) if start < row[1] <= end]


def _day(at: int) -> date:
    return from_microseconds(at).date()
