"""Connections as on AWS: TLS that is verified, and a password that is asked for each time."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from local.postgres import start_postgres
from telemetry.database import Database
from tests.conftest import POSTGRES_15


@dataclass(frozen=True)
class Encrypted:
    """A server with a certificate for localhost, and who signed it."""

    authority: Path
    password: str
    port: int

    def url(self, host: str = "localhost", authority: Path | None = None) -> str:
        return (
            f"postgresql://postgres@{host}:{self.port}/postgres"
            f"?sslmode=verify-full&sslrootcert={authority or self.authority}"
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    if not POSTGRES_15.exists():
        pytest.skip(f"PostgreSQL 15 is not in {POSTGRES_15}, and the embedded one has no TLS")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "server.pem", folder / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        + ["-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    options = ["ssl=on", f"ssl_cert_file={certificate}", f"ssl_key_file={key}", "fsync=off"]
    running = start_postgres(folder / "data", POSTGRES_15, options=options)
    parts = urlsplit(running.url)
    yield Encrypted(certificate, parts.password or "", parts.port or 0)
    running.stop()


def test_the_password_is_asked_for_each_connection(server: Encrypted) -> None:
    asked = []

    def password(url: str) -> str:
        asked.append(url)
        return server.password

    database = Database(server.url(), password=password)
    encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    for connections in (1, 1, 2):
        if connections == 2:
            database.close()
        assert database.fetch(encrypted) == [(True,)]
        assert asked == [server.url()] * connections
    database.close()


@pytest.mark.parametrize("wrong", ["authority", "host"])
def test_a_server_that_is_another_is_refused(server: Encrypted, wrong: str) -> None:
    layer = Path(__file__).parents[2] / "layers/telemetry/python/telemetry/certificates"
    url = (
        server.url(authority=layer / "proxy.pem")
        if wrong == "authority"
        else server.url(host="127.0.0.1")
    )
    with pytest.raises(Exception, match="The database cannot be reached") as refused:
        Database(url, password=lambda _url: server.password).fetch("SELECT 1")
    assert isinstance(refused.value.__cause__, psycopg.OperationalError)
    said = "certificate verify failed" if wrong == "authority" else "does not match host name"
    assert said in str(refused.value.__cause__)
