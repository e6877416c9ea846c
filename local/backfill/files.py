"""Reads files of readings: CSV, and Parquet by DuckDB.

Columns have the names that the API gives the fields of a reading, or those of the tables
(`kwhConsumedAc`, `kwh_consumed_ac`); which ones there are tells meters from vehicles.
"""

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from local import LocalError
from telemetry.intake import METERS, VEHICLES, Intake

# What the API's own CSV has beside the fields of a reading, the tables, and files of refused rows.
NOT_OF_A_READING = {"receivedAt", "received_at", "counts", "line", "reason", "seconds"}
# What the device told of its interval. Beside that, intervalSeconds is what the interval counts as.
TOLD = {"toldSeconds", "told_seconds"}
# What the device reported, where the energy beside it was worked out of that.
REGISTER = "registerKwh"
PARQUET = b"PAR1"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHUNK = 10_000


class Row(NamedTuple):
    """A row of a file: the line on which it ends (of Parquet, its number) and its cells.

    Where it cannot be told apart into cells, fault says why.
    """

    line: int
    cells: Sequence[Any]
    fault: str = ""


@dataclass(frozen=True)
class ReadingFile:
    """A file of readings; digest is the SHA-256 of its content, lines how many it has."""

    path: Path
    columns: Sequence[str]
    digest: str
    lines: int
    is_parquet: bool

    @cached_property
    def stream(self) -> Intake[Any]:
        """What the readings are of."""
        return VEHICLES if {"vehicleId", "vehicle_id"} & set(self.columns) else METERS

    @cached_property
    def fields(self) -> Sequence[str | None]:
        """The field of a reading that each column is, None where it is none.

        Raises LocalError where a column is missing, there twice, or unknown.
        """
        known = self.stream.kind.model_fields
        aliases = {name: field.alias or name for name, field in known.items()}
        aliases["register_kwh"] = REGISTER
        left_out = NOT_OF_A_READING
        if TOLD & set(self.columns):
            left_out = left_out | {"intervalSeconds"}
        fields = [
            None
            if column in left_out
            else "intervalSeconds"
            if column in TOLD
            else aliases.get(column, column)
            for column in self.columns
        ]
        there = [field for field in fields if field]
        required = [aliases[name] for name, field in known.items() if field.is_required()]
        for says, names in (
            ("no column", [name for name in required if name not in there]),
            ("an unknown column", sorted(set(there) - set(aliases.values()))),
            ("twice the column", sorted({name for name in there if there.count(name) > 1})),
        ):
            if names:
                raise LocalError(
                    f"{self.path} has {says} {', '.join(names)}: readings of a "
                    f"{self.stream.name} have {', '.join(aliases.values())}"
                )
        return fields

    @cached_property
    def _numbers(self) -> set[str]:
        known = self.stream.kind.model_fields
        return {
            field.alias or name for name, field in known.items() if "float" in str(field.annotation)
        } | {REGISTER}

    @cached_property
    def _may_be_null(self) -> set[str]:
        """Fields that may not be left out, where what is not known is null."""
        known = self.stream.kind.model_fields
        return {
            field.alias or name
            for name, field in known.items()
            if field.is_required() and "None" in str(field.annotation)
        }

    def item(self, row: Row) -> Mapping[str, Any]:
        """Return a row as the API takes a reading; what is no number stays a text."""
        item: dict[str, Any] = {}
        for field, cell in zip(self.fields, row.cells, strict=True):
            if field is None:
                continue
            if cell is None or cell == "":
                if field in self._may_be_null:
                    item[field] = None
                continue
            if isinstance(cell, str):
                if field not in self._numbers:
                    # The API's CSV has one before what a spreadsheet would compute.
                    item[field] = cell.removeprefix("'")
                    continue
                if _NUMBER.fullmatch(cell):
                    item[field] = float(cell)
                    continue
            item[field] = cell
        if REGISTER in item:
            item[self.stream.kind.ENERGY] = item.pop(REGISTER)
        return item

    def rows(self, skipped: int = 0) -> Iterator[Row]:
        """Yield the rows after so many; raise LocalError where the file cannot be read."""
        try:
            yield from self._parquet_rows(skipped) if self.is_parquet else self._csv_rows(skipped)
        except OSError as error:
            raise LocalError(f"cannot read {self.path}: {error.strerror}") from None
        except duckdb.Error as error:
            raise _unreadable(self.path, error) from None

    def _csv_rows(self, skipped: int) -> Iterator[Row]:
        # What is not UTF-8 is refused with its row, and written back as it was.
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            lines = csv.reader(file, strict=True)
            next(lines)
            while True:
                cells: list[str] = []
                fault = ""
                first = lines.line_num + 1
                try:
                    cells = next(lines)
                except StopIteration:
                    return
                except csv.Error as error:
                    # A quote that nothing closes takes lines that follow with it.
                    fault = f"no CSV from line {first} on: {error}"
                if not cells and not fault:
                    continue  # an empty line
                if skipped:
                    skipped -= 1
                    continue
                if not fault and len(cells) != len(self.columns):
                    fault = f"{len(cells)} columns instead of {len(self.columns)}"
                yield Row(lines.line_num, cells, fault)

    def _parquet_rows(self, skipped: int) -> Iterator[Row]:
        with duckdb.connect() as connection:
            found = connection.execute(_DESCRIBE, [str(self.path)]).fetchall()
            selected = ", ".join(
                self._expression(field, column, kind)
                for field, (column, kind, *_) in zip(self.fields, found, strict=True)
            )
            connection.execute(
                f"SELECT {selected} FROM read_parquet($1) OFFSET {skipped}", [str(self.path)]
            )
            line = skipped
            while rows := connection.fetchmany(_CHUNK):
                for cells in rows:
                    line += 1
                    yield Row(
                        line,
                        [
                            _time(cell) if field == "timestamp" else cell
                            for field, cell in zip(self.fields, cells, strict=True)
                        ],
                    )

    def _expression(self, field: str | None, column: str, kind: str) -> str:
        name = '"' + column.replace('"', '""') + '"'
        if field == "timestamp" and kind == "TIMESTAMP WITH TIME ZONE":
            return f"epoch_us({name})"
        if field == "timestamp" and kind != "VARCHAR":
            raise LocalError(
                f"{self.path}: column {column} is of type {kind}, which says nothing of a time "
                f"zone: write it in UTC (isAdjustedToUTC), or as a text such as "
                "2026-02-10T10:00:00Z"
            )
        if field in self._numbers and kind != "VARCHAR":
            # By its text: 0.1 of four bytes is not to become 0.10000000149.
            return f"{name}::VARCHAR::DOUBLE"
        return f"{name}::VARCHAR"


