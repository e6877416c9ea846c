"""What a person at a terminal reads: short lines, logs without their JSON."""

import argparse
import contextlib
import json
from datetime import datetime
from typing import Any, NoReturn

_NOT_SHOWN = {"level", "location", "message", "timestamp", "service", "exception", "exception_name"}


def say(message: str) -> None:
    """Print a line about what is being done; a terminal that is gone is no reason to fail."""
    with contextlib.suppress(OSError):
        print(message, flush=True)


def readable(line: str) -> str:
    """Return a line of a function's log as a person reads it; other lines as they are."""
    if not line.startswith("{"):
        return line
    try:
        entry: dict[str, Any] = json.loads(line)
        moment = datetime.fromisoformat(entry["timestamp"]).astimezone()
        said = f"{moment:%H:%M:%S} {entry['level']} {entry['service']}: {entry['message']}"
    except (ValueError, KeyError, TypeError):
        return line
    rest = "".join(f" {key}={value}" for key, value in entry.items() if key not in _NOT_SHOWN)
    trace = entry.get("exception")
    return f"{said}{rest}\n{trace}" if trace else said + rest


class CommandParser(argparse.ArgumentParser):
    """Takes options by their whole names alone, and refuses others in one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """End the process with status 2."""
        self.exit(2, f"error: {message} (--help lists what there is)\n")
