"""What a file of readings says, row by row, and what is kept of how far it was sent."""

import csv
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pytest

from local import ROOT, LocalError
from local.backfill.files import ReadingFile, open_file
from local.backfill.state import Refusals, SentReadings, State, StateFile
from local.simulator.recordings import household_readings, read_household
from telemetry.readings import MeterReading, VehicleReading

METERS = "meterId,timestamp,kwhConsumedAc,voltage\r\n"
METER = "METER-1,2026-02-10T10:00:00Z,0.125,230\r\n"
VEHICLES = "vehicleId,timestamp,kwhDeliveredDc,batteryTemp,soc,meterId\r\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "readings.csv"


def opened(path: Path, text: str | bytes) -> ReadingFile:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_file(path)


def items(file: ReadingFile) -> list[Any]:
    return [row.fault or file.item(row) for row in file.rows()]


def test_a_row_is_the_item_that_the_api_takes(path: Path) -> None:
    file = opened(path, METERS + METER)
    [item] = items(file)
    assert item == {
        "meterId": "METER-1",
        "timestamp": "2026-02-10T10:00:00Z",
        "kwhConsumedAc": 0.125,
        "voltage": 230.0,
    }
    assert (file.stream.name, file.lines) == ("meter", 2)
    MeterReading.model_validate_json(json.dumps(item))


def test_empty_cells_are_left_out_and_an_apostrophe_before_an_id_is_taken_off(path: Path) -> None:
    file = opened(path, VEHICLES + "'-7,2026-02-10T10:00:00Z,1e-1,-1.5,,\r\n")
    [item] = items(file)
    assert file.stream.name == "vehicle"
    assert item == {
        "vehicleId": "-7",
        "timestamp": "2026-02-10T10:00:00Z",
        "kwhDeliveredDc": 0.1,
        "batteryTemp": -1.5,
    }


@pytest.mark.parametrize("cell", ["nan", "inf", "1_000", "0x1", "1,5", " 1", "one", "٣", "--1"])
def test_what_is_no_number_stays_the_text_that_the_api_refuses(path: Path, cell: str) -> None:
    file = opened(path, METERS + f'METER-1,2026-02-10T10:00:00Z,"{cell}",230\r\n')
    [item] = items(file)
    assert item["kwhConsumedAc"] == cell


def test_columns_may_come_in_any_order_by_either_name_after_a_byte_order_mark(path: Path) -> None:
    text = "\ufeffvoltage,kwh_consumed_ac,timestamp,meter_id,received_at\n230,1,T,M,now\n"
    assert items(opened(path, text)) == [
        {"meterId": "M", "timestamp": "T", "kwhConsumedAc": 1.0, "voltage": 230.0}
    ]


@pytest.mark.parametrize("name", ["registerKwh", "register_kwh"])
def test_what_a_register_showed_is_sent_again_and_not_what_it_had_grown_by(
    path: Path, name: str
) -> None:
    text = f"meterId,timestamp,kwhConsumedAc,voltage,{name}\nM,T,0.5,230,901.5\nM,T,0.25,230,\n"
    assert [item["kwhConsumedAc"] for item in items(opened(path, text))] == [901.5, 0.25]


def test_what_a_sensor_did_not_say_is_null(path: Path) -> None:
    [item] = items(opened(path, METERS + "METER-1,2026-02-10T10:00:00Z,0.125,\r\n"))
    assert item["voltage"] is None
    MeterReading.model_validate_json(json.dumps(item))


@pytest.mark.parametrize(("told", "length"), [("", None), ("900", 900)])
def test_of_two_lengths_that_is_sent_which_the_device_told(
    path: Path, told: str, length: float | None
) -> None:
    # As the API lists it, and as files of the archive have it.
    for columns in ("intervalSeconds,toldSeconds", "seconds,told_seconds"):
        text = METERS.replace("\r", f",{columns}\r") + METER.replace("\r", f",0.5,{told}\r")
        [item] = items(opened(path, text))
        assert MeterReading.model_validate_json(json.dumps(item)).interval_seconds == length


