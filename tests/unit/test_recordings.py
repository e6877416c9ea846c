"""Recorded telemetry becomes readings that add up to what was recorded."""

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from local import ROOT, LocalError
from local.simulator.recordings import (
    household_readings,
    meter_readings,
    read_household,
    read_sessions,
    vehicle_readings,
)

HOUSEHOLD = "timestamp_utc,active_power_kw,voltage_v\n"
SESSIONS = "session,arrival_utc,departure_utc,energy_wh,soc_arrival_pct,soc_departure_pct\n"
SESSION = "7,2022-04-12T19:27:00Z,2022-04-12T19:38:00Z,5159.65,83.0,89\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recorded.csv"


def recorded(name: str) -> Path:
    path = ROOT.parent / "shared/data" / name
    if not path.exists():
        pytest.skip(f"no recorded telemetry at {path}")
    return path


def test_a_minute_of_a_household_is_the_energy_of_its_mean_power(file: Path) -> None:
    file.write_text(HOUSEHOLD + "2007-02-01T00:00:00Z,0.326,243.15\n")
    [reading] = household_readings(read_household(file))
    assert reading.message == {
        "meterId": "HOUSEHOLD-1",
        "kwhConsumedAc": 0.326 / 60,
        "voltage": 243.15,
        "timestamp": "2007-02-01T00:00:00Z",
    }


def test_a_session_is_a_reading_for_each_minute_up_to_its_departure(file: Path) -> None:
    file.write_text(SESSIONS + SESSION)
    [session] = read_sessions(file)
    readings = list(vehicle_readings(session))
    assert [reading.time for reading in readings] == [
        datetime(2022, 4, 12, 19, minute, tzinfo=UTC) for minute in range(28, 39)
    ]
    assert math.fsum(reading.kwh for reading in readings) == 5159.65 / 1000
    socs = [reading.others["soc"] for reading in readings]
    assert socs == sorted(socs)
    assert 83 < socs[0] < 84
    assert socs[-1] == 89
    assert readings[0].message.keys() == {
        "vehicleId",
        "soc",
        "kwhDeliveredDc",
        "batteryTemp",
        "timestamp",
    }


def test_the_meter_of_a_session_measures_what_the_converter_loses_too(file: Path) -> None:
    file.write_text(SESSIONS + SESSION)
    [session] = read_sessions(file)
    readings = list(meter_readings(session, 0.9))
    assert {reading.message["meterId"] for reading in readings} == {"METER-S7"}
    assert [reading.time for reading in readings] == session.times
    assert math.fsum(reading.kwh for reading in readings) == pytest.approx(5.15965 / 0.9, rel=1e-12)


@pytest.mark.parametrize(
    ("departure", "ends"),
    [
        ("2022-04-12T19:27:00Z", ["19:27:00"]),
        ("2022-04-12T19:27:20Z", ["19:27:20"]),
        ("2022-04-12T19:28:20Z", ["19:28:00", "19:28:20"]),
    ],
)
def test_a_session_of_no_whole_minutes_ends_at_its_departure(
    file: Path, departure: str, ends: list[str]
) -> None:
    file.write_text(SESSIONS + f"7,2022-04-12T19:27:00Z,{departure},900,0,1\n")
    [session] = read_sessions(file)
    readings = list(vehicle_readings(session))
    assert [f"{reading.time:%T}" for reading in readings] == ends
    assert math.fsum(reading.kwh for reading in readings) == 0.9


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("", "has no rows"),
        ("2007-02-01T00:00:00Z,1\n", "line 2: 2 columns instead of 3"),
        ("2007-02-01T00:00:00Z,1,240\n2007-02-01T00:01:00Z,?,240\n", "line 3: active_power_kw '?'"),
        ("2007-02-01T00:00:00Z,nan,240\n", "line 2: active_power_kw 'nan'"),
        ("2007-02-01T00:00:00Z,-1,240\n", "line 2: active_power_kw '-1'"),
        ("2007-02-01T00:00:00,1,240\n", "line 2: timestamp_utc '2007-02-01T00:00:00'"),
        ("2007-02-01T00:00:00Z,1,240\n" * 2, "line 3: timestamp_utc .* occurs twice"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(file: Path, rows: str, complaint: str) -> None:
    file.write_text(HOUSEHOLD + rows)
    with pytest.raises(LocalError, match=complaint):
        read_household(file)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (SESSION * 2, "line 3: session 7 occurs twice"),
        (SESSION.replace("19:38", "19:26"), "line 2: session 7 departs before it arrives"),
        (SESSION.replace("7,", "a b,", 1), "line 2: session 'a b' cannot be part of a device id"),
    ],
)
def test_a_wrong_session_is_named_by_its_line(file: Path, row: str, complaint: str) -> None:
    file.write_text(SESSIONS + row)
    with pytest.raises(LocalError, match=complaint):
        read_sessions(file)


def test_missing_columns_are_named(file: Path) -> None:
    file.write_text("timestamp_utc,power\n2007-02-01T00:00:00Z,1\n")
    with pytest.raises(LocalError, match="line 1: no column active_power_kw, voltage_v"):
        read_household(file)


def test_a_file_that_cannot_be_read_is_named(file: Path) -> None:
    with pytest.raises(LocalError, match=r"cannot read .*recorded\.csv: No such file"):
        read_sessions(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LocalError, match=r"recorded\.csv is not a CSV file"):
        read_sessions(file)


def test_the_recorded_household_adds_up() -> None:
    household = read_household(recorded("household_minutes_2007-02-01_02.csv"))
    readings = list(household_readings(household))
    assert len(readings) == 2880
    total = math.fsum(reading.kwh for reading in readings)
    assert total == pytest.approx(58.2082667, abs=1e-6)


def test_the_recorded_sessions_add_up() -> None:
    sessions = read_sessions(recorded("dc_charging_sessions_2022.csv"))
    readings = [reading for session in sessions for reading in vehicle_readings(session)]
    assert len({reading.device_id for reading in readings}) == 992
    assert len(readings) == 31_386
    total = math.fsum(reading.kwh for reading in readings)
    assert total == pytest.approx(33_034.7503, abs=1e-6)
    ac = math.fsum(r.kwh for session in sessions for r in meter_readings(session, 0.92))
    assert total / ac == pytest.approx(0.92, rel=1e-12)
