"""What the authorizer knows of revoked tokens when the table answers oddly, late or not at all."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from telemetry import revocations
from telemetry.errors import RevocationsUnavailable
from telemetry.revocations import Revocations
from telemetry.signatures import AccessKey

KEY = AccessKey("id", "secret", None, "eu-central-1")
REVOKED = (200, b'{"Item": {"tokenId": {"S": "stolen"}}}')
UNKNOWN = (200, b"{}")
Answer = tuple[int, bytes]


class QuietServer(ThreadingHTTPServer):
    """One that does not print when a client hangs up."""

    def handle_error(self, *_: object) -> None:
        pass


class Table:
    """A server that gives these answers in turn, the last one again and again."""

    def __init__(self, *answers: Answer, before: Callable[[], object] = lambda: None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.connections: set[tuple[str, int]] = set()
        table = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                table.asked.append((self.headers["x-amz-target"], json.loads(body)))
                table.connections.add(self.client_address)
                before()
                status, content = answers[min(len(table.asked), len(answers)) - 1]
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.send_header("location", "/elsewhere")
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = table.closes

            def log_message(self, *_: object) -> None:
                pass

        self.closes = False
        self.server = QuietServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,)).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.revocations = Revocations("Revoked", self.url, KEY)


Serve = Callable[..., Table]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setattr(revocations, "READ_TIMEOUT", 60)  # on a machine that has other work
    tables: list[Table] = []

    def start(*answers: Answer, before: Callable[[], object] = lambda: None) -> Table:
        tables.append(Table(*answers, before=before))
        return tables[-1]

    yield start
    for table in tables:
        table.server.shutdown()
        table.server.server_close()


def test_a_token_is_revoked_where_the_table_has_it(serve: Serve) -> None:
    table = serve(REVOKED, UNKNOWN)
    assert table.revocations.contain("stolen")
    assert not table.revocations.contain("good")
    assert [question["Key"]["tokenId"]["S"] for _, question in table.asked] == ["stolen", "good"]
    assert {target for target, _ in table.asked} == {"DynamoDB_20120810.GetItem"}
    assert all(question["ConsistentRead"] for _, question in table.asked)
    assert len(table.connections) == 1


def test_it_is_asked_once_more_where_it_fails(serve: Serve) -> None:
    table = serve((500, b"{}"), REVOKED)
    assert table.revocations.contain("stolen")
    assert len(table.asked) == 2


def test_a_connection_that_was_closed_meanwhile_is_made_anew(serve: Serve) -> None:
    table = serve(UNKNOWN)
    table.closes = True
    for _ in range(3):
        assert not table.revocations.contain("good")
    assert len(table.asked) == len(table.connections) == 3


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ((500, b"{}"), 2),
        ((503, b"busy"), 2),
        ((400, b'{"__type": "ResourceNotFoundException"}'), 1),
        ((403, b"<html>"), 1),
        ((307, b"{}"), 1),
        ((200, b"no JSON"), 1),
        ((200, b"[]"), 1),
        ((200, b"\xff"), 1),
    ],
)
def test_any_other_answer_lets_nobody_in(serve: Serve, answer: Answer, asked: int) -> None:
    table = serve(answer)
    with pytest.raises(RevocationsUnavailable):
        table.revocations.contain("good")
    assert len(table.asked) == asked


def test_nobody_waits_for_a_table_that_is_silent(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "READ_TIMEOUT", 0.05)
    answered, asked = threading.Event(), threading.Barrier(3)

    def keep_silent() -> None:
        asked.wait(60)
        answered.wait()

    table = serve(UNKNOWN, before=keep_silent)
    with pytest.raises(RevocationsUnavailable, match="timed out"):
        table.revocations.contain("good")
    asked.wait(60)  # until both have reached it
    answered.set()
    assert len(table.asked) == 2


def test_a_server_without_a_certificate_for_its_name_is_not_asked(
    serve: Serve, tmp_path: Path
) -> None:
    table = serve(UNKNOWN)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(tmp_path))
    table.server.socket = context.wrap_socket(table.server.socket, server_side=True)
    secure = Revocations("Revoked", table.url.replace("http:", "https:"), KEY)
    with pytest.raises(RevocationsUnavailable, match="certificate verify failed"):
        secure.contain("good")
    assert table.asked == []


def _certificate(folder: Path) -> Path:
    """Write a certificate of 127.0.0.1 that nobody signed but itself, with its key."""
    key, name = Ed25519PrivateKey.generate(), x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), True)
        .sign(key, None)
    )
    own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / "server.pem"
    file.write_bytes(own + certificate.public_bytes(Encoding.PEM))
    return file


def test_nobody_is_let_in_where_there_is_no_table() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    nowhere = Revocations("Revoked", f"http://127.0.0.1:{port}", KEY)
    with pytest.raises(RevocationsUnavailable):
        nowhere.contain("good")