def test_rows_that_are_no_csv_are_told_by_their_line_and_the_others_read(path: Path) -> None:
    rows = [
        METER,
        "\r\n",
        "METER-1,T\r\n",
        '"METER\n-1",T,1,2\r\n',
        '"METER-1"x,T,1,2\r\n',
        METER,
        '"open,T,1,2\r\n' + METER,
    ]
    file = opened(path, METERS + "".join(rows))
    found = [(row.line, row.fault) for row in file.rows()]
    assert found == [
        (2, ""),
        (4, "2 columns instead of 4"),
        (6, ""),
        (7, "no CSV from line 7 on: ',' expected after '\"'"),
        (8, ""),
        (10, "no CSV from line 9 on: unexpected end of data"),
    ]
    assert [row.line for row in file.rows(skipped=3)] == [7, 8, 10]


def test_what_is_not_utf_8_is_refused_with_its_row_and_kept_as_it_was(path: Path) -> None:
    file = opened(path, METERS.encode() + b"M\xe9ter,T,1,230\r\n")
    [row] = file.rows()
    refusals = Refusals(file, 0)
    refusals.write([(row.line, "meterId: wrong", row.cells)])
    assert b"2,meterId: wrong,M\xe9ter,T,1,230" in refusals.path.read_bytes()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no column meterId, kwhConsumedAc, voltage, timestamp: readings of a meter have"),
        ("meterId,timestamp\n", "has no column kwhConsumedAc, voltage"),
        ("vehicleId,timestamp,kwhDeliveredDc\n", "has no column batteryTemp: readings of a vehic"),
        (METERS.replace("voltage", "voltage,Colour"), "has an unknown column Colour"),
        (METERS.replace("voltage", "voltage,voltage"), "has twice the column voltage"),
        (b"PAR1 but no more", "is neither CSV nor Parquet"),
    ],
)
def test_a_file_that_is_none_of_readings_says_why(
    path: Path, text: str | bytes, reason: str
) -> None:
    with pytest.raises(LocalError) as raised:
        opened(path, text)
    assert reason in str(raised.value)
    with pytest.raises(LocalError, match=r"cannot read .*: No such file"):
        open_file(path.with_name("none.csv"))


def write_parquet(path: Path, query: str) -> Path:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Kolkata'")
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "readings.parquet",
        """SELECT 'VEH-1' AS vehicle_id, 0.1::FLOAT AS kwh_delivered_dc, 20::INTEGER AS batteryTemp,
                  CASE WHEN n > 0 THEN 50.5::DECIMAL(4, 1) END AS soc,
                  TIMESTAMPTZ '2026-02-10 10:00:00.25+00' + n * INTERVAL 1 MINUTE AS timestamp
           FROM range(25000) t(n)""",
    )
    file = open_file(path)
    assert (file.is_parquet, file.lines) == (True, 25_000)
    rows = list(file.rows())
    assert [row.line for row in rows] == list(range(1, 25_001))
    assert file.item(rows[0]) == {
        "vehicleId": "VEH-1",
        "kwhDeliveredDc": 0.1,
        "batteryTemp": 20.0,
        "timestamp": "2026-02-10T10:00:00.250000+00:00",
    }
    assert file.item(rows[1])["soc"] == 50.5
    for row in rows[:2]:
        VehicleReading.model_validate_json(json.dumps(file.item(row)))
    assert list(file.rows(skipped=24_999)) == rows[-1:]


def test_parquet_with_times_of_no_zone_is_refused(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "readings.parquet",
        """SELECT 'M' AS meterId, 1 AS kwhConsumedAc, 230 AS voltage,
                  TIMESTAMP '2026-02-10 10:00:00' AS timestamp""",
    )
    with pytest.raises(LocalError, match="column timestamp is of type TIMESTAMP, which says"):
        list(open_file(path).rows())


