"""Which tokens are accepted: those that a known key signed, now, and no others."""

import base64
import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from local import LocalError
from local.tokens import make_claims
from telemetry.access import Scope
from telemetry.errors import SettingInvalid
from telemetry.tokens import (
    LONGEST_LIFE,
    MOST_TOKEN_LENGTH,
    TokenRefused,
    name_key,
    read_keys,
    sign_token,
    verify_token,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))
LISTED = name_key(KEY.public_key())
KEY_ID = LISTED.partition(":")[0]
KEYS = read_keys(LISTED)
PAYLOAD: Mapping[str, Any] = make_claims("test", [Scope.INGEST_METER], ["METER-001"]).model_dump()


def encode(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def sign(key: Any = KEY, algorithm: str = "EdDSA", kid: object = KEY_ID, **claims: Any) -> str:
    header = {} if kid is None else {"kid": kid}
    return jwt.encode({**PAYLOAD, **claims}, key, algorithm, headers=header)


def test_what_was_signed_is_what_is_read() -> None:
    claims = make_claims("depot 7", Scope, ["MTR-1", "DEPOT7-*"], ["*"])
    assert verify_token(sign_token(claims, KEY), KEYS) == claims
    assert claims.context == {
        "tokenId": claims.jti,
        "scopes": "ingest:meter ingest:vehicle ingest:backfill analytics:read links:write "
        "faults:write devices:write readings:void tariffs:write devices:erase",
        "meters": "MTR-1 DEPOT7-*",
        "vehicles": "*",
    }


def test_another_algorithm_is_refused_whatever_the_header_says() -> None:
    public = KEY.public_key()
    secrets = [
        public.public_bytes_raw(),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        LISTED.partition(":")[2].encode(),
    ]
    signing_input = f"{encode({'alg': 'HS256', 'kid': KEY_ID})}.{encode(PAYLOAD)}"
    algorithm = jwt.get_algorithm_by_name("HS256")
    forged = [
        # As PyJWT itself refuses to make them: the public key taken for a shared secret.
        signing_input
        + "."
        + base64.urlsafe_b64encode(algorithm.sign(signing_input.encode(), secret)).decode()
        for secret in secrets
    ]
    forged.append(sign(ec.generate_private_key(ec.SECP256R1()), "ES256"))
    names: list[object] = ["none", "None", "NONE", "", None, [], {"EdDSA": 1}]
    forged += [
        f"{encode({'alg': alg, 'kid': KEY_ID})}.{encode(PAYLOAD)}.{signature}"
        for alg in names
        for signature in ("", "AA", sign().rpartition(".")[2])
    ]
    for token in forged:
        with pytest.raises(TokenRefused):
            verify_token(token, KEYS)


@pytest.mark.parametrize("kid", [None, "", "another1", 7, [], {}, KEY_ID + " "])
def test_a_token_of_no_known_key_is_refused(kid: object) -> None:
    header = {"alg": "EdDSA", "typ": "JWT"} | ({} if kid is None else {"kid": kid})
    signing_input = f"{encode(header)}.{encode(PAYLOAD)}"
    signature = base64.urlsafe_b64encode(KEY.sign(signing_input.encode())).decode().rstrip("=")
    with pytest.raises(TokenRefused):
        verify_token(f"{signing_input}.{signature}", KEYS)


def test_the_signature_of_another_key_is_refused_under_a_known_id() -> None:
    with pytest.raises(TokenRefused, match="InvalidSignatureError"):
        verify_token(sign(OTHER), KEYS)


def test_a_changed_claim_is_refused() -> None:
    head, _, signature = sign().split(".")
    changed = encode({**PAYLOAD, "meters": ["*"]})
    with pytest.raises(TokenRefused, match="InvalidSignatureError"):
        verify_token(f"{head}.{changed}.{signature}", KEYS)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_byte_of_a_token_can_be_changed(position: int, change: int) -> None:
    parts = [
        bytearray(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        for part in sign().split(".")
    ]
    part = parts[position % 3]
    part[position % len(part)] ^= change
    token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    with pytest.raises(TokenRefused):
        verify_token(token, KEYS)


@given(st.text(max_size=200) | st.lists(st.text(max_size=60)).map(".".join))
def test_whatever_is_sent_is_refused_and_nothing_else_happens(text: str) -> None:
    with pytest.raises(TokenRefused):
        verify_token(text, KEYS)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": timedelta(minutes=-2)},  # from when the test runs
        {"iat": timedelta(minutes=10)},  # signed in the future
        {"nbf": timedelta(minutes=10)},
        {"exp": None},
        {"iat": None},
        {"jti": None},
        {"exp": "soon"},
        {"exp": float("inf")},
        {"exp": LONGEST_LIFE + timedelta(seconds=9)},
        {"exp": 10**400},
        {"jti": ""},
        {"jti": "with space"},
        {"scope": ["ingest:meter"]},
        {"scope": ""},
        {"scope": "ingest:meter\n"},
        {"meters": "METER-001"},
        {"meters": ["METER 001"]},
        {"meters": [""]},
        {"meters": ["*-1"]},
        {"meters": ["A" * 65]},
        {"vehicles": [1]},
        {"vehicles": {"VEH-1": 1}},
    ],
)
def test_a_claim_that_does_not_hold_is_refused_though_signed(claims: dict[str, Any]) -> None:
    assert verify_token(sign(), KEYS)
    now = int(time.time())
    said: dict[str, Any] = {
        name: now + value.total_seconds() if isinstance(value, timedelta) else value
        for name, value in claims.items()
    }
    with pytest.raises(TokenRefused):
        verify_token(sign(**said), KEYS)


