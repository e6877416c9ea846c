"""Months of readings from a file: every row counts once, whatever is killed, and delays nobody."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from local import LocalError
from local.backfill import command
from local.backfill.command import backfill, send_batch
from local.backfill.files import open_file
from local.backfill.state import Refusals, SentReadings, StateFile
from local.configuration import read_local_template
from local.databases import DatabaseUrls
from local.mapping import Poller
from local.queues import Queues as AllQueues
from local.queues import make_queues
from local.runtime import Environment
from local.simulator.sender import Client, System
from telemetry.database import Row, connect
from telemetry.intake import METERS
from telemetry.messages import pack
from telemetry.readings import MeterReading
from telemetry.verification import find_differences
from tests.conftest import unpooled
from tests.integration.conftest import Api, Queues, delete_all

START = datetime(2026, 2, 10, 10, tzinfo=UTC)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
        pass


@pytest.fixture
def system(api: Api, queues: Queues) -> Iterator[System]:
    """The API behind a socket, with real queues behind it."""
    assert queues

    def serve(environ: dict[str, Any], start: Any) -> Any:
        # Of wsgiref's own input there is no end.
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
        return api.application(environ | {"wsgi.input": io.BytesIO(body)}, start)

    with make_server("127.0.0.1", 0, serve, handler_class=_Quiet) as server:
        serving = Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        yield System(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        serving.join()


class Drain:
    """The workers of backfills, on their queues."""

    def __init__(self, urls: DatabaseUrls, queues: Queues) -> None:
        template = read_local_template(
            {**urls.environment, "AWS_ENDPOINT_URL_SQS": queues.endpoint}
        )
        self._queues = AllQueues(queues.client, make_queues(queues.client, template.queues))
        # Without a window: nothing comes any more that it would be worth to wait for.
        self._sources = [
            replace(source, window=0)
            for source in template.event_sources
            if "Backfill" in source.queue_arn
        ]
        self._client = queues.client
        self._environments = {
            source.function: Environment(template.functions[source.function])
            for source in self._sources
        }

    def depth(self, queue: str) -> int:
        [depth] = [depth for depth in self._queues.depths() if depth.queue == queue]
        return depth.waiting + depth.in_flight + depth.dead

    def finish(self) -> None:
        """Have everything stored that waits."""
        for source in self._sources:
            poller = Poller(source, self._environments[source.function], self._client)
            while self.depth(source.queue_arn.rpartition(":")[2]):
                poller.poll()


@pytest.fixture
def drain(urls: DatabaseUrls, queues: Queues, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drain]:
    monkeypatch.setattr("local.mapping.WAIT_SECONDS", 0)
    made = Drain(urls, queues)
    yield made
    for environment in made._environments.values():
        environment._handler.__self__._database.close()  # type: ignore[attr-defined]


class Killed(BaseException):
    """The process ended here."""


class Killer:
    """Ends the process before or after any of the things that it does."""

    def __init__(self) -> None:
        self.steps_left: float = float("inf")

    def patch(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        done = getattr(owner, name)

        def do(*arguments: Any) -> Any:
            self._step()
            result = done(*arguments)
            self._step()
            return result

        monkeypatch.setattr(owner, name, do)

    def _step(self) -> None:
        self.steps_left -= 1
        if self.steps_left < 0:
            raise Killed


# Of two meters in four minutes: most readings come again with other values, in one window or later.
good_rows = st.tuples(st.integers(1, 2), st.integers(0, 3), st.integers(0, 9_999), st.just(230))
bad_rows = st.tuples(st.integers(1, 2), st.integers(0, 3), st.just(-1), st.just(5_000))
files = st.lists(good_rows | good_rows | bad_rows, min_size=8, max_size=40)


@unpooled
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=files, kills=st.lists(st.integers(0, 40), max_size=4), delivered_twice=st.booleans())
@example(rows=[(1, n, n, 230) for n in range(40)], kills=[22, 25, 3], delivered_twice=True)
@example(
    rows=[(1, n % 3, -(n % 2), 230) for n in range(40)],
    kills=[9, 10, 11, 12],
    delivered_twice=False,
)
def test_after_kills_anywhere_every_row_counts_once(
    urls: DatabaseUrls,
    system: System,
    queues: Queues,
    drain: Drain,
    rows: list[tuple[int, int, int, int]],
    kills: list[int],
    *,
    delivered_twice: bool,
) -> None:
    with (
        TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as monkeypatch,
        connect(urls.owner) as connection,
    ):
        delete_all(connection)
        monkeypatch.setattr(command, "MOST_READINGS", 3)
        monkeypatch.setattr(command, "WINDOW", 7)
        killer = Killer()
        for owner, name in (
            (Client, "request"),
            (Refusals, "write"),
            (SentReadings, "write"),
            (StateFile, "save"),
        ):
            killer.patch(monkeypatch, owner, name)
        path = write_csv(Path(folder) / "readings.csv", rows)
        for steps in [*kills, float("inf")]:
            killer.steps_left = steps
            try:
                state = backfill(path, system, Path(folder))
            except Killed:
                continue
        if delivered_twice:
            for record in queues.receive("MeterBackfillQueue"):
                queues.send(record["body"], "MeterBackfillQueue")
        drain.finish()
        assert_stored(connection, rows)
        refused = [str(number) for number, row in enumerate(rows, 2) if row[2] < 0]
        assert refused_lines(path) == refused
        distinct = len({row[:2] for row in rows if row[2] >= 0})
        assert state.summary == (
            f"{len(rows)} rows read: {distinct} distinct, "
            f"{len(rows) - len(refused) - distinct} replaced by a later row of the same reading, "
            f"{len(refused)} refused"
        )
        assert not list(Path(folder).rglob("*.sent"))


def write_csv(path: Path, rows: list[tuple[int, int, int, int]]) -> Path:
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["meterId", "timestamp", "kwhConsumedAc", "voltage"])
        for meter, minute, watt_hours, voltage in rows:
            time = (START + timedelta(minutes=minute)).isoformat()
            lines.writerow([f"METER-{meter}", time, watt_hours / 1000, voltage])
    return path


def refused_lines(path: Path) -> list[str]:
    try:
        with path.with_name(path.name + ".refused.csv").open(newline="") as file:
            return [row["line"] for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []


def assert_stored(
    connection: psycopg.Connection[Row], rows: list[tuple[int, int, int, int]]
) -> None:
    """Assert that of each reading the file's last row counts, and nothing else."""
    last = {(f"METER-{row[0]}", row[1]): Decimal(row[2]) / 1000 for row in rows if row[2] >= 0}
    counted = connection.execute(
        """SELECT DISTINCT ON (meter_id, "timestamp")
                  meter_id, extract(epoch FROM "timestamp" - %s)::int / 60, kwh_consumed_ac
           FROM meter_telemetry_history ORDER BY meter_id, "timestamp", received_at DESC""",
        (START,),
    ).fetchall()
    assert {(meter, minute): kwh for meter, minute, kwh in counted} == last
    summed = connection.execute(
        "SELECT sum(readings), sum(kwh_consumed_ac) FROM meter_hourly_rollup"
    ).fetchone()
    assert summed == (len(last) or None, sum(last.values()) if last else None)
    assert find_differences(connection) == []


