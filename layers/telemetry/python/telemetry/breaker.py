"""A circuit breaker: after a failure, no attempt for a while."""

import random
import time

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0


class CircuitBreaker:
    """Opens at a failure; lets one attempt through after a pause; closes when that succeeds.

    An execution environment handles one event at a time, so one attempt is all there can be. Each
    further failure doubles the pause, so that many environments do not pay for a long outage over
    and over, and do not all come back at once.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._next_attempt = 0.0

    def allows(self) -> bool:
        """Return whether an attempt should be made now."""
        return time.monotonic() >= self._next_attempt

    def fail(self) -> None:
        """Note that the attempt failed."""
        pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
        self._failures += 1
        self._next_attempt = time.monotonic() + random.uniform(0.75, 1.25) * pause  # noqa: S311

    def succeed(self) -> None:
        """Note that the attempt succeeded."""
        self._failures = 0
        self._next_attempt = 0.0
