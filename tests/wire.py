"""A wire between clients and PostgreSQL that listens in, and that can freeze and break.

Its threads are of the test's own process: a client that holds the interpreter's lock while it waits
(psycopg's `cancel`; `cancel_safe` does not) waits for ever.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

# What a first packet can be instead of a session's startup (src/include/libpq/pqcomm.h).
CANCEL, SSL, GSSENC = 80877102, 80877103, 80877104
ENDS_REQUEST = "QS"  # Query and Sync: the server's answer to them ends with ReadyForQuery
READY_FOR_QUERY = b"Z\0\0\0\5"  # and one byte more
PASSWORD = "p"
MOST_SECONDS = 120  # ends what hangs


class Statement(NamedTuple):
    """A statement's text, and the name under which the protocol prepares it (mostly none)."""

    text: str
    prepared: str = ""


class Wire:
    """Forwards the bytes of any number of sessions unchanged, and keeps what clients asked for.

    statements -- of Query and of Parse, as they came
    messages -- the type of every message after the login: "P", "B", "D", "E", "S"
    startups -- the parameters that each session began with
    cancels -- how many cancel requests came; none is forwarded, as by RDS Proxy
    """

    def __init__(self, server_url: str) -> None:
        parts = urlsplit(server_url)
        self._server = (parts.hostname or "", parts.port or 5432)
        self.statements: list[Statement] = []
        self.messages: list[str] = []
        self.startups: list[dict[str, str]] = []
        self.cancels = 0
        self._flowing = threading.Event()
        self._flowing.set()
        self._forwarded = 0
        self._traps: dict[int, tuple[Callable[[], None], bool]] = {}
        self._holds: dict[str, threading.Event] = {}
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = self.lead(server_url)
        self._start(self._accept)

    def lead(self, url: str) -> str:
        """Return any URL of the same server, led through this wire."""
        return at_port(url, self._listener.getsockname()[1])

    def freeze(self) -> None:
        """Forward nothing more; connections stay open, and new ones get no answer."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Forward what was held back, and what comes."""
        self._flowing.set()

    def cut(self) -> None:
        """Break every connection, with what is held back; new ones pass."""
        for end in list(self._open):
            _shut(end)
        self.thaw()

    def trap(self, message: int, act: Callable[[], None], *, delivered: bool) -> None:
        """Act once (cut, freeze) at the n-th message from now: before the server has it, or after.

        A statement is five: Parse, Bind, Describe, Execute, Sync. After the last of a request means
        after the server has answered it, of which the client has seen nothing yet.
        """
        self._traps[self._forwarded + message] = (act, delivered)

    def hold(self, words: str) -> threading.Event:
        """Freeze before the server has the next statement with these words; return what tells."""
        return self._holds.setdefault(words, threading.Event())

    def close(self) -> None:
        _shut(self._listener)
        self.cut()
        for thread in self._threads:
            thread.join(MOST_SECONDS)

    def _start(self, target: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        with self._listener, suppress(OSError):
            while True:
                self._start(self._serve, self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        self._open.add(client)
        with client, client.makefile("rb") as stream, suppress(OSError):
            if startup := self._read_startup(client, stream):
                with socket.create_connection(self._server) as server:
                    self._open.add(server)
                    self._connect(client, stream, server, startup)
                self._open.discard(server)
        self._open.discard(client)

    def _read_startup(self, client: socket.socket, stream: BinaryIO) -> bytes | None:
        while len(head := stream.read(8)) == 8:
            body = stream.read(int.from_bytes(head[:4], "big") - 8)
            code = int.from_bytes(head[4:], "big")
            if code == CANCEL:
                self.cancels += 1
                break
            if code not in {SSL, GSSENC}:
                words = body.decode().rstrip("\0").split("\0")
                self.startups.append(dict(zip(words[::2], words[1::2], strict=True)))
                return head + body
            self._forward(client, b"N")
        return None

    def _connect(
        self, client: socket.socket, stream: BinaryIO, server: socket.socket, startup: bytes
    ) -> None:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answered = threading.Event()
        answers = self._start(self._forward_answers, server, client, answered)
        with suppress(OSError):
            self._forward(server, startup)
            self._forward_messages(stream, server, answered)
        _shut(server)
        answers.join(MOST_SECONDS)

    def _forward_messages(
        self, stream: BinaryIO, server: socket.socket, answered: threading.Event
    ) -> None:
        while len(head := stream.read(5)) == 5:
            kind, body = chr(head[0]), stream.read(int.from_bytes(head[1:], "big") - 4)
            self._record(kind, body)
            act, delivered = self._traps.pop(self._forwarded, (None, False))
            if act:
                self.freeze()
            if delivered:
                answered.clear()
                server.sendall(head + body)
                if kind in ENDS_REQUEST:
                    answered.wait(MOST_SECONDS)
            if act:
                act()
            if not delivered:
                self._forward(server, head + body)

    def _forward_answers(
        self, server: socket.socket, client: socket.socket, answered: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if data[-6:-1] == READY_FOR_QUERY:
                    answered.set()
                self._forward(client, data)
        _shut(client)

    def _forward(self, to: socket.socket, data: bytes) -> None:
        self._flowing.wait()
        to.sendall(data)

    def _record(self, kind: str, body: bytes) -> None:
        if kind == PASSWORD:
            return
        self._forwarded += 1
        self.messages.append(kind)
        if kind == "Q":
            self._note(Statement(body[:-1].decode()))
        elif kind == "P":
            name, text, _ = body.split(b"\0", 2)
            self._note(Statement(text.decode(), name.decode()))

    def _note(self, statement: Statement) -> None:
        self.statements.append(statement)
        for words in [words for words in self._holds if words in statement.text]:
            self.freeze()
            self._holds.pop(words).set()


def at_port(url: str, port: int) -> str:
    """Return a URL led to a port of this machine."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # close alone would not wake the thread that reads it
