"""The statements of docs/operations.md, as they stand there, on the real schema."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, LiteralString, cast

import psycopg
import pytest

from local import ROOT
from local.databases import DatabaseUrls
from telemetry.database import Database, Row, connect
from telemetry.rules import Rules
from telemetry.summaries import refresh_summaries
from tests.conftest import unpooled
from tests.integration.conftest import Api

pytestmark = unpooled

RUNBOOK = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
MINUTE = timedelta(minutes=1)


def statements() -> Iterator[tuple[str, LiteralString]]:
    """Each block of SQL, with the heading that it stands under."""
    for entry in re.split(r"^#+ ", RUNBOOK, flags=re.MULTILINE):
        blocks = re.findall(r"^```sql\n(.*?)^```", entry, re.MULTILINE | re.DOTALL)
        for number, block in enumerate(blocks):
            yield f"{entry.splitlines()[0]} {number}", cast("LiteralString", block)


STATEMENTS = dict(statements())


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


def send(api: Api, meter: str, times: list[datetime], kwh: float = 0.1) -> None:
    items = [
        {"meterId": meter, "kwhConsumedAc": kwh, "voltage": 230, "timestamp": time.isoformat()}
        for time in times
    ]
    assert api.post("/v1/ingestion/meter/batch", items).status == 201


def send_vehicle(api: Api, vehicle: str, times: list[datetime], **values: Any) -> None:
    reading = {"vehicleId": vehicle, "kwhDeliveredDc": 0.1, "batteryTemp": 20, **values}
    items = [reading | {"timestamp": time.isoformat()} for time in times]
    assert api.post("/v1/ingestion/vehicle/batch", items).status == 201


def minutes(now: datetime, count: int = 40) -> list[datetime]:
    return [now - number * MINUTE for number in range(count)]


@pytest.mark.parametrize("name", STATEMENTS)
def test_whoever_may_only_read_may_ask_it(reader: Database, name: str) -> None:
    reader.fetch(STATEMENTS[name])


def test_two_devices_with_one_id_are_told_from_one_that_sends_again(
    api: Api, reader: Database, now: datetime
) -> None:
    for kwh in (0.1, 0.5):  # both measure on the minute: each corrects the other
        send(api, "METER-TWIN", minutes(now), kwh)
        send_vehicle(api, "VEH-TWIN", minutes(now), kwhDeliveredDc=kwh)
    for seconds in (0, 30):  # they do not
        times = [time - timedelta(seconds=seconds) for time in minutes(now)]
        send(api, "METER-PAIR", times)
        send_vehicle(api, "VEH-PAIR", times)
    for _ in range(3):  # one that did not hear our answer
        send(api, "METER-ONE", minutes(now))
        send_vehicle(api, "VEH-ONE", minutes(now))

    by_receipts = reader.fetch(STATEMENTS["Duplicate device ids 0"])
    assert sorted(by_receipts) == [("METER-TWIN", 40, 80), ("VEH-TWIN", 40, 80)]
    by_minutes = reader.fetch(STATEMENTS["Duplicate device ids 1"])
    assert {device for device, _, _ in by_minutes} == {"METER-PAIR", "VEH-PAIR"}
    assert {readings for _, readings, _ in by_minutes} == {80}


def test_clocks_that_are_wrong_are_told_from_devices_that_catch_up(
    api: Api, reader: Database, now: datetime
) -> None:
    send(api, "METER-SLOW", [now - timedelta(hours=3)])
    send_vehicle(api, "VEH-FAST", [now + 4 * MINUTE])
    send(api, "METER-BACK", minutes(now, 300))
    send(api, "METER-WELL", [now])
    found = reader.fetch(STATEMENTS["Clock-skewed device 0"])
    assert [device for device, _, _ in found] == ["METER-SLOW", "VEH-FAST"]
    assert timedelta(hours=3) <= found[0][1] < timedelta(hours=3, minutes=5)
    assert -5 * MINUTE < found[1][1] < -2 * MINUTE


def test_who_waits_for_whom_is_shown(
    urls: DatabaseUrls, admin: psycopg.Connection[Row], now: datetime
) -> None:
    with connect(urls.owner) as holder, connect(urls.read) as waiting, holder.transaction():
        holder.execute("LOCK TABLE vehicle_hourly_rollup")
        waiting.execute("SET statement_timeout = 0")  # else it would wait no longer than 5 s
        asked = waiting.pgconn
        asked.send_query(b"SELECT count(*) FROM vehicle_hourly_rollup")
        deadline, found = monotonic() + 60, list[Row]()
        while not any(row[2] for row in found):
            assert monotonic() < deadline
            found = admin.execute(STATEMENTS["Slow analytics 0"]).fetchall()
        shown = {pid: (user, blockers) for pid, user, blockers, _, _ in found}
        assert shown == {
            holder.info.backend_pid: ("telemetry_owner", []),
            waiting.info.backend_pid: ("telemetry_read", [holder.info.backend_pid]),
        }
        cancelled = admin.execute("SELECT pg_cancel_backend(%s)", (waiting.info.backend_pid,))
        assert cancelled.fetchone() == (True,)
        [result] = iter(asked.get_result, None)
        assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57014"


def test_how_far_the_summaries_are_is_shown(
    api: Api, reader: Database, urls: DatabaseUrls, now: datetime
) -> None:
    assert reader.fetch(STATEMENTS["Slow analytics 1"]) == [(None, 0, 0)]
    hour = now.replace(minute=0)
    for vehicle in ("VEH-001", "VEH-002"):
        send_vehicle(api, vehicle, minutes(now, 100))
    with connect(urls.maintain) as maintain:
        for end in (hour - 60 * MINUTE, hour):  # the window before is kept for who turns its pages
            refresh_summaries(maintain, end, Rules())
    assert reader.fetch(STATEMENTS["Slow analytics 1"]) == [(hour, 0, 2)]
    send_vehicle(api, "VEH-001", [hour - 5 * MINUTE], kwhDeliveredDc=0.2)
    assert reader.fetch(STATEMENTS["Slow analytics 1"]) == [(hour, 1, 2)]