_DESCRIBE = "DESCRIBE SELECT * FROM read_parquet($1)"


def open_file(path: Path) -> ReadingFile:
    """Look at a file; raise LocalError where it is none of readings."""
    digest, lines, start = hashlib.sha256(), 0, b""
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                start = start or block[: len(PARQUET)]
                digest.update(block)
                lines += block.count(b"\n")
        if is_parquet := start == PARQUET:
            with duckdb.connect() as connection:
                columns = [row[0] for row in connection.execute(_DESCRIBE, [str(path)]).fetchall()]
                [(lines,)] = connection.execute(
                    "SELECT count(*) FROM read_parquet($1)", [str(path)]
                ).fetchall()
        else:
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
                columns = next(csv.reader(text, strict=True), [])
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from None
    except (csv.Error, duckdb.Error) as error:
        raise _unreadable(path, error) from None
    opened = ReadingFile(path, columns, digest.hexdigest(), lines, is_parquet)
    assert opened.fields  # raises where they are none of readings
    return opened


def _unreadable(path: Path, error: Exception) -> LocalError:
    return LocalError(f"{path} is neither CSV nor Parquet: {str(error).splitlines()[0]}")


def _time(cell: int | str | None) -> str | None:
    if not isinstance(cell, int):
        return cell
    return (_EPOCH + timedelta(microseconds=cell)).isoformat()
