"""Which form an answer has, and how rows read as CSV."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.answers import Answer
from telemetry.errors import NotAcceptable
from telemetry.tables import CSV, JSON, choose_media_type, render_csv


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("text/csv", CSV),
        ("TEXT/CSV; charset=utf-8; header=present", CSV),
        ("text/*", CSV),
        ("text/csv, application/json", JSON),
        ("text/csv, application/json;q=0.9", CSV),
        ("text/csv;q=0.5, */*;q=0.1", CSV),
        ("text/csv;q=0.1, */*;q=0.5", JSON),
        ("application/json;q=0, */*", CSV),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
        ("text/csv ; q=1.000 , application/json ; q=0.999", CSV),
        ("text/csv;q=high, application/json", JSON),
    ],
)
def test_the_preferred_form_is_chosen(accept: str | None, chosen: str) -> None:
    assert choose_media_type(accept, (JSON, CSV)) == chosen


@pytest.mark.parametrize(
    "accept",
    ["text/html", "application/xml, image/*", "*/*;q=0", "text/csv;q=0", "json", "text/csv;q=nan"],
)
def test_neither_form_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="should allow application/json or text/csv"):
        choose_media_type(accept, (JSON, CSV))


@given(st.text())
def test_any_header_is_understood_or_refused(accept: str) -> None:
    try:
        assert choose_media_type(accept, (JSON, CSV)) in {JSON, CSV}
    except NotAcceptable:
        assert accept


class Line(Answer):
    device_id: str
    seen_at: datetime | None = None
    energy: float | None = None
    counts: bool | None = None


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_a_table_has_a_header_and_a_cell_for_each_value() -> None:
    time = datetime(2026, 2, 10, 10, tzinfo=UTC)
    india = time.astimezone(timezone(timedelta(hours=5, minutes=30)))
    rows = [
        Line(device_id='a,"b"\r\n', seen_at=time, energy=0.1, counts=True),
        Line(device_id="c", seen_at=india, energy=-3, counts=False),
        Line(device_id="d"),
    ]
    text = render_csv(Line, rows)
    assert text.startswith("deviceId,seenAt,energy,counts\r\n")
    assert read(text)[1:] == [
        ['a,"b"\r\n', "2026-02-10T10:00:00Z", "0.1", "true"],
        ["c", "2026-02-10T15:30:00+05:30", "-3.0", "false"],
        ["d", "", "", ""],
    ]
    assert render_csv(Line, []) == "deviceId,seenAt,energy,counts\r\n"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_text_that_would_be_a_formula_gets_an_apostrophe(text: str) -> None:
    assert read(render_csv(Line, [Line(device_id=text)]))[1][0] == f"'{text}"


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1)))
def test_any_text_is_read_back(texts: Sequence[str]) -> None:
    found = read(render_csv(Line, [Line(device_id=text) for text in texts]))[1:]
    for (cell, *_), text in zip(found, texts, strict=True):
        assert cell in {text, f"'{text}"}
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
