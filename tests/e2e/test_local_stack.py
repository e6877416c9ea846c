"""`make run` as its user meets it: started, used, broken, stopped, started again."""

import os
import shutil
import signal
import socket
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from local.postgres import free_port
from local.server import get_health
from tests.conftest import Server, database
from tests.e2e.conftest import SECONDS, LocalSystem, request_until

METER = {
    "meterId": "METER-001",
    "kwhConsumedAc": 5.5,
    "voltage": 240.5,
    "timestamp": "2026-02-10T10:00:00Z",
}
VEHICLE = {
    "vehicleId": "VEH-001",
    "soc": 85,
    "kwhDeliveredDc": 5.06,
    "batteryTemp": 28.3,
    "timestamp": "2026-02-10T10:00:00Z",
}


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of all processes that name the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in command and str(os.getpid()) != process.name:
            found.append(command)
    return found


def server_processes(port: int) -> tuple[int, list[int]]:
    """Return the process that serves the port, and its workers."""
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parent = parent_of(int(process.name))
        except OSError:
            continue
        if command.endswith(f"local.server_process {port} "):
            parents[int(process.name)] = parent
    [main] = [process for process, parent in parents.items() if parent not in parents]
    return main, [process for process in parents if process != main]


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def children_of(parent: int) -> dict[str, int]:
    """Return the processes that another one started, by the Python module that they run."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode().split("\0")
            if parent_of(int(process.name)) == parent and "-m" in command:
                found[" ".join(command[command.index("-m") + 1 :][:2]).strip()] = int(process.name)
        except OSError:
            continue
    return found


def test_data_survive_a_restart(system: LocalSystem) -> None:
    system.start()
    for path, reading in (("meter", METER), ("vehicle", VEHICLE)):
        sent = ("POST", f"/v1/ingestion/{path}", reading)
        assert request_until(201, system.request, *sent)[0] == 201
    assert system.command("status").returncode == 0
    assert "METER-001" in system.command("psql", "SELECT * FROM meter_live_status").stdout
    assert (system.folder / "database-url").stat().st_mode & 0o077 == 0
    assert system.command("stop").stdout == "Stopped.\n"
    assert system.finish().endswith("Stopping …\nStopped.\n")
    assert processes_of(system.folder) == []
    assert system.command("status").stdout == "Not running. `make run` starts it.\n"

    system.start()
    status, report = system.request("GET", "/v1/analytics/performance/VEH-001")
    assert (status, report["efficiencyRatio"]) == (200, 92)
    assert system.process is not None
    system.process.send_signal(signal.SIGINT)
    assert system.finish().endswith("Stopped.\n")
    assert system.process.returncode == 0

    assert system.command("reset").returncode == 0
    assert not system.folder.exists()


def test_it_stops_however_often_it_is_told_to(system: LocalSystem) -> None:
    system.start()
    assert system.process is not None
    for _ in range(300):
        system.process.send_signal(signal.SIGTERM)
    assert system.finish().endswith("Stopped.\n")


def test_nothing_outlives_a_killed_system(system: LocalSystem) -> None:
    system.start()
    assert system.process is not None
    data = str(system.folder / "postgres")
    # A process for a new connection has its server's command line, until it gives itself another.
    [postgres] = {line for line in processes_of(system.folder) if data in line}
    assert "postgres" in postgres
    system.process.kill()
    system.finish()
    deadline = time.monotonic() + SECONDS
    while (left := processes_of(system.folder)) or get_health(system.url)[0] is not None:
        assert time.monotonic() < deadline, left
    system.start()
    assert system.request("GET", "/health")[0] == 200


def test_a_killed_server_takes_its_workers_along(system: LocalSystem) -> None:
    system.start()
    server, _ = server_processes(system.port)
    os.kill(server, signal.SIGKILL)
    assert "error: the server ended: see " in system.finish()
    assert get_health(system.url)[0] is None


def test_a_terminal_that_goes_away_stops_it(system: LocalSystem) -> None:
    system.start()
    assert system.process is not None
    system.hung_up = True
    while get_health(system.url)[0] is not None:
        pass
    system.process.wait(SECONDS)
    system.process = None


def test_a_body_that_never_comes_holds_up_nobody_for_long(system: LocalSystem) -> None:
    system.start()
    slow = []
    for _ in range(2 * len(server_processes(system.port)[1])):
        connection = socket.create_connection(("127.0.0.1", system.port))
        connection.sendall(b"POST /ingest/meter HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        slow.append(connection)
    while True:  # ends by the test run's time limit if they are waited for
        try:
            if system.request("GET", "/")[0] == 200:
                break
        except OSError:
            continue
    for connection in slow:
        connection.close()


def test_a_killed_worker_is_replaced(system: LocalSystem) -> None:
    system.start()
    _, workers = server_processes(system.port)
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    answered = 0
    while answered < 20:  # ends by the test's time limit if no worker comes back
        try:
            status, _ = system.request("GET", "/")
        except OSError:
            continue
        assert status == 200
        answered += 1


def test_a_server_that_is_given_is_used_by_one_user(system: LocalSystem, embedded: Server) -> None:
    with database(embedded, "template0") as urls:
        system.start(DATABASE_URL=urls.owner)
        assert request_until(201, system.request, "POST", "/ingest/meter", METER)[0] == 201
        maintained = system.command("maintain")
        assert (maintained.returncode, maintained.stderr) == (0, "")
        assert system.command("verify", DATABASE_URL=urls.owner).returncode == 0
        assert system.command("stop").returncode == 0


def test_what_hinders_a_start_is_said_in_one_line(system: LocalSystem) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", system.port))
        taken.listen()
        refused = system.command("run")
    assert refused.returncode == 1
    assert refused.stderr == (
        f"error: port {system.port} is in use: choose another, as in "
        f"`make run PORT={system.port + 1}`\n"
    )

    refused = system.command("run", PORT="many")
    assert refused.stderr == "error: PORT=many is not a port\n"

    unreachable = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    refused = system.command("run", DATABASE_URL=unreachable)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: the migrations cannot be applied")

    (system.folder / "postgres").mkdir()
    refused = system.command("run")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert "make reset" in refused.stderr
    assert refused.stderr.count("\n") == 1

    system.command("reset")
    system.folder.write_text("a file", encoding="utf-8")
    refused = system.command("run")
    assert refused.stderr.startswith("error: cannot use ")
    system.folder.unlink()

    system.start()
    assert system.process is not None
    refused = system.command("run")
    assert refused.stderr == (
        f"error: already running here (process {system.process.pid}): use it, "
        "or `make stop` first\n"
    )
    assert system.request("GET", "/health")[0] == 200


def test_commands_before_the_first_start_say_what_to_do(system: LocalSystem) -> None:
    for command in ("logs", "psql"):
        refused = system.command(command)
        assert refused.returncode == 1
        assert refused.stderr == "error: nothing was started here yet: `make run`\n"
    assert system.command("status").stdout == "Not running. `make run` starts it.\n"
    assert system.command("stop").stdout == "Nothing is running here.\n"


def test_a_system_whose_folder_was_deleted_is_found_and_stopped(system: LocalSystem) -> None:
    system.start()
    assert system.process is not None
    shutil.rmtree(system.folder)
    said = system.command("status")
    assert said.returncode == 1
    assert said.stderr == (
        f"error: {system.folder}/url was deleted while process {system.process.pid} runs there: "
        "`make stop`, then `make run`\n"
    )
    refused = system.command("run")
    assert refused.stderr.startswith(f"error: already running here (process {system.process.pid})")
    assert system.command("stop").stdout == "Stopped.\n"
    system.finish()
    assert get_health(system.url)[0] is None
    assert system.command("status").stdout == "Not running. `make run` starts it.\n"


@pytest.mark.parametrize("command", ["status", "stop"])
def test_what_answers_on_the_port_though_nothing_runs_here_is_told(
    system: LocalSystem, command: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", system.port))
        taken.listen()
        said = system.command(command)
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith(
        f"error: nothing runs in {system.folder}, and yet something answers on port {system.port}: "
    )


def test_the_documentation_is_a_page(system: LocalSystem) -> None:
    system.start()
    with urllib.request.urlopen(f"{system.url}/docs") as page:
        text = page.read().decode()
    assert page.headers["content-type"].startswith("text/html")
    assert "swagger-ui" in text
    assert "/v1/ingestion/meter" in text
    for path in ("/openapi.json", "/docs?format=json"):
        assert system.request("GET", path)[1]["openapi"].startswith("3.")


def test_faults_are_raised_and_shown_once(system: LocalSystem) -> None:
    system.start()
    now = datetime.now(UTC)
    times = [(now - timedelta(minutes=minute)).isoformat() for minute in range(1560)]
    for path, reading in (("meter", METER), ("vehicle", VEHICLE | {"kwhDeliveredDc": 4.4})):
        batch = [reading | {"timestamp": time} for time in times]
        sent = ("POST", f"/v1/ingestion/{path}/batch", batch)
        assert request_until(201, system.request, *sent)[0] == 201
    raised = system.command("alerts").stdout
    assert raised.startswith("opened: VEH-001 METER-001, 80.0 %\n")
    assert raised.endswith("; published: 1\n")
    assert system.command("alerts").stdout.endswith("; published: 0\n")
    status, listed = system.request("GET", "/v1/analytics/faults?state=open")
    assert (status, [fault["vehicleId"] for fault in listed["items"]]) == (200, ["VEH-001"])
