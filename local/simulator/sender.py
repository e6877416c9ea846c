"""Sends readings as devices do: a device's in order, and again where no answer came."""

import http.client
import json
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

TRIES = 7
TIMEOUT_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
LONGEST_RETRY_AFTER_SECONDS = 30.0
# So many readings lost in a row by each client are an outage, not bad luck.
MOST_FAILED_IN_A_ROW = 3

_ENERGY = {"meter": "kwhConsumedAc", "vehicle": "kwhDeliveredDc"}


class Reading(NamedTuple):
    """What a device measured; `kwh` is the energy of the interval that ends at `time`."""

    stream: str
    kind: Literal["meter", "vehicle"]
    device_id: str
    time: datetime
    kwh: float
    others: dict[str, float]

    @property
    def message(self) -> dict[str, Any]:
        """The reading as the API takes it."""
        return {
            f"{self.kind}Id": self.device_id,
            _ENERGY[self.kind]: self.kwh,
            **self.others,
            "timestamp": rfc3339(self.time),
        }


@dataclass
class DeviceCount:
    """What became of one device's readings; `kwh` is the energy of the accepted ones."""

    stream: str
    accepted: int = 0
    refused: int = 0
    failed: int = 0
    kwh: float = 0.0


@dataclass
class Tally:
    """What became of all readings, by device id; `messages` says why some were not taken."""

    devices: dict[str, DeviceCount] = field(default_factory=dict)
    messages: Counter[str] = field(default_factory=Counter)
    done: int = 0
    tried_again: int = 0
    gave_up: bool = False


class Unanswered(Exception):
    """No answer that settles the request, after as many tries as a device makes."""


class System(NamedTuple):
    """Where a system answers, and the bearer token that it is asked with (empty: none)."""

    url: str
    token: str = ""


class Client:
    """One connection, kept alive between requests."""

    def __init__(self, system: System, stop: threading.Event | None = None) -> None:
        parts = urlsplit(system.url)
        self._headers = {"Content-Type": "application/json"}
        if system.token:
            self._headers["Authorization"] = f"Bearer {system.token}"
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = kind(parts.netloc, timeout=TIMEOUT_SECONDS)
        self._base = parts.path.rstrip("/")
        self._stop = stop or threading.Event()
        self.tried_again = 0

    def request(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        """Return the status and body of the answer; raise Unanswered where none comes."""
        reason = ""
        for attempt in range(TRIES):
            self.tried_again += attempt > 0
            retry_after = 0.0
            try:
                self._connection.request(method, self._base + path, body, self._headers)
                answer = self._connection.getresponse()
                content = answer.read()
                if answer.status < 500 and answer.status != 429:
                    return answer.status, content
                reason = f"HTTP {answer.status} {_message(content)}"
                retry_after = _seconds(answer.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                reason = f"{type(error).__name__}: {error}"
            if attempt + 1 < TRIES and self._stop.wait(max(retry_after, _pause(attempt))):
                break
        raise Unanswered(reason)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def send(
    lanes: Iterable[Iterator[Reading]],
    system: System,
    clients: int,
    show: Callable[[int], None],
    due: Callable[[Reading], float] | None = None,
) -> Tally:
    """Send every lane's readings in the lane's order, as many lanes at a time as there are clients.

    A device belongs to one lane. `show` is told how many readings are done; `due` says how many
    seconds after the beginning a reading is to be sent (None: as fast as the system takes them).
    """
    run = _Run(system, due, MOST_FAILED_IN_A_ROW * clients)
    for lane in lanes:
        run.lanes.put(lane)
    tallies = [Tally() for _ in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(run.send_lanes, tally) for tally in tallies]
        waiting = set(futures)
        try:
            while waiting and not any(future.exception() for future in set(futures) - waiting):
                waiting = wait(waiting, timeout=0.1, return_when=FIRST_EXCEPTION).not_done
                show(sum(tally.done for tally in tallies))
        finally:
            run.stop.set()
    for future in futures:
        future.result()
    total = Tally(gave_up=run.failed_in_a_row >= run.most_failed)
    for tally in tallies:
        total.devices |= tally.devices
        total.messages += tally.messages
        total.done += tally.done
        total.tried_again += tally.tried_again
    return total


class _Run:
    def __init__(
        self, system: System, due: Callable[[Reading], float] | None, most_failed: int
    ) -> None:
        self.system = system
        self.due = due
        self.most_failed = most_failed
        self.lanes: queue.SimpleQueue[Iterator[Reading]] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.failed_in_a_row = 0
        self.began = time.monotonic()

    def send_lanes(self, tally: Tally) -> None:
        client = Client(self.system, self.stop)
        try:
            while True:
                for reading in self.lanes.get_nowait():
                    if self.due and self.stop.wait(
                        self.began + self.due(reading) - time.monotonic()
                    ):
                        return
                    if self.stop.is_set():
                        return
                    self._send(reading, client, tally)
        except queue.Empty:
            return
        finally:
            tally.tried_again = client.tried_again
            client.close()

    def _send(self, reading: Reading, client: Client, tally: Tally) -> None:
        count = tally.devices.setdefault(reading.device_id, DeviceCount(reading.stream))
        path = f"/v1/ingestion/{reading.kind}"
        try:
            status, answer = client.request("POST", path, json.dumps(reading.message))
        except Unanswered as unanswered:
            count.failed += 1
            tally.messages[f"failed: {unanswered}"] += 1
            self.failed_in_a_row += 1
            if self.failed_in_a_row >= self.most_failed:
                self.stop.set()
        else:
            self.failed_in_a_row = 0
            if status in {201, 202}:
                count.accepted += 1
                count.kwh += reading.kwh
            else:
                count.refused += 1
                tally.messages[f"refused: HTTP {status} {_message(answer)}"] += 1
        tally.done += 1


def rfc3339(moment: datetime) -> str:
    """Return an aware time in UTC, as the API's clients write it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _pause(attempt: int) -> float:
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**attempt)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - clients must not come back as one


def _seconds(retry_after: str | None) -> float:
    if retry_after and retry_after.isdecimal():
        return min(float(retry_after), LONGEST_RETRY_AFTER_SECONDS)
    return 0.0


def _message(content: bytes) -> str:
    try:
        answer = json.loads(content)
        fields = "; ".join(f"{entry['field']}: {entry['message']}" for entry in answer["errors"])
        return f"{answer['message']}: {fields}"
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")
