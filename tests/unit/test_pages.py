"""A cursor that was made up is refused before PostgreSQL sees it."""

import base64
import json
from typing import Any

import pytest
from pydantic_core import PydanticCustomError

from telemetry import erasures, faults, fleet, live, receipts, voids
from telemetry.pages import Position, decode_cursor

LISTS = (erasures, faults, fleet, live, receipts, voids)  # define the positions
TIME = "2026-02-10T10:00:00Z"
VALUES = {
    "start": TIME,
    "end": "2026-02-10T11:00:00Z",
    "opened_at": TIME,
    "timestamp": TIME,
    "received_at": TIME,
    "at": TIME,
    "id": "0d3f6a0e-8a36-4a3e-9d0c-0d5f4a8f2b11",
    "erasure_id": "0d3f6a0e-8a36-4a3e-9d0c-0d5f4a8f2b11",
    "rank": "1",
    "sort": "cost",
    "stream": "meter",
    "device_id": "METER-001",
    "vehicle_id": "VEH-001",
}


def encode(position: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("kind", Position.__subclasses__())
def test_no_text_of_a_cursor_has_a_character_that_postgresql_cannot_keep(
    kind: type[Position],
) -> None:
    good = {name: VALUES[name] for name in kind.model_fields}
    assert decode_cursor(kind, encode(good))
    for name, value in good.items():
        for bad in (f"{value}\0", "\0", f"{value}\ud800"):
            with pytest.raises(PydanticCustomError):
                decode_cursor(kind, encode(good | {name: bad}))
