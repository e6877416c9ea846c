"""What `make faults` finds wrong, on readings and queues made up for it."""

from datetime import UTC, datetime

import pytest

from faults.checker import Stored, find_strangers, judge, judge_queues, judge_requests
from faults.injections import POISONS
from faults.load import Key, Request, Sent
from local.queues import DeadLetter, Depth

KEY = Key("meter", "FAULT-M0", datetime(2026, 2, 10, 10, tzinfo=UTC))
RIGHT = Stored(0.5, 0.5, 1)


def sent(answer: int, *, valid: bool = True, attempts: int = 1) -> Sent:
    return Sent(KEY, "storm", 0.5, valid, attempts, answer)


@pytest.mark.parametrize(
    ("reading", "stored"),
    [
        (sent(201), RIGHT),
        (sent(202), RIGHT),
        (sent(201, attempts=3), Stored(0.5, 0.5, 3)),
        (sent(503), None),
        (sent(400, valid=False), None),
    ],
)
def test_what_is_right_is_not_complained_about(reading: Sent, stored: Stored | None) -> None:
    [verdict] = judge(["storm"], [reading], {KEY: stored} if stored else {})
    assert (verdict.lost, verdict.doubled, verdict.wrong, verdict.examples) == (0, 0, 0, [])
    assert verdict.stored == (stored is not None)
    assert (verdict.stored_at_once, verdict.queued, verdict.refused) == (
        reading.answer == 201,
        reading.answer == 202,
        reading.answer in {400, 503},
    )


@pytest.mark.parametrize(
    ("device", "voided", "stored", "wrong"),
    [
        ("FAULT-M0", True, Stored(0.5, 0.5, 1, voided=True), 0),
        ("FAULT-M0", True, RIGHT, 1),
        ("FAULT-M0", False, Stored(0.5, 0.5, 1, voided=True), 1),
        ("FAULT-GONE-3", False, None, 0),
        ("FAULT-GONE-3", False, RIGHT, 1),
        ("FAULT-GONE-3", False, Stored(0.5, 0.5, 1, voided=True), 1),
    ],
)
def test_what_ops_took_away_is_where_it_should_be(
    device: str, voided: bool, stored: Stored | None, wrong: int
) -> None:
    reading = Sent(KEY._replace(device=device), "storm", 0.5, True, 1, 202, voided)
    [verdict] = judge(["storm"], [reading], {reading.key: stored} if stored else {})
    assert (verdict.lost, verdict.doubled, verdict.wrong) == (0, 0, wrong)
    assert verdict.erased == (stored is None)


@pytest.mark.parametrize(
    ("mistake", "reading", "stored"),
    [
        ("lost", sent(201), None),
        ("lost", sent(202), None),
        ("lost", sent(202), Stored(0.25, 0.25, 1)),
        ("lost", sent(202, attempts=2), Stored(0.25, 0.5, 2)),
        ("doubled", sent(202), Stored(0.5, 0.5, 2)),
        ("doubled", sent(201, attempts=2), Stored(0.5, 0.5, 3)),
        ("wrong", sent(503), RIGHT),
        ("wrong", sent(400, valid=False), RIGHT),
        ("wrong", sent(400), None),
        ("wrong", sent(201, valid=False), RIGHT),
    ],
)
def test_each_mistake_is_counted_and_told(
    mistake: str, reading: Sent, stored: Stored | None
) -> None:
    [verdict] = judge(["storm"], [reading], {KEY: stored} if stored else {})
    counts = {"lost": verdict.lost, "doubled": verdict.doubled, "wrong": verdict.wrong}
    assert counts == {"lost": 0, "doubled": 0, "wrong": 0} | {mistake: 1}
    [example] = verdict.examples
    assert example.startswith(f"storm: {mistake}: FAULT-M0 2026-02-10T10:00:00Z, 0.5 kWh, sent ")


def test_what_nobody_sent_is_told() -> None:
    other = KEY._replace(device="FAULT-M1")
    [stranger] = find_strangers([sent(201)], {KEY: RIGHT, other: RIGHT})
    assert "FAULT-M1" in stranger


def test_waiting_is_measured_as_devices_see_it() -> None:
    requests = [
        Request("storm", "a", 201, 0.5),
        Request("storm", "b", 202, 1.5),
        Request("storm", None, None, 0.1),
    ]
    [verdict] = verdicts = judge(["storm"], [], {})
    judge_requests(verdicts, requests, {"a": 0.25, "b": 0.75})
    assert (verdict.requests, verdict.soon) == (3, 2)
    assert (verdict.longest, verdict.longest_handling) == (1.5, 0.75)


def letter(poison: int, **changes: str) -> DeadLetter:
    found = {"message_id": "id", "queue": POISONS[poison].queue, "body": POISONS[poison].body}
    reason = f"{POISONS[poison].reason}: because"
    return DeadLetter(sent_at=KEY.time, **{**found, "reason": reason, **changes})


def test_queues_shall_hold_the_poison_and_nothing_else() -> None:
    letters = [letter(1), letter(0)]
    empty = Depth("MeterQueue", 0, 0, 2)
    assert judge_queues([empty], letters, POISONS) == []
    assert judge_queues([Depth("MeterQueue", 1, 2, 2)], letters, POISONS) == [
        "MeterQueue is not empty: 1 waiting, 2 in flight"
    ]
    [missing] = judge_queues([empty], letters[:1], POISONS)
    assert missing.startswith("a poison message is not among the dead letters: ")
    [count, good, missing] = judge_queues([empty], [letter(1), letter(0, body="cut")], POISONS)
    assert count == "1 dead letters are no poison"
    assert good.startswith("a dead letter of MeterQueue that is no poison, ")
    [silent] = judge_queues([empty], [letter(1), letter(0, reason="")], POISONS)
    assert silent == "a dead letter of MeterQueue says ''"
    assert judge_queues([empty], [*letters, letter(0)], POISONS) == []
