"""Compares what was acknowledged with what is stored, reading by reading."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import psycopg
from psycopg import sql

from faults.injections import Poison
from faults.load import Key, Request, Sent
from local.queues import DeadLetter, Depth
from telemetry.database import Row
from telemetry.streams import STREAMS

# A device waits this long without a thought (seconds).
SOON = 1.0
_ENERGIES = {stream.name: stream.energy.name for stream in STREAMS.values()}
# Of one kind of mistake, how many are told.
MOST_EXAMPLES = 5


class Stored(NamedTuple):
    """A reading in history: its lowest and highest energy, or register, and its receipts.

    Where it is voided it is beside history.
    """

    least_kwh: float
    most_kwh: float
    receipts: int
    voided: bool = False


@dataclass
class Verdict:
    """What became of the readings that were first sent during one fault."""

    fault: str
    readings: int = 0
    stored_at_once: int = 0
    queued: int = 0
    refused: int = 0
    stored: int = 0
    # Acknowledged, and gone with its device.
    erased: int = 0
    # Acknowledged and not in history, or beside it, with its values.
    lost: int = 0
    # More receipts in history than requests that carried it.
    doubled: int = 0
    # Refused or erased and stored all the same, valid and refused, not valid and acknowledged, or
    # voided and counted or the other way round.
    wrong: int = 0
    requests: int = 0
    soon: int = 0
    # Of a request, in seconds: as its device saw it, and of that in the API.
    longest: float = 0.0
    longest_handling: float = 0.0
    examples: list[str] = field(default_factory=list)


def read_stored(connection: psycopg.Connection[Row]) -> dict[Key, Stored]:
    """Return everything that is in history, and beside it.

    A register that is stored anew, a microsecond later, because the one before it came late is no
    receipt.
    """
    statement = sql.SQL(
        """SELECT {device}, "timestamp", min(told)::float, max(told)::float,
                  count(*) FILTER (WHERE restated IS NOT TRUE)
           FROM (
               SELECT *, coalesce(register_kwh, {kwh}) AS told,
                      register_kwh = lag(register_kwh) OVER reading
                      AND received_at = lag(received_at) OVER reading + interval '1 microsecond'
                      AS restated
               FROM {table}
               WINDOW reading AS (PARTITION BY {device}, "timestamp" ORDER BY received_at)
           ) AS receipt
           GROUP BY 1, 2"""
    )
    stored: dict[Key, Stored] = {}
    for stream, kwh in _ENERGIES.items():
        for table, voided in (("telemetry_history", False), ("void_receipt", True)):
            rows = connection.execute(
                statement.format(
                    device=sql.Identifier(f"{stream}_id"),
                    kwh=sql.Identifier(kwh),
                    table=sql.Identifier(f"{stream}_{table}"),
                )
            )
            for device, time, least, most, receipts in rows:
                stored[Key(stream, device, time)] = Stored(least, most, receipts, voided)
    return stored


def judge_registers(connection: psycopg.Connection[Row], devices: Sequence[str]) -> list[str]:
    """Return which devices have other energy in their sums than their registers have grown by."""
    statement = sql.SQL(
        """SELECT {device}, max(register_kwh) - min(register_kwh),
                  (SELECT sum({kwh}) FROM {rollup} summed WHERE summed.{device} = told.{device})
           FROM {history} told
           WHERE {device} = ANY (%s) GROUP BY 1"""
    )
    wrong, told = [], set()
    for stream, kwh in _ENERGIES.items():
        rows = connection.execute(
            statement.format(
                device=sql.Identifier(f"{stream}_id"),
                kwh=sql.Identifier(kwh),
                rollup=sql.Identifier(f"{stream}_hourly_rollup"),
                history=sql.Identifier(f"{stream}_telemetry_history"),
            ),
            (list(devices),),
        )
        for device, grown, total in rows:
            told.add(device)
            if grown != total:
                wrong.append(f"{device}: its register has grown by {grown} kWh, it has {total} kWh")
    return wrong + [f"{device} has told no register" for device in sorted({*devices} - told)]


def judge(
    faults: Sequence[str], sent: Sequence[Sent], stored: Mapping[Key, Stored]
) -> list[Verdict]:
    """Return for each fault what became of its readings."""
    verdicts = {fault: Verdict(fault) for fault in faults}
    for reading in sent:
        verdict = verdicts[reading.fault]
        verdict.readings += 1
        verdict.stored_at_once += reading.answer == 201
        verdict.queued += reading.answer == 202
        verdict.refused += reading.answer in {400, 503}
        found = stored.get(reading.key)
        verdict.stored += found is not None
        verdict.erased += reading.erased and reading.answer in {201, 202} and found is None
        for mistake in _mistakes(reading, found):
            setattr(verdict, mistake, getattr(verdict, mistake) + 1)
            if getattr(verdict, mistake) <= MOST_EXAMPLES:
                verdict.examples.append(
                    f"{verdict.fault}: {mistake}: {reading.key.device} {reading.key.time:%FT%TZ}, "
                    f"{reading.kwh} kWh, sent {reading.attempts} times, "
                    f"answered {reading.answer}, in history: {found}"
                )
    return list(verdicts.values())


def judge_requests(
    verdicts: Sequence[Verdict], requests: Sequence[Request], handling: Mapping[str, float]
) -> None:
    """Add to the verdicts how long requests took; handling has the API's seconds by their ids."""
    by_fault = {verdict.fault: verdict for verdict in verdicts}
    for request in requests:
        verdict = by_fault[request.fault]
        verdict.requests += 1
        verdict.soon += request.seconds <= SOON
        verdict.longest = max(verdict.longest, request.seconds)
        handled = handling.get(request.id or "", 0.0)
        verdict.longest_handling = max(verdict.longest_handling, handled)


