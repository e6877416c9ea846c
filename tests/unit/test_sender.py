"""Sending as devices do, to a peer that answers, refuses, stumbles or stays silent."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from local.simulator import sender
from local.simulator.sender import Reading, System, Tally, send

START = datetime(2026, 2, 10, 10, tzinfo=UTC)
TAKEN = (201, b"{}")
Answer = tuple[int, bytes] | None


class Peer:
    """A server that answers what it is told to; None: it hangs up without an answer."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any], int], Answer] = lambda _message, _times: TAKEN
        self.received: list[dict[str, Any]] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                message = json.loads(body)
                peer.received.append(message)
                answer = peer.answer(message, peer.received.count(message))
                if answer is None:
                    self.close_connection = True
                    return
                status, content = answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if status == 503:
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    monkeypatch.setattr(sender, "FIRST_PAUSE_SECONDS", 0.001)
    peer = Peer()
    serving = threading.Thread(target=peer.server.serve_forever, args=(0.01,))
    serving.start()
    yield peer
    peer.server.shutdown()
    serving.join()
    peer.server.server_close()


def readings(device_id: str, count: int) -> Iterator[Reading]:
    for minute in range(1, count + 1):
        time = START + timedelta(minutes=minute)
        yield Reading("chargers AC", "meter", device_id, time, 0.25, {"voltage": 400})


def send_all(url: str, devices: int, count: int, clients: int = 2) -> Tally:
    lanes = [readings(f"METER-{number}", count) for number in range(devices)]
    return send(lanes, System(url), clients, lambda _done: None)


def test_a_device_sends_all_its_readings_in_order(peer: Peer) -> None:
    tally = send_all(peer.url, devices=5, count=20)
    assert tally.done == 100
    for number in range(5):
        device = f"METER-{number}"
        count = tally.devices[device]
        assert (count.accepted, count.refused, count.failed, count.kwh) == (20, 0, 0, 5.0)
        sent = [message for message in peer.received if message["meterId"] == device]
        assert sent == [reading.message for reading in readings(device, 20)]


@pytest.mark.parametrize("stumble", [None, (500, b"oops"), (503, b"{}"), (429, b"")])
def test_a_reading_without_a_settling_answer_is_sent_again(peer: Peer, stumble: Answer) -> None:
    peer.answer = lambda _message, times: TAKEN if times == 3 else stumble
    tally = send_all(peer.url, devices=1, count=4)
    assert tally.devices["METER-0"].accepted == 4
    assert tally.devices["METER-0"].kwh == 1.0
    assert tally.tried_again == 8
    assert len(peer.received) == 12


def test_a_refused_reading_is_not_sent_again_and_says_why(peer: Peer) -> None:
    refusal = {"message": "Validation failed", "errors": [{"field": "voltage", "message": "no"}]}
    first = next(readings("METER-0", 1)).message

    def answer(message: dict[str, Any], _times: int) -> Answer:
        return (400, json.dumps(refusal).encode()) if message == first else TAKEN

    peer.answer = answer
    tally = send_all(peer.url, devices=1, count=3)
    count = tally.devices["METER-0"]
    assert (count.accepted, count.refused, count.kwh) == (2, 1, 0.5)
    assert tally.messages == {"refused: HTTP 400 Validation failed: voltage: no": 1}
    assert len(peer.received) == 3


def test_a_reading_that_is_never_answered_fails_and_the_next_is_sent(peer: Peer) -> None:
    first = next(readings("METER-0", 1)).message
    peer.answer = lambda message, _times: None if message == first else TAKEN
    tally = send_all(peer.url, devices=1, count=3)
    count = tally.devices["METER-0"]
    assert (count.accepted, count.failed) == (2, 1)
    assert peer.received.count(first) == sender.TRIES
    assert not tally.gave_up


def test_an_outage_ends_the_run(peer: Peer) -> None:
    peer.answer = lambda _message, _times: (500, b"")
    tally = send_all(peer.url, devices=4, count=1000)
    assert tally.gave_up
    assert tally.done < 20
    assert sum(count.failed for count in tally.devices.values()) == tally.done


def test_a_paced_reading_is_sent_when_it_is_due(peer: Peer) -> None:
    began = datetime.now(UTC)
    arrived: list[float] = []

    def answer(_message: dict[str, Any], _times: int) -> Answer:
        arrived.append((datetime.now(UTC) - began).total_seconds())
        return TAKEN

    peer.answer = answer
    send(
        [readings("METER-0", 3)],
        System(peer.url),
        1,
        lambda _done: None,
        lambda reading: (reading.time - START).total_seconds() / 600,
    )
    assert len(arrived) == 3
    assert all(time >= due for time, due in zip(arrived, [0.1, 0.2, 0.3], strict=True))


def test_a_broken_source_of_readings_is_not_hidden(peer: Peer) -> None:
    def broken() -> Iterator[Reading]:
        yield from readings("METER-0", 1)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        send([broken()], System(peer.url), 2, lambda _done: None)
