"""Bytes on a socket that are hardly HTTP, to the system of `make run`."""

import gzip
import json
import socket
import struct

from local.server import get_health
from tests.e2e.conftest import SECONDS, LocalSystem
from tests.integration.hostile import LEAK
from tests.integration.test_validation import METER

READING = json.dumps(METER).encode()
HOST = b"Host: localhost\r\n"
MEGABYTE = 1024 * 1024


def request(
    head: str, body: bytes = b"", *headers: str, media_type: str = "application/json"
) -> bytes:
    lines = [f"{head} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    if body:
        lines += [f"Content-Type: {media_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = request("POST /ingest/meter", b"", "Transfer-Encoding: chunked", "Content-Type: text/x")
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


POST = "POST /ingest/meter"
BATCH = "POST /v1/ingestion/meter/batch"
# What is answered, where anything is; None where the connection may end without an answer.
REQUESTS: list[tuple[bytes, set[int | None]]] = [
    (request(POST, READING), {201}),
    (request(POST, READING, media_type="application/octet-stream"), {201}),
    (request(POST, gzip.compress(READING), "Content-Encoding: gzip"), {201}),
    (chunked(READING[:20], READING[20:]), {201}),
    (request(POST, READING[:-1] + b', "voltage": 1}'), {400}),
    (request(POST, READING.replace(b"METER", b"\xff")), {400}),
    (request(POST, READING.replace(b"METER", b"\xff"), media_type="x/y"), {400}),
    (request(POST, READING.replace(b"METER", b"\\ud800")), {400}),
    (request(POST, READING.replace(b"METER", b"\0")), {400}),
    (request(POST, b"[" * 10_000), {400}),
    (request(POST, b'"' + b"a" * 5 * MEGABYTE + b'"'), {413}),
    (request(BATCH, b"[" + b"[]," * MEGABYTE + b"[]]"), {400}),
    (request(BATCH, b"[" * MEGABYTE), {400}),
    (request(BATCH, gzip.compress(b" " * 100 * MEGABYTE), "Content-Encoding: gzip"), {413}),
    (request(BATCH, gzip.compress(READING)[:-9], "Content-Encoding: gzip"), {400}),
    (request(BATCH, READING, "Content-Encoding: br"), {415}),
    (request(POST, b"x" * 7 * MEGABYTE), {413, None}),
    (request("GET /", b"", *(f"X-{number}: {'x' * 100}" for number in range(90))), {200, 431}),
    (request("GET /", b"", *(f"X-{number}: x" for number in range(5_000))), {400, 431, None}),
    (request("GET /", b"", f"X: {'x' * MEGABYTE}"), {400, 431, None}),
    (request("GET /" + "a" * MEGABYTE), {400, 414, 431, None}),
    (request("GET /v1/live/meters/" + "a" * 8_000), {400, 404, 414, 431}),
    (request("GET /v1/live/meters/%00"), {400, 404}),
    (request("GET /v1/live/meters/%ff%fe"), {400, 404}),
    (request("GET /v1/live/meters/..%2f..%2fetc%2fpasswd"), {400, 404}),
    (request("GET /v1/live/meters?cursor=%ff%00"), {400}),
    (request("GET /v1/live/meters?limit=1&limit=2"), {400}),
    (request("GET //v1//live/meters"), {404}),
    (request("GET /\xff"), {400, 404, None}),
    (request("DELETE /v1/links/%27%20OR%201%3D1"), {400, 404}),
    (request("BREW /coffee"), {400, 404, 405}),
    (request("GET http://elsewhere.example/"), {200, 400, 404}),
    (b"GET / HTTP/1.1\r\n\r\n", {200, 400, None}),
    (b"GET / HTTP/9.9\r\n" + HOST + b"\r\n", {400, 505, None}),
    (b"GET /\r\n\r\n", {200, 400, None}),
    (b"POST /ingest/meter HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", {400, None}),
    (
        b"POST /ingest/meter HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n"
        b"\r\n{}    ",
        {400, None},
    ),
    (
        b"POST /ingest/meter HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        {400, None},
    ),
    (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", {200, 400, None}),
    (b"GET / HTTP/1.1\r\n" + HOST + b" folded: x\r\n\r\n", {200, 400, None}),
    # A whole reading, and then nonsense where the end should be: the local server takes it.
    (chunked(READING, end=b"zz\r\n\r\n"), {201, 400, None}),
    (chunked(READING[:50], end=b"zz\r\n\r\n"), {400, None}),
    (request(POST, READING + b"     ")[:-5], {400, None}),
    (request(POST, READING)[:-5], {400, None}),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), {400, None}),  # TLS
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">I", 2**31), {400, 404, 505, None}),
    (bytes(range(256)) * 100, {400, None}),
]


def test_whatever_comes_on_a_socket_the_system_goes_on(system: LocalSystem) -> None:
    system.start()
    stored = 0
    for sent, expected in REQUESTS:
        status, text = exchange(system.port, sent, finish=None in expected)
        taken = status in {201, 202}  # 202 where the machine had other work: it is stored soon
        assert (201 if taken else status) in expected, (sent[:200], text[:500])
        assert not LEAK.search(text), text
        stored += taken
        assert get_health(system.url)[0] == 200
    while any(depth.waiting or depth.in_flight for depth in system.queues.depths()):
        pass  # ends by the test run's time limit if they stay
    counted = system.command("psql", "SELECT 'rows:' || count(*) FROM meter_telemetry_history")
    assert f"rows:{stored}" in counted.stdout
    assert system.command("verify").returncode == 0
    log = (system.folder / "server.log").read_text(encoding="utf-8")
    assert "Traceback" not in log
    assert READING.decode() not in log


def exchange(port: int, sent: bytes, *, finish: bool) -> tuple[int | None, str]:
    """Send bytes; return the status of what comes back, if any, and its text.

    finish says that nothing more comes: else the server may wait for the rest.
    """
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as client:
        try:
            client.sendall(sent)
            if finish:
                client.shutdown(socket.SHUT_WR)
            while part := client.recv(65536):
                received += part
        except OSError:
            pass  # it does not have to hear out everything
    if not received.startswith(b"HTTP/1"):  # nothing, or frames of HTTP/2
        return None, received.decode(errors="replace")
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode(errors="replace")
