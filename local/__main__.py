"""The commands behind `make`: `python -m local COMMAND`."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
from rich.console import Console

from local import ROOT, LocalError, invocations, letters
from local.capacity import Fleet, print_cost
from local.console import CommandParser, say
from local.databases import DatabaseUrls, switch_database
from local.folder import ACCEPTED_KEYS, read_file, running_pid, stop
from local.invocations import database_failed, database_url, open_database
from local.postgres import embedded_binaries
from local.server import check_silent, check_url, get_health
from local.simulator import command as simulator
from local.stack import Stack
from telemetry.access import Scope
from telemetry.verification import find_differences

Options = argparse.Namespace


def main() -> None:
    """Run one command; what a person can mend ends it with one line and status 1."""
    folder = Path(os.environ.get("LOCAL_DIR", ROOT / ".local")).resolve()
    parser = CommandParser(prog="python -m local", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def add(name: str, command: Callable[[Path, Options], None], says: str) -> CommandParser:
        added: CommandParser = commands.add_parser(name, help=says)
        added.set_defaults(command=command)
        return added

    add("run", _run, "start everything and serve until Ctrl-C").add_argument(
        "--sam", action="store_true", help="by `sam local start-api`, in containers"
    )
    add("status", _status, "say what is running")
    add("logs", _logs, "show the log as it grows")
    add("psql", _psql, "a SQL prompt, or one statement").add_argument("sql", nargs="?")
    add("verify", _verify, "compare live rows and rollups with history")
    add("maintain", invocations.maintain, "partitions, summaries, archive, statistics: once, now")
    add("restore", invocations.restore, "bring a day back from the archive").add_argument("day")
    add("db-stop", _stop_database, "stop the database, and nothing else")
    add("db-start", _start_database, "start the database again")
    add("dead-letters", letters.show, "list the messages that cannot be stored, and why")
    add("redrive", letters.redrive, "send these messages back to their queues")
    add("discard", letters.discard, "delete one of them for good").add_argument("message_id")
    _add_token_options(add("token", _token, "keys and tokens: issued, revoked"))
    backfill = add("backfill", _backfill, "send months of readings from a file")
    backfill.add_argument("file", help="CSV or Parquet, columns as the API's fields")
    backfill.add_argument("--url", help="of the running system")
    backfill.add_argument("--again", action="store_true", help="from the beginning")
    add("stop", _stop, "stop what `run` started")
    add("reset", _reset, "stop, and delete all data")
    cost = add("cost", _cost, "estimate what a fleet costs on AWS")
    cost.add_argument("--devices", type=int, default=20_000)
    cost.add_argument("--interval", type=float, default=60, help="seconds between readings")
    cost.add_argument("--batch", type=int, default=1, help="readings in a request")
    cost.add_argument("--history-days", type=int, default=90)
    cost.add_argument("--queue-first", action="store_true", help="as INGEST_MODE=queue")
    add("openapi", _write_openapi, "write docs/openapi.json")
    add("tables", _write_tables, "write docs/tables.md")
    simulator.add_options(add("simulate", _simulate, "send telemetry to what is running"))
    add("poll", _poll, "handle the messages of the queues; `run` starts this")
    add("alerts", invocations.raise_alerts, "judge the chargers now, and publish what has changed")
    invoke = add("invoke", invocations.invoke, "call a function directly")
    invoke.add_argument("--sam", action="store_true", help="by `sam local invoke`, in a container")
    invoke.add_argument("function")
    invoke.add_argument("event", nargs="?", type=Path, help="a file of JSON ({})")
    options = parser.parse_args()
    try:
        options.command(folder, options)
    except LocalError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _run(folder: Path, options: Options) -> None:
    given = os.environ.get("DATABASE_URL")
    urls = DatabaseUrls.from_environment(os.environ) if given else None
    database_port = _port("DATABASE_PORT") if os.environ.get("DATABASE_PORT") else 0
    Stack(folder, _port(), urls, database_port, through_sam=options.sam).run()


def _stop(folder: Path, _options: Options) -> None:
    if stop(folder):
        say("Stopped.")
    else:
        check_silent(folder, _port())
        say("Nothing is running here.")


def _reset(folder: Path, _options: Options) -> None:
    stop(folder)
    try:
        folder.unlink() if folder.is_file() else shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LocalError(f"cannot delete {error.filename}: {error.strerror}") from None
    say(f"Deleted {folder}; `make run` begins anew.")


def _simulate(folder: Path, options: Options) -> None:
    token = os.environ.get("TOKEN") or ("" if options.url else _own_token(folder, *Scope))
    simulator.simulate(options, _url(folder), token)


def _own_token(folder: Path, *scopes: Scope) -> str:
    """Return a token for the system that runs in the folder, empty where it asks for none."""
    if running_pid(folder) is None or not read_file(folder, ACCEPTED_KEYS):
        return ""
    from local.tokens import sign_own_token

    return sign_own_token(folder, *scopes)


def _add_token_options(parser: CommandParser) -> None:
    actions = parser.add_subparsers(required=True, dest="action")
    issue = actions.add_parser("issue", help="print a token, this once")
    issue.add_argument("subject", metavar="WHO", help="a name for whoever gets it")
    scopes = [scope.value for scope in Scope]
    issue.add_argument(
        "--scope", required=True, action="append", choices=scopes, help="may be repeated"
    )
    for devices in ("--meters", "--vehicles"):
        issue.add_argument(
            devices, default="", metavar="IDS", help="ids, or DEPOT7-*, separated by commas"
        )
    issue.add_argument("--days", type=int, default=365, help="how long it is valid (365)")
    issue.add_argument("--key", type=Path, metavar="FILE", help="of a deployment, in PEM")
    revoke = actions.add_parser("revoke", help="have a token not accepted any more")
    revoke.add_argument("token", metavar="TOKEN", help="the token itself")
    revoke.add_argument("--unseen", action="store_true", help="TOKEN is only its id: unchecked")
    revoke.add_argument("--table", help="of a deployment (its output RevocationsTable)")
    revoke.add_argument("--key", type=Path, metavar="FILE", help="of a deployment: signed TOKEN")
    key = actions.add_parser("key", help="make another key, and say how to have it accepted")
    key.add_argument("--file", type=Path, metavar="FILE", help="for a deployment: kept there")


def _token(folder: Path, options: Options) -> None:
    from local.tokens import run_action

    run_action(folder, options)


def _stop_database(folder: Path, _options: Options) -> None:
    switch_database(folder, "stopped")
    say("The database is stopped: readings wait in the queues until `make db-start`.")


def _start_database(folder: Path, _options: Options) -> None:
    switch_database(folder, "running")
    say("The database runs; what waited in the queues is being stored: see `make status`.")


def _backfill(folder: Path, options: Options) -> None:
    from local.backfill.command import backfill
    from local.simulator.sender import System

    if not options.file:
        raise LocalError("no file is given: `make backfill FILE=readings.csv`")
    token = os.environ.get("TOKEN") or ("" if options.url else _own_token(folder, *Scope))
    system = System(check_url(options.url or _url(folder)), token)
    backfill(Path(options.file), system, folder, again=options.again)


def _poll(_folder: Path, _options: Options) -> None:
    from local.mapping import poll

    poll()


def _cost(_folder: Path, options: Options) -> None:
    if min(options.devices, options.interval, options.batch, options.history_days) <= 0:
        raise LocalError("DEVICES, INTERVAL, BATCH and HISTORY_DAYS have to be above 0")
    fleet = Fleet(
        options.devices,
        options.interval,
        options.batch,
        options.history_days,
        options.queue_first,
    )
    print_cost(fleet, Console())


def _write_openapi(_folder: Path, _options: Options) -> None:
    from local.openapi import write_document

    write_document()


def _write_tables(_folder: Path, _options: Options) -> None:
    from local.tables import write_tables

    write_tables()


def _port(variable: str = "PORT") -> int:
    value = os.environ.get(variable) or "3000"
    if not (value.isascii() and value.isdecimal()) or not 0 < int(value) < 65536:
        raise LocalError(f"{variable}={value} is not a port")
    return int(value)


def _url(folder: Path) -> str:
    """Where the system runs, or would."""
    return read_file(folder, "url") if running_pid(folder) else f"http://localhost:{_port()}"


def _status(folder: Path, _options: Options) -> None:
    pid = running_pid(folder)
    if pid is None:
        check_silent(folder, _port())
        say("Not running. `make run` starts it.")
        return
    from local.queues import Queues

    url = read_file(folder, "url")
    away = {
        "starting": f"STARTING, see {folder / 'postgres.log'}",
        "stopped": "STOPPED until `make db-start`",
    }
    state = read_file(folder, "database-state")
    say(f"Running:  process {pid}, {url}")
    say(f"Database: {away.get(state, folder / 'database-url')}")
    for depth in Queues.of_system(folder).depths():
        say(
            f"Queue:    {depth.queue}: {depth.waiting + depth.in_flight} not stored yet "
            f"({depth.waiting} waiting, {depth.in_flight} in flight), {depth.dead} dead letters"
        )
    status, answer = get_health(url, _own_token(folder, Scope.ANALYTICS_READ))
    say(f"Health:   {'ok' if status == 200 else 'NOT OK'} {answer}")
    sys.exit(0 if status == 200 else 1)


def _logs(folder: Path, _options: Options) -> None:
    read_file(folder, "server.log")
    subprocess.run(["tail", "-n", "100", "-F", folder / "server.log"], check=False)


def _psql(folder: Path, options: Options) -> None:
    arguments = ["-c", options.sql] if options.sql else []
    open_database(folder).close()  # what hinders that is said in one line
    program = embedded_binaries() / "psql"
    done = subprocess.run(
        [program, database_url(folder), "-v", "ON_ERROR_STOP=1", *arguments], check=False
    )
    sys.exit(done.returncode)


def _verify(folder: Path, _options: Options) -> None:
    try:
        with open_database(folder) as connection:
            differences = find_differences(connection)
    except psycopg.Error as error:
        raise database_failed(error) from None
    for found in differences:
        where = f"{found.table} {found.device} {found.hour or ''}".rstrip()
        say(f"{where}: history says {found.expected}, stored is {found.stored}")
    if differences:
        raise LocalError(
            "live rows, rollups or links are not what history says: see the lines above"
        )
    say("Live rows, rollups, summaries and links are what history says.")


if __name__ == "__main__":
    main()
