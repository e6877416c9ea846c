"""Readings in Parquet files, written and read by DuckDB, which only the maintenance's bundle has.

Rows are in the order of device and time, so that ids and times take next to nothing;
docs/archive.md has the columns and their units. Outside of files and history an instant is a number
here: microseconds since 1970.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from telemetry import streams
from telemetry.streams import Stream

# Decimals up to which values are compared; history has 15 significant digits.
_DECIMALS = 18
_TO_POSTGRES = {
    "VARCHAR": "coalesce({}, '')",
    "TIMESTAMPTZ": "(extract(epoch FROM {}) * 1000000)::bigint::text",
    "DOUBLE": f"coalesce(round({{}}::text::numeric, {_DECIMALS})::text, '')",
}
_TO_DUCKDB = {
    "VARCHAR": "coalesce({}, '')",
    "TIMESTAMPTZ": "epoch_us({})::VARCHAR",
    "DOUBLE": f"coalesce({{}}::VARCHAR::DECIMAL(38, {_DECIMALS})::VARCHAR, '')",
}

_TYPES = {"text": "VARCHAR", "numeric": "DOUBLE", "double precision": "DOUBLE"}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LENGTHS = (streams.TOLD_LENGTH.name, streams.LENGTH.name)


class Fingerprint(NamedTuple):
    """What two sets of receipts have in common where they are equal.

    kwh is the sum of all receipts, those that do not count too; checksum the sum of the first 60
    bits of each row's MD5.
    """

    readings: int
    kwh: Decimal
    checksum: Decimal


@dataclass(frozen=True)
class Layout:
    """How a stream's receipts are in files: the columns of its history as DuckDB has them."""

    of: Stream

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self.of.name

    @cached_property
    def columns(self) -> Mapping[str, str]:
        """Each column's name and type, the device first, then the instants, then the values."""
        key = {self.of.device: "VARCHAR", "timestamp": "TIMESTAMPTZ", "received_at": "TIMESTAMPTZ"}
        return key | {value.name: _TYPES[value.kind] for value in self.of.values}

    @property
    def units(self) -> str:
        """What files say of the values that have a unit."""
        return ", ".join(f"{value.name} {value.unit}" for value in self.of.values if value.unit)

    @property
    def device(self) -> str:
        """The column of device ids."""
        return self.of.device

    @property
    def history(self) -> str:
        """The partitioned table."""
        return self.of.history

    @property
    def archived(self) -> str:
        """History's partition of all that is archived, where receipts lie that came since."""
        return f"{self.history}_archived"

    def fill(self, statement: str, **others: str) -> bytes:
        """Return a statement of both streams as this one's, with others that it has names for."""
        return statement.format(
            stream=self.stream,
            device=self.device,
            history=self.history,
            archived=self.archived,
            **others,
        ).encode()

    @property
    def kwh(self) -> str:
        """The column of energy."""
        return self.of.energy.name

    @property
    def as_numbers(self) -> str:
        """What PostgreSQL selects for a file: instants as microseconds, numbers as floats."""
        casts = {
            "VARCHAR": '"{}"',
            "TIMESTAMPTZ": '(extract(epoch FROM "{}") * 1000000)::bigint',
            "DOUBLE": '"{}"::float8',
        }
        return ", ".join(casts[kind].format(name) for name, kind in self.columns.items())

    def as_record(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return a row, its instants in microseconds, as PostgreSQL makes a row of JSON."""
        return {
            name: from_microseconds(value).isoformat() if kind == "TIMESTAMPTZ" else value
            for (name, kind), value in zip(self.columns.items(), row, strict=True)
        }

    @property
    def fingerprint_in_postgres(self) -> str:
        """The expressions of a Fingerprint in PostgreSQL's SQL."""
        row = self._row(_TO_POSTGRES)
        return (
            f"count(*), coalesce(sum(round({self.kwh}, {_DECIMALS})), 0), "
            f"coalesce(sum(('x' || left(md5({row}), 15))::bit(60)::bigint), 0)"
        )

    @property
    def fingerprint_in_duckdb(self) -> str:
        """The same in DuckDB's."""
        row = self._row(_TO_DUCKDB)
        kwh = f"{self.kwh}::VARCHAR::DECIMAL(38, {_DECIMALS})"
        return (
            f"count(*), coalesce(sum({kwh}), 0), "
            f"coalesce(sum(('0x' || left(md5({row}), 15))::BIGINT), 0)"
        )

    def _row(self, forms: Mapping[str, str]) -> str:
        """The expression of a row as a text.

        Lengths add nothing where there are none: files from before readings had one hold the same.
        """
        texts = {name: forms[kind].format(f'"{name}"') for name, kind in self.columns.items()}
        row = " || '|' || ".join(text for name, text in texts.items() if name not in _LENGTHS)
        return row + "".join(
            f""" || CASE WHEN "{name}" IS NULL THEN '' ELSE '|{name}=' || {texts[name]} END"""
            for name in _LENGTHS
        )


METERS, VEHICLES = Layout(streams.METERS), Layout(streams.VEHICLES)
LAYOUTS = {layout.stream: layout for layout in (METERS, VEHICLES)}


def to_microseconds(instant: datetime) -> int:
    """Return an instant as files and this module have it."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(instant: int) -> datetime:
    """Return what to_microseconds took."""
    return _EPOCH + timedelta(microseconds=instant)


def write_rows(target: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Make a CSV file as a Workbench reads it: of keys, or of rows of Layout.as_numbers."""
    with target.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


class Workbench:
    """DuckDB with a folder for what it cannot hold in memory."""

    def __init__(self, folder: Path) -> None:
        self._duckdb = duckdb.connect(
            config={
                "temp_directory": str(folder),
                "memory_limit": "1GB",
                "autoinstall_known_extensions": "false",  # there is no way to the internet
            }
        )
        self._duckdb.execute("SET TimeZone = 'UTC'")

    def close(self) -> None:
        """Let go of its memory."""
        self._duckdb.close()

    def write(self, layout: Layout, source: Path, target: Path) -> None:
        """Make a Parquet file of a CSV file of layout.as_numbers, in the order of its rows."""
        columns = ", ".join(
            f'make_timestamptz("{name}") AS "{name}"' if kind == "TIMESTAMPTZ" else f'"{name}"'
            for name, kind in layout.columns.items()
        )
        # Version 2 for its encodings: differences of instants, and bytes of floats apart.
        self._duckdb.execute(
            f"""COPY (SELECT {columns} FROM {self._csv(layout, source)}) TO '{target}'
                (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION V2,
                 KV_METADATA {{units: '{layout.units}'}})"""
        )

    def take_fingerprint(self, layout: Layout, files: Sequence[Path]) -> Fingerprint:
        """Return what Parquet files hold together."""
        return self._take_fingerprint(layout, _parquet(files))

    def _take_fingerprint(self, layout: Layout, source: str) -> Fingerprint:
        row = self._duckdb.execute(
            f"SELECT {layout.fingerprint_in_duckdb} FROM {source}"
        ).fetchone()
        assert row is not None
        return Fingerprint(row[0], row[1], Decimal(row[2]))

    def find_receipts(
        self, layout: Layout, files: Sequence[Path], keys: Path
    ) -> list[tuple[Any, ...]]:
        """Return the receipts of readings, instants as microseconds.

        keys is a CSV file of device ids and instants.
        """
        if not files:
            return []
        return self._duckdb.execute(
            f"""SELECT {_numbers(layout)}
                FROM {_parquet(files)} AS found
                SEMI JOIN {_keys(keys)} AS wanted ON {_is_of(layout, "wanted")}"""
        ).fetchall()

    def find_devices(
        self, layout: Layout, files: Sequence[Path], device_ids: Sequence[str]
    ) -> list[tuple[Any, ...]]:
        """Return the receipts of devices, instants as microseconds."""
        if not files:
            return []
        return self._duckdb.execute(
            f"""SELECT {_numbers(layout)} FROM {_parquet(files)}
                WHERE {layout.device} IN (SELECT unnest($devices))""",
            {"devices": list(device_ids)},
        ).fetchall()

    def keep_others(
        self, layout: Layout, file: Path, *, column: str, device_id: str, until: datetime
    ) -> None:
        """Choose what stays of a file where a device is erased: what was accepted after an instant.

        column has the device's id: the layout's devices, whose receipts go; or another, and then
        the id alone goes.
        """
        self._duckdb.execute(
            "CREATE OR REPLACE TEMP TABLE erased AS SELECT $device AS id, $until AS until",
            {"device": device_id, "until": until},
        )
        is_erased = (
            f"({column} = (SELECT id FROM erased) "
            "AND received_at <= (SELECT until FROM erased)) IS TRUE"
        )
        if column == layout.device:
            query = f"SELECT * FROM {_parquet([file])} WHERE NOT {is_erased}"
        else:
            replaced = f"CASE WHEN {is_erased} THEN NULL ELSE {column} END AS {column}"
            query = f"SELECT * REPLACE ({replaced}) FROM {_parquet([file])}"
        self._duckdb.execute(f"CREATE OR REPLACE TEMP VIEW kept AS {query}")

    def keep_all_but(self, layout: Layout, file: Path, *, keys: Path) -> None:
        """Choose what stays where readings leave a file: keys, as find_receipts takes them."""
        order = ", ".join(f'"{name}"' for name in list(layout.columns)[:3])
        self._duckdb.execute(
            f"""CREATE OR REPLACE TEMP VIEW kept AS
                SELECT found.* FROM {_parquet([file])} AS found
                ANTI JOIN {_keys(keys)} AS leaving ON {_is_of(layout, "leaving")}
                ORDER BY {order}"""
        )

    def take_kept_fingerprint(self, layout: Layout) -> Fingerprint:
        """Return what was chosen holds together."""
        return self._take_fingerprint(layout, "kept")

    def write_kept(self, layout: Layout, target: Path) -> None:
        """Make a CSV file, as write reads it, of what was chosen."""
        self._duckdb.execute(
            f"""COPY (SELECT {_numbers(layout)} FROM kept) TO '{target}'
                (FORMAT csv, HEADER false)"""
        )

    def write_csv(self, layout: Layout, files: Sequence[Path], target: Path) -> None:
        """Make a CSV file, as PostgreSQL copies it in, of Parquet files."""
        columns = ", ".join(
            f'"{name}"::VARCHAR' if kind == "TIMESTAMPTZ" else f'"{name}"'
            for name, kind in layout.columns.items()
        )
        self._duckdb.execute(
            f"""COPY (SELECT {columns} FROM {_parquet(files)}) TO '{target}'
                (FORMAT csv, HEADER false)"""
        )

    def _csv(self, layout: Layout, file: Path) -> str:
        types = {"TIMESTAMPTZ": "BIGINT"}
        columns = ", ".join(
            f"'{name}': '{types.get(kind, kind)}'" for name, kind in layout.columns.items()
        )
        return (
            f"read_csv('{file}', auto_detect = false, header = false, quote = '\"', "
            f"columns = {{{columns}}})"
        )


def _numbers(layout: Layout) -> str:
    return ", ".join(
        f'epoch_us("{name}")' if kind == "TIMESTAMPTZ" else f'"{name}"'
        for name, kind in layout.columns.items()
    )


def _keys(file: Path) -> str:
    columns = "{id: 'VARCHAR', ts: 'BIGINT'}"
    return f"read_csv('{file}', header = false, quote = '\"', columns = {columns})"


def _is_of(layout: Layout, keys: str) -> str:
    return f'found.{layout.device} = {keys}.id AND epoch_us(found."timestamp") = {keys}.ts'


def _parquet(files: Sequence[Path]) -> str:
    """The rows of files, as those have them that were written before readings had a length, too."""
    names = ", ".join(f"'{file}'" for file in files)
    lengths = ", ".join(f"NULL::DOUBLE AS {name}" for name in _LENGTHS)
    return (
        f"(FROM read_parquet([{names}], hive_partitioning = false, union_by_name = true) "
        f"UNION ALL BY NAME SELECT {lengths} WHERE false)"
    )