def test_clocks_may_differ_by_a_minute() -> None:
    now = int(time.time())
    assert verify_token(sign(exp=now - 50), KEYS)
    assert verify_token(sign(iat=now + 50), KEYS)
    for token in (sign(exp=now - 70), sign(iat=now + 70)):
        with pytest.raises(TokenRefused):
            verify_token(token, KEYS)


def test_a_later_version_may_add_claims_and_scopes() -> None:
    claims = verify_token(sign(scope="ingest:meter faults:write", depot=7), KEYS)
    assert claims.scope == "ingest:meter faults:write"


def test_a_huge_token_is_refused_before_it_is_read() -> None:
    deep = base64.urlsafe_b64encode(b'{"kid":' + b"[" * 2500).decode()
    for token in ("a" * 10_000, f"{deep}.e30.AA", "." * MOST_TOKEN_LENGTH):
        with pytest.raises(TokenRefused):
            verify_token(token, KEYS)
    with pytest.raises(TokenRefused, match="too long"):
        verify_token(sign(meters=[f"METER-{number:05}" for number in range(400)]), KEYS)


def test_no_token_is_made_that_would_not_be_accepted() -> None:
    fits = make_claims("gateway", Scope, [f"METER-{number:05}" for number in range(150)])
    token = sign_token(fits, KEY)
    assert len(" ".join(fits.meters)) < len(token) <= MOST_TOKEN_LENGTH
    assert verify_token(token, KEYS) == fits
    with pytest.raises(ValueError, match="name devices by what their ids begin with"):
        sign_token(make_claims("gateway", Scope, [f"METER-{n:05}" for n in range(400)]), KEY)
    for life in (timedelta(0), timedelta(days=-1), LONGEST_LIFE + timedelta(days=1)):
        with pytest.raises(LocalError, match="valid for 1 to 731 days"):
            make_claims("x", Scope, life=life)
    with pytest.raises(LocalError, match=r"meters: .*'METER 1'"):
        make_claims("x", Scope, ["METER 1"])


def test_keys_rotate_without_a_moment_in_which_a_token_is_refused() -> None:
    both = read_keys(f"{LISTED},{name_key(OTHER.public_key())}")
    claims = make_claims("x", Scope)
    old, new = sign_token(claims, KEY), sign_token(claims, OTHER)
    assert verify_token(old, both) == verify_token(new, both) == claims
    only_new = read_keys(name_key(OTHER.public_key()))
    assert verify_token(new, only_new) == claims
    with pytest.raises(TokenRefused, match="of no known key"):
        verify_token(old, only_new)


def test_without_keys_no_token_is_accepted() -> None:
    with pytest.raises(TokenRefused):
        verify_token(sign(), read_keys(""))


@pytest.mark.parametrize("text", ["nonsense", "id:", "id:AAAA", LISTED + "x", LISTED + ",x"])
def test_a_key_that_is_none_is_named(text: str) -> None:
    with pytest.raises(SettingInvalid, match="TOKEN_KEYS"):
        read_keys(text)
