"""What `simulate` refuses to start with, and what it plans."""

import argparse
import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from local import LocalError
from local.simulator.command import add_options, simulate
from local.simulator.efficiency import Assumption, Performance, contradiction, has_other_readings
from local.simulator.plan import Plan, plan_readings
from local.simulator.sender import DeviceCount

NOWHERE = "http://127.0.0.1:9"


def options(*arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def plan(*arguments: object) -> Plan:
    return plan_readings(options(*arguments))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--vehicles", 0], "--vehicles 0 is not between 1 and"),
        (["--vehicles", 3, "--failing", 4], "--failing 4 is not between 0 and 3"),
        (["--minutes", -1], "--minutes -1 is not between"),
        (["--speed-up", 0], "--speed-up 0.0 is not a number from"),
        (["--speed-up", "nan"], "--speed-up nan is not a number from"),
        (["--efficiency", 1.2], "--efficiency 1.2 is not"),
        (["--start", "2026-02-10"], "--start 2026-02-10 is not a time with an offset"),
        (["--start", "2999-01-01T00:00:00Z"], "would be of the future"),
        (["--meter-csv", "x.csv", "--failing", 1], "--failing is for an invented fleet"),
        (["--meter-csv", "x.csv"], "cannot read x.csv"),
        (["--plot", "x.txt"], "does not end in"),
        (["--plot", "nowhere/x.png"], "there is no folder nowhere"),
        (["--url", "localhost:3000"], "--url localhost:3000 is not an http"),
    ],
)
def test_an_unusable_option_is_named(arguments: list[object], complaint: str) -> None:
    with pytest.raises(LocalError, match=complaint):
        simulate(options(*arguments), NOWHERE)


def test_a_system_that_is_not_running_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nothing can answer there
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(LocalError, match=f"nothing answers at {url}: `make run` first"):
            simulate(options(), url)


def test_what_speaks_no_http_is_no_system() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"-ERR unknown command\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(LocalError, match=f"nothing answers at {url}: `make run` first"):
            simulate(options(), url)
        thread.join()


@pytest.mark.parametrize("minutes", [1, 60, 3000])
def test_the_last_reading_is_of_this_minute_and_not_of_the_future(minutes: int) -> None:
    planned = plan("--minutes", minutes, "--vehicles", 2)
    times = [reading.time for lane in planned.lanes for reading in lane]
    now = datetime.now(UTC)
    assert len(times) == planned.readings == 4 * minutes
    assert now - timedelta(seconds=70) < max(times) <= now
    assert max(times) - min(times) == timedelta(minutes=minutes - 1)


@pytest.mark.parametrize("speed_up", [0.5, 1, 60, 100_000])
def test_a_paced_reading_is_never_of_the_future_when_it_is_due(speed_up: float) -> None:
    began = datetime.now(UTC)
    planned = plan("--minutes", 30, "--vehicles", 1, "--speed-up", speed_up)
    assert planned.due is not None
    for lane in planned.lanes:
        for reading in lane:
            sent = datetime.now(UTC) + timedelta(seconds=planned.due(reading))
            assert reading.time <= sent
    assert planned.assumptions[0].last >= began - timedelta(seconds=60)


def test_both_recordings_are_planned_with_their_sums(tmp_path: Path) -> None:
    meter, sessions = tmp_path / "meter.csv", tmp_path / "sessions.csv"
    meter.write_text(
        "timestamp_utc,active_power_kw,voltage_v\n"
        "2007-02-01T00:00:00Z,3,240\n2007-02-01T00:01:00Z,6,240\n"
    )
    sessions.write_text(
        "session,arrival_utc,departure_utc,energy_wh,soc_arrival_pct,soc_departure_pct\n"
        "1,2022-04-12T10:00:00Z,2022-04-12T10:10:00Z,900,0,1\n"
        "2,2022-04-12T10:00:00Z,2022-04-13T10:01:00Z,1800,0,1\n"
    )
    planned = plan("--meter-csv", meter, "--sessions-csv", sessions, "--efficiency", 0.9)
    assert planned.readings == 2 + 2 * (10 + 1441)
    assert planned.readings == sum(len(list(lane)) for lane in planned.lanes)
    assert planned.sums == pytest.approx(
        {"household AC": 0.15, "vehicles DC": 2.7, "chargers AC": 3.0}
    )
    assert [assumption.outlasts_window for assumption in planned.assumptions] == [False, True]
    assert any("longer than 24 h" in note for note in planned.notes)


LAST = datetime(2026, 2, 10, 11, tzinfo=UTC)
ASSUMED = Assumption("VEH-1", "METER-1", 0.9, LAST - timedelta(minutes=59), LAST)
DEVICES = {
    "VEH-1": DeviceCount("vehicles DC", accepted=60, kwh=9.00012),
    "METER-1": DeviceCount("chargers AC", accepted=60, kwh=10.00013),
}


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (Performance(10.0, 9.0, 90.0, 60), None),
        (None, "VEH-1 is unknown"),
        (Performance(10.0, 9.0, 90.0, 59), "60 readings accepted, 59 reported"),
        (Performance(10.001, 9.0, 90.0, 60), "10.0001 kWh AC accepted, 10.001 reported"),
        (Performance(10.0, 8.999, 90.0, 60), "9.0001 kWh DC accepted, 8.999 reported"),
        (Performance(None, 9.0, None, 60), "kWh AC accepted, None reported"),
        (Performance(10.0, 9.0, 90.01, 60), "90.00% assumed, 90.01 % reported"),
    ],
)
def test_a_report_other_than_what_was_sent_is_a_contradiction(
    found: Performance | None, complaint: str | None
) -> None:
    text = contradiction(ASSUMED, found, DEVICES)
    assert text is None if complaint is None else complaint in (text or "")


def test_a_report_with_readings_of_another_run_is_told_apart() -> None:
    found = Performance(20.0, 16.0, 80.0, 120)
    assert has_other_readings(ASSUMED, found, DEVICES)
    assert contradiction(ASSUMED, found, DEVICES) is None
    assert not has_other_readings(ASSUMED, Performance(10.0, 9.0, 90.0, 60), DEVICES)


def test_of_a_charge_longer_than_the_window_only_the_efficiency_is_compared() -> None:
    long = ASSUMED._replace(first=LAST - timedelta(hours=24))
    assert contradiction(long, Performance(8.0, 7.2, 90.0, 59), DEVICES) is None
    assert "80.0 % reported" in (
        contradiction(long, Performance(8.0, 6.4, 80.0, 59), DEVICES) or ""
    )
