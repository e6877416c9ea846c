"""What the commands answer to a mistake: one line that says what was found and what to do."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import bench.__main__
import faults.__main__
import local.__main__
from local import ROOT
from local.folder import ACCEPTED_KEYS
from local.postgres import free_port
from local.tokens import make_claims
from telemetry.access import Scope
from telemetry.tokens import name_key, sign_token

PASSWORD = "a-password"


def run_make(folder: Path, *arguments: str, **environ: str) -> list[str]:
    """Run `make` with what is installed here; return the lines of its complaint."""
    make = shutil.which("make")
    assert make
    installed = ["-o", ".venv/run", f"BIN={Path(sys.executable).parent}"]
    done = subprocess.run(
        [make, *installed, *arguments],
        cwd=ROOT,
        env={**os.environ, "LOCAL_DIR": str(folder), "PORT": str(free_port()), **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["restore"], "no day is given: `make restore DAY=2026-01-31`"),
        (["restore", "DAY=today"], "today is not a day: `make restore DAY=2026-01-31`"),
        (["backfill"], "no file is given: `make backfill FILE=readings.csv`"),
        (["discard"], "no id is given: `make discard ID=…`; `make dead-letters` lists them"),
        (["sam-invoke"], "no function is given: `make sam-invoke FUNCTION=AnalyticsFunction`"),
        (
            ["sam-invoke", "FUNCTION=None"],
            "cannot read the event events/None.json: No such file or directory",
        ),
        (
            ["invoke", "EVENT=Makefile"],
            "Makefile is not JSON: Expecting value: line 1 column 1 (char 0)",
        ),
    ],
    ids=str,
)
def test_a_missing_or_wrong_variable_of_make_is_told_in_one_line(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    said, of_make = run_make(tmp_path, *arguments)
    assert said == f"error: {says}"
    assert re.match(r"make(\[\d+\])?: \*\*\*", of_make)  # numbered within another make


def test_sam_local_looks_for_docker_before_it_builds(tmp_path: Path) -> None:
    said = run_make(tmp_path, "sam-local", PATH="/nowhere")
    assert said[0] == "error: there is no Docker: `make run` needs none"


@pytest.fixture
def complaint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command in a fresh folder, and returns how it ends."""
    monkeypatch.setenv("LOCAL_DIR", str(tmp_path / "local"))

    def run(*arguments: str, main: Callable[[], None] = local.__main__.main) -> str:
        monkeypatch.setattr(sys, "argv", ["python -m local", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        # What exit() is given as a text goes to stderr, and the status is 1.
        return ended.value.code if isinstance(ended.value.code, str) else capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("simulate --vehicle 5", "unrecognized arguments: --vehicle 5"),
        ("simulate --vehicles", "argument --vehicles: expected one argument"),
        ("cost --device 5", "unrecognized arguments: --device 5"),
        ("token", "the following arguments are required: action"),
        ("token issue me --scope all", "argument --scope: invalid choice: 'all'"),
        ("restore", "the following arguments are required: day"),
    ],
)
def test_an_option_that_there_is_not_is_told_in_one_line(
    complaint: Callable[..., str], command: str, says: str
) -> None:
    [line] = complaint(*command.split()).splitlines()
    assert line.startswith(f"error: {says}")
    assert line.endswith(" (--help lists what there is)")


def test_faults_takes_no_abbreviation(
    complaint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults.__main__, "_enter_namespace", lambda: pytest.fail("it starts"))
    said = complaint("--shor", main=faults.__main__.main)
    assert said == "error: unrecognized arguments: --shor (--help lists what there is)\n"


def test_bench_does_not_measure_for_minutes_what_was_not_asked(
    complaint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.__main__, "start_postgres", lambda *_, **__: pytest.fail("it starts"))
    said = complaint("--all", main=bench.__main__.main)
    assert said == "error: unrecognized arguments: --all (--help lists what there is)\n"


@pytest.mark.parametrize("command", [["verify"], ["psql", "SELECT 1"]], ids=str)
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "nothing was started here yet: `make run`"),
        ("postgresql://me:{}@127.0.0.1:1/none", "the database cannot be asked: connection failed"),
        ("mysql://me:{}@127.0.0.1/none", "DATABASE_URL does not begin with postgresql://"),
    ],
)
def test_a_database_that_cannot_be_asked_is_told_in_one_line(
    complaint: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    url: str,
    says: str,
) -> None:
    monkeypatch.setenv("DATABASE_URL", url.format(PASSWORD))
    [line] = complaint(*command).splitlines()
    assert line.startswith(f"error: {says}")
    assert PASSWORD not in line


def test_only_a_token_that_would_be_accepted_is_revoked(
    complaint: Callable[..., str], tmp_path: Path
) -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / ACCEPTED_KEYS).write_text(name_key(key.public_key()), encoding="ascii")
    valid = make_claims("test", [Scope.ANALYTICS_READ])
    expired = valid.model_copy(update={"iat": 1, "exp": 2})
    for token, reason in (
        ("abc", "DecodeError"),
        (valid.jti, "DecodeError"),
        (sign_token(valid, other), "of no known key"),
        (sign_token(expired, key), "ExpiredSignatureError"),
    ):
        assert complaint("token", "revoke", token) == (
            f"error: NOT revoked: this is no token that would be accepted ({reason}). Give the "
            "token itself; or its id with --unseen, which nothing here can check"
        )
    assert complaint("token", "revoke", "abc", "--table", "Revocations") == (
        "error: NOT revoked: with --table, --key names the key that signed the token, and is what "
        "it is checked by"
    )
    assert complaint("token", "revoke", "a.b", "--unseen") == (
        "error: NOT revoked: no token has such an id"
    )
    for accepted in ([sign_token(valid, key)], [valid.jti, "--unseen"]):
        assert complaint("token", "revoke", *accepted) == (
            "error: nothing is running here: `make run`"
        )
