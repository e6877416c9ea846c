"""What a fleet costs: the lines of the bill, and that the document has the calculator's figures."""

import pytest

from local import ROOT
from local.capacity import MOST_ACU, PRICES, Fleet, estimate, size_database, summarize

DOCUMENT = (ROOT / "docs/capacity.md").read_text(encoding="utf-8")


def by_line(fleet: Fleet) -> dict[str, float]:
    return {cost.what: cost.usd for cost in estimate(fleet)}


def test_a_request_a_reading_costs_a_hundred_times_what_batches_of_100_do() -> None:
    alone, batches = (by_line(Fleet(2_000_000, batch=batch)) for batch in (1, 100))
    for line in ("Lambda invocations", "logs", "authorizer look-ups"):
        assert alone[line] == pytest.approx(100 * batches[line])
    # Both tiers of the price.
    assert alone["HTTP API"] == pytest.approx(300)
    requests = 2_000_000 / 60 * 730 * 3600
    assert alone["HTTP API beyond"] == pytest.approx((requests - 300e6) / 1e6 * 0.9)


def test_the_queue_costs_requests_of_64_kb() -> None:
    sent = 1000 / 60 * 730 * 3600 / 1800
    assert by_line(Fleet(1000, batch=1800, queue_first=True))["SQS"] == pytest.approx(
        2 * 1.2 * sent * 0.4e-6
    )
    assert "SQS" not in by_line(Fleet(1000))


def test_storage_is_charged_the_cheaper_way() -> None:
    assert "Aurora I/O" in by_line(Fleet(20_000, batch=100))
    assert "Aurora I/O" not in by_line(Fleet(20_000))


def test_a_database_is_sized_by_what_it_writes() -> None:
    assert size_database(Fleet(1)) == 2
    assert size_database(Fleet(10_000_000)) > MOST_ACU > size_database(Fleet(10_000_000, batch=100))
    # 250 µs of 333 a second are 0.083 of a vCPU; half of an ACU's quarter of one is used.
    assert size_database(Fleet(200_000)) == pytest.approx(0.833 / 0.25 / 0.5, abs=0.5)


@pytest.mark.parametrize("devices", [10_000, 20_000, 100_000, 1_000_000, 10_000_000])
@pytest.mark.parametrize("batch", [1, 100, 1000])
def test_the_document_has_the_figures(devices: int, batch: int) -> None:
    assert summarize(Fleet(devices, batch=batch)) in DOCUMENT


@pytest.mark.parametrize("name", PRICES)
def test_the_document_has_the_prices(name: str) -> None:
    price = PRICES[name]
    assert f"| {name} | {price.usd:.10g} | {price.per:,.0f} {price.unit} |" in DOCUMENT
