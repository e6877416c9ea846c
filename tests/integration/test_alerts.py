"""Faults through the real handlers, to a real SNS topic and a real EventBridge bus."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from local import ROOT
from local.configuration import FAULT_TOPIC, queue_arn, read_local_template
from local.databases import DatabaseUrls
from local.queues import connect as connect_aws
from local.runtime import Environment
from local.sqs import QueueServer
from telemetry.alerts import Watch, evaluate_fleet, publish_changes
from telemetry.database import Database, connect
from telemetry.errors import AlertsUnpublished
from telemetry.faults import FaultSelection, list_faults
from telemetry.rules import Rules
from tests.conftest import unpooled
from tests.integration.conftest import Api
from tests.integration.oracle import START, Call, Event, write

pytestmark = unpooled

HOUR = timedelta(hours=1)
RULES = Rules(least_kwh=1, least_coverage=0)
WATCH = Watch(length=2 * HOUR)
# As far as a clock may be: an hour that ends in a test's midst has all its readings.
AHEAD = timedelta(minutes=4)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueServer]:
    running = QueueServer(tmp_path_factory.mktemp("alerts"))
    running.start(())
    running.await_queues()
    yield running
    running.stop()


ANYBODY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*"}
        ],
    }
)


@dataclass
class Inbox:
    """A queue that whatever is published is delivered to."""

    client: Any
    url: str

    def read(self) -> list[dict[str, Any]]:
        """Return what has arrived, and has not been read before."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self.client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
            if not answer.get("Messages"):
                return found
            for message in answer["Messages"]:
                found.append(json.loads(message["Body"]))
                self.client.delete_message(
                    QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"]
                )


