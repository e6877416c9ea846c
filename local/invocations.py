"""Calling functions of the system that runs in a folder: the commands that are one call."""

import argparse
import contextlib
import io
import json
import os
import sys
import uuid
from datetime import date
from pathlib import Path
from typing import Any

import psycopg

from local import LocalError, sam
from local.configuration import read_local_template
from local.console import say
from local.databases import check_database_url
from local.folder import read_file, running_pid
from local.runtime import Environment
from local.stack import function_environ
from telemetry.database import Connection, connect
from telemetry.errors import TelemetryError


def database_url(folder: Path) -> str:
    """Return the URL of its database's owner. Raises LocalError where there is none."""
    if url := os.environ.get("DATABASE_URL"):
        check_database_url("DATABASE_URL", url)
    return url or read_file(folder, "database-url")


def open_database(folder: Path) -> Connection:
    """Connect as the database's owner. Raises LocalError where that does not work."""
    try:
        return connect(database_url(folder))
    except psycopg.Error as error:
        raise database_failed(error) from None


def database_failed(error: psycopg.Error) -> LocalError:
    """Return what a person is told of a database that cannot be asked."""
    remedy = "`make run` starts it, or `make db-start` after `make db-stop`"
    if os.environ.get("DATABASE_URL"):
        remedy = "DATABASE_URL names it"
    return LocalError(f"the database cannot be asked: {_first_line(error)}; {remedy}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def maintain(folder: Path, _options: argparse.Namespace) -> None:
    """Run the maintenance once, now, and print the metric of each step.

    Raises LocalError.
    """
    environ = _of_system(folder)
    with contextlib.redirect_stdout(io.StringIO()):  # its log and metrics, which are for machines
        done = _call(environ, "MaintainFunction", {})
    for metric, value in done.items():
        say(f"{metric}: {value}")


def restore(folder: Path, options: argparse.Namespace) -> None:
    """Bring a day back from the archive, into tables of its own.

    Raises LocalError.
    """
    try:
        day = date.fromisoformat(options.day)
    except ValueError:
        found = f"{options.day} is not a day" if options.day else "no day is given"
        raise LocalError(f"{found}: `make restore DAY=2026-01-31`") from None
    made = _call(_of_system(folder), "MaintainFunction", {"restore": str(day)})
    for table, receipts in made.items():
        say(f"{table}: {receipts} receipts; `DROP TABLE {table}` when you are done with it")


def raise_alerts(folder: Path, _options: argparse.Namespace) -> None:
    """Judge the chargers now, and print what is published.

    Raises LocalError.
    """
    environ = _of_system(folder)
    with contextlib.redirect_stdout(io.StringIO()):  # its log and metric, which are for machines
        returned = _call(environ, "FaultMonitorFunction", {})
    for notice in returned["first"]:
        said = notice["evidence"] and f"{notice['evidence']['efficiencyRatio']} %"
        said = said or f"{notice['by']}: {notice['why']}"
        about = f"{notice['vehicleId']} {notice['meterId']}"
        kind = "" if notice["kind"] == "efficiency" else f" ({notice['kind']})"
        say(f"{notice['change']}{kind}: {about}, {said}\n  {json.dumps(notice)}")
    for vehicle_id, why in returned["notJudged"].items():
        say(f"{vehicle_id} could not be judged: {why}")
    say(f"Judged up to {returned['timeWindowEnd']}; published: {returned['published']}")


def _of_system(folder: Path) -> dict[str, str]:
    """Return the environment of functions of the system that runs in a folder."""
    if running_pid(folder) is None:
        raise LocalError("nothing is running here: `make run`")
    maintain = {"MAINTAIN_DATABASE_URL": read_file(folder, "maintain-database-url")}
    queues: dict[str, str] = json.loads(read_file(folder, "sqs.json"))
    return function_environ(queues) | {"DATABASE_URL": database_url(folder)} | maintain


def invoke(folder: Path, options: argparse.Namespace) -> None:
    """Call a function with an event from a file of JSON, and print what it returns.

    Raises LocalError.
    """
    if not options.function:
        raise LocalError("no function is given: `make sam-invoke FUNCTION=AnalyticsFunction`")
    try:
        event = options.event.read_text(encoding="utf-8") if options.event else "{}"
        parsed = json.loads(event)
    except OSError as error:
        raise LocalError(f"cannot read the event {error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise LocalError(f"{options.event} is not JSON: {error}") from None
    if options.sam:
        sys.exit(sam.invoke_function(folder, options.function, event, _of_system(folder)))
    environ = {**os.environ, "DATABASE_URL": database_url(folder)}
    say(json.dumps(_call(environ, options.function, parsed)))


def _call(environ: dict[str, str], name: str, event: Any) -> Any:
    os.environ.clear()
    os.environ.update(environ)
    template = read_local_template(environ)
    if name not in template.functions:
        raise LocalError(f"there is no function {name}: {', '.join(template.functions)}")
    try:
        return Environment(template.functions[name]).invoke(event, str(uuid.uuid4()))
    except (psycopg.Error, TelemetryError) as error:
        raise LocalError(f"{name}: {_first_line(error)}") from error
