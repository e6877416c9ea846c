"""What `make bench` measures is there: each part that asks no server of its own, in little."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench import analytics, archive, backfill, bulk, size
from local.databases import DatabaseUrls
from tests.conftest import Server, database, template_at

LITTLE: dict[str, Any] = {
    "analytics.VEHICLES": 4,
    "analytics.WITH_HISTORY": 2,
    "analytics.OTHERS": 2,
    "analytics.ROUNDS": 1,
    "analytics.CALLS": 10,
    "archive.DEVICES": 2,
    "backfill.DEVICES": 2,
    "backfill.ROUNDS": 1,
    "bulk.ROUNDS": 1,
    "bulk.BATCHES": 1,
    "bulk._FRESH": range(10),
    "bulk._BUFFERED": range(100_000, 100_002),
    "bulk._KNOWN": range(200_000, 200_010),
    "size.DEVICES": range(10),
    "size.MINUTES": 2,
}
Measure = Callable[[DatabaseUrls, str, Path], dict[str, float]]


def say(_: str) -> None:
    """Tell nobody how far it is."""


@pytest.mark.parametrize("server", ["embedded"], indirect=True, scope="session")
@pytest.mark.parametrize(
    "measure",
    [
        pytest.param(lambda urls, _, __: size.measure_size(urls.owner), id="size"),
        pytest.param(lambda urls, _, __: backfill.measure_backfill(urls.owner, say), id="backfill"),
        pytest.param(lambda urls, other, _: bulk.measure_bulk(other, urls.owner, say), id="bulk"),
        pytest.param(
            lambda urls, _, __: analytics.measure_analytics(urls.owner, urls.read, say),
            id="analytics",
        ),
        pytest.param(
            lambda urls, _, folder: archive.measure_archive(folder, urls.owner, say), id="archive"
        ),
    ],
)
def test_a_part_of_the_bench_measures(
    server: Server, measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in LITTLE.items():
        monkeypatch.setattr(f"bench.{name}", value)
    # With each day's partition, as in use.
    template = template_at(
        server, datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    )
    with database(server, template) as urls, database(server, template) as other:
        measured = measure(urls, other.owner, tmp_path / "bench")
    assert measured
    assert all(value > 0 for value in measured.values())
