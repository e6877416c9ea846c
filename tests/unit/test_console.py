"""Log lines as a person reads them."""

import json

from local.console import readable


def test_a_log_entry_becomes_a_line() -> None:
    entry = {
        "level": "INFO",
        "location": "handler:1",
        "message": "request refused",
        "timestamp": "2026-02-10T10:00:00.000+00:00",
        "service": "ingest_meter",
        "request_id": "abc",
        "fields": ["voltage"],
    }
    line = readable(json.dumps(entry))
    assert line.endswith("INFO ingest_meter: request refused request_id=abc fields=['voltage']")


def test_other_lines_stay_as_they_are() -> None:
    of_lambda = '{"timestamp": "2026-02-10T10:00:00Z", "level": "INFO", "message": "started"}'
    for line in ("", "Traceback", "{", '{"a": 1}', '{"timestamp": 5}', of_lambda):
        assert readable(line) == line
