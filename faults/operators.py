"""Ops beside the load: they void readings, have devices erased, change prices, and maintain."""

import http.client
import json
import random
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from faults.load import ERASED, Load
from faults.system import System
from telemetry.archive import Archive
from telemetry.bucket import Bucket
from telemetry.database import connect
from telemetry.eraser import Eraser
from telemetry.rules import Rules
from telemetry.summaries import refresh_summaries

PAUSE_SECONDS = 0.2
RETRY_SECONDS = 0.5
ANSWER_SECONDS = 10
# After the load nothing is broken any more: by then what they ask is done.
SETTLE_SECONDS = 60
SAID = {"by": "make faults", "why": "It is done while things break"}


class Operators:
    """Two threads: one asks by HTTP, until it has an answer, the other does the maintenance.

    complaints -- answers that nobody should get
    done -- how often each thing was answered as it should be
    """

    def __init__(self, system: System, load: Load) -> None:
        self._system = system
        self._load = load
        self._order = random.Random("operators")
        self._stopping = threading.Event()
        self._to_erase: list[str] = []
        self.complaints: list[str] = []
        self.done = dict.fromkeys(("voided", "withdrawn", "priced", "erased", "maintained"), 0)
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._ask_on, self._maintain_on)
        ]

    def declare(self) -> None:
        """Say which devices report registers, before they do."""
        for device in self._load.registers:
            self._ask("PUT", f"/v1/devices/{device}", {"energy": "register"}, {200, 201})

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def erase(self, device: str) -> None:
        """Have a device erased, of which all that was sent has its answer."""
        self._to_erase.append(device)

    def stop(self) -> None:
        """Return when everything that was asked is done. The queues are empty."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(SETTLE_SECONDS)
            if thread.is_alive():
                self.complaints.append("operators got no answer after all faults")
        with suppress(psycopg.Error):
            self._maintain()
        with connect(self._maintain_url()) as connection:
            waiting = Eraser(connection, Archive(connection, Bucket("unused"))).count()
        if waiting:
            self.complaints.append(f"{waiting} erasures are not done")

    def _ask_on(self) -> None:
        while not self._stopping.wait(PAUSE_SECONDS) or self._to_erase:
            if self._to_erase:
                self._ask("POST", "/v1/erasures", {"vehicleId": self._to_erase[0]} | SAID, {202})
                self._to_erase.pop(0)
                self.done["erased"] += 1
            self._void_one()
            since = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=self._order.randrange(3))
            tariff = {
                "currency": "EUR",
                "timeZone": "Europe/Berlin",
                "pricePerKwh": self._order.randrange(50) / 100,
                "validFrom": since.isoformat(),
            }
            self._ask("PUT", "/v1/tariffs/fleet", tariff, {200, 201})
            self.done["priced"] += 1

    def _void_one(self) -> None:
        """Void a reading that was answered 201, and count every other one again."""
        count = len(self._load.sent)
        reading = self._load.sent[self._order.randrange(count)] if count else None
        if reading is None or reading.answer != 201 or ERASED in reading.key.device:
            return
        body = {
            f"{reading.key.stream}Id": reading.key.device,
            "timestamp": reading.key.time.isoformat(),
            **SAID,
        }
        self._ask("POST", "/v1/voids", body, {200, 201})
        self.done["voided"] += 1
        reading.voided = True
        if self._order.random() < 0.5:
            self._ask("POST", "/v1/voids/withdrawals", body, {200})
            self.done["withdrawn"] += 1
            reading.voided = False

    def _ask(self, method: str, path: str, body: object, wanted: set[int]) -> None:
        """Ask until there is an answer that is not 503."""
        while True:
            status, answer = self._send(method, path, body)
            if status not in {None, 503}:
                break
            time.sleep(RETRY_SECONDS)
        if status not in wanted:
            self.complaints.append(f"{method} {path} {body} was answered {status} {answer}")

    def _send(self, method: str, path: str, body: object) -> tuple[int | None, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._load.port, ANSWER_SECONDS)
        headers = {"Content-Type": "application/json", "Connection": "close"}
        try:
            connection.request(method, path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            return None, None
        finally:
            connection.close()

    def _maintain_on(self) -> None:
        while not self._stopping.wait(1):
            with suppress(psycopg.Error):
                self._maintain()
                self.done["maintained"] += 1

    def _maintain(self) -> None:
        """Make the fleet's window and erase, as a run of the maintenance that may break."""
        with connect(self._maintain_url()) as connection:
            refresh_summaries(connection, datetime.now(UTC), Rules())
            Eraser(connection, Archive(connection, Bucket("unused"))).erase(lambda: True)

    def _maintain_url(self) -> str:
        return self._system.database.urls(self._system.database_relay.port).maintain
