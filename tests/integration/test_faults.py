"""Faults against a plain oracle: any readings, late or corrected, hours, crashes, and runs at once.

What has to hold: a charger has at most one fault that is not cleared; it is opened and cleared in
turn; each change is published with one id, and what was published is what has changed, whatever
ended a run before.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Literal, get_args

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from local.databases import DatabaseUrls
from telemetry.acknowledgements import acknowledge_fault
from telemetry.alerts import Watch, count_unpublished, evaluate_fleet, publish_changes
from telemetry.database import Connection, Database, connect
from telemetry.errors import FaultCleared
from telemetry.faults import Fault, FaultKind, FaultSelection, Notice, list_faults
from telemetry.rules import Rules
from tests.conftest import unpooled
from tests.integration.conftest import delete_all
from tests.integration.oracle import Call, Event, write

pytestmark = unpooled

START = datetime(2026, 2, 10, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
RULES = Rules(least_kwh=1, least_coverage=0)
WATCH = Watch(length=2 * HOUR)
CHARGERS = (1, 2)


class Crashed(Exception):
    """The run ended here."""


@dataclass
class Alert:
    """What the oracle knows of faults of one kind."""

    judged: dict[int, bool] = field(default_factory=dict)  # hour of the window's end → it is bad
    # Window end of each opening and clearing in turn, with who acknowledged it in between.
    changes: list[tuple[str, int]] = field(default_factory=list)

    def look(self) -> None:
        """Open or clear after the last two windows."""
        if len(self.judged) < 2:
            return
        newest, before = sorted(self.judged)[:-3:-1]
        verdict = self.judged[newest]
        last = next((c for c in reversed(self.changes) if c[0] != "acknowledged"), ("cleared", -99))
        if (
            self.judged[before] == verdict
            and verdict == (last[0] == "cleared")
            and newest > last[1]
        ):
            self.changes.append(("opened" if verdict else "cleared", newest))


@dataclass
class Charger:
    """What the oracle knows of a charger."""

    hours: dict[int, tuple[int, int]] = field(default_factory=dict)  # hour → Wh AC, DC
    statuses: dict[int, str] = field(default_factory=dict)  # hour of the window's end → as judged
    alerts: dict[FaultKind, Alert] = field(
        default_factory=lambda: {kind: Alert() for kind in get_args(FaultKind)}
    )

    def judge(self, now: int) -> None:
        for end in (now - 1, now):
            ac, dc = (
                sum(self.hours.get(hour, (0, 0))[side] for hour in (end - 1, end))
                for side in (0, 1)
            )
            self.statuses.pop(end, None)
            if ac >= 1000 and dc > 0:
                ratio = Decimal(dc) / ac
                self.statuses[end] = (
                    "implausible" if ratio > 1 else "fault" if ratio < Decimal("0.85") else "fine"
                )
        for is_implausible in (True, False):
            alike = [
                end
                for end, status in self.statuses.items()
                if (status == "implausible") == is_implausible
            ]
            for end in sorted(alike)[:-4]:
                del self.statuses[end]
        efficiency, implausible = self.alerts["efficiency"], self.alerts["implausible"]
        efficiency.judged = {
            end: status == "fault"
            for end, status in self.statuses.items()
            if status != "implausible"
        }
        implausible.judged = {end: status == "implausible" for end, status in self.statuses.items()}
        efficiency.look()
        implausible.look()


class Receiver:
    """Takes what is published, and ends the run where it is told to."""

    def __init__(self) -> None:
        self.received: list[Notice] = []
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def publish(self, notices: Sequence[Notice]) -> list[Notice]:
        self.before()
        self.received += notices
        self.after()
        return list(notices)


class Faults(RuleBasedStateMachine):
    """A fleet of two chargers, its monitor, and those who acknowledge."""

    urls: ClassVar[DatabaseUrls]

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.sent = 0
        self.chargers = {number: Charger() for number in CHARGERS}
        self.store = Database(self.urls.ingest)
        self.alerts = Database(self.urls.alerts)
        self.reader = Database(self.urls.read)
        self.receiver = Receiver()
        with connect(self.urls.owner) as owner:
            delete_all(owner)

    def teardown(self) -> None:
        try:
            self.run()
        finally:
            self.close()

    def close(self) -> None:
        for database in (self.store, self.alerts, self.reader):
            database.close()

    @rule(
        charger=st.sampled_from(CHARGERS),
        ago=st.integers(0, 3),
        ac=st.sampled_from([0, 400, 2000, 2000, 2000]),
        ratio=st.sampled_from([70, 80, 90, 120]),
    )
    def read(self, charger: int, ago: int, ac: int, ratio: int) -> None:
        hour, dc = self.now - ago, ac * ratio // 100
        self.chargers[charger].hours[hour] = ac, dc
        self.sent += 1
        accepted = START + 1000 * HOUR + timedelta(seconds=self.sent)
        offset = (hour * HOUR).total_seconds()
        events = [
            Event(charger, offset, ac, None, is_meter=True),
            Event(charger, offset, dc, 50, is_meter=False),
        ]
        write(self.store, Call(events, accepted))

    @rule(charger=st.sampled_from(CHARGERS), ratio=st.sampled_from([80, 80, 90, 90, 120]))
    def pass_time(self, charger: int, ratio: int) -> None:
        """Two hours in which a charger is used throughout; no run comes to publish anything."""
        for _ in range(2):
            self.now += 1
            self.read(charger, 0, 2000, ratio)
            self.evaluate()

    @rule()
    def pass_hour(self) -> None:
        self.now += 1

    @rule()
    def run(self) -> None:
        known = self.published()
        self.evaluate()
        self.publish()
        ids = [notice.id for notice in self.receiver.received]
        fresh = set(self.changes()) - known
        assert sorted(ids[len(ids) - len(fresh) :]) == sorted(fresh)  # without a crash, once

    @rule(where=st.sampled_from(["judging", "before", "after", "lost"]))
    def run_that_crashes(self, where: Literal["judging", "before", "after", "lost"]) -> None:
        if where == "judging":
            if self.reporting():
                self.evaluate(most=1)
            return
        self.evaluate()
        with connect(self.urls.alerts) as connection:
            self.receiver.before = end(connection, "raise" if where == "before" else None)
            self.receiver.after = end(connection, {"after": "raise", "lost": "kill"}.get(where))
            waiting = count_unpublished(connection)
            if waiting:
                with pytest.raises((Crashed, psycopg.OperationalError)):
                    publish_changes(connection, self.receiver)
        self.receiver.before = self.receiver.after = lambda: None

    @rule()
    def runs_at_once(self) -> None:
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(self.judge_once) for _ in range(3)]:
                done.result()
        self.note_judged(CHARGERS)

        def run_another() -> None:
            self.receiver.after = lambda: None
            self.publish()

        # While one publishes, another one begins and ends.
        before = len(self.receiver.received)
        waiting = {i for i in self.changes() if i not in self.published()}
        self.receiver.after = run_another
        self.publish()
        self.receiver.after = lambda: None
        assert len(self.receiver.received) - before == len(waiting)

    @rule(charger=st.sampled_from(CHARGERS))
    def acknowledge(self, charger: int) -> None:
        faults = [f for f in self.listed() if f.vehicle_id == f"VEH_{charger}"]
        if not faults:
            return
        if faults[0].state == "cleared":
            with pytest.raises(FaultCleared):
                acknowledge_fault(self.alerts, faults[0].id, "Ada", "seen")
            return
        acknowledge_fault(self.alerts, faults[0].id, "Ada", "seen")
        known = self.chargers[charger].alerts[faults[0].kind].changes
        if known[-1][0] == "opened":
            known.append(("acknowledged", known[-1][1]))

    @invariant()
    def faults_are_what_the_oracle_says(self) -> None:
        found: dict[tuple[int, FaultKind], list[tuple[str, int]]] = {
            (number, kind): [] for number in CHARGERS for kind in get_args(FaultKind)
        }
        for fault in reversed(self.listed()):
            charger = int(fault.vehicle_id[-1])
            assert fault.meter_id == f"MTR_{charger}"
            for change in fault.history:
                evidence = change.evidence
                when = evidence.time_window_end if evidence else fault.opened_at
                found[charger, fault.kind].append((change.change, (when - START) // HOUR))
                if evidence and evidence.status == "fault":
                    assert evidence.efficiency_ratio < 85
                if fault.kind == "implausible" and change.change == "opened":
                    assert evidence is not None
                    assert evidence.efficiency_ratio > 100
            last = fault.history[-1].change
            assert fault.state == {"opened": "open"}.get(last, last)
        assert found == {
            (number, kind): alert.changes
            for number, charger in self.chargers.items()
            for kind, alert in charger.alerts.items()
        }
        for changes in found.values():
            turns = [kind for kind, _ in changes if kind != "acknowledged"]
            assert turns == ["opened", "cleared"] * (len(turns) // 2) + ["opened"] * (
                len(turns) % 2
            )

    @invariant()
    def nothing_is_published_that_did_not_change(self) -> None:
        contents: dict[str, Notice] = {}
        for notice in self.receiver.received:
            assert contents.setdefault(notice.id, notice) == notice
        assert set(contents) <= set(self.changes())

    def evaluate(self, most: int | None = None) -> None:
        """Judge the fleet, or so many of its vehicles, before the run ends."""
        if most is None:
            self.judge_once()
        else:
            with connect(self.urls.alerts) as connection:
                limited = Ending(connection, most)
                with pytest.raises(Crashed):
                    evaluate_fleet(limited, RULES, WATCH, self.clock, chunk=1)  # type: ignore[arg-type]
        self.note_judged(self.reporting()[:most])

    def judge_once(self) -> None:
        with connect(self.urls.alerts) as connection:
            evaluate_fleet(connection, RULES, WATCH, self.clock)

    def note_judged(self, chargers: Sequence[int]) -> None:
        for number in chargers:
            self.chargers[number].judge(self.now)

    def publish(self) -> None:
        with connect(self.urls.alerts) as connection:
            publish_changes(connection, self.receiver)
        assert {notice.id for notice in self.receiver.received} == set(self.changes())

    @property
    def clock(self) -> datetime:
        return START + self.now * HOUR + timedelta(minutes=10)

    def reporting(self) -> list[int]:
        return [number for number, charger in self.chargers.items() if charger.hours]

    def listed(self) -> list[Fault]:
        """All faults, of both kinds, those opened last first."""
        pages = [
            list_faults(self.reader, FaultSelection(kind=kind)) for kind in get_args(FaultKind)
        ]
        assert all(page.next_cursor is None for page in pages)
        return sorted(
            (fault for page in pages for fault in page.items),
            key=lambda fault: fault.opened_at,
            reverse=True,
        )

    def changes(self) -> list[str]:
        return [f"{fault.id}-{past.change}" for fault in self.listed() for past in fault.history]

    def published(self) -> set[str]:
        return {
            f"{fault.id}-{past.change}"
            for fault in self.listed()
            for past in fault.history
            if past.published_at
        }


@dataclass
class Ending:
    """A connection of a process that ends after so many statements."""

    connection: Connection
    left: int
    deadline: float = 0.0

    def execute(self, *statement: Any) -> Any:
        if not self.left:
            raise Crashed
        self.left -= 1
        return self.connection.execute(*statement)


def end(connection: Connection, how: str | None) -> Callable[[], None]:
    def ends() -> None:
        if how == "raise":
            raise Crashed
        if how == "kill":
            connection.pgconn.finish()

    return ends


@pytest.fixture
def machine(urls: DatabaseUrls) -> type[Faults]:
    return type("OfThisDatabase", (Faults,), {"urls": urls})


def test_faults_are_raised_once_whatever_happens(machine: type[Faults]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