def _mistakes(reading: Sent, found: Stored | None) -> Iterator[str]:
    acknowledged = reading.answer in {201, 202}
    if acknowledged != reading.valid and reading.answer != 503:
        yield "wrong"
    if reading.erased:
        if found is not None:
            yield "wrong"
        return
    if found is None:
        if acknowledged:
            yield "lost"
        return
    if not acknowledged or found.voided != reading.voided:
        yield "wrong"
    if (found.least_kwh, found.most_kwh) != (reading.kwh, reading.kwh):
        yield "lost"
    if found.receipts > reading.attempts:
        yield "doubled"


def find_strangers(sent: Sequence[Sent], stored: Mapping[Key, Stored]) -> list[str]:
    """Return what is in history and was sent by nobody."""
    strangers = stored.keys() - {reading.key for reading in sent}
    return [f"in history, sent by nobody: {key}" for key in sorted(strangers)[:MOST_EXAMPLES]]


def judge_queues(
    depths: Sequence[Depth], letters: Sequence[DeadLetter], poisons: Sequence[Poison]
) -> list[str]:
    """Return in what the queues are not empty, and their dead letters not the poison."""
    wrong = [
        f"{depth.queue} is not empty: {depth.waiting} waiting, {depth.in_flight} in flight"
        for depth in depths
        if depth.waiting or depth.in_flight
    ]
    poison_of = {(poison.queue, poison.body): poison for poison in poisons}
    left, others = set(poisons), []
    for letter in letters:
        poison = poison_of.get((letter.queue, letter.body))
        if poison is None:
            others.append(letter)
            continue
        left.discard(poison)  # it may come twice, as any message may
        if poison.reason not in letter.reason:
            wrong.append(f"a dead letter of {letter.queue} says {letter.reason!r}")
    if others:
        wrong.append(f"{len(others)} dead letters are no poison")
    wrong += [
        f"a dead letter of {letter.queue} that is no poison, {letter.reason}: {letter.body[:200]}"
        for letter in others[:MOST_EXAMPLES]
    ]
    return wrong + [f"a poison message is not among the dead letters: {poison}" for poison in left]