@unpooled
def test_a_batch_of_a_backfill_waits_in_its_own_queue_in_the_order_of_devices(
    api: Api, queues: Queues, drain: Drain, connection: psycopg.Connection[Row]
) -> None:
    batch = [reading("METER-2", 1), reading("METER-1", 1), {}, reading("METER-1", 0)]
    answer = api.post("/v1/ingestion/meter/batch?mode=backfill", batch)
    assert (answer.status, answer.body["status"]) == (207, "queued")
    assert [entry["index"] for entry in answer.body["rejections"]] == [2]
    assert queues.receive() == []
    [record] = queues.receive("MeterBackfillQueue")
    columns = json.loads(record["body"])["readings"]
    assert columns["meterId"] == ["METER-1", "METER-1", "METER-2"]
    assert columns["timestamp"] == sorted(columns["timestamp"][:2]) + [columns["timestamp"][2]]
    drain.finish()
    assert connection.execute("SELECT count(*) FROM meter_telemetry_history").fetchone() == (3,)

    assert api.post("/v1/ingestion/meter/batch?mode=backfill", [{}]).status == 400
    refused = api.post("/v1/ingestion/meter/batch?mode=later", batch)
    assert (refused.status, refused.body["errors"][0]["field"]) == (400, "mode")
    assert connection.execute("SELECT count(*) FROM meter_telemetry_history").fetchone() == (3,)


