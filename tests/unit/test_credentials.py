"""Passwords that are not in the URL: signed tokens, as botocore signs them."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from botocore.session import Session

import telemetry
from telemetry.credentials import sign_token
from telemetry.errors import SettingInvalid, SettingMissing
from telemetry.settings import Settings
from telemetry.signatures import AccessKey

URL = "postgresql://telemetry_ingest@proxy.example:5432/telemetry?sslmode=verify-full"
TOKEN = "a/session+token=="
KEY = AccessKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCY", TOKEN, "eu-central-1")
ENVIRON = {
    "AWS_ACCESS_KEY_ID": KEY.id,
    "AWS_SECRET_ACCESS_KEY": KEY.secret,
    "AWS_SESSION_TOKEN": TOKEN,
    "AWS_REGION": KEY.region,
}


def test_a_token_is_the_one_that_botocore_signs() -> None:
    session = Session()
    session.set_credentials(KEY.id, KEY.secret, KEY.session_token)
    client = session.create_client("rds", region_name=KEY.region)
    theirs = client.generate_db_auth_token("proxy.example", 5432, "telemetry_ingest")
    host, _, query = theirs.partition("/?")
    signed_at = parse_qs(query)["X-Amz-Date"][0]
    now = datetime.strptime(signed_at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    our_host, _, ours = sign_token(URL, KEY, now).partition("/?")
    assert our_host == host
    assert parse_qs(ours) == parse_qs(query)


def test_the_environment_says_where_the_password_comes_from() -> None:
    assert Settings({}).database_password is None
    assert Settings({"DATABASE_PASSWORD_FROM": "url"}).database_password is None
    iam = Settings({"DATABASE_PASSWORD_FROM": "iam", **ENVIRON}).database_password
    assert iam is not None
    assert "DBUser=telemetry_ingest" in iam(URL)
    with pytest.raises(SettingMissing, match="AWS_ACCESS_KEY_ID"):
        _ = Settings({"DATABASE_PASSWORD_FROM": "iam"}).database_password
    with pytest.raises(SettingInvalid, match="url or iam"):
        _ = Settings({"DATABASE_PASSWORD_FROM": "vault"}).database_password


@pytest.mark.parametrize(("name", "least"), [("proxy.pem", 5), ("rds.pem", 87)])
def test_the_certificates_of_aws_are_good_for_another_year(name: str, least: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(Path(telemetry.__file__).parent / "certificates" / name)
    authorities = context.get_ca_certs()
    in_a_year = datetime.now(UTC) + timedelta(days=365)
    expiring = [
        authority["subject"]
        for authority in authorities
        if ssl.cert_time_to_seconds(str(authority["notAfter"])) < in_a_year.timestamp()
    ]
    assert len(authorities) >= least
    assert expiring == []
