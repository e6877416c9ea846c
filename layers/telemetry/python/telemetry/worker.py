"""Storing what waited in the queue: the other side of telemetry.ingestion."""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple

import psycopg
from aws_lambda_powertools import Logger

from telemetry.database import Database
from telemetry.errors import DatabaseUnavailable, MessageUnusable, QueueUnavailable
from telemetry.intake import Intake
from telemetry.messages import Message, unpack
from telemetry.queue import Queue
from telemetry.readings import count_hours
from telemetry.recognition import Reading

# A message that could not be stored this often, because the database was away, is put on the queue
# anew. The queue's redrive policy takes it away after ten receives: that is meant for a message
# which ends the worker.
MOST_RECEIVES = 5
# Readings in one transaction, which holds up whoever sends a reading of the same devices: some 50
# ms. All of a message's 10,000 take four times as long, and a request waits 0.4 s.
MOST_TOGETHER = 2_500
# Milliseconds that have to be left for a transaction: 6 s of PostgreSQL, and messages put on the
# queue anew. A worker that is ended at its timeout gives back everything, what is stored as well,
# and each time the redrive policy counts.
ENOUGH_TIME = 10_000

Record = dict[str, Any]


class Received(NamedTuple, Generic[Reading]):
    """A message as it came from the queue, and what it holds."""

    record: Record
    message: Message[Reading]


class Worker(Generic[Reading]):
    """Handles the events of a queue's event source mapping, with partial batch responses."""

    def __init__(
        self,
        intake: Intake[Reading],
        database: Database,
        queue: Queue,
        dead_letters: Queue,
        logger: Logger,
    ) -> None:
        self._intake = intake
        self._database = database
        self._queue = queue
        self._dead_letters = dead_letters
        self._logger = logger

    def handle(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        """Store the messages of an event; return those that shall come again.

        A message leaves the queue when its readings are committed, or when it can never be stored
        and is among the dead letters, with the reason.
        """
        self._logger.append_keys(request_id=context.aws_request_id)
        again: list[Record] = []
        received: list[Received[Reading]] = []
        for record in event["Records"]:
            try:
                received.append(Received(record, unpack(self._intake, record["body"])))
            except MessageUnusable as error:
                again += self._bury(record, str(error))
        stored = 0
        groups = _group(received)
        for group in groups:
            try:
                again += self._store(group, context)
                stored += sum(len(entry.message.readings) for entry in group)
            except DatabaseUnavailable as error:
                self._logger.warning("messages stay in the queue", reason=str(error.__cause__))
                left = [*group, *(entry for later in groups for entry in later)]
                again += [entry.record for entry in left if not self._renew(entry.record)]
        self._logger.info("messages handled", stored=stored, again=len(again))
        return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in again]}

    def _store(self, group: Sequence[Received[Reading]], context: Any) -> list[Record]:
        """Store messages together; where their data prevent that, each by itself.

        Return those that shall come again. Raises DatabaseUnavailable, also where time is short.
        """
        readings = [reading for entry in group for reading in entry.message.readings]
        receipts = [receipt for entry in group for receipt in entry.message.receipts]
        try:
            for part in _parts(readings):
                if context.get_remaining_time_in_millis() < ENOUGH_TIME:
                    raise DatabaseUnavailable from TimeoutError("no time is left to store them in")
                self._intake.store_many(self._database, readings[part], receipts[part])
        except psycopg.DataError as error:
            if len(group) == 1:
                return self._bury(group[0].record, f"PostgreSQL refuses it: {error}")
            return [record for entry in group for record in self._store([entry], context)]
        return []

    def _bury(self, record: Record, reason: str) -> list[Record]:
        """Put a message among the dead letters; return it where that does not work now."""
        try:
            self._dead_letters.send(record["body"], {"reason": reason})
        except QueueUnavailable as error:
            self._logger.error("a dead letter stays in the queue", reason=str(error.__cause__))
            return [record]
        self._logger.error(
            "a message went to the dead letters", message_id=record["messageId"], reason=reason
        )
        return []

    def _renew(self, record: Record) -> bool:
        """Put a message that came often on the queue anew; return whether it was.

        If the worker ends before the old one is deleted, both come: the receipts are the same.
        """
        if int(record["attributes"]["ApproximateReceiveCount"]) < MOST_RECEIVES:
            return False
        try:
            self._queue.send(record["body"])
        except QueueUnavailable:
            return False
        return True


def _parts(readings: Sequence[Reading]) -> Iterator[slice]:
    """Yield what of the readings one transaction may take: an hour that one is in counts as one."""
    first, weight = 0, 0
    for place, reading in enumerate(readings):
        more = 1 + count_hours([reading])
        if weight and weight + more > MOST_TOGETHER:
            yield slice(first, place)
            first, weight = place, 0
        weight += more
    yield slice(first, len(readings))


def _group(received: Sequence[Received[Reading]]) -> Iterator[list[Received[Reading]]]:
    """Yield as many messages together as one transaction may take, or one that needs several."""
    group: list[Received[Reading]] = []
    count = 0
    for entry in received:
        if group and count + len(entry.message.readings) > MOST_TOGETHER:
            yield group
            group, count = [], 0
        group.append(entry)
        count += len(entry.message.readings)
    if group:
        yield group
