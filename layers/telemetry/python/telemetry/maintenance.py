"""What has to be done every hour, in steps that know nothing of each other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import NamedTuple

import psycopg
from psycopg import sql
from psycopg.errors import DeadlockDetected

from telemetry.archive import Archive, Go
from telemetry.archived_voids import ArchivedVoids
from telemetry.database import Row
from telemetry.eraser import Eraser
from telemetry.late import LateReceipts
from telemetry.partitions import HISTORIES, RANGES, count_strays, make_partitions
from telemetry.redeclarations import count_changed, store_again
from telemetry.rules import Rules
from telemetry.summaries import keep_ground, last_whole_hour, refresh_summaries

_LOCK_KEY = 0x656E6572_6D61696E  # "enermain"
# How often a step is begun that loses deadlocks: whoever writes is run again, too.
_ATTEMPTS = 5

# Partitions whose time is over, and much of which came since they were looked at last. PostgreSQL
# does that by itself when a fifth of a table is new, and freezes rows only much later, all at once.
_UNVACUUMED = f"""
    SELECT part.name
    FROM ({RANGES}) AS part
    JOIN pg_stat_user_tables counted ON counted.relid = part.oid
    WHERE inhparent = ANY (%s::regclass[]) AND n_ins_since_vacuum > 0.02 * n_live_tup
      AND range_end <= %s
    ORDER BY 1
"""


class Done(NamedTuple):
    """What a step leaves behind: a metric, and what its line in the log says besides."""

    metric: str
    value: int
    details: dict[str, int]


@contextmanager
def alone(connection: psycopg.Connection[Row]) -> Iterator[bool]:
    """Yield whether no other run is at work.

    None begins until this ends; a lock of the session, it ends with a process that is killed.
    """
    [(locked,)] = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,))
    try:
        yield locked
    finally:
        if locked and not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK_KEY,))


class Maintenance:
    """The steps. Each may be repeated, and ended anywhere: the next run goes on from there."""

    def __init__(
        self,
        connection: psycopg.Connection[Row],
        archive: Archive,
        now: datetime,
        retain_from: datetime,
        *,
        rules: Rules,
        go: Go,
    ) -> None:
        """go says whether there is time for one more day of history, or one more table."""
        self._connection = connection
        self._archive = archive
        self._now = now
        self._retain_from = retain_from
        self._rules = rules
        self._go = go

    def count_strays(self) -> Done:
        """Count the readings that found no partition, before they get one."""
        return Done("ReadingsInDefaultPartition", count_strays(self._connection), {})

    def make_partitions(self) -> Done:
        """Make partitions ahead, and one of the default partition where that holds readings."""
        return Done("PartitionsMade", len(make_partitions(self._connection, self._now)), {})

    def refresh_summaries(self) -> Done:
        """Make daily rollups, and the fleet's window up to the last whole hour."""
        vehicles = refresh_summaries(self._connection, self._now, self._rules)
        return Done("VehiclesSummarized", vehicles, {})

    def archive_history(self) -> Done:
        """Move the partitions that are past retention into the archive."""
        if due := self._archive.first_due(self._retain_from):
            keep_ground(self._connection, due, last_whole_hour(self._retain_from), self._rules)
        closed = self._archive.close_partitions(self._retain_from)
        moved = self._archive.move_closed(self._go)
        waiting = self._archive.count_waiting(self._retain_from)
        return Done("PartitionsToArchive", waiting, {"closed": closed, "receipts": moved})

    def settle_late_receipts(self) -> Done:
        """Count what came for archived days, and put it into the archive."""
        late = LateReceipts(self._connection, self._archive)
        settled = _run_again(partial(late.settle, self._go))
        return Done("LateReceiptsPending", late.count(), {"settled": settled})

    def settle_voids(self) -> Done:
        """Take readings that ops voided out of the archive."""
        voids = ArchivedVoids(self._connection, self._archive)
        settled = _run_again(partial(voids.settle, self._go))
        return Done("VoidsPending", voids.count(), {"settled": settled})

    def store_redeclared(self) -> Done:
        """Store again what devices told that are declared otherwise since."""
        done = _run_again(partial(store_again, self._connection, self._go))
        return Done("DevicesRedeclared", count_changed(self._connection), {"done": done})

    def erase_devices(self) -> Done:
        """Erase the devices that ops asked to be erased."""
        eraser = Eraser(self._connection, self._archive)
        done = _run_again(partial(eraser.erase, self._go))
        return Done("ErasuresPending", eraser.count(), {"done": done})

    def refresh_statistics(self) -> Done:
        """Vacuum and analyze partitions whose time is over: once, as nothing more comes."""
        tables = self._connection.execute(_UNVACUUMED, (list(HISTORIES), self._now)).fetchall()
        vacuumed = 0
        for (name,) in tables:
            if not self._go():
                break
            statement = "VACUUM (FREEZE, ANALYZE, SKIP_LOCKED) {}"
            self._connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
            vacuumed += 1
        return Done("PartitionsToVacuum", len(tables) - vacuumed, {"vacuumed": vacuumed})


def _run_again(step: Callable[[], int]) -> int:
    """Run a step that changes what devices and links writers change too; return what it does.

    A deadlock with them (links.sql says when) ends it: it goes on from there. Raises
    DeadlockDetected where that does not end.
    """
    for _ in range(_ATTEMPTS - 1):
        with suppress(DeadlockDetected):
            return step()
    return step()