@unpooled
def test_a_backfill_is_not_written_past_a_queue_that_does_not_answer(
    api: Api, connection: psycopg.Connection[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_REGION", "none")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    answer = api.post("/v1/ingestion/meter/batch?mode=backfill", [reading("METER-1", 0)])
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert connection.execute("SELECT count(*) FROM meter_telemetry_history").fetchone() == (0,)


@unpooled
def test_live_readings_do_not_wait_for_a_full_queue_of_backfills(
    api: Api, urls: DatabaseUrls, queues: Queues, drain: Drain, connection: psycopg.Connection[Row]
) -> None:
    """No worker of a backfill runs here at all: live readings need none of them."""
    for minute in range(30):
        batch = [reading(f"METER-{number}", minute) for number in range(5)]
        assert api.post("/v1/ingestion/meter/batch?mode=backfill", batch).status == 202
    assert drain.depth("MeterBackfillQueue") == 30
    assert api.post("/v1/ingestion/meter", reading("METER-1", 40)).status == 201
    template = read_local_template({**urls.environment, "AWS_ENDPOINT_URL_SQS": queues.endpoint})
    queued = MeterReading.model_validate_json(json.dumps(reading("METER-2", 40)))
    [(_, body)] = pack(METERS, [queued], datetime.now(UTC))
    queues.send(body)
    [source] = [each for each in template.event_sources if each.function == "MeterWorkerFunction"]
    environment = Environment(template.functions[source.function])
    Poller(source, environment, queues.client).poll()
    environment._handler.__self__._database.close()  # type: ignore[attr-defined]
    stored = connection.execute("SELECT meter_id FROM meter_live_status ORDER BY 1").fetchall()
    assert stored == [("METER-1",), ("METER-2",)]
    assert drain.depth("MeterBackfillQueue") == 30
    drain.finish()
    assert connection.execute("SELECT count(*) FROM meter_telemetry_history").fetchone() == (152,)
    newest = connection.execute("SELECT DISTINCT last_timestamp FROM meter_live_status ORDER BY 1")
    assert newest.fetchall() == [(START + timedelta(minutes=minute),) for minute in (29, 40)]


@unpooled
def test_what_the_api_lists_as_csv_can_be_fed_back_in(
    api: Api,
    system: System,
    drain: Drain,
    tmp_path: Path,
    connection: psycopg.Connection[Row],
) -> None:
    readings = [
        {"vehicleId": "-1", "kwhDeliveredDc": 0.1, "batteryTemp": -1.5, "timestamp": at(0)},
        {"vehicleId": "-1", "kwhDeliveredDc": 0.2, "batteryTemp": 20, "soc": 5, "timestamp": at(1)},
        {"vehicleId": "-1", "kwhDeliveredDc": 0.3, "batteryTemp": 20, "timestamp": at(1)},
        {
            "vehicleId": "-1",
            "kwhDeliveredDc": 0,
            "batteryTemp": 1,
            "meterId": "M",
            "timestamp": at(2),
        },
    ]
    assert api.post("/v1/ingestion/vehicle/batch", readings).status == 201
    listed = api.get("/v1/vehicles/-1/readings?tz=Asia/Kolkata", accept="text/csv").body
    stored = connection.execute(_VEHICLES).fetchall()
    delete_all(connection)
    path = tmp_path / "listed.csv"
    path.write_text(listed, newline="")
    backfill(path, system, tmp_path)
    assert not path.with_name("listed.csv.refused.csv").exists()
    drain.finish()
    assert connection.execute(_VEHICLES).fetchall() == stored
    assert [row[0] for row in stored] == [4]


# Receipts, sums and links.
_VEHICLES = """
    SELECT (SELECT count(*) FROM vehicle_telemetry_history),
           (SELECT jsonb_agg(r) FROM vehicle_hourly_rollup r),
           (SELECT jsonb_agg((vehicle_id, meter_id, valid_from)) FROM links)
"""


@unpooled
def test_more_rejections_than_an_answer_lists_are_all_told(
    system: System, drain: Drain, tmp_path: Path, connection: psycopg.Connection[Row]
) -> None:
    """As where the API's rules are not the command's."""
    rows = [(1, n % 10, -1 if n % 2 else n, 230) for n in range(250)]
    file = open_file(write_csv(tmp_path / "readings.csv", rows))
    batch = [(row, file.item(row)) for row in file.rows()]
    client = Client(system)
    refused = send_batch(file, batch, client)
    client.close()
    assert [line for line, _, _ in refused] == list(range(3, 252, 2))
    assert refused[0][1] == "kwhConsumedAc: Input should be greater than or equal to 0"
    drain.finish()
    assert_stored(connection, rows)


@unpooled
def test_a_system_that_refuses_the_whole_batch_ends_it_with_its_words(
    system: System, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "readings.csv", [(1, 0, 1, 230)])
    wrong = System(system.url + "/elsewhere")
    with pytest.raises(LocalError, match=r"answers 404: .*Not Found"):
        backfill(path, wrong, tmp_path)
    backfill(path, system, tmp_path)


def reading(meter_id: str, minute: int) -> dict[str, Any]:
    return {"meterId": meter_id, "kwhConsumedAc": 1, "voltage": 230, "timestamp": at(minute)}


def at(minute: int) -> str:
    return (START + timedelta(minutes=minute)).isoformat()
