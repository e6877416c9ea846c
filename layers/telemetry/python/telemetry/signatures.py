"""AWS Signature Version 4: how AWS knows that a request comes from who it says.

botocore signs the same, at a cost of 35 to 70 ms of processor time to import.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

ALGORITHM = "AWS4-HMAC-SHA256"


class AccessKey(NamedTuple):
    """The credentials of the function's role, and the region that it works in."""

    id: str
    secret: str
    session_token: str | None  # None only on this machine: whoever assumes a role has one
    region: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "AccessKey":
        """Return what Lambda puts into each execution environment. Raises KeyError."""
        return cls(
            environ["AWS_ACCESS_KEY_ID"],
            environ["AWS_SECRET_ACCESS_KEY"],
            environ.get("AWS_SESSION_TOKEN"),
            environ["AWS_REGION"],
        )


class CredentialScope(NamedTuple):
    """What a signature holds for: one service in the key's region, on one day from an instant."""

    service: str
    key: AccessKey
    now: datetime

    @property
    def moment(self) -> str:
        """The instant, as it is signed."""
        return self.now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")

    @property
    def name(self) -> str:
        """The credential scope."""
        return f"{self.moment[:8]}/{self.key.region}/{self.service}/aws4_request"

    def sign(self, request: str) -> str:
        """Return the signature of a canonical request."""
        signing_key = f"AWS4{self.key.secret}".encode()
        for part in self.name.split("/"):
            signing_key = hmac.digest(signing_key, part.encode(), "sha256")
        digest = hashlib.sha256(request.encode()).hexdigest()
        to_sign = f"{ALGORITHM}\n{self.moment}\n{self.name}\n{digest}"
        return hmac.digest(signing_key, to_sign.encode(), "sha256").hex()


def sign_post(
    scope: CredentialScope, host: str, headers: Mapping[str, str], body: bytes
) -> Mapping[str, str]:
    """Return all headers of a signed `POST /` with these, whose names are in lower case.

    host: with the port where it is not the protocol's own, as the client sends it.
    """
    signed = {**headers, "host": host, "x-amz-date": scope.moment}
    if scope.key.session_token:
        signed["x-amz-security-token"] = scope.key.session_token
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    signature = scope.sign(f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}")
    credential = f"Credential={scope.key.id}/{scope.name}"
    signed["authorization"] = (
        f"{ALGORITHM} {credential}, SignedHeaders={names}, Signature={signature}"
    )
    return signed


def regional_url(service: str, region: str) -> str:
    """Return where a service is: its name in a region of AWS, or of AWS in China."""
    return f"https://{service}.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
