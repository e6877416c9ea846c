"""`make backfill` as a process, killed and run again, while devices go on sending."""

import csv
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

from faults.relay import Relay
from local import ROOT
from tests.e2e.conftest import LocalSystem
from tests.e2e.test_local_stack import METER

# More than one window of `make backfill`, so that there is a state between two of them.
METERS, MINUTES = 100, 1_200
START = datetime(2026, 1, 10, tzinfo=UTC)


def write_file(path: Path) -> Path:
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["meterId", "timestamp", "kwhConsumedAc", "voltage"])
        lines.writerow(["METER-001", "yesterday", 1, 230])
        for minute in range(1, MINUTES + 1):
            time = (START + timedelta(minutes=minute)).isoformat()
            lines.writerows([f"METER-{meter:03}", time, 0.5, 230] for meter in range(METERS))
    return path


@contextmanager
def devices_sending(system: LocalSystem) -> Iterator[Counter[int]]:
    """Have readings sent all the time, of meters of the file too; yield how they are answered."""
    statuses: Counter[int] = Counter()
    ending = Event()

    def send() -> None:
        sent = 0
        # Not more: each is a line of the log, which nobody reads before the end.
        while not ending.wait(0.1):
            sent += 1
            now = datetime.now(UTC).isoformat()
            meter = f"METER-{sent % 2 * 200 + sent % METERS:03}"
            body = METER | {"meterId": meter, "timestamp": now}
            statuses[system.request("POST", "/v1/ingestion/meter", body)[0]] += 1

    sender = Thread(target=send)
    sender.start()
    try:
        yield statuses
    finally:
        ending.set()
        sender.join()


def test_a_killed_backfill_goes_on_while_live_readings_are_stored_at_once(
    system: LocalSystem, tmp_path: Path
) -> None:
    system.start()
    path = write_file(tmp_path / "january.csv")
    relay = Relay(system.port)
    backfill = ("backfill", str(path), "--url", f"http://127.0.0.1:{relay.port}")
    relay.forbid(b"2026-01-10T18:")  # the second window does not get through, however fast it is
    with devices_sending(system) as statuses:
        first = subprocess.Popen(
            [sys.executable, "-m", "local", *backfill],
            cwd=ROOT,
            env=system.environ(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert first.stdout is not None
        assert "100,000 rows of some 120,002" in first.stdout.readline()
        first.send_signal(signal.SIGKILL)
        first.communicate()
        relay.forbid(None)
        done = system.command(*backfill)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("Going on after row 100,000\n")
        assert (
            "120,001 rows read: 120,000 distinct, 0 replaced by a later row of the same "
            "reading, 1 refused\n"
        ) in done.stdout
        while backfills_waiting(system):
            pass  # ends by the test run's time limit if they stay
    assert statuses[201] > 0
    assert set(statuses) <= {201, 202}
    counted = system.command(
        "psql",
        "SELECT count(*) AS n FROM meter_telemetry_history WHERE timestamp < '2026-02-01'",
    )
    assert f" {METERS * MINUTES}\n" in counted.stdout
    assert system.command("verify").returncode == 0
    refused = path.with_name("january.csv.refused.csv").read_text().splitlines()
    assert len(refused) == 2
    assert refused[1].startswith('2,"timestamp: Input should be an RFC 3339 time')

    assert "was sent there before" in system.command(*backfill).stdout
    relay.refuse()


def backfills_waiting(system: LocalSystem) -> int:
    return sum(
        depth.waiting + depth.in_flight
        for depth in system.queues.depths()
        if "Backfill" in depth.queue
    )
