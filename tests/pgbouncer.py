"""PgBouncer in transaction mode before a server: a pooler that shares as RDS Proxy does."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from local.postgres import _as_server_user, free_port
from tests.wire import at_port

# Debian installs it where only root's PATH leads.
PGBOUNCER = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
START_SECONDS = 120

# Few connections, so that clients meet in them. It knows no `options` at startup, no named
# prepared statement and no session state, as RDS Proxy should not.
_SETTINGS = """\
[databases]
* = host={host} port={server_port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = 4
server_login_retry = 0
"""


@contextmanager
def start_pgbouncer(folder: Path, server_url: str, users: Mapping[str, str]) -> Iterator[int]:
    """Run it before a server with all its databases; yield the port of 127.0.0.1 it listens on.

    users -- the password of each role that connects, the one of server_url among them
    """
    server = urlsplit(server_url)
    port = free_port()
    quoted = [[word.replace('"', '""') for word in pair] for pair in users.items()]
    (folder / "users.txt").touch(mode=0o600)
    (folder / "users.txt").write_text(
        "".join(f'"{user}" "{password}"\n' for user, password in quoted), encoding="utf-8"
    )
    (folder / "pgbouncer.ini").write_text(
        _SETTINGS.format(
            host=server.hostname, server_port=server.port, port=port, users=folder / "users.txt"
        ),
        encoding="utf-8",
    )
    log = folder / "pgbouncer.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_as_server_user(), PGBOUNCER, str(folder / "pgbouncer.ini")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _await_connections(process, at_port(server_url, port), log)
        yield port
    finally:
        process.terminate()  # at once, whoever is connected
        process.wait()


def _await_connections(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=START_SECONDS).close()
            return
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(encoding="utf-8", errors="replace")
                raise AssertionError(f"PgBouncer does not start: {error}\n{said}") from None
            time.sleep(0.02)
