"""The maintenance function as the schedule invokes it, on a real database and a real S3 API."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from local import ROOT
from local.configuration import ARCHIVE, read_local_template
from local.databases import DatabaseUrls
from local.runtime import Environment
from local.sqs import QueueServer
from telemetry.database import Database, Row, connect
from telemetry.maintenance import alone
from telemetry.partitions import make_partitions
from telemetry.readings import MeterReading
from telemetry.store import store_meter_readings
from tests.conftest import unpooled
from tests.wire import MOST_SECONDS, Wire

pytestmark = unpooled  # the maintenance is direct

EVENT = json.loads((ROOT / "events/MaintainFunction.json").read_text(encoding="utf-8"))
STEPS = {
    "count_strays": "ReadingsInDefaultPartition",
    "make_partitions": "PartitionsMade",
    "refresh_summaries": "VehiclesSummarized",
    "archive_history": "PartitionsToArchive",
    "settle_late_receipts": "LateReceiptsPending",
    "settle_voids": "VoidsPending",
    "store_redeclared": "DevicesRedeclared",
    "erase_devices": "ErasuresPending",
    "refresh_statistics": "PartitionsToVacuum",
}
LONG_AGO = datetime(2024, 5, 5, 5, tzinfo=UTC)
# In the order in which a run comes to them: each is of a step that the runs before have not done.
KILLED_BEFORE = (
    "finish_fleet_window(",
    "DETACH PARTITION",
    "UPDATE archive_horizon",
    "FROM archive_closed ORDER BY",  # all is detached, nothing is moved
    "COPY (",
    "INSERT INTO archive_files",  # the file is in the bucket
    'DROP TABLE "meter_telemetry_history_2024"',  # its days are in the archive
    "pg_stat_user_tables",
)
RUNNING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = 'telemetry_maintain'
"""


@pytest.fixture
def environ(urls: DatabaseUrls, storage: QueueServer, s3: Any) -> Iterator[dict[str, str]]:
    """The variables of functions; what a test archives is gone when it is over."""
    yield {**os.environ, **storage.environment, **urls.environment, "HISTORY_RETENTION": "300"}
    for entry in s3.list_object_versions(Bucket=ARCHIVE).get("Versions", []):
        s3.delete_object(Bucket=ARCHIVE, Key=entry["Key"], VersionId=entry["VersionId"])


def maintain(environ: Mapping[str, str], event: Mapping[str, Any] = EVENT) -> dict[str, Any]:
    function = read_local_template(environ).functions["MaintainFunction"]
    done: dict[str, Any] = Environment(function).invoke(dict(event), "request")
    return done


def store(urls: DatabaseUrls, *times: datetime) -> None:
    database = Database(urls.ingest)
    readings = [
        MeterReading.model_construct(
            meter_id=f"METER-{number}", kwh_consumed_ac=1.5, voltage=230.0, timestamp=time
        )
        for time in times
        for number in range(3)
    ]
    store_meter_readings(database, readings, datetime.now(UTC))
    database.close()


def metrics(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    lines = capsys.readouterr().out.splitlines()
    return [json.loads(line) for line in lines if line.startswith('{"_aws"')]


def test_each_step_has_a_line_in_the_log_and_a_metric(
    urls: DatabaseUrls,
    connection: psycopg.Connection[Row],
    environ: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = datetime.now(UTC)
    # A day further ahead than the maintenance makes them, which has none to make after midnight.
    make_partitions(connection, now + timedelta(days=1))
    store(urls, LONG_AGO, now - timedelta(days=2), now)
    expected = dict.fromkeys(STEPS.values(), 0)
    assert maintain(environ) == expected
    assert [(line.message, line.levelname) for line in caplog.records] == [
        (step, "INFO") for step in STEPS
    ]
    for metric, name in zip(metrics(capsys), STEPS.values(), strict=True):
        assert metric[name] == [0]
        assert metric["Stack"] == "local"
        [form] = metric["_aws"]["CloudWatchMetrics"]
        assert (form["Namespace"], form["Dimensions"]) == ("EnergyIngestionEngine", [["Stack"]])
    [archived] = [line for line in caplog.records if line.message == "archive_history"]
    assert vars(archived)["receipts"] == 3
    assert maintain(environ) == expected

    table = "meter_telemetry_history_2024_05_05_restored"
    assert maintain(environ, {"restore": "2024-05-05"}) == {table: 3}


def test_readings_without_a_partition_are_counted_and_one_step_does_not_hinder_another(
    connection: psycopg.Connection[Row],
    environ: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection.execute(
        """INSERT INTO meter_telemetry_history
               (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage)
           VALUES ('METER-1', now() + interval '20 days', now(), 1, 230)"""
    )
    with pytest.raises(Exception, match="holds rows outside"):
        maintain(environ)
    connection.execute("DELETE FROM meter_telemetry_history")
    failed = "make_partitions failed"
    assert [line.message for line in caplog.records] == [
        failed if step == "make_partitions" else step for step in STEPS
    ]
    assert metrics(capsys)[0]["ReadingsInDefaultPartition"] == [1]


def test_a_second_run_does_nothing_while_one_is_at_work(
    urls: DatabaseUrls, environ: dict[str, str]
) -> None:
    with connect(urls.maintain) as other, alone(other) as is_alone:
        assert is_alone
        assert maintain(environ) == {"running": True}
    assert "running" not in maintain(environ)


def test_runs_that_are_killed_lose_nothing(
    urls: DatabaseUrls, environ: dict[str, str], connection: psycopg.Connection[Row], wire: Wire
) -> None:
    days = [LONG_AGO - number * timedelta(days=30) for number in range(6)]
    store(urls, *days)
    for statement in KILLED_BEFORE:
        reached = wire.hold(statement)
        run = subprocess.Popen(
            [sys.executable, "-m", "local", "invoke", "MaintainFunction"],
            env={
                **environ,
                "DATABASE_URL": urls.owner,
                "MAINTAIN_DATABASE_URL": wire.lead(urls.maintain),
            },
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert reached.wait(MOST_SECONDS), statement
        finally:
            run.kill()
            run.wait()
        wire.cut()
        while connection.execute(RUNNING).fetchone() != (0,):  # until the server has noticed
            pass
    assert "running" not in maintain(environ)
    assert connection.execute("SELECT count(*) FROM archive_closed").fetchone() == (0,)
    [(readings,)] = connection.execute("SELECT sum(readings) FROM archive_files")
    assert readings == 3 * len(days)
    for day in days:
        restored = maintain(environ, {"restore": str(day.date())})
        assert list(restored.values()) == [3]
