"""What waits in the queues of `make run`: while the database is away, and for good."""

import os
import re
import signal
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from faults.database import children_of as children_of_server
from local import LocalError
from local.databases import switch_database, write_state
from local.folder import lock_folder
from local.queues import DeadLetter, Depth
from tests.e2e.conftest import LocalSystem, request_until
from tests.e2e.test_local_stack import METER, children_of


def test_readings_wait_in_the_queue_while_the_database_is_stopped(system: LocalSystem) -> None:
    system.start()
    # What the worker could not store comes again sooner than the template says. (Not at once: who
    # waits for messages already goes by what held when he began.)
    system.hide_messages_for(2, "MeterQueue")
    assert system.command("db-stop").stdout == (
        "The database is stopped: readings wait in the queues until `make db-start`.\n"
    )
    status, answer = request_until(202, system.request, "POST", "/v1/ingestion/meter", METER)
    assert (status, answer["status"]) == (202, "queued")
    said = system.command("status")
    assert said.returncode == 1
    assert "Database: STOPPED until `make db-start`" in said.stdout
    assert re.search(
        r"MeterQueue: 1 not stored yet \([01] waiting, [01] in flight\), 0 dead", said.stdout
    )

    assert system.command("db-start").returncode == 0
    queues = system.queues
    while Depth("MeterQueue", 0, 0, 0) not in queues.depths():
        pass  # ends by the test run's time limit if it stays there
    assert "METER-001" in system.command("psql", "SELECT * FROM meter_live_status").stdout
    assert system.command("verify").returncode == 0


def test_readings_wait_in_the_queue_until_a_killed_database_is_back(system: LocalSystem) -> None:
    system.start()
    system.hide_messages_for(2, "MeterQueue")
    server = int((system.folder / "postgres/postmaster.pid").read_text().splitlines()[0])
    # One of its processes that does not end with it: no other server starts on its data meanwhile.
    left = children_of_server(server)[0]
    os.kill(left, signal.SIGSTOP)
    try:
        os.kill(server, signal.SIGKILL)
        # Its processes store until they notice.
        sent = ("POST", "/v1/ingestion/meter", METER)
        while (found := request_until(202, system.request, *sent))[0] == 201:
            pass
        assert (found[0], found[1]["status"]) == (202, "queued")
        while "Database: STARTING" not in system.command("status").stdout:
            pass
    finally:
        os.kill(left, signal.SIGKILL)
    queues = system.queues
    while Depth("MeterQueue", 0, 0, 0) not in queues.depths():
        pass  # ends by the test run's time limit if it stays there
    assert "METER-001" in system.command("psql", "SELECT * FROM meter_live_status").stdout
    assert "Health:   ok" in system.command("status").stdout
    assert system.command("verify").returncode == 0

    # One that was stopped stays so.
    assert system.command("db-stop").returncode == 0
    assert request_until(202, system.request, "POST", "/v1/ingestion/meter", METER)[0] == 202
    assert "Database: STOPPED" in system.command("status").stdout


def test_what_cannot_be_stored_is_listed_with_its_reason_and_sent_back(system: LocalSystem) -> None:
    system.start()
    assert system.command("dead-letters").stdout == "There are no dead letters.\n"
    system.send("VehicleQueue", "noise")
    letter = await_dead_letter(system)
    assert letter.queue == "VehicleQueue"
    assert letter.reason
    sent = f"{letter.sent_at:%Y-%m-%dT%H:%M:%SZ}"
    listed = system.command("dead-letters").stdout
    assert listed == f"VehicleQueue, sent {sent}, {letter.message_id}: {letter.reason}\n  noise\n"
    sent_back = system.command("redrive")
    assert sent_back.stdout.splitlines() == [
        "MeterQueue: 0 sent back",
        "VehicleQueue: 1 sent back",
        "MeterBackfillQueue: 0 sent back",
        "VehicleBackfillQueue: 0 sent back",
    ]
    assert await_dead_letter(system).body == "noise"


def test_one_of_the_dead_letters_is_discarded_and_the_others_stay(system: LocalSystem) -> None:
    system.start()
    for body in ("noise", "other"):
        system.send("VehicleQueue", body)
    while len(letters := list(system.queues.dead_letters())) < 2:
        pass  # ends by the test run's time limit if they do not come
    noise, other = sorted(letters, key=lambda letter: letter.body)
    refused = system.command("discard", "another")
    assert refused.stderr == (
        "error: there is no dead letter another: `make dead-letters` lists them\n"
    )
    assert system.command("discard", noise.message_id).stdout == "noise\n"
    assert other.message_id in system.command("dead-letters").stdout
    looking = system.queues.dead_letters()
    next(looking)
    assert system.command("dead-letters").stdout == (
        "Somebody else looks at 1 more: look again in 30 seconds.\n"
    )
    looking.close()  # type: ignore[attr-defined]
    assert system.command("discard", other.message_id).stdout == "other\n"
    assert system.command("dead-letters").stdout == "There are no dead letters.\n"


def test_the_api_serves_while_the_queues_and_their_workers_are_replaced(
    system: LocalSystem,
) -> None:
    system.start()
    assert system.process is not None
    names = {"local.queue_process", "local poll"}
    # This loop and the next end by the test run's time limit if something stays away.
    while not names < (before := children_of(system.process.pid)).keys():
        pass
    for name in names:
        os.kill(before[name], signal.SIGKILL)
    assert request_until(201, system.request, "POST", "/v1/ingestion/meter", METER)[0] == 201
    while not is_replaced(before, children_of(system.process.pid), names):
        pass
    while True:
        try:
            system.send("MeterQueue", "noise")
            break
        except (BotoCoreError, ClientError):
            continue
    assert await_dead_letter(system).body == "noise"


def is_replaced(before: dict[str, int], after: dict[str, int], names: set[str]) -> bool:
    return all(after.get(name, before[name]) != before[name] for name in names)


def await_dead_letter(system: LocalSystem) -> DeadLetter:
    """Return the dead letter when there is one; ends by the run's time limit if there is none."""
    queues = system.queues
    while not (letters := list(queues.dead_letters())):
        pass
    [letter] = letters
    return letter


def test_commands_for_what_does_not_run_say_so(system: LocalSystem) -> None:
    for command in ("alerts", "db-stop", "db-start", "dead-letters", "redrive"):
        refused = system.command(command)
        assert refused.returncode == 1
        assert refused.stderr == "error: nothing is running here: `make run`\n"


def test_a_database_of_others_is_not_stopped(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        write_state(tmp_path, "given")
        with pytest.raises(LocalError, match="DATABASE_URL names it"):
            switch_database(tmp_path, "stopped")