@pytest.fixture
def inbox(cloud: QueueServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    """What the topic of faults delivers to whoever has subscribed."""
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    sqs, sns = (connect_aws(cloud.environment, service) for service in ("sqs", "sns"))
    name = f"inbox-{uuid4()}"
    url = sqs.create_queue(QueueName=name, Attributes={"Policy": ANYBODY})["QueueUrl"]
    subscribed = sns.subscribe(
        TopicArn=sns.create_topic(Name=FAULT_TOPIC)["TopicArn"],
        Protocol="sqs",
        Endpoint=queue_arn(name),
        Attributes={"RawMessageDelivery": "true"},
        ReturnSubscriptionArn=True,
    )
    yield Inbox(sqs, url)
    sns.unsubscribe(SubscriptionArn=subscribed["SubscriptionArn"])
    sqs.close()
    sns.close()


@dataclass
class Depot:
    """A charger that is read hour by hour, and its monitor."""

    urls: DatabaseUrls
    number: int = 1
    sent: int = 0

    def charge(self, hour: int, ratio: int, watt_hours: int = 2000) -> None:
        offset = hour * 3600.0
        self.sent += 1
        accepted = START + 1000 * HOUR + timedelta(seconds=self.sent)
        dc = watt_hours * ratio // 100
        store = Database(self.urls.ingest)
        meter = Event(self.number, offset, watt_hours, None, is_meter=True)
        write(store, Call([meter, Event(self.number, offset, dc, 50, is_meter=False)], accepted))
        store.close()

    def judge(self, hour: int) -> list[tuple[str, int]]:
        """Judge at an hour; return all changes so far, each with the end of its window."""
        with connect(self.urls.alerts) as connection:
            evaluate_fleet(connection, RULES, WATCH, START + hour * HOUR)
        reader = Database(self.urls.read)
        faults = list_faults(reader, FaultSelection()).items
        reader.close()
        return [
            (change.change, (change.evidence.time_window_end - START) // HOUR)
            for fault in reversed(faults)
            for change in fault.history
            if change.evidence
        ]


@pytest.fixture
def depot(urls: DatabaseUrls) -> Depot:
    return Depot(urls)


def test_a_fault_opens_and_clears_after_two_windows(depot: Depot) -> None:
    seen = []
    for hour, ratio in enumerate([80, 80, 80, 95, 95, 95], 1):
        depot.charge(hour, ratio)
        seen.append(depot.judge(hour))
    opened, cleared = ("opened", 2), ("cleared", 5)
    # The window that ends at 4 is half of it at 95 %: 87.5 % is not a fault any more.
    assert seen == [[], [opened], [opened], [opened], [opened, cleared], [opened, cleared]]


@pytest.mark.parametrize(("ratio", "watt_hours"), [(120, 2000), (100, 400), (0, 0)])
def test_what_tells_nothing_changes_nothing(depot: Depot, ratio: int, watt_hours: int) -> None:
    for hour in range(1, 4):
        depot.charge(hour, 80)
        depot.judge(hour)
    for hour in range(5, 10):
        depot.charge(hour, ratio, watt_hours)
        assert depot.judge(hour) == [("opened", 2)]


def test_windows_that_tell_nothing_are_left_out_of_the_count(depot: Depot) -> None:
    depot.charge(1, 80)
    assert depot.judge(1) == []
    depot.judge(4)  # nothing since
    depot.charge(8, 80)
    assert depot.judge(8) == [("opened", 8)]


def test_late_data_are_judged_for_two_hours(depot: Depot) -> None:
    for hour in range(1, 4):
        depot.charge(hour, 95)
        assert depot.judge(hour) == []
    depot.charge(2, 60)  # 77.5 % up to 2 and up to 3
    assert depot.judge(3) == [("opened", 3)]


def test_what_flips_within_the_hour_is_told_by_the_next(depot: Depot) -> None:
    for hour in (1, 2):
        depot.charge(hour, 80)
        depot.judge(hour)
    for hour in (1, 2):
        depot.charge(hour, 95)
    assert depot.judge(2) == [("opened", 2)]
    for hour in (1, 2):
        depot.charge(hour, 80)
    assert depot.judge(2) == [("opened", 2)]
    for hour in (1, 2, 3):
        depot.charge(hour, 95)
    assert depot.judge(3) == [("opened", 2), ("cleared", 3)]
    for hour in (1, 2, 3):
        depot.charge(hour, 80)
    assert depot.judge(3) == [("opened", 2), ("cleared", 3)]
    depot.charge(4, 80)
    assert depot.judge(4) == [("opened", 2), ("cleared", 3), ("opened", 4)]


def test_windows_that_are_taken_back_leave_those_before(depot: Depot) -> None:
    depot.charge(1, 80)
    depot.judge(1)
    for hour in (3, 4):
        depot.charge(hour, 95)
        assert depot.judge(hour) == []
    depot.charge(3, 0, 0)
    depot.charge(4, 0, 0)  # corrected: nothing was charged at all
    assert depot.judge(4) == [("opened", 2)]


def charged(
    vehicle: str, meter: str, ratio: float, start: datetime, end: datetime, **claim: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a meter's and a vehicle's readings, one every second minute, (start, end]."""
    times = [
        (start + timedelta(minutes=minute)).isoformat()
        for minute in range(2, (end - start) // timedelta(minutes=1) + 1, 2)
    ]
    measured = {"meterId": meter, "kwhConsumedAc": 0.1, "voltage": 198}
    delivered = {"vehicleId": vehicle, "kwhDeliveredDc": 0.1 * ratio, "batteryTemp": 50} | claim
    meters = [measured | {"timestamp": time} for time in times]
    vehicles = [delivered | {"timestamp": time} for time in times]
    return (
        [reading | {"timestamp": time} for reading, time in zip(meters, times, strict=True)],
        [
            reading | {"timestamp": time} | claim
            for reading, time in zip(vehicles, times, strict=True)
        ],
    )


def send(api: Api, meters: list[dict[str, Any]], vehicles: list[dict[str, Any]]) -> None:
    assert api.post("/v1/ingestion/meter/batch", meters).status == 201
    assert api.post("/v1/ingestion/vehicle/batch", vehicles).status == 201


@pytest.fixture
def failing(api: Api) -> Api:
    """Two chargers with a fault, and one that is well, for 30 hours until now."""
    end = datetime.now(UTC).replace(second=0, microsecond=0) + AHEAD
    for suffix, ratio in (("1", 0.8), ("2", 0.7), ("3", 0.9)):
        ids = f"VEH-{suffix}", f"METER-{suffix}"
        send(api, *charged(*ids, ratio, end - 30 * HOUR, end))
    return api


@dataclass
class Monitor:
    """The monitor function, as its schedule invokes it."""

    urls: DatabaseUrls
    target: str = ""

    def run(self) -> dict[str, Any]:
        function = read_local_template(self.urls.environment).functions["FaultMonitorFunction"]
        if self.target:
            function.environment["ALERT_TARGET"] = self.target  # type: ignore[index]
        returned: dict[str, Any] = Environment(function).invoke({}, "request")
        del sys.modules["alerts_monitor"]
        return returned


@pytest.fixture
def monitor(urls: DatabaseUrls, inbox: Inbox) -> Monitor:
    return Monitor(urls)


def test_each_fault_is_published_once_with_its_evidence(
    failing: Api, monitor: Monitor, inbox: Inbox
) -> None:
    began = datetime.now(UTC)
    assert monitor.run()["published"] == 2
    hours = {time.replace(minute=0, second=0, microsecond=0) for time in (began, datetime.now(UTC))}
    received = sorted(inbox.read(), key=lambda notice: notice["vehicleId"])
    assert [(each["change"], each["vehicleId"], each["meterId"]) for each in received] == [
        ("opened", "VEH-1", "METER-1"),
        ("opened", "VEH-2", "METER-2"),
    ]
    evidence = received[0]["evidence"]
    end = datetime.fromisoformat(evidence["timeWindowEnd"])
    assert end in hours
    assert datetime.fromisoformat(evidence["timeWindowStart"]) == end - 24 * HOUR
    alone = failing.get(f"/v1/analytics/performance/VEH-1?end={end:%Y-%m-%dT%H:%M:%SZ}").body
    for name in ("totalEnergyConsumedAc", "totalEnergyDeliveredDc", "efficiencyRatio", "status"):
        assert evidence[name] == alone[name]
    assert (evidence["vehicleCoverage"], evidence["meterCoverage"]) == (0.5, 0.5)
    assert (evidence["averageVoltage"], evidence["averageBatteryTemp"]) == (198, 50)
    assert evidence["hints"] == ["lowVoltage", "highBatteryTemp"]
    assert monitor.run()["published"] == 0
    assert inbox.read() == []


def test_the_charger_is_told_that_is_at_fault(api: Api, monitor: Monitor, inbox: Inbox) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    since = now - 10 * HOUR
    for meter, ratio, start, end in (
        ("A", 0.95, now - 30 * HOUR, since),
        ("B", 0.7, since, now + AHEAD),
    ):
        send(api, *charged("VEH-1", f"METER-{meter}", ratio, start, end, meterId=f"METER-{meter}"))
    monitor.run()
    [notice] = inbox.read()
    assert notice["meterId"] == "METER-B"
    assert notice["evidence"]["efficiencyRatio"] == pytest.approx(70, abs=0.3)
    assert 540 <= notice["evidence"]["linkedMinutes"] <= 602


KILLED = """
import os, signal, sys
from local.configuration import read_local_template
from local.runtime import Environment
from telemetry.targets import Topic
publish = Topic.publish
def killed(self, notices):
    publish(self, notices)
    os.kill(os.getpid(), signal.SIGKILL)
Topic.publish = killed
Environment(read_local_template(os.environ).functions["FaultMonitorFunction"]).invoke({}, "request")
"""


def test_a_process_killed_after_publishing_publishes_the_same_again(
    failing: Api, monitor: Monitor, inbox: Inbox, cloud: QueueServer
) -> None:
    environ = {**os.environ, **cloud.environment, **monitor.urls.environment}
    layer = ROOT / "layers/telemetry/python"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED],
        cwd=ROOT,
        env=environ | {"PYTHONPATH": f"{ROOT}:{layer}"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    first = inbox.read()
    assert len(first) == 2
    while True:  # until PostgreSQL has noticed that nobody holds the changes any more
        if monitor.run()["published"]:
            break
    assert sorted(inbox.read(), key=str) == sorted(first, key=str)
    assert monitor.run()["published"] == 0


def test_what_the_topic_does_not_take_waits(
    failing: Api, monitor: Monitor, inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor.target = "arn:aws:sns:eu-central-1:000000000000:Nobody"
    with pytest.raises(AlertsUnpublished):
        monitor.run()
    assert '"UnpublishedAlerts":[2.0]' in capsys.readouterr().out.replace(" ", "")
    history = failing.get("/v1/analytics/faults").body["items"][0]["history"]
    assert [change["publishedAt"] for change in history] == [None]
    monitor.target = ""
    assert monitor.run()["published"] == 2
    assert len(inbox.read()) == 2
    assert '"UnpublishedAlerts":[0.0]' in capsys.readouterr().out.replace(" ", "")


def test_faults_are_published_to_a_bus(
    failing: Api, monitor: Monitor, inbox: Inbox, cloud: QueueServer
) -> None:
    events, name = connect_aws(cloud.environment, "events"), f"faults-{uuid4()}"
    bus = events.create_event_bus(Name=name)["EventBusArn"]
    pattern = {"detail-type": ["Charger fault opened"], "detail": {"vehicleId": ["VEH-2"]}}
    events.put_rule(Name="opened", EventBusName=name, EventPattern=json.dumps(pattern))
    target = {"Id": "inbox", "Arn": queue_arn(inbox.url.rpartition("/")[2])}
    events.put_targets(Rule="opened", EventBusName=name, Targets=[target])
    events.close()
    monitor.target = bus
    assert monitor.run()["published"] == 2
    [event] = inbox.read()
    assert event["source"] == "energy-ingestion-engine"
    assert event["detail"]["change"] == "opened"
    assert event["detail"]["meterId"] == "METER-2"


WHO: dict[str, Any] = {"by": "Ada Lovelace", "why": "Coil on order"}


def test_faults_are_listed_filtered_and_paged(failing: Api, monitor: Monitor) -> None:
    monitor.run()
    listed = failing.get("/v1/analytics/faults").body
    assert {item["vehicleId"] for item in listed["items"]} == {"VEH-1", "VEH-2"}
    assert listed["nextCursor"] is None
    of_one = failing.get("/v1/analytics/faults?vehicleId=VEH-2&state=open").body["items"]
    assert [item["meterId"] for item in of_one] == ["METER-2"]
    assert failing.get("/v1/analytics/faults?state=cleared").body["items"] == []
    first = failing.get("/v1/analytics/faults?limit=1").body
    then = failing.get(f"/v1/analytics/faults?limit=1&cursor={first['nextCursor']}").body
    assert [*first["items"], *then["items"]] == listed["items"]
    assert then["nextCursor"] is None
    table = failing.get("/v1/analytics/faults", accept="text/csv").body
    rows = list(csv.DictReader(io.StringIO(table)))
    assert {row["vehicleId"] for row in rows} == {"VEH-1", "VEH-2"}
    assert [json.loads(row["history"])[0]["change"] for row in rows] == ["opened"] * 2
    for query in ("state=closed", "vehicleId=%20", "cursor=x", "limit=0"):
        assert failing.get(f"/v1/analytics/faults?{query}").status == 400


def test_a_fault_is_acknowledged_once_and_that_is_published(
    failing: Api, monitor: Monitor, inbox: Inbox
) -> None:
    monitor.run()
    inbox.read()
    [fault] = failing.get("/v1/analytics/faults?vehicleId=VEH-1").body["items"]
    path = f"/v1/analytics/faults/{fault['id']}/acknowledge"
    for who in (WHO, WHO | {"by": "Grace Hopper"}):
        answer = failing.post(path, who)
        assert (answer.status, answer.body) == (200, {"id": fault["id"], "state": "acknowledged"})
    [fault] = failing.get("/v1/analytics/faults?state=acknowledged").body["items"]
    last = fault["history"][-1]
    assert (last["change"], last["by"], last["why"]) == ("acknowledged", *WHO.values())
    assert monitor.run()["published"] == 1
    [notice] = inbox.read()
    assert (notice["change"], notice["by"]) == ("acknowledged", "Ada Lovelace")
    assert notice["id"] == f"{fault['id']}-acknowledged"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"by", "why"}),
        (WHO | {"by": ""}, {"by"}),
        (WHO | {"by": "A" * 201}, {"by"}),
        (WHO | {"why": "\0"}, {"why"}),
        (WHO | {"when": "now"}, {"when"}),
        ([], {"body"}),
    ],
)
def test_who_and_why_are_checked(api: Api, body: Any, fields: set[str]) -> None:
    answer = api.post(f"/v1/analytics/faults/{uuid4()}/acknowledge", body)
    assert answer.status == 400
    assert {error["field"] for error in answer.body["errors"]} == fields


def test_what_cannot_be_acknowledged_is_refused(api: Api, depot: Depot, urls: DatabaseUrls) -> None:
    for unknown in (uuid4(), "x"):
        answer = api.post(f"/v1/analytics/faults/{unknown}/acknowledge", WHO)
        assert (answer.status, answer.body["message"]) == (404, "Fault not found")
    for hour, ratio in enumerate([80, 80, 95, 95, 95], 1):
        depot.charge(hour, ratio)
        depot.judge(hour)
    [fault] = api.get("/v1/analytics/faults?state=cleared").body["items"]
    assert [change["change"] for change in fault["history"]] == ["opened", "cleared"]
    assert api.post(f"/v1/analytics/faults/{fault['id']}/acknowledge", WHO).status == 409


class Full:
    """A target that takes all but the first of what it is given."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def publish(self, notices: Any) -> Any:
        self.taken += [notice.vehicle_id for notice in notices[1:]]
        return notices[1:]


def test_one_that_is_refused_does_not_hold_up_the_others(urls: DatabaseUrls) -> None:
    for number in range(1, 14):
        charger = Depot(urls, number)
        for hour in (1, 2):
            charger.charge(hour, 80)
    for hour in (1, 2):
        Depot(urls).judge(hour)
    with connect(urls.alerts) as connection:
        target = Full()
        with pytest.raises(AlertsUnpublished):
            publish_changes(connection, target)
    assert len(target.taken) == len(set(target.taken)) == 12
