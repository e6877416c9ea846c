"""What waits in the queues of `make run`: while the database is away, and for good."""

import os
import signal
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from local import LocalError
from local.databases import switch_database, write_state
from local.folder import lock_folder
from tests.e2e.conftest import LocalSystem
from tests.e2e.test_local_stack import METER, parent_of


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


def test_readings_wait_in_the_queue_while_the_database_is_stopped(system: LocalSystem) -> None:
    system.start()
    assert system.command("db-stop").stdout == (
        "The database is stopped: readings wait in the queues until `make db-start`.\n"
    )
    # What the worker could not store comes again sooner than the template says.
    system.sqs.set_queue_attributes(
        QueueUrl=system.queue_url("MeterQueue"), Attributes={"VisibilityTimeout": "2"}
    )
    status, answer = system.request("POST", "/v1/ingestion/meter", METER)
    assert (status, answer["status"]) == (202, "queued")
    said = system.command("status")
    assert said.returncode == 1
    assert "Database: STOPPED until `make db-start`" in said.stdout

    assert system.command("db-start").returncode == 0
    # Ends by the test run's time limit if it is lost.
    while "METER-001" not in system.command("psql", "SELECT * FROM meter_live_status").stdout:
        pass
    while "MeterQueue: 0 waiting, 0 in flight, 0 dead" not in system.command("status").stdout:
        pass
    assert system.command("verify").returncode == 0


def test_what_cannot_be_stored_is_listed_with_its_reason_and_sent_back(system: LocalSystem) -> None:
    system.start()
    assert system.command("dead-letters").stdout == ""
    system.sqs.send_message(QueueUrl=system.queue_url("VehicleQueue"), MessageBody="noise")
    listed = await_dead_letter(system)
    heading, body = listed.splitlines()
    assert heading.startswith("VehicleQueue, sent 20")
    assert heading.rpartition("Z: ")[2]
    assert body == "  noise"
    sent_back = system.command("redrive")
    assert sent_back.stdout == "MeterQueue: 0 sent back\nVehicleQueue: 1 sent back\n"
    assert await_dead_letter(system).splitlines()[1:] == ["  noise"]


def test_the_api_serves_while_the_queues_and_their_workers_are_replaced(
    system: LocalSystem,
) -> None:
    system.start()
    assert system.process is not None
    names = {"ministack", "local poll"}
    before = children_of(system.process.pid)
    assert names < before.keys()
    for name in names:
        os.kill(before[name], signal.SIGKILL)
    assert system.request("POST", "/v1/ingestion/meter", METER)[0] == 201
    # Both loops end by the test run's time limit if something stays away.
    while not is_replaced(before, children_of(system.process.pid), names):
        pass
    while True:
        try:
            url = system.queue_url("MeterQueue")
            system.sqs.send_message(QueueUrl=url, MessageBody="noise")
            break
        except (BotoCoreError, ClientError):
            continue
    assert "  noise" in await_dead_letter(system)


def is_replaced(before: dict[str, int], after: dict[str, int], names: set[str]) -> bool:
    return all(after.get(name, before[name]) != before[name] for name in names)


def await_dead_letter(system: LocalSystem) -> str:
    """Return the list of dead letters when there is one; ends by the run's time limit if not."""
    while not (listed := system.command("dead-letters").stdout):
        pass
    return listed


def test_commands_for_what_does_not_run_say_so(system: LocalSystem) -> None:
    for command in ("db-stop", "db-start", "dead-letters", "redrive"):
        refused = system.command(command)
        assert refused.returncode == 1
        assert refused.stderr == "error: nothing is running here: `make run`\n"


def test_a_database_of_others_is_not_stopped(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        write_state(tmp_path, "given")
        with pytest.raises(LocalError, match="DATABASE_URL names it"):
            switch_database(tmp_path, "stopped")
