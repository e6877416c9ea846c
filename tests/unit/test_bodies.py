"""Bodies of events that no HTTP client can bring about here, and API Gateway may hand on."""

import pytest

from telemetry.bodies import body_of
from telemetry.errors import InvalidRequest


@pytest.mark.parametrize("body", ["é", "e30", "\ud800"])
def test_what_is_not_base64_is_refused(body: str) -> None:
    with pytest.raises(InvalidRequest):
        body_of({"body": body, "isBase64Encoded": True, "headers": {}}, 100)


def test_half_a_surrogate_is_not_gzip() -> None:
    with pytest.raises(InvalidRequest):
        body_of({"body": "\ud800", "headers": {"content-encoding": "gzip"}}, 100)
