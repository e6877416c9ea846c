"""What waits in the queue of `make run`: how fast the workers store it, and a burst beyond that.

The workers are those of the template's event source mapping: two of the stream, the fewest that
it allows, each with one connection, and ten messages an invocation. Every reading is a message of
its own, the most that it can cost.
"""

import http.client
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from threading import Event
from urllib.parse import urlsplit

from bench.served import await_stored, count_stored, served
from bench.workload import METERS, format_meter, make_readings
from local.folder import read_file
from local.queues import MOST_MESSAGES, connect
from telemetry.database import connect as connect_database
from telemetry.intake import METERS as STREAM
from telemetry.messages import pack

# 20,000 devices that send once a minute.
ARRIVAL = 20_000 / 60
SENDERS = 16

# What waits when the drain begins, as after an outage of six seconds. Not more, because the local
# queue server looks at all that wait: with 8,000, ten messages take 30 ms of its time instead of 5.
BACKLOG = 2_000
DRAIN_ROUNDS = 3
DRAIN_MINUTE = 5_000

# A database so busy that a transaction of the workers takes this long: two workers with ten
# messages each then write at most CAP readings a second.
TRANSACTION_SECONDS = 0.4
CAP = 2 * 10 / TRANSACTION_SECONDS
BURST = 10 * CAP
BURST_SECONDS = 10
_SLOW = f"""
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep({TRANSACTION_SECONDS}); RETURN NULL; END';
    CREATE TRIGGER slow AFTER INSERT ON meter_live_status
        FOR EACH STATEMENT EXECUTE FUNCTION wait();
"""
MOST_DRAIN_SECONDS = 200


def measure_drain(folder: Path, url: str, say: Callable[[str], None]) -> dict[str, float]:
    """Return readings per second from the queue, and requests per second of devices meanwhile.

    The median of rounds. The server lives in folder; url is of an empty database.
    """
    rates = []
    with served(folder, url) as where, ThreadPoolExecutor(SENDERS) as pool:
        ending, began = Event(), time.monotonic()
        devices = _start_senders(pool, where, ARRIVAL, MOST_DRAIN_SECONDS, ending)
        try:
            for minute in range(DRAIN_MINUTE, DRAIN_MINUTE + DRAIN_ROUNDS):
                say(f"drain: {ARRIVAL:.0f} readings a second arrive, {BACKLOG:,} wait")
                filled = time.monotonic()
                _fill_queue(folder, minute)
                _await_count(url, minute, BACKLOG)
                rates.append(BACKLOG / (time.monotonic() - filled))
        finally:
            ending.set()
        statuses = _join(devices)
        arrived = statuses.total() / (time.monotonic() - began)
        await_stored(url, 0, DRAIN_ROUNDS * BACKLOG + statuses[201] + statuses[202])
    return {"drain": median(rates), "drain_arrival": arrived}


def measure_burst(folder: Path, url: str, say: Callable[[str], None]) -> dict[str, float]:
    """Return what share of a burst was answered 2xx, and seconds until all of it was stored.

    Readings go to the queue first (INGEST_MODE=queue), and two worker connections with a pause in
    each transaction cap what is written; the burst is ten times the cap, for ten seconds. folder
    and url are as for measure_drain.
    """
    with served(folder, url, INGEST_MODE="queue") as where, ThreadPoolExecutor(SENDERS) as pool:
        with connect_database(url) as connection:
            connection.execute(_SLOW.encode())
        say(f"burst: {BURST:.0f} readings a second for {BURST_SECONDS} s, {CAP:.0f} are stored")
        began = time.monotonic()
        statuses = _join(_start_senders(pool, where, BURST, BURST_SECONDS, Event()))
        sent = time.monotonic()
        taken = sum(count for status, count in statuses.items() if 200 <= status < 300)
        _await_count(url, 0, taken)
        return {
            "burst_answered": taken / statuses.total(),
            "burst_rate": statuses.total() / (sent - began),
            "burst_cap": CAP,
            "burst_drain_seconds": time.monotonic() - sent,
        }


def _start_senders(
    pool: ThreadPoolExecutor, where: str, rate: float, seconds: float, ending: Event
) -> "list[Future[Counter[int]]]":
    """Start devices that send one reading a request, so many a second, until ending or over."""
    slots = iter(range(round(rate * seconds)))
    began = time.monotonic()

    def send() -> Counter[int]:
        statuses: Counter[int] = Counter()
        connection = http.client.HTTPConnection(urlsplit(where).netloc, timeout=30)
        for slot in slots:
            if ending.wait(max(0.0, began + slot / rate - time.monotonic())):
                break
            minute, meter = divmod(slot, len(METERS))
            [reading] = make_readings(range(meter, meter + 1), [1_000 + minute], random.Random(0))
            connection.request(
                "POST",
                "/v1/ingestion/meter",
                json.dumps(format_meter(reading)),
                {"Content-Type": "application/json"},
            )
            with connection.getresponse() as answer:
                answer.read()
                statuses[answer.status] += 1
        connection.close()
        return statuses

    return [pool.submit(send) for _ in range(SENDERS)]


def _join(senders: "list[Future[Counter[int]]]") -> Counter[int]:
    """Return how many requests were answered with which status."""
    return sum((sender.result() for sender in senders), Counter())


def _fill_queue(folder: Path, minute: int) -> None:
    """Put BACKLOG messages on the queue of the system in a folder, as its API does."""
    client = connect(json.loads(read_file(folder, "sqs.json")))
    url = json.loads(read_file(folder, "queues.json"))["MeterQueue"]
    received_at = datetime.now(UTC)
    readings = make_readings(range(BACKLOG), [minute], random.Random(5))
    for first in range(0, BACKLOG, MOST_MESSAGES):
        entries = []
        for number in range(first, first + MOST_MESSAGES):
            receipt = received_at + timedelta(microseconds=number)
            [(_, body)] = pack(STREAM, readings[number : number + 1], receipt)
            entries.append({"Id": str(number), "MessageBody": body})
        answer = client.send_message_batch(QueueUrl=url, Entries=entries)
        if answer.get("Failed"):
            raise RuntimeError(f"the queue does not take messages: {answer['Failed']}")


def _await_count(url: str, first_minute: int, count: int) -> None:
    """Return when there are so many readings from that minute on."""
    began = time.monotonic()
    while (stored := count_stored(url, first_minute)) < count:
        if time.monotonic() - began > MOST_DRAIN_SECONDS:
            raise RuntimeError(f"after {MOST_DRAIN_SECONDS} s {stored:,} of {count:,} are stored")
        time.sleep(0.2)
