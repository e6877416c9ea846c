"""`sam local` before the functions: containers, and their way to what keeps readings.

PostgreSQL and the queues listen on this machine's loopback alone. Containers reach them at the
address that this machine has on Docker's bridge, from where connections are passed on.
"""

import contextlib
import json
import platform
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from local import ROOT, LocalError
from local.configuration import read_local_template
from local.databases import DatabaseUrls
from local.folder import write_file
from local.processes import Process

SAM = ROOT / ".venv-sam/bin/sam"
BUILT = ROOT / ".aws-sam/build/template.yaml"
# What the functions get in containers: there while `sam local start-api` runs.
ENVIRONMENT = "sam-environment.json"
# An image for each function is made first.
READY_SECONDS = 300
LOOPBACK = ("127.0.0.1", "localhost")
CHUNK = 65536


def host_architecture() -> str:
    """Return this machine's processor as Lambda calls it."""
    return "arm64" if platform.machine() in {"aarch64", "arm64"} else "x86_64"


def find_bridge() -> str:
    """Return this machine's address on Docker's bridge. Raises LocalError where there is none."""
    if not shutil.which("docker"):
        raise LocalError("there is no Docker: `make run` needs none")
    (network,) = json.loads(_ask_docker("network", "inspect", "bridge"))
    return str(next(ip_network(network["IPAM"]["Config"][0]["Subnet"]).hosts()))


def build() -> None:
    """Build what is served, for this machine's processor. Raises LocalError."""
    target = ["build", f"ARCHITECTURE={host_architecture()}"]
    if subprocess.run(["make", "--no-print-directory", *target], cwd=ROOT, check=False).returncode:
        raise LocalError("the functions cannot be built: see above")


def start_sam(
    folder: Path, port: int, environ: Mapping[str, str], show: Callable[[str], None]
) -> Process:
    """Start `sam local start-api` on what build made, with the variables of a running system.

    What the functions get stays in ENVIRONMENT of the folder, for invoke_function.
    """
    bridge = find_bridge()
    urls = DatabaseUrls.from_environment(environ)
    endpoint = environ["AWS_ENDPOINT_URL_SQS"]
    addresses = [urlsplit(url) for url in (*urls.environment.values(), endpoint)]
    for port_here in {parts.port for parts in addresses if parts.hostname in LOOPBACK}:
        pass_on((bridge, port_here or 5432), ("127.0.0.1", port_here or 5432))
    stores = {**urls.environment, "AWS_ENDPOINT_URL_SQS": endpoint}
    there = {name: _from_container(url, bridge) for name, url in stores.items()}
    template = read_local_template({**environ, **there})
    variables = {
        name: {**function.environment, "AWS_ENDPOINT_URL": there["AWS_ENDPOINT_URL_SQS"]}
        for name, function in template.functions.items()
    }
    write_file(folder, ENVIRONMENT, json.dumps(variables, indent=2) + "\n")
    return Process(
        _command("start-api", folder)
        + ["--port", str(port), "--warm-containers", "EAGER", "--no-watch", "--disable-authorizer"],
        {**environ, "SAM_CLI_TELEMETRY": "0"},
        show,
    )


def remove_containers(folder: Path) -> None:
    """Remove the containers that were started with ENVIRONMENT of the folder, and ENVIRONMENT.

    SAM ends those it remembers. Of the functions it starts at once, each thread may make a runtime
    of its own (`InvokeContext.lambda_runtime` of SAM CLI 1.170), of which one is remembered; and
    none is when it is killed.
    """
    if not (folder / ENVIRONMENT).exists():
        return
    variables = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8")).values()
    given = [{f"{name}={value}" for name, value in some.items()} for some in variables]
    numbers = _ask_docker("ps", "--all", "--quiet", "--filter", "label=sam.cli.container.type")
    found = json.loads(_ask_docker("inspect", *numbers.split())) if numbers else []
    left = [one["Id"] for one in found if any(some <= {*one["Config"]["Env"]} for some in given)]
    if left:
        _ask_docker("rm", "--force", *left)
    (folder / ENVIRONMENT).unlink()


def invoke_function(folder: Path, name: str, event: str, environ: Mapping[str, str]) -> int:
    """Give an event to a function by `sam local invoke`; return the status that this ends with.

    The environment is that of the running system, whose key its queues and objects ask for.
    Raises LocalError.
    """
    if not (folder / ENVIRONMENT).exists():
        raise LocalError("no containers are served here: `make sam-local`")
    return subprocess.run(
        [*_command("invoke", folder), "--event", "-", name],
        env={**environ, "SAM_CLI_TELEMETRY": "0"},
        input=event,
        text=True,
        check=False,
    ).returncode


def _ask_docker(*command: str) -> str:
    done = subprocess.run(
        ["docker", *command], capture_output=True, text=True, check=False, timeout=30
    )
    # A container may end between two questions.
    if done.returncode and "No such" not in done.stderr:
        raise LocalError(f"Docker does not answer: {done.stderr.strip()}")
    return done.stdout


def _command(command: str, folder: Path) -> list[str]:
    return (
        [str(SAM), "local", command, "--template", str(BUILT), "--config-env", "local"]
        + ["--env-vars", str(folder / ENVIRONMENT), "--skip-pull-image"]
        + ["--parameter-overrides", f"Architecture={host_architecture()} QueueEndpointUrl=given"]
    )


def _from_container(url: str, bridge: str) -> str:
    for name in LOOPBACK:
        url = re.sub(rf"(?<=@|/){re.escape(name)}(?=[:/])", bridge, url)
    return url


def pass_on(address: tuple[str, int], target: tuple[str, int]) -> None:
    """Pass on connections to an address until this process ends."""
    listener = socket.create_server(address)

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            try:
                server = socket.create_connection(target)
            except OSError:
                client.close()  # as where nobody listens
                continue
            for pair in ((client, server), (server, client)):
                threading.Thread(target=_copy, args=pair, daemon=True).start()

    threading.Thread(target=accept, name=f"to {target[1]}", daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    source.close()
