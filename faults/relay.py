"""A relay before a server of this machine, through which its clients can be cut off."""

import math
import socket
import threading
from contextlib import suppress

HOST = "127.0.0.1"
CHUNK_BYTES = 65536


class Relay:
    """Forwards connections from a port of its own to another, as long as it shall.

    broken -- how many connections asked for what is forbidden
    accepted -- how many connections came
    """

    def __init__(self, target_port: int) -> None:
        self._target = (HOST, target_port)
        self._flowing = threading.Event()
        self._forbidden: bytes | None = None
        self._times = math.inf
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.port = 0
        self.broken = self.accepted = 0
        self.admit()

    def admit(self) -> None:
        """Forward everything: the state to begin with."""
        self._flowing.set()
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server((HOST, self.port))
                self.port = self._listener.getsockname()[1]
                _start(self._accept, self._listener)

    def refuse(self) -> None:
        """Break all connections and refuse new ones, as where nobody listens."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            _shut(listener)
        self.cut()

    def swallow(self) -> None:
        """Accept connections and forward nothing, as a network that drops packets."""
        self._flowing.clear()

    def cut(self) -> int:
        """Break all connections, whatever they are doing; return how many there were."""
        with self._lock:
            ends = list(self._open)
        for end in ends:
            _shut(end)
        return len(ends) // 2

    def forbid(self, words: bytes | None, times: float = math.inf) -> None:
        """Break connections that ask for something with these words in it, at most so often."""
        self._forbidden, self._times = words, times

    def _accept(self, listener: socket.socket) -> None:
        with listener, suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.accepted += 1
                _start(self._connect, client, listener)

    def _connect(self, client: socket.socket, listener: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._target) as server:
            with self._lock:
                if self._listener is not listener:
                    return
                self._open |= {client, server}
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = _start(self._forward, server, client)
            self._forward(client, server)
            answers.join()
            with self._lock:
                self._open -= {client, server}

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                if self._forbidden and self._forbidden in data and self.broken < self._times:
                    self.broken += 1
                    break
                self._flowing.wait()
                sink.sendall(data)
        _shut(source)
        _shut(sink)


def _start(target: object, *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # close alone would not wake the thread that reads it
