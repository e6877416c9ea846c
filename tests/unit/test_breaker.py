"""When the circuit breaker lets an attempt through."""

import pytest

from telemetry.breaker import FIRST_PAUSE, LONGEST_PAUSE, CircuitBreaker


class Clock:
    now = 1_000.0

    def read(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("telemetry.breaker.time.monotonic", made.read)
    return made


def pause_after_failure(breaker: CircuitBreaker, clock: Clock) -> float:
    breaker.fail()
    began = clock.now
    while not breaker.allows():
        clock.now += 0.01
    return clock.now - began


def test_it_is_closed_until_something_fails(clock: Clock) -> None:
    breaker = CircuitBreaker()
    assert breaker.allows()
    breaker.succeed()
    assert breaker.allows()
    breaker.fail()
    assert not breaker.allows()
    clock.now += FIRST_PAUSE * 2
    assert breaker.allows()


def test_each_failure_doubles_the_pause_up_to_a_longest(clock: Clock) -> None:
    breaker = CircuitBreaker()
    pauses = [pause_after_failure(breaker, clock) for _ in range(8)]
    for number, pause in enumerate(pauses):
        meant = min(FIRST_PAUSE * 2**number, LONGEST_PAUSE)
        assert meant * 0.75 <= pause <= meant * 1.25 + 0.02
    breaker.succeed()
    assert pause_after_failure(breaker, clock) <= FIRST_PAUSE * 1.25 + 0.02
