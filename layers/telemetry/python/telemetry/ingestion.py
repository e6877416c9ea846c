"""Taking readings: into PostgreSQL, or onto the queue where PostgreSQL cannot take them in time."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Generic, Literal, NamedTuple

from aws_lambda_powertools import Logger

from telemetry.batches import Batch, BatchMode
from telemetry.breaker import CircuitBreaker
from telemetry.database import Database
from telemetry.errors import DatabaseUnavailable, NothingTaken, QueueUnavailable
from telemetry.intake import Intake
from telemetry.messages import pack
from telemetry.queue import Queue
from telemetry.readings import count_hours
from telemetry.recognition import Reading
from telemetry.store import Resent

# Seconds that a request waits for PostgreSQL, before its readings go to the queue.
TIME_LIMIT = 0.4
# A batch whose intervals reach into more hours than this does not try for so long.
MOST_HOURS = 2_500
# Seconds that a backfill waits for its queue to take a megabyte: nobody is in a hurry for it.
BACKFILL_TIMEOUT = 3.0


class Taken(NamedTuple):
    """What became of readings: stored, or queued, but for those at the positions not taken."""

    status: Literal["stored", "queued"]
    resent: Resent | None = None
    not_taken: range = range(0)


class Ingestion(Generic[Reading]):
    """Takes the readings of one stream; each execution environment has its own."""

    def __init__(
        self,
        intake: Intake[Reading],
        database: Database,
        queue: Queue,
        backfill_queue: Queue,
        logger: Logger,
        *,
        queue_first: bool = False,
    ) -> None:
        self._intake = intake
        self._database = database
        self._queue = queue
        self._backfill_queue = backfill_queue
        self._logger = logger
        self._queue_first = queue_first
        self._breaker = CircuitBreaker()

    def take_one(self, reading: Reading, received_at: datetime) -> Taken:
        """Take one reading, as take does."""
        return self._take(
            [reading],
            received_at,
            lambda: self._intake.store_one(self._database, reading, received_at),
        )

    def take_batch(
        self, batch: Batch[Reading], received_at: datetime, mode: BatchMode = None
    ) -> Taken | None:
        """Store a batch's readings, or put them on the queue; None where there are none.

        Those of a backfill always go on the queue of backfills, sorted: PostgreSQL stores readings
        of one device that follow each other twice as fast. So do those of intervals of many hours,
        which take longer than a request may wait. What is taken is durable when this
        returns. Raises NothingTaken.
        """
        if not batch.readings:
            return None
        if mode == "backfill" or count_hours(batch.readings) > MOST_HOURS:
            batch.sort(self._intake.order)
            return self._enqueue(self._backfill_queue, batch.readings, received_at)
        readings = batch.readings
        return self._take(
            readings,
            received_at,
            lambda: self._intake.store_many(self._database, readings, received_at),
        )

    def _take(
        self,
        readings: Sequence[Reading],
        received_at: datetime,
        store: Callable[[], Resent | None],
    ) -> Taken:
        untried = not self._queue_first
        if untried and self._breaker.allows():
            if taken := self._store(store):
                return taken
            untried = False
        try:
            return self._enqueue(self._queue, readings, received_at)
        except NothingTaken:
            # PostgreSQL was spared an attempt, which is the only way left now.
            if untried and (taken := self._store(store)):
                return taken
            raise

    def _store(self, store: Callable[[], Resent | None]) -> Taken | None:
        try:
            resent = store()
        except DatabaseUnavailable as error:
            # Whether it took effect is not known. It may be written again: the receipts are the
            # same.
            self._breaker.fail()
            self._logger.warning("the database does not take readings", reason=str(error.__cause__))
            return None
        self._breaker.succeed()
        return Taken("stored", resent)

    def _enqueue(self, queue: Queue, readings: Sequence[Reading], received_at: datetime) -> Taken:
        queued = 0
        for count, body in pack(self._intake, readings, received_at):
            try:
                queue.send(body)
            except QueueUnavailable as error:
                self._logger.error("the queue does not take readings", reason=str(error.__cause__))
                if not queued:
                    raise NothingTaken from None
                break  # nobody waits once more for a queue that does not answer
            queued += count
        return Taken("queued", not_taken=range(queued, len(readings)))
