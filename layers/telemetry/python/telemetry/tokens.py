"""Bearer tokens: JSON Web Tokens signed with Ed25519, by a key that no function has.

PyJWT and cryptography are in a layer of the authorizer's own: nothing on the way of readings may
import this module.
"""

import base64
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from telemetry.errors import SettingInvalid

ALGORITHM = "EdDSA"
# API Gateway takes 10,240 bytes of request line and headers, and the authorizer hands on no more
# than the token says.
MOST_TOKEN_LENGTH = 4096
# A revocation is kept for as long, and so outlives its token.
LONGEST_LIFE = timedelta(days=731)
CLOCK_TOLERANCE = timedelta(seconds=60)

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
# An id, or what ids begin with and a `*`: `METER-001`, `DEPOT7-*`, `*`.
DeviceName = Annotated[str, Field(pattern=r"^([A-Za-z0-9._:-]{1,64}\*?|\*)$")]


class TokenRefused(Exception):
    """A token is not accepted; the text says why, for the log, and holds nothing of the token."""


class Claims(BaseModel):
    """What a token says, by the names that RFC 7519 and RFC 8693 give it."""

    model_config = ConfigDict(strict=True, frozen=True)

    jti: Annotated[str, Field(pattern=ID_PATTERN)]
    sub: Annotated[str, Field(max_length=128)]
    iat: int
    exp: int
    scope: Annotated[str, Field(pattern=r"^[a-z]+:[a-z]+( [a-z]+:[a-z]+)*$")]
    meters: tuple[DeviceName, ...] = Field(default=(), strict=False)
    vehicles: tuple[DeviceName, ...] = Field(default=(), strict=False)

    @property
    def context(self) -> dict[str, str]:
        """What the authorizer hands on, as telemetry.access reads it."""
        return {
            "tokenId": self.jti,
            "scopes": self.scope,
            "meters": " ".join(self.meters),
            "vehicles": " ".join(self.vehicles),
        }


def name_key(key: Ed25519PublicKey) -> str:
    """Return a public key as `TOKEN_KEYS` lists it: `id:key`, the id from the key itself."""
    raw = base64.urlsafe_b64encode(key.public_bytes_raw()).decode().rstrip("=")
    return f"{raw[:8]}:{raw}"


def read_keys(text: str) -> Mapping[str, Ed25519PublicKey]:
    """Return public keys by their ids, from what name_key returned, separated by commas.

    Without any, no token is accepted. Raises SettingInvalid.
    """
    keys = {}
    for entry in filter(None, text.split(",")):
        key_id, _, key = entry.strip().partition(":")
        try:
            keys[key_id] = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key + "="))
        except ValueError:
            raise SettingInvalid("TOKEN_KEYS", entry, "id:key of an Ed25519 key") from None
    return keys


def sign_token(claims: Claims, key: Ed25519PrivateKey) -> str:
    """Return a token. Raises ValueError where it is longer than what is accepted."""
    key_id = name_key(key.public_key()).partition(":")[0]
    payload = claims.model_dump(exclude_defaults=True)
    token = jwt.encode(payload, key, ALGORITHM, headers={"kid": key_id})
    if len(token) > MOST_TOKEN_LENGTH:
        raise ValueError(
            f"the token would have {len(token):,} characters of {MOST_TOKEN_LENGTH:,} at most: "
            "name devices by what their ids begin with, or make several tokens"
        )
    return token


def verify_token(token: str, keys: Mapping[str, Ed25519PublicKey]) -> Claims:
    """Return what a token says that one of the keys signed and that has not expired.

    Raises TokenRefused, whatever the text is.
    """
    if len(token) > MOST_TOKEN_LENGTH:
        raise TokenRefused("too long")
    try:
        key_id = jwt.get_unverified_header(token).get("kid")
        if not isinstance(key_id, str) or key_id not in keys:
            raise TokenRefused("of no known key")
        # The algorithm is ours to choose, not the token's.
        payload = jwt.decode(
            token,
            keys[key_id],
            algorithms=[ALGORITHM],
            leeway=CLOCK_TOLERANCE,
            options={"require": ["exp", "iat", "jti"]},
        )
        claims = Claims.model_validate(payload)
    except ValidationError as error:
        raise TokenRefused(f"not understood: {error.errors()[0]['loc']}") from None
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise TokenRefused(type(error).__name__) from None
    if claims.exp - claims.iat > LONGEST_LIFE.total_seconds():
        raise TokenRefused("valid for too long")
    return claims