def test_a_state_belongs_to_a_content_and_a_url_and_the_last_one_counts(path: Path) -> None:
    file = opened(path, METERS + METER)
    states = StateFile(path.parent, file, "http://one")
    assert states.load() == State()
    with states.lock():
        states.save(State(rows=1))
        states.save(State(rows=2, done=True))
    moved = path.rename(path.with_name("renamed.csv"))
    assert StateFile(path.parent, open_file(moved), "http://one").load() == State(2, done=True)
    assert StateFile(path.parent, file, "http://two").load() == State()
    other = opened(path, METERS + METER + METER)
    assert StateFile(path.parent, other, "http://one").load() == State()


def test_a_state_that_does_not_say_which_readings_were_sent_is_begun_anew(path: Path) -> None:
    states = StateFile(path.parent, opened(path, METERS + METER), "http://one")
    with states.lock():
        states.save(State(rows=1))
    [saved] = (path.parent / "backfill").glob("*.json")
    saved.write_text(json.dumps({"rows": 1, "accepted": 1, "refused": 0, "done": False}))
    assert states.load() == State()


def test_readings_that_were_sent_are_counted_once_by_device_and_instant(path: Path) -> None:
    ten = datetime(2026, 2, 10, 10, tzinfo=UTC)
    there = timezone(timedelta(hours=5, minutes=30))
    sent = SentReadings(path, 0)
    assert sent.count() == 0
    size = sent.write([("METER-1", ten), ("METER-2", ten), ("METER-1", ten.astimezone(there))])
    assert sent.count() == 2
    sent.write([("METER-3", ten)])  # killed: the state does not know of it
    sent = SentReadings(path, size)
    sent.write([("METER-1", ten + timedelta(microseconds=1))])
    assert sent.count() == 3


def test_a_file_is_sent_by_one_process_at_a_time(path: Path) -> None:
    file = opened(path, METERS + METER)
    with (
        StateFile(path.parent, file, "http://one").lock(),
        StateFile(path.parent, file, "http://two").lock(),
        pytest.raises(LocalError, match="by another process"),
        StateFile(path.parent, file, "http://one").lock(),
    ):
        pass


def test_rows_refused_after_the_state_was_kept_are_not_told_twice(path: Path) -> None:
    file = opened(path, METERS + METER)
    first = Refusals(file, 0)
    assert first.write([]) == 0
    assert not first.path.exists()
    size = first.write([(2, "why", ["a,b", "c", "d", "e"])])
    first.write([(3, "lost", [])])
    again = Refusals(file, size)
    again.write([(3, "short", ["x"])])
    with again.path.open(newline="") as refused:
        assert list(csv.reader(refused)) == [
            ["line", "reason", "meterId", "timestamp", "kwhConsumedAc", "voltage"],
            ["2", "why", "a,b", "c", "d", "e"],
            ["3", "short", "x"],
        ]
    # Mended, it is a file of readings, whose refused rows are told in the same form.
    mended = open_file(again.path)
    assert [row.fault for row in mended.rows()] == ["", "3 columns instead of 6"]
    nested = Refusals(mended, 0)
    nested.write([(row.line, "no", row.cells) for row in mended.rows()])
    assert nested.path.read_text().splitlines()[0].count("line") == 1


def test_a_recorded_household_comes_out_as_it_was_recorded(path: Path) -> None:
    recorded = ROOT.parent / "shared/data/household_minutes_2007-02-01_02.csv"
    if not recorded.exists():
        pytest.skip(f"no recorded telemetry at {recorded}")
    messages = [reading.message for reading in household_readings(read_household(recorded))]
    with path.open("w", newline="") as written:
        lines = csv.DictWriter(written, list(messages[0]))
        lines.writeheader()
        lines.writerows(messages)
    assert items(open_file(path)) == messages
