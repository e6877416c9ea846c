"""How many readings a device may send."""

from collections.abc import Mapping

# Devices that are remembered before those with a full bucket are forgotten: a megabyte.
_MOST_KEPT = 10_000


class DeviceLimit:
    """A token bucket for each device, in the memory of one execution environment.

    A device whose bucket is not empty may send one request of any size; what it sends beyond the
    bucket is a debt that has to be paid off, at the rate, before the next is taken. So in the long
    run each environment takes no more than the rate from a device, and a backlog in one batch is
    taken whole.
    """

    def __init__(self, per_minute: float, burst: float) -> None:
        """per_minute: readings, without any limit where it is 0. burst: size of the bucket."""
        self._seconds = 60 / per_minute if per_minute else 0.0
        self._burst_seconds = burst * self._seconds
        # Until when what a device has sent is paid off. Absent or past: a full bucket.
        self._paid: dict[str, float] = {}
        self._most_kept = _MOST_KEPT

    def charge(self, counts: Mapping[str, int], now: float) -> dict[str, float]:
        """Charge devices for their numbers of readings, at a monotonic time (s).

        Return those whose readings are refused, and after how many seconds one will be taken; they
        are not charged.
        """
        if not self._seconds:
            return {}
        if len(self._paid) > self._most_kept:
            self._paid = {device: paid for device, paid in self._paid.items() if paid > now}
            self._most_kept = max(_MOST_KEPT, 2 * len(self._paid))
        refused = {}
        for device, count in counts.items():
            paid = max(self._paid.get(device, now), now)
            waits = paid - now - self._burst_seconds + self._seconds
            if waits > 0:
                refused[device] = waits
            else:
                self._paid[device] = paid + count * self._seconds
        return refused
