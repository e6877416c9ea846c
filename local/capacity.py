"""What a fleet costs on AWS in a month, and how large its database has to be: `make cost`.

Prices are list prices of us-east-1 in US dollars, without free tiers and discounts, as published in
2026-11. What a reading needs of PostgreSQL and how large it is was measured (docs/performance.md).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

PRICES_OF = "2026-11, us-east-1"
HOURS = 730  # of a month
SECONDS = HOURS * 3600
GB = 1_000_000_000


class Price(NamedTuple):
    """Dollars for so many of a unit."""

    usd: float
    per: float
    unit: str

    def of(self, amount: float) -> float:
        """Return what an amount costs."""
        return amount / self.per * self.usd


PRICES = {
    "HTTP API request, of up to 512 KB": Price(1.00, 1e6, "requests"),
    "the same from 300 million a month on": Price(0.90, 1e6, "requests"),
    "Lambda invocation": Price(0.20, 1e6, "invocations"),
    "Lambda on arm64": Price(0.0000133334, 1, "GB-seconds"),
    "DynamoDB read, consistent": Price(0.125, 1e6, "reads"),
    "SQS standard queue, of up to 64 KB": Price(0.40, 1e6, "requests"),
    "Aurora Serverless v2": Price(0.12, 1, "ACU-hours"),
    "Aurora storage": Price(0.10, 1, "GB-months"),
    "Aurora I/O": Price(0.20, 1e6, "requests"),
    "Aurora I/O-Optimized capacity": Price(0.156, 1, "ACU-hours"),
    "Aurora I/O-Optimized storage": Price(0.225, 1, "GB-months"),
    "RDS Proxy, at least 8 ACU": Price(0.015, 1, "ACU-hours"),
    "interface endpoint": Price(0.01, 1, "hours in a zone"),
    "CloudWatch Logs": Price(0.50, 1, "GB"),
    "X-Ray trace": Price(5.00, 1e6, "traces"),
    "S3 storage": Price(0.023, 1, "GB-months"),
}
FIRST_TIER = 300e6  # requests of an HTTP API, a month

MEMORY_GB = 0.5
# Milliseconds that a function takes for a request, and for each reading in it: those of Python and
# PostgreSQL, and the way to the database and back in one region (two round trips with its proxy).
REQUEST_MS, READING_MS = 4.0, 0.06
# Processor time in PostgreSQL (µs) for a call and for each reading in it: 250 for a reading alone,
# 32 in batches of 1,000.
CALL_MICROSECONDS, READING_MICROSECONDS = 220, 30
# An ACU has 2 GiB and a quarter of a vCPU beside it; half of it is left for reports and bursts.
VCPU_PER_ACU, USED = 0.25, 0.5
MOST_ACU = 256
# Heap and index of history, and its share of the rollups (a row an hour and device, of 110 bytes).
HISTORY_BYTES, ROLLUP_BYTES = 126, 110
ARCHIVE_BYTES = 20
# Written ahead for a reading: its own row, live row, rollup. Aurora counts 4 KB as one I/O, and at
# least one a transaction.
LOG_BYTES, IO_BYTES = 700, 4096
# A line of the access log a request; functions log what goes wrong.
ACCESS_BYTES = 350
# X-Ray takes one request a second and 5 % of the others.
SAMPLED = 0.05
# API Gateway keeps what the authorizer says of a token so long (AuthorizerCacheSeconds).
TOKEN_SECONDS = 300
ENDPOINT_ZONES = 3  # SQS in two zones, Secrets Manager in one


@dataclass(frozen=True)
class Fleet:
    """Devices that send a reading each so many seconds, so many readings in a request.

    queue_first: every request goes through SQS (`INGEST_MODE=queue`). history_days: how long
    readings stay in PostgreSQL, before they are in the archive alone.
    """

    devices: int
    interval: float = 60
    batch: int = 1
    history_days: int = 90
    queue_first: bool = False

    @property
    def readings(self) -> float:
        """Readings a month."""
        return self.devices / self.interval * SECONDS

    @property
    def requests(self) -> float:
        """Requests a month."""
        return self.readings / self.batch

    @property
    def transactions(self) -> float:
        """Calls of PostgreSQL a month: ten messages of the queue make one."""
        return self.requests / (10 if self.queue_first else 1)


class Cost(NamedTuple):
    """A line of the bill: how much of what (a month), and dollars a month."""

    what: str
    amount: float
    unit: str
    usd: float


def size_database(fleet: Fleet) -> float:
    """Return the ACU that writing takes, half of their processors left free."""
    seconds = (fleet.transactions * CALL_MICROSECONDS + fleet.readings * READING_MICROSECONDS) / 1e6
    vcpus = seconds / SECONDS / USED
    return max(2.0, math.ceil(vcpus / VCPU_PER_ACU * 2) / 2)


def estimate(fleet: Fleet) -> Iterator[Cost]:
    """Yield what a month costs, line by line."""

    def line(what: str, amount: float, price: str) -> Cost:
        return Cost(what, amount, PRICES[price].unit, PRICES[price].of(amount))

    dear = min(fleet.requests, FIRST_TIER)
    yield line("HTTP API", dear, "HTTP API request, of up to 512 KB")
    yield line("HTTP API beyond", fleet.requests - dear, "the same from 300 million a month on")
    invocations = fleet.requests + (fleet.transactions if fleet.queue_first else 0)
    yield line("Lambda invocations", invocations, "Lambda invocation")
    work = fleet.requests * REQUEST_MS + fleet.readings * READING_MS
    if fleet.queue_first:
        work += fleet.transactions * REQUEST_MS + fleet.readings * READING_MS
    yield line("Lambda time", work / 1000 * MEMORY_GB, "Lambda on arm64")
    # One token a sender: a device, or a gateway for as many as there are in a request.
    asked = min(fleet.requests, fleet.devices / fleet.batch * SECONDS / TOKEN_SECONDS)
    yield line("authorizer invocations", asked, "Lambda invocation")
    yield line("authorizer look-ups", asked, "DynamoDB read, consistent")
    if fleet.queue_first:
        # Sent alone, received and deleted by tens; 64 KB are some 900 readings.
        chunks = math.ceil(fleet.batch / 900)
        yield line("SQS", fleet.requests * chunks * 1.2, "SQS standard queue, of up to 64 KB")
    acu = size_database(fleet)
    writes = max(fleet.transactions, fleet.readings * LOG_BYTES / IO_BYTES)
    stored = (
        fleet.readings * 12 / 365 * fleet.history_days * HISTORY_BYTES
        + fleet.devices * 24 * 365 * ROLLUP_BYTES
    ) / GB
    plain = [
        line("Aurora capacity", acu * HOURS, "Aurora Serverless v2"),
        line("Aurora storage", stored, "Aurora storage"),
        line("Aurora I/O", writes, "Aurora I/O"),
    ]
    optimized = [
        line("Aurora capacity", acu * HOURS, "Aurora I/O-Optimized capacity"),
        line("Aurora storage, I/O included", stored, "Aurora I/O-Optimized storage"),
    ]
    yield from min(plain, optimized, key=lambda lines: sum(cost.usd for cost in lines))
    yield line("RDS Proxy", max(8, acu) * HOURS, "RDS Proxy, at least 8 ACU")
    archived = fleet.readings * 12 * ARCHIVE_BYTES / GB
    yield line("archive, of a year", archived, "S3 storage")
    yield line("logs", fleet.requests * ACCESS_BYTES / GB, "CloudWatch Logs")
    traced = min(invocations, SECONDS + invocations * SAMPLED)
    yield line("traces", traced, "X-Ray trace")
    yield line("endpoints", ENDPOINT_ZONES * HOURS, "interface endpoint")


def summarize(fleet: Fleet) -> str:
    """Return a row of the table in docs/capacity.md."""
    usd, acu = sum(cost.usd for cost in estimate(fleet)), size_database(fleet)
    capacity = f"{acu:g}" if acu <= MOST_ACU else f"{acu:g}: shard"
    return (
        f"| {fleet.devices:,} | {fleet.batch:,} | {fleet.readings / SECONDS:,.0f} | {capacity} "
        f"| {usd:,.0f} | {usd / fleet.readings * 1e6:.2f} |"
    )


def print_cost(fleet: Fleet, console: Console) -> None:
    """Print the bill of a month, and how many ACU the database takes."""
    lines = [cost for cost in estimate(fleet) if cost.amount]
    millions = fleet.readings / 1e6
    table = Table(box=SIMPLE_HEAD)
    table.add_column("a month")
    for name in ("amount", "unit", "USD", "USD per million readings"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    for cost in lines:
        dollars = (f"{cost.usd:,.2f}", f"{cost.usd / millions:.3f}")
        table.add_row(cost.what, f"{cost.amount:,.0f}", cost.unit, *dollars)
    usd = sum(cost.usd for cost in lines)
    table.add_row("all", "", "", f"{usd:,.2f}", f"{usd / millions:.3f}", style="bold")
    acu = size_database(fleet)
    console.print(
        f"{fleet.devices:,} devices, a reading every {fleet.interval:g} s, {fleet.batch:,} in a "
        f"request: {fleet.readings / SECONDS:,.0f} readings/s, {millions:,.0f} million a month",
        table,
        f"Writing takes {acu:g} ACU: MinCapacity; reports and bursts come on top."
        if acu <= MOST_ACU
        else f"Writing takes {acu:,.0f} ACU, more than one Aurora writer has ({MOST_ACU}): send in "
        "batches, or shard by device.",
        f"List prices of {PRICES_OF}; docs/capacity.md has what is assumed.",
        sep="\n",
    )
