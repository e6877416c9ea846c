"""The HTTP server before the handlers: worker processes behind one port."""

import errno
import http.client
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from local import LocalError
from local.processes import Process

# Writers spend most of a request waiting for the disk: a few more processes than processors.
WORKERS = max(4, 3 * (os.cpu_count() or 1))


def check_port(port: int) -> None:
    """Raise LocalError where a port cannot be served."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise LocalError(f"cannot use port {port}: {error.strerror}") from None
            remedy = f"choose another, as in `make run PORT={port + 1}`"
            raise LocalError(f"port {port} is in use: {remedy}") from None


def check_silent(folder: Path, port: int) -> None:
    """Raise LocalError where something answers on a port though nothing runs in the folder."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return
    raise LocalError(
        f"nothing runs in {folder}, and yet something answers on port {port}: `LOCAL_DIR=… make "
        f"stop` stops a system of another folder, `ss -ltnp 'sport = :{port}'` tells who it is"
    )


def start_server(port: int, environ: Mapping[str, str], show: Callable[[str], None]) -> Process:
    """Start to serve local.gateway on a port."""
    return Process([sys.executable, "-m", "local.server_process", str(port)], environ, show)


def get_health(url: str, token: str = "") -> tuple[int | None, str]:
    """Return the status and the text of `GET /health`; no status where nothing answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{url}/health", headers=headers)  # noqa: S310 - http(s)
    try:
        # Straight there: a proxy of the environment does not know this machine's ports.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:  # the latter: it speaks no HTTP
        return None, str(error) or type(error).__name__


def check_url(url: str) -> str:
    """Return an address without its last slash; raise LocalError where it is none."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise LocalError(f"--url {url} is not an http:// or https:// address")
    return url.rstrip("/")
