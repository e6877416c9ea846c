"""Receipts that come for days which are archived: put into the archive, and counted right.

Some are in history's partition of archived days, and count already: no reading of their device
ended in their minute, or it showed none so late, so that the archive has none of theirs. The others
wait in `…_pending` (store.sql tells them apart). They may be of readings in the archive, so they
are compared with it here, and their hours get the difference. Each day gets one more file; then its
receipts are taken away.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple

import psycopg

from telemetry.archive import Archive, Go, StoredFile
from telemetry.database import Row
from telemetry.parquet import LAYOUTS, Layout, write_rows
from telemetry.streams import VEHICLES

# Receipts that are held in memory at once, and whose devices are locked together.
CHUNK = 20_000

Key = tuple[str, int]
Values = tuple[Any, ...]

# What waits of a day: its columns, and its number where it is pending.
_ARRIVED = """
    SELECT {columns}, number FROM {stream}_pending
    WHERE ("timestamp" AT TIME ZONE 'UTC')::date = %(day)s
    UNION ALL
    SELECT {columns}, NULL FROM {archived}
    WHERE ("timestamp" AT TIME ZONE 'UTC')::date = %(day)s
    ORDER BY 1, 2, number
    LIMIT %(most)s
"""
_DAYS = """
    SELECT DISTINCT ("timestamp" AT TIME ZONE 'UTC')::date AS day
    FROM (
        SELECT "timestamp" FROM {stream}_pending UNION ALL SELECT "timestamp" FROM {archived}
    ) AS late
    WHERE NOT EXISTS (
        SELECT FROM archive_closed closed WHERE closed.stream = '{stream}'
           AND late."timestamp" >= range_start AND late."timestamp" < range_end)
    ORDER BY day
"""
_LOCK = """
    SELECT FROM {stream}_live_status WHERE {device} = ANY (%s) ORDER BY {device} FOR UPDATE
"""
_INSTANT = "timestamptz 'epoch' + {} * interval '1 microsecond'"
# A reading stays whole: where another receipt of it has come meanwhile, all of them stay.
_TAKE = f"""
    WITH stored AS (
        SELECT id, {_INSTANT.format("ts")} AS ts, {_INSTANT.format("received")} AS received_at,
               count(*) OVER (PARTITION BY id, ts) AS receipts
        FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS stored (id, ts, received)
    )
    DELETE FROM {{archived}} AS late USING stored
    WHERE late.{{device}} = stored.id AND late."timestamp" = stored.ts
      AND late.received_at = stored.received_at
      AND receipts = (SELECT count(*) FROM {{archived}} AS same
                      WHERE same.{{device}} = stored.id AND same."timestamp" = stored.ts)
"""
_COUNT = """
    WITH changed AS (
        SELECT array_agg(event) FILTER (WHERE is_after) AS after,
               array_agg(event) FILTER (WHERE NOT is_after) AS before
        FROM (
            SELECT event, is_after
            FROM unnest(%s::jsonb[], ARRAY[true, false]) AS side (records, is_after)
            CROSS JOIN LATERAL jsonb_populate_recordset(NULL::{stream}_event, records) AS event
        ) AS read
    )
    SELECT count_{stream}_events(after, before),
           mark_{stream}_summaries(sum_{stream}_days(reach_of_{stream}s(after || before)))
    FROM changed
"""
# What a reading claims from now on, and from where on it claimed its meter before.
_CLAIM = """
    SELECT claim_meters(array_agg(ROW(vehicle_id, begins, old, new)::link_claim))
    FROM (
        SELECT vehicle_id, begins, min(meter_id) FILTER (WHERE NOT is_after) AS old,
               min(meter_id) FILTER (WHERE is_after) AS new
        FROM unnest(%s::jsonb[], ARRAY[true, false]) AS side (records, is_after)
        CROSS JOIN LATERAL jsonb_populate_recordset(NULL::vehicle_event, records) AS event
        CROSS JOIN LATERAL (
            SELECT "timestamp" - claim_lead(seconds, told_seconds, register_kwh)) AS claim (begins)
        WHERE meter_id IS NOT NULL
        GROUP BY vehicle_id, begins
    ) AS claimed
    WHERE old IS DISTINCT FROM new
