"""Devices and gateways that send uniquely numbered readings, and send again what was not taken."""

import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from local import LocalError

# The reading with number n has the device time START + n s and carries n Wh.
START = datetime.now(UTC).replace(microsecond=0) - timedelta(days=10)
# One in so many cannot be taken: the voltage of a mains line that was never built, a battery afire.
INVALID = 20

ANSWER_SECONDS = 10
RETRY_SECONDS = 0.5
# What devices are named by that report a running register, and that are erased after a fault.
REGISTER = "-R"
ERASED = "-GONE"
# How long it may take after a fault until every reading has its answer.
SETTLE_SECONDS = 60


class Key(NamedTuple):
    """What a reading is known by."""

    stream: str
    device: str
    time: datetime


@dataclass
class Sent:
    """A reading, during which fault it was first sent, and what became of it."""

    key: Key
    fault: str
    kwh: float
    valid: bool
    # How often it was sent; each time may leave a receipt in history.
    attempts: int = 0
    # 201, 202 or 400; 503 where the device gave up after that.
    answer: int | None = None
    # By ops, who have not counted it again.
    voided: bool = False

    @property
    def erased(self) -> bool:
        """Whether nothing may be left of its device."""
        return ERASED in self.key.device

    @property
    def body(self) -> dict[str, Any]:
        """The reading as JSON."""
        time = self.key.time.isoformat()
        if self.key.stream == "meter":
            values = {"kwhConsumedAc": self.kwh, "voltage": 230 if self.valid else 2300}
            return {"meterId": self.key.device, "timestamp": time, **values}
        temperature = 25 if self.valid else 900
        values = {"kwhDeliveredDc": self.kwh, "batteryTemp": temperature, "soc": 50}
        return {"vehicleId": self.key.device, "timestamp": time, **values}


class Request(NamedTuple):
    """A request: its id and its status (None: no answer), and how long its device waited (s)."""

    fault: str
    id: str | None
    status: int | None
    seconds: float


class Answer(NamedTuple):
    """What came back: all None where nothing did."""

    status: int | None = None
    id: str | None = None
    retry_after: str | None = None
    body: Any = None


class Load:
    """Everything that was sent, and who sends it.

    complaints -- answers that no client can work with
    gives_up -- whether devices let a reading go that is answered 503 at first: nobody took it then
    fault -- what happens now
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.sent: list[Sent] = []
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        self.gives_up = False
        self.fault = ""
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()
        self._clients = [
            Client(self, stream, f"FAULT-{stream[0].upper()}{number}", most)
            for stream in ("meter", "vehicle")
            for number, most in enumerate((1, 1, 1, 100))
        ]
        self.registers = [f"FAULT-{stream[0].upper()}{REGISTER}" for stream in ("meter", "vehicle")]
        self._clients += [
            Client(self, stream, name, 1)
            for stream, name in zip(("meter", "vehicle"), self.registers, strict=True)
        ]
        self._gone = itertools.count()

    @contextmanager
    def during(self, fault: str) -> Iterator[str]:
        """Send until the block ends, and then until every reading has an answer.

        Yields the name of a vehicle that reports during this fault alone. Raises LocalError where
        a reading gets no answer.
        """
        self.fault = fault
        self._stopping.clear()
        gone = f"FAULT{ERASED}-{next(self._gone)}"
        clients = [*self._clients, Client(self, "vehicle", gone, 1)]
        threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        try:
            yield gone
        finally:
            self._stopping.set()
        # Not by the clock: a machine that was asleep gets its time.
        for _ in range(SETTLE_SECONDS * 10):
            if not any(thread.is_alive() for thread in threads):
                return
            time.sleep(0.1)
        raise LocalError(f"{fault}: readings got no answer {SETTLE_SECONDS} s after the end")

    def rests(self, seconds: float) -> bool:
        """Wait; return whether nothing new is to be sent any more."""
        return self._stopping.wait(seconds)

    def saw(self, status: int) -> bool:
        """Return whether a request was answered so since what happens now began."""
        return any((one.fault, one.status) == (self.fault, status) for one in self.requests)

    def make(self, stream: str, device: str) -> Sent:
        """Return the next reading of a device."""
        number = next(self._numbers)
        key = Key(stream, device, START + timedelta(seconds=number))
        reading = Sent(key, self.fault, number / 1000, valid=number % INVALID != 0)
        self.sent.append(reading)
        return reading


class Client:
    """A device that sends one reading at a time, or a gateway that sends up to `most`."""

    def __init__(self, load: Load, stream: str, name: str, most: int) -> None:
        self._load = load
        self._stream = stream
        self._name = name
        self._most = most
        self._order = random.Random(name)

    def run(self) -> None:
        """Send readings until the load ends."""
        while not self._load.rests(0.02 if self._most == 1 else 0.2):
            devices = [self._name]
            if self._most > 1:
                count = self._order.randint(1, self._most)
                devices = [f"{self._name}-{number % 30}" for number in range(count)]
                self._order.shuffle(devices)
            self._deliver([self._load.make(self._stream, device) for device in devices])

    def _deliver(self, readings: list[Sent]) -> None:
        """Send readings again and again until each has an answer."""
        while readings:
            gives_up = self._load.gives_up
            statuses, pause = self._send(readings)
            for reading, status in zip(readings, statuses, strict=True):
                gone = status == 503 and reading.attempts == 1 and gives_up
                if status in {201, 202, 400} or gone:
                    reading.answer = status
            readings = [reading for reading in readings if reading.answer is None]
            if readings:
                time.sleep(pause * self._order.uniform(0.75, 1.25))

    def _send(self, readings: Sequence[Sent]) -> tuple[list[int | None], float]:
        """Send readings once; return the status of each and when to send again (seconds)."""
        began, fault = time.monotonic(), self._load.fault
        for reading in readings:
            reading.attempts += 1
        bodies = [reading.body for reading in readings]
        answer = self._post(bodies if self._most > 1 else bodies[0])
        status, seconds = answer.status, time.monotonic() - began
        self._load.requests.append(Request(fault, answer.id, status, seconds))
        if status not in {None, 201, 202, 207, 400, 503}:
            self._complain(f"{status} {answer.body}")
        if status == 503 and not answer.retry_after:
            self._complain("503 without Retry-After")
        statuses = [status] * len(readings)
        if self._most > 1 and status in {201, 202, 207}:
            taken = {"stored": 201, "queued": 202}[answer.body["status"]]
            statuses = [taken] * len(readings)
            for item in answer.body["rejections"]:
                statuses[item["index"]] = item["status"]
            if answer.body["accepted"] != statuses.count(taken):
                self._complain(f"items that do not add up: {answer.body}")
        return statuses, float(answer.retry_after or RETRY_SECONDS)

    def _post(self, body: object) -> Answer:
        path = f"/v1/ingestion/{self._stream}{'/batch' if self._most > 1 else ''}"
        headers = {"Content-Type": "application/json", "Connection": "close"}
        # Each time anew, as a device does that sends once a minute. (A connection that stays would
        # stay with one process of the API, and wait while others are free.)
        connection = http.client.HTTPConnection("127.0.0.1", self._load.port, ANSWER_SECONDS)
        try:
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            request_id = answer.getheader("apigw-requestid")
            retry_after = answer.getheader("Retry-After")
            return Answer(answer.status, request_id, retry_after, json.loads(answer.read()))
        except (OSError, http.client.HTTPException, ValueError):
            return Answer()
        finally:
            connection.close()

    def _complain(self, complaint: str) -> None:
        self._load.complaints.append(f"{self._load.fault}: {self._name} was answered {complaint}")
