"""`make backfill`: a file's readings, sent as batches of the past, going on where it stopped."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from local import LocalError
from local.backfill.files import ReadingFile, Row, open_file
from local.backfill.state import Refusals, SentReadings, State, StateFile
from local.server import get_health
from local.simulator.sender import Client, System, Unanswered
from telemetry.batches import MOST_READINGS, MOST_REJECTIONS
from telemetry.errors import FieldError
from telemetry.recognition import field_errors

# Rows that are brought into the order of devices together: with a batch for each minute of 10,000
# devices PostgreSQL stores a third of what it does of ten minutes for each of 1,000. And the rows
# between one state and the next: so many are sent twice after a kill, at most.
WINDOW = 10 * MOST_READINGS

# A line of the file, why it is refused, its cells.
Refused = tuple[int, str, Sequence[Any]]
# A device, and the time of its reading.
Accepted = tuple[str, datetime]


def backfill(path: Path, system: System, folder: Path, *, again: bool = False) -> State:
    """Send a file's readings to a system, and return what became of them.

    Raises LocalError where that does not work.

    How far it came is kept in the folder. What is refused goes to a file beside.
    """
    file = open_file(path)
    if get_health(*system)[0] is None:
        raise LocalError(f"nothing answers at {system.url}: `make run` first")
    states = StateFile(folder, file, system.url)
    console = Console(highlight=False)
    with states.lock():
        state = State() if again else states.load()
        refusals = Refusals(file, state.refused_bytes)
        sent = SentReadings(states.sent_path, state.sent_bytes)
        if state.done:
            console.print(f"{escape(file.path.name)} was sent there before; AGAIN=1 sends it again")
        elif state.rows:
            console.print(f"Going on after row {state.rows:,}")
        client = Client(system)
        try:
            for accepted, refused in _send_rest(file, state, client, console):
                state.accepted += len(accepted)
                state.refused += len(refused)
                state.rows += len(accepted) + len(refused)
                state.refused_bytes = refusals.write(refused)
                state.sent_bytes = sent.write(accepted)
                states.save(state)
        except Unanswered as unanswered:
            raise LocalError(
                f"gave up after row {state.rows:,}: {unanswered}; the same command goes on there"
            ) from None
        except OSError as error:
            raise LocalError(f"cannot write {error.filename}: {error.strerror}") from None
        finally:
            client.close()
        if not state.done:
            state.done, state.distinct, state.sent_bytes = True, sent.count(), 0
            states.save(state)
        sent.delete()
    console.print(state.summary, soft_wrap=True)
    if state.refused:
        console.print(f"Why is in {escape(str(refusals.path))}", soft_wrap=True)
    console.print("What is not stored yet waits in a queue: `make status`")
    return state


def _send_rest(
    file: ReadingFile, state: State, client: Client, console: Console
) -> Iterator[tuple[list[Accepted], list[Refused]]]:
    """Send window after window; yield what send_window returns of each."""
    if state.done:
        return
    rows = file.rows(state.rows)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    began, done = time.monotonic(), 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("Sending", total=file.lines, completed=state.rows, rate="")

        def show(count: int) -> None:
            nonlocal done
            done += count
            progress.update(task, advance=count, rate=f"{_rate():,.0f}/s")

        def _rate() -> float:
            return done / max(0.001, time.monotonic() - began)

        # One batch after the other: where a file has a reading twice, the last row counts.
        while window := list(islice(rows, WINDOW)):
            yield send_window(file, window, client, show)
            if not console.is_terminal:
                left = max(0, file.lines - state.rows)
                console.print(
                    f"{state.rows:,} rows of some {file.lines:,}, {_rate():,.0f}/s, "
                    f"{left / _rate():,.0f} s left"
                )


def send_window(
    file: ReadingFile, window: Sequence[Row], client: Client, show: Callable[[int], None]
) -> tuple[list[Accepted], list[Refused]]:
    """Send rows in the order of devices; return which readings were accepted, and rows refused.

    show is told how many are done, again and again. Raises Unanswered and LocalError.
    """
    validate = file.stream.kind.__pydantic_validator__.validate_python
    refused: list[Refused] = []
    readings = []
    for row in window:
        if row.fault:
            refused.append((row.line, row.fault, row.cells))
            continue
        item = file.item(row)
        try:
            readings.append((file.stream.order(validate(item)), row, item))
        except ValidationError as error:
            refused.append((row.line, _reason(field_errors(error)), row.cells))
    show(len(refused))
    readings.sort(key=lambda reading: reading[0])
    for first in range(0, len(readings), MOST_READINGS):
        batch = [(row, item) for _, row, item in readings[first : first + MOST_READINGS]]
        refused += send_batch(file, batch, client)
        show(len(batch))
    refused.sort(key=lambda entry: entry[0])
    lines = {line for line, _, _ in refused}
    return [reading for reading, row, _ in readings if row.line not in lines], refused


def send_batch(
    file: ReadingFile, batch: Sequence[tuple[Row, Mapping[str, Any]]], client: Client
) -> list[Refused]:
    """Send one batch until all of it is accepted, but for those returned."""
    refused: list[Refused] = []
    path = f"/v1/ingestion/{file.stream.name}/batch?mode=backfill"
    while batch:
        status, content = client.request("POST", path, json.dumps([item for _, item in batch]))
        try:
            answer = json.loads(content)
            rejections = answer["rejections"]
        except (ValueError, TypeError, KeyError):
            said = content[:200].decode(errors="replace")
            raise LocalError(f"{path} answers {status}: {said}") from None
        if answer["rejectionsOmitted"]:
            # So few at once that each rejection is told. What was accepted may be sent again.
            parts = range(0, len(batch), MOST_REJECTIONS)
            return [
                entry
                for first in parts
                for entry in send_batch(file, batch[first : first + MOST_REJECTIONS], client)
            ]
        again = []
        for rejection in rejections:
            row, item = batch[rejection["index"]]
            if rejection["status"] == 503:
                again.append((row, item))
            else:
                errors = [FieldError(**error) for error in rejection["errors"]]
                refused.append((row.line, _reason(errors), row.cells))
        batch = again
    return refused


def _reason(errors: Sequence[FieldError]) -> str:
    return "; ".join(f"{error.field}: {error.message}" for error in errors)