"""


class Receipt(NamedTuple):
    """What is late: a receipt, and its number where its reading may be in the archive."""

    device: str
    timestamp: int
    received_at: int
    values: Values
    number: int | None

    @property
    def key(self) -> Key:
        """Which reading it is of."""
        return self.device, self.timestamp


@dataclass
class Change:
    """What counts of a reading from now on, and what did before (None: it was not known)."""

    key: Key
    before: Values | None
    after: Values

    def side(self, later: int) -> Values | None:
        """What counts from now on (1), and what did before (0)."""
        return self.after if later else self.before


@dataclass
class Merged:
    """What becomes of an archived day: receipts that it gets, and what they change in sums."""

    added: list[tuple[Any, ...]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


def merge(archived: Sequence[tuple[Any, ...]], arrived: Sequence[Receipt], register: int) -> Merged:
    """Compare receipts that came late with those that the archive has of the same readings.

    A row of archived is device, timestamp, received_at and values. The same receipt again adds
    nothing; another of the same microsecond takes the next free one; of a reading's receipts the
    latest counts. Those that are not pending count already. register is its place among the
    values, whose first is the energy and whose last the length: another register of a reading that
    is known changes neither, for what one interval gets the next one loses.
    """
    known: dict[Key, dict[int, Values]] = {}
    for device, timestamp, received_at, *archived_values in archived:
        known.setdefault((device, timestamp), {})[received_at] = tuple(archived_values)
    counted = {key: receipts[max(receipts)] for key, receipts in known.items()}
    merged = Merged()
    for receipt in arrived:
        receipts = known.setdefault(receipt.key, {})
        received_at, values = receipt.received_at, receipt.values
        if receipts and values[register] is not None:
            settled = receipts[max(receipts)]
            values = (settled[0], *values[1:-1], settled[-1])
        while receipts.get(received_at, values)[:-1] != values[:-1]:
            received_at += 1
        if received_at not in receipts:
            receipts[received_at] = values
            merged.added.append((*receipt.key, received_at, *values))
    for key in dict.fromkeys(receipt.key for receipt in arrived if receipt.number):
        after = known[key][max(known[key])]
        if counted.get(key) != after:
            merged.changes.append(Change(key, counted.get(key), after))
    merged.added.sort(key=lambda row: row[:3])
    return merged


class LateReceipts:
    """Takes what came late into the archive, by a connection of the maintenance's."""

    def __init__(self, connection: psycopg.Connection[Row], archive: Archive) -> None:
        self._connection = connection
        self._archive = archive

    def settle(self, go: Go) -> int:
        """Settle what waits; return how many receipts that were.

        Ends early where go says so. Each chunk is a transaction: a run that is killed is continued
        by the next. Raises ArchiveUnavailable, ArchiveDamaged and ArchiveDiffers.
        """
        settled = 0
        for layout in LAYOUTS.values():
            if not self._archive.has_table(layout.archived):
                continue
            days = self._connection.execute(layout.fill(_DAYS)).fetchall()
            for (day,) in days:
                while go() and (taken := self._settle_some(layout, day)):
                    settled += taken
        return settled

    def count(self) -> int:
        """Return how many receipts wait that may not count yet."""
        counts = " + ".join(f"(SELECT count(*) FROM {stream}_pending)" for stream in LAYOUTS)
        [(found,)] = self._connection.execute(f"SELECT {counts}".encode())
        return int(found)

    def _settle_some(self, layout: Layout, day: date) -> int:
        statement = layout.fill(_ARRIVED, columns=layout.as_numbers)
        rows = self._connection.execute(statement, {"day": day, "most": CHUNK})
        arrived = [
            Receipt(device, timestamp, received_at, tuple(values), number)
            for device, timestamp, received_at, *values, number in rows
        ]
        if not arrived:
            return 0
        [(number,)] = self._connection.execute(
            """SELECT coalesce(max(number), 0) + 1 FROM archive_files
               WHERE stream = %s AND day = %s""",
            (layout.stream, day),
        )
        stored = None
        with self._archive.open_day(layout, day) as opened:
            keys = opened.folder / "keys.csv"
            write_rows(keys, dict.fromkeys(receipt.key for receipt in arrived))
            archived = opened.workbench.find_receipts(layout, opened.files, keys)
            merged = merge(archived, arrived, list(layout.columns).index("register_kwh") - 3)
            if merged.added:
                source = opened.folder / "late.csv"
                write_rows(source, merged.added)
                stored = self._archive.store_file(
                    layout, day, number, source, workbench=opened.workbench
                )
        with self._connection.transaction():
            return self._take(layout, arrived, merged.changes, stored)

    def _take(
        self,
        layout: Layout,
        arrived: Sequence[Receipt],
        changes: Sequence[Change],
        stored: StoredFile | None,
    ) -> int:
        """Take receipts away that are in the archive, and count them; return how many."""
        devices = sorted({receipt.device for receipt in arrived})
        # As writers do, before anything else.
        self._connection.execute(layout.fill(_LOCK), [devices])
        if stored:
            stored.register(self._connection)
        if changes:
            self._count(layout, changes)
        pending = [receipt.number for receipt in arrived if receipt.number]
        statement = "DELETE FROM {stream}_pending WHERE number = ANY (%s)"
        taken = self._connection.execute(layout.fill(statement), [pending]).rowcount
        counted = [receipt[:3] for receipt in arrived if not receipt.number]
        found = self._connection.execute(layout.fill(_TAKE), _columns(counted, 3))
        return taken + found.rowcount

    def _count(self, layout: Layout, changes: Sequence[Change]) -> None:
        # Of two receipts the later counts.
        rows = [
            [(*change.key, later, *values) for change in changes if (values := change.side(later))]
            for later in (1, 0)
        ]
        records = [json.dumps([layout.as_record(row) for row in side]) for side in rows]
        self._connection.execute(layout.fill(_COUNT), [records])
        if layout.of is VEHICLES:
            self._connection.execute(_CLAIM.encode(), [records])


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(count)]
