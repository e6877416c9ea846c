"""The wire that other tests listen in on and break: it tells what was sent, and freezes."""

import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg
import pytest

from telemetry.database import connect
from tests.conftest import Server
from tests.wire import MOST_SECONDS, SSL, Statement, Wire

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True, scope="session")


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    opened = Wire(server.url)
    yield opened
    opened.close()


def test_it_tells_what_was_sent(wire: Wire) -> None:
    with psycopg.connect(wire.url, autocommit=True, options="-c x.y=1") as connection:
        connection.execute("SELECT 'ü'")
        connection.execute("SELECT %s::text", ("z" * 100_000,), prepare=True)
        connection.cancel_safe(timeout=MOST_SECONDS)
    simple, prepared = wire.statements
    assert simple == Statement("SELECT 'ü'")
    assert prepared.text == "SELECT $1::text"
    assert prepared.prepared
    [startup] = wire.startups
    assert (startup["user"], startup["options"]) == ("postgres", "-c x.y=1")
    assert wire.cancels == 1


def test_it_takes_messages_in_any_pieces(wire: Wire) -> None:
    words = b"user\0somebody\0database\0postgres\0\0"
    sent = [
        struct.pack("!II", 8, SSL),
        struct.pack("!II", 8 + len(words), 3 << 16) + words,
        b"Q" + struct.pack("!I", 13) + b"SELECT 1\0",
    ]
    with socket.create_connection(("127.0.0.1", urlsplit(wire.url).port or 0)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for message in sent:
            for byte in message:
                client.sendall(bytes([byte]))
        answered = b"".join(iter(lambda: client.recv(4096), b""))
    assert answered.startswith(b"NR")
    assert wire.startups == [{"user": "somebody", "database": "postgres"}]
    assert wire.statements == [Statement("SELECT 1")]


@pytest.mark.parametrize("delivered", [False, True])
def test_frozen_it_holds_back_until_thawed(wire: Wire, delivered: bool) -> None:
    with connect(wire.url) as connection, ThreadPoolExecutor(1) as pool:
        held = threading.Event()
        wire.trap(1, held.set, delivered=delivered)
        answer = pool.submit(connection.execute, "SELECT 1")
        assert held.wait(MOST_SECONDS)
        with pytest.raises(TimeoutError):
            answer.result(0.2)
        assert wire.statements == [Statement("SELECT 1")]
        wire.thaw()
        assert answer.result().fetchone() == (1,)


def test_it_holds_a_statement_by_its_words_and_others_pass(wire: Wire) -> None:
    with connect(wire.url) as connection, ThreadPoolExecutor(1) as pool:
        held = wire.hold("2")
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert not held.is_set()
        answer = pool.submit(connection.execute, "SELECT %s + 2", (1,))
        assert held.wait(MOST_SECONDS)
        assert wire.messages[-1] == "P"
        wire.thaw()
        assert answer.result().fetchone() == (3,)
        assert connection.execute("SELECT 2").fetchone() == (2,)


def test_cut_it_breaks_sessions_and_lets_new_ones_pass(wire: Wire) -> None:
    with connect(wire.url) as connection:
        wire.freeze()
        wire.cut()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with connect(wire.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
