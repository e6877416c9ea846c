"""What a stream is described as is what every table, type and file of it has."""

from datetime import UTC, datetime

import psycopg
import pytest

from local.databases import DatabaseUrls
from telemetry.database import Database, Row
from telemetry.devices import DeviceDeclaration, declare_device
from telemetry.parquet import LAYOUTS
from telemetry.streams import STREAMS, Stream
from tests.conftest import unpooled
from tests.integration.conftest import Api
from tests.integration.oracle import void, withdraw

pytestmark = unpooled

COLUMNS = """
    SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
TIME = "2026-02-10T12:00:00Z"
# Every field that a device may send.
SENT = {
    "meter": {
        "meterId": "METER-1",
        "kwhConsumedAc": 5.5,
        "voltage": 230.5,
        "intervalSeconds": 900.5,
        "timestamp": TIME,
    },
    "vehicle": {
        "vehicleId": "VEH-1",
        "kwhDeliveredDc": 5.25,
        "batteryTemp": 28.5,
        "soc": 81.5,
        "meterId": "METER-1",
        "intervalSeconds": 900.5,
        "timestamp": TIME,
    },
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_column_of_history_is_wherever_a_receipt_can_be(
    connection: psycopg.Connection[Row], stream: Stream
) -> None:
    def columns(table: str) -> dict[str, str]:
        return dict(connection.execute(COLUMNS, (table,)).fetchall())

    history = columns(stream.history)
    assert set(stream.columns) == history.keys()
    assert {value.name: value.kind for value in stream.values}.items() <= history.items()
    assert columns(f"{stream.name}_void_receipt") == history
    assert columns(f"{stream.name}_pending") == history | {"number": "bigint"}
    assert list(columns(f"{stream.name}_event")) == list(stream.columns)
    assert columns(f"{stream.name}_event") == history
    assert list(LAYOUTS[stream.name].columns) == list(stream.columns)
    rollups = [columns(f"{stream.name}_{table}_rollup") for table in ("hourly", "daily")]
    assert all({value.sum for value in stream.summed} <= rollup.keys() for rollup in rollups)
    assert {value.live for value in stream.shown} <= columns(stream.live).keys()


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_receipt_comes_back_from_a_void_as_it_was(
    api: Api, urls: DatabaseUrls, connection: psycopg.Connection[Row], stream: Stream
) -> None:
    device = SENT[stream.name][f"{stream.name}Id"]
    ops, ingest = Database(urls.correct), Database(urls.ingest)
    declare_device(
        ingest, str(device), DeviceDeclaration(energy="register"), datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert api.post(f"/ingest/{stream.name}", SENT[stream.name]).status == 201

    def rows(table: str) -> list[dict[str, object]]:
        found = connection.execute(f"SELECT row_to_json(held) FROM {table} AS held".encode())
        return [row for (row,) in found]

    [stored] = rows(stream.history)
    assert None not in stored.values(), "a field of SENT is missing"
    reading = (str(device), datetime.fromisoformat(TIME))
    assert void(ops, reading) == "voided"
    assert (rows(stream.history), rows(f"{stream.name}_void_receipt")) == ([], [stored])
    [listed] = api.get("/v1/voids").body["items"]
    [receipt] = listed["receipts"]
    told = {key for key, value in receipt.items() if value is not None}
    assert len(told) == len(stored) - 2, receipt  # the void has the device and the time
    withdraw(ops, reading)
    assert rows(stream.history) == [stored]
    ops.close()
    ingest.close()
