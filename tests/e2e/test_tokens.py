"""`make run AUTH=token`: who has a token, and what it is for, as a client meets it."""

import http.client
import json
import os
import re
import signal
import time
from typing import Any

from local.server import get_health
from tests.e2e.conftest import SECONDS, LocalSystem, request_until
from tests.e2e.test_local_stack import METER, children_of


def ask(
    system: LocalSystem, token: str, method: str, path: str, body: object = None
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("localhost", system.port, timeout=SECONDS)
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def issue(system: LocalSystem, *arguments: str) -> tuple[str, str]:
    """Return a token and its id."""
    done = system.command("token", "issue", "test", *arguments)
    assert done.returncode == 0, done.stderr
    found = re.match(r"Token ([0-9a-f]{16}) for test, until ", done.stderr)
    assert found
    return done.stdout.strip(), found[1]


def test_a_token_is_issued_used_and_revoked_while_the_database_is_away(system: LocalSystem) -> None:
    system.start(AUTH="token", AUTHORIZER_CACHE_SECONDS="1")
    assert ask(system, "", "GET", "/")[0] == 200
    assert ask(system, "", "GET", "/health") == (401, {"message": "Unauthorized"})
    assert ask(system, "stolen", "GET", "/health") == (403, {"message": "Forbidden"})
    assert get_health(system.url)[0] == 401

    token, token_id = issue(system, "--scope", "ingest:meter", "--meters", "METER-001,DEPOT7-*")
    sent = (system, token, "POST", "/v1/ingestion/meter", METER)
    assert request_until(201, ask, *sent)[0] == 201
    status, answer = ask(
        system, token, "POST", "/v1/ingestion/meter", METER | {"meterId": "METER-002"}
    )
    assert (status, answer["message"]) == (403, "The token is not for this device")
    status, answer = ask(system, token, "GET", "/v1/live/meters")
    assert (status, answer["message"]) == (403, "This route needs the scope analytics:read")
    reader, _ = issue(system, "--scope", "analytics:read")
    status, answer = ask(system, reader, "GET", "/v1/live/meters")
    assert [item["meterId"] for item in answer["items"]] == ["METER-001"]

    # The commands of this machine bring a token of their own.
    assert "Health:   ok" in system.command("status").stdout
    assert system.command("simulate", "--vehicles", "2", "--minutes", "5").returncode == 0

    assert system.command("db-stop").returncode == 0
    assert request_until(202, ask, *sent)[0] == 202
    revoked = system.command("token", "revoke", token)
    assert revoked.stdout.startswith(f"Token {token_id} for test, valid until ")
    deadline = time.monotonic() + SECONDS
    while (found := request_until(202, ask, *sent))[0] != 403:
        assert found[0] == 202
        assert time.monotonic() < deadline
    assert found[1] == {"message": "Forbidden"}
    log = ""
    while f"revoked: {token_id}" not in log:  # lines come by way of another process
        assert time.monotonic() < deadline
        log = (system.folder / "server.log").read_text(encoding="utf-8")
    for secret in (token, token.rpartition(".")[2], reader):
        assert secret not in log


def test_a_revoked_token_stays_so_when_the_server_of_the_table_is_killed(
    system: LocalSystem,
) -> None:
    system.start(AUTH="token", AUTHORIZER_CACHE_SECONDS="1")
    assert system.process is not None
    token, token_id = issue(system, "--scope", "analytics:read")
    assert system.command("token", "revoke", token_id, "--unseen").returncode == 0
    log = system.folder / "server.log"
    deadline = time.monotonic() + SECONDS

    def ask_until_refused() -> None:
        refusal = f"revoked: {token_id}"
        before = log.read_text(encoding="utf-8").count(refusal)
        while log.read_text(encoding="utf-8").count(refusal) == before:
            # 500: it is not known who was revoked, and so nobody is let in.
            assert ask(system, token, "GET", "/v1/live/meters")[0] in {403, 500}
            assert time.monotonic() < deadline

    ask_until_refused()
    server = children_of(system.process.pid)["local.queue_process"]
    os.kill(server, signal.SIGKILL)
    while children_of(system.process.pid).get("local.queue_process", server) == server:
        assert time.monotonic() < deadline
    ask_until_refused()


def test_a_second_key_is_taken_up_with_tokens_of_the_first_in_use(system: LocalSystem) -> None:
    system.start(AUTH="token")
    old, _ = issue(system, "--scope", "analytics:read")
    assert system.command("token", "key").returncode == 0
    # Nobody accepts the new key yet, so nothing is signed with it.
    assert "Health:   ok" in system.command("status").stdout
    assert system.command("stop").returncode == 0
    system.finish()
    system.start(AUTH="token")
    new, _ = issue(system, "--scope", "analytics:read")
    assert old.partition(".")[0] != new.partition(".")[0]  # the header names the key
    for token in (old, new):
        assert ask(system, token, "GET", "/v1/live/meters")[0] == 200


def test_a_mode_that_there_is_not_ends_with_one_line(system: LocalSystem) -> None:
    done = system.command("run", AUTH="on")
    assert (done.returncode, done.stderr) == (1, "error: AUTH is one of none, token, not on\n")
