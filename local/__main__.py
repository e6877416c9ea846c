"""The commands behind `make`: `python -m local COMMAND`."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import psycopg

from local import ROOT, LocalError
from local.console import say
from local.databases import DatabaseUrls
from local.postgres import embedded_binaries
from local.runtime import Environment
from local.simulator import command as simulator
from local.stack import Stack, get_health, running_pid, stop
from local.template import read_template
from telemetry.database import connect
from telemetry.errors import TelemetryError
from telemetry.verification import find_differences


def main() -> None:
    """Run one command; what a person can mend ends it with one line and status 1."""
    folder = Path(os.environ.get("LOCAL_DIR", ROOT / ".local")).resolve()
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="start everything and serve until Ctrl-C")
    commands.add_parser("status", help="say what is running")
    commands.add_parser("logs", help="show the log as it grows")
    commands.add_parser("psql", help="a SQL prompt, or one statement").add_argument(
        "sql", nargs="?"
    )
    commands.add_parser("verify", help="compare live rows and rollups with history")
    commands.add_parser("stop", help="stop what `run` started")
    commands.add_parser("reset", help="stop, and delete all data")
    commands.add_parser("openapi", help="write docs/openapi.json")
    commands.add_parser("schema", help="write layers/telemetry/schema.sql")
    simulator.add_options(commands.add_parser("simulate", help="send telemetry to what is running"))
    invoke = commands.add_parser("invoke", help="call a function directly")
    invoke.add_argument("function")
    invoke.add_argument("event", nargs="?", default="{}")
    options = parser.parse_args()
    try:
        _run(options, folder)
    except LocalError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _run(options: argparse.Namespace, folder: Path) -> None:
    match options.command:
        case "run":
            given = os.environ.get("DATABASE_URL")
            urls = DatabaseUrls.from_environment(os.environ) if given else None
            Stack(folder, _port(), urls).run()
        case "status":
            _status(folder)
        case "logs":
            _logs(folder)
        case "psql":
            _psql(folder, options.sql)
        case "verify":
            _verify(folder)
        case "stop":
            say("Stopped." if stop(folder) else "Nothing is running here.")
        case "reset":
            stop(folder)
            try:
                folder.unlink() if folder.is_file() else shutil.rmtree(folder)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise LocalError(f"cannot delete {error.filename}: {error.strerror}") from None
            say(f"Deleted {folder}; `make run` begins anew.")
        case "simulate":
            simulator.simulate(options, _url(folder))
        case "invoke":
            _invoke(folder, options.function, options.event)
        case "openapi" | "schema":
            _write(options.command)


def _write(document: str) -> None:
    from local.openapi import write_document
    from local.schema import write_schema

    {"openapi": write_document, "schema": write_schema}[document]()


def _port() -> int:
    value = os.environ.get("PORT") or "3000"
    if not (value.isascii() and value.isdecimal()) or not 0 < int(value) < 65536:
        raise LocalError(f"PORT={value} is not a port")
    return int(value)


def _url(folder: Path) -> str:
    """Where the system runs, or would."""
    return _read(folder, "url") if running_pid(folder) else f"http://localhost:{_port()}"


def _read(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise LocalError("nothing was started here yet: `make run`") from None
    except OSError as error:
        raise LocalError(f"cannot read {error.filename}: {error.strerror}") from None


def _status(folder: Path) -> None:
    pid = running_pid(folder)
    if pid is None:
        say("Not running. `make run` starts it.")
        return
    url = _read(folder, "url")
    status, answer = get_health(url)
    say(f"Running:  process {pid}, {url}")
    say(f"Database: {folder / 'database-url'}")
    say(f"Health:   {'ok' if status == 200 else 'NOT OK'} {answer}")
    sys.exit(0 if status == 200 else 1)


def _logs(folder: Path) -> None:
    _read(folder, "server.log")
    subprocess.run(["tail", "-n", "100", "-F", folder / "server.log"], check=False)


def _psql(folder: Path, sql: str | None) -> None:
    arguments = ["-c", sql] if sql else []
    program = embedded_binaries() / "psql"
    done = subprocess.run(
        [program, _database_url(folder), "-v", "ON_ERROR_STOP=1", *arguments], check=False
    )
    sys.exit(done.returncode)


def _verify(folder: Path) -> None:
    with connect(_database_url(folder)) as connection:
        differences = find_differences(connection)
    for found in differences:
        where = f"{found.table} {found.device} {found.hour or ''}".rstrip()
        say(f"{where}: history says {found.expected}, stored is {found.stored}")
    if differences:
        raise LocalError("live rows or rollups are not what history says: see the lines above")
    say("Live rows and rollups are what history says.")


def _database_url(folder: Path) -> str:
    return os.environ.get("DATABASE_URL") or _read(folder, "database-url")


def _invoke(folder: Path, name: str, event: str) -> None:
    environ = {**os.environ, "DATABASE_URL": _database_url(folder)}
    urls = DatabaseUrls.from_environment(environ)
    template = read_template(ROOT / "template.yaml", urls.parameters)
    if name not in template.functions:
        raise LocalError(f"there is no function {name}: {', '.join(template.functions)}")
    try:
        parsed = json.loads(event)
    except ValueError as error:
        raise LocalError(f"the event is not JSON: {error}") from None
    try:
        returned = Environment(template.functions[name]).invoke(parsed, str(uuid.uuid4()))
    except (psycopg.Error, TelemetryError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LocalError(f"{name}: {reason}") from error
    say(json.dumps(returned))


if __name__ == "__main__":
    main()
