"""The query plans of what the functions' own calls execute, by auto_explain."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg.errors import Diagnostic

from local.databases import DatabaseUrls
from telemetry.database import Connection, Database, connect
from tests.conftest import Server


def report_plans(server: Server, name: str) -> None:
    """Let each later session of the database, whatever its role, get its plans as notices."""
    with connect(server.url) as superuser:
        for setting, value in {
            "session_preload_libraries": "auto_explain",
            "auto_explain.log_min_duration": "0",
            "auto_explain.log_nested_statements": "on",
            "auto_explain.log_analyze": "on",
            "auto_explain.log_timing": "off",
            "auto_explain.log_format": "json",
            "auto_explain.log_level": "notice",
        }.items():
            superuser.execute(f"ALTER DATABASE {name} SET {setting} = {value}".encode())


def find_scans(plan: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the indexes a plan used and the rows it touched; a table where it used no index."""
    rows = plan["Actual Rows"] + sum(
        plan.get(f"Rows Removed by {check}", 0) for check in ("Filter", "Index Recheck")
    )
    # Looking without finding anything is work too.
    touched = round(plan["Actual Loops"] * max(1, rows))
    if plan.get("Relation Name") in {"archive_horizon", "tariff"}:
        return  # a row a stream, or a few a tariff, whatever there is
    if index := plan.get("Index Name"):
        # Not told which device or zone, or since when it was erased, it reads all of the index.
        told = ("_id = ", "asked_at >= ", "time_zone = ")
        is_told = any(condition in plan.get("Index Cond", "") for condition in told)
        yield (index if is_told else f"all of {index}"), touched
    elif plan["Node Type"] == "Seq Scan":
        yield f"all of {plan['Relation Name']}", touched
    for arbiter in plan.get("Conflict Arbiter Indexes", []):
        yield arbiter, plan["Tuples Inserted"] + plan["Conflicting Tuples"]
    for part in plan.get("Plans", []):
        yield from find_scans(part)


class Explained:
    """The databases of the ingest and the analytics function, and what is touched through them."""

    def __init__(
        self, urls: DatabaseUrls, plan_cache_mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._plans: list[dict[str, Any]] = []

        def connect_and_listen(url: str, **options: Any) -> Connection:
            connection = connect(url, **options)
            connection.execute(f"SET plan_cache_mode = {plan_cache_mode}".encode())
            connection.add_notice_handler(self._listen)
            return connection

        monkeypatch.setattr("telemetry.database.connect", connect_and_listen)
        self.ingest, self.read = Database(urls.ingest), Database(urls.read)

    def _listen(self, notice: Diagnostic) -> None:
        _, _, explained = (notice.message_primary or "").partition("plan:\n")
        self._plans.append(json.loads(explained)["Plan"])

    def touched_by(self, call: Callable[..., object], *args: Any) -> dict[str, int]:
        """Call, and return how many rows were touched by each index that was used."""
        self._plans.clear()
        call(*args)
        touched: Counter[str] = Counter()
        for plan in self._plans:
            for index, rows in find_scans(plan):
                touched[index] += rows
        return dict(+touched)

    def close(self) -> None:
        self.ingest.close()
        self.read.close()
