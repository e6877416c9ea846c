"""Requests to AWS, signed as botocore signs them."""

from datetime import UTC, datetime
from unittest.mock import patch

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.session import Session
from hypothesis import given
from hypothesis import strategies as st

from telemetry.signatures import AccessKey, CredentialScope, regional_url, sign_post

TEXTS = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1)
INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- what st.datetimes takes


@given(
    secret=TEXTS,
    token=st.none() | TEXTS,
    now=INSTANTS,
    body=st.binary(),
    target=TEXTS,
    host=st.sampled_from(["dynamodb.eu-central-1.amazonaws.com", "127.0.0.1:4566"]),
)
def test_a_post_is_signed_as_botocore_signs_it(
    secret: str, token: str | None, now: datetime, body: bytes, target: str, host: str
) -> None:
    key = AccessKey("AKIDEXAMPLE", secret, token, "eu-central-1")
    headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": target}
    ours = sign_post(CredentialScope("dynamodb", key, now), host, headers, body)
    request = AWSRequest("POST", f"https://{host}/", headers, body)
    signer = SigV4Auth(Credentials(key.id, secret, token), "dynamodb", key.region)
    with patch("botocore.auth.get_current_datetime", return_value=now.replace(tzinfo=None)):
        signer.add_auth(request)
    theirs = {name.lower(): value for name, value in request.headers.items()}
    assert {**ours, "host": host} == {**theirs, "host": host}


@pytest.mark.parametrize("region", ["eu-central-1", "us-gov-west-1", "cn-north-1"])
def test_a_service_is_where_botocore_knows_it(region: str) -> None:
    client = Session().create_client(
        "dynamodb", region_name=region, aws_access_key_id="id", aws_secret_access_key="secret"
    )
    assert regional_url("dynamodb", region) == client.meta.endpoint_url
