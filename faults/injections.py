"""The faults: each happens while devices send, and has passed when its function returns."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from faults.load import Load
from faults.system import VISIBILITY, System
from local import LocalError

# The template's number, and its visibility timeout made short: so an outage is long soon. What is
# refused at once is with a worker for little more than its batching window (1 s).
MOST_RECEIVES = 10
SHORT_VISIBILITY = 2
# Of the short form. Beyond the five receives after which a worker puts a message on the queue anew.
FEW_RECEIVES = 6
# Seconds. How long a fault is given to have its effect, on a machine that has other work.
EFFECT_SECONDS = 60
FULL = "No space left on device"

Inject = Callable[[System, Load, bool], None]


@dataclass(frozen=True)
class Fault:
    """A fault, and an answer without which it had no effect.

    inject raises LocalError where it had none for another reason, when everything works again.
    """

    name: str
    inject: Inject
    must_see: int
    needs_disk: bool = False


@dataclass(frozen=True)
class Poison:
    """A message that can never be stored, and what its reason says."""

    queue: str
    body: str
    reason: str


# PostgreSQL finds fault with its data; otherwise its messages are good.
REFUSED_VEHICLE = "FAULT-POISON"
_REFUSED_READING = {
    "vehicleId": [REFUSED_VEHICLE],
    "kwhDeliveredDc": [1],
    "batteryTemp": [25],
    "timestamp": ["2026-02-10T10:00:00Z"],
}
POISONS = (
    Poison("MeterQueue", '{"stream": "meter", "noise": "' + "~" * 1_000 + '"}', "receivedAt"),
    Poison(
        "VehicleQueue",
        json.dumps(
            {
                "stream": "vehicle",
                "receivedAt": "2026-02-10T10:00:00Z",
                "readings": _REFUSED_READING,
            }
        ),
        "PostgreSQL refuses it",
    ),
)


def _last(seconds: float, until: Callable[[], bool]) -> None:
    """Let a fault last so long, and until it has had its effect."""
    time.sleep(seconds)
    # Not by the clock: a machine that was asleep gets its time.
    for _ in range(EFFECT_SECONDS * 10):
        if until():
            return
        time.sleep(0.1)


def _do_nothing(_system: System, _load: Load, short: bool) -> None:
    time.sleep(1 if short else 5)


def _kill_database(system: System, load: Load, short: bool) -> None:
    for _ in range(1 if short else 3):
        time.sleep(1)
        system.database.kill()
        _last(1, lambda: load.saw(202))
        system.database.start()
        # Until the circuits close that opened: so that it is killed in the midst of writes.
        time.sleep(1.5)


def _cut_connections(system: System, _load: Load, short: bool) -> None:
    cut = 0
    for _ in range(6 if short else 25):
        time.sleep(0.3)
        cut += system.database_relay.cut()
    if not cut:
        raise LocalError("there were no connections to cut")


def _freeze_database(system: System, load: Load, short: bool) -> None:
    time.sleep(1)
    system.database.freeze()
    _last(6 if short else 20, lambda: load.saw(202))
    system.database.thaw()
    time.sleep(1)


def _stop_database_for_long(system: System, _load: Load, short: bool) -> None:
    receives = FEW_RECEIVES if short else MOST_RECEIVES
    system.set_queues(SHORT_VISIBILITY, receives)
    system.database.stop()
    time.sleep(SHORT_VISIBILITY * receives + 3)
    system.database.start()
    time.sleep(1)
    system.set_queues(VISIBILITY, MOST_RECEIVES)


def _kill_api(system: System, _load: Load, short: bool) -> None:
    time.sleep(1)
    system.kill_api()
    time.sleep(1 if short else 5)


def _kill_workers(system: System, _load: Load, short: bool) -> None:
    for _ in range(1 if short else 2):
        with system.database.workers_in_mid_write():
            system.kill_workers()
        time.sleep(1)


def _lose_queue(system: System, _load: Load, short: bool) -> None:
    system.queue_relay.refuse()
    time.sleep(2 if short else 4)
    system.queue_relay.admit()
    system.queue_relay.swallow()
    time.sleep(1 if short else 4)
    system.queue_relay.admit()


def _refuse_everything(system: System, load: Load, short: bool) -> None:
    system.queue_relay.refuse()
    system.database_relay.refuse()
    # From now on, what is answered 503 was offered to nobody.
    load.gives_up = True
    _last(3 if short else 6, lambda: load.saw(503))
    load.gives_up = False
    system.queue_relay.admit()
    system.database_relay.admit()


def _swallow_everything(system: System, load: Load, short: bool) -> None:
    system.queue_relay.swallow()
    system.database.freeze()
    _last(3 if short else 6, lambda: load.saw(503))
    system.database.thaw()
    system.queue_relay.admit()


def _deliver_twice(system: System, load: Load, short: bool) -> None:
    system.set_queues(SHORT_VISIBILITY, MOST_RECEIVES)
    system.database_relay.refuse()
    _last(1, lambda: load.saw(202))
    # What the workers have stored they cannot delete: all of it comes again.
    system.queue_relay.forbid(b"AmazonSQS.DeleteMessage")
    system.database_relay.admit()
    _last(5 if short else 8, lambda: system.queue_relay.broken > 0)
    system.queue_relay.forbid(None)
    if not system.queue_relay.broken:
        raise LocalError("no message was stored that could come again")
    system.set_queues(VISIBILITY, MOST_RECEIVES)


def _fill_disk(system: System, load: Load, short: bool) -> None:
    system.database.fill_disk()
    _last(3 if short else 6, lambda: FULL in system.database.log() and load.saw(202))
    system.database.free_disk()
    if FULL not in system.database.log():
        raise LocalError("the disk did not become full")


def _send_poison(system: System, load: Load, short: bool) -> None:
    system.database.refuse_vehicle(REFUSED_VEHICLE)
    system.set_queues(SHORT_VISIBILITY, MOST_RECEIVES)
    # Among others, so that they come in one event.
    system.database_relay.refuse()
    _last(1, lambda: load.saw(202))
    for poison in POISONS:
        system.send(poison.queue, poison.body)
    time.sleep(1)
    system.database_relay.admit()
    time.sleep(1 if short else 3)


FAULTS = (
    Fault("none", _do_nothing, 201),
    Fault("database killed", _kill_database, 202),
    Fault("connections cut", _cut_connections, 201),
    Fault("database frozen", _freeze_database, 202),
    Fault("database away for long", _stop_database_for_long, 202),
    Fault("workers killed in mid-batch", _kill_workers, 202),
    Fault("queue unreachable", _lose_queue, 201),
    Fault("both unreachable", _refuse_everything, 503),
    Fault("both silent", _swallow_everything, 503),
    Fault("messages delivered twice", _deliver_twice, 202),
    Fault("disk full", _fill_disk, 202, needs_disk=True),
    Fault("two poison messages", _send_poison, 202),
    # The last: new processes load the queue's client anew, which makes the next ones slow.
    Fault("API killed", _kill_api, 201),
)
