"""Where the password of a database connection comes from, where it is not in the URL."""

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from psycopg.conninfo import conninfo_to_dict

# Returns the password for a connection to the URL that it is given.
Password = Callable[[str], str]

# Seconds that a signed token lets in for, the most there is; a connection outlives it.
TOKEN_SECONDS = 900
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class AccessKey:
    """The credentials of the function's role, and the region that it works in."""

    id: str
    secret: str
    session_token: str
    region: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "AccessKey":
        """Return what Lambda puts into each execution environment. Raises KeyError."""
        return cls(
            environ["AWS_ACCESS_KEY_ID"],
            environ["AWS_SECRET_ACCESS_KEY"],
            environ["AWS_SESSION_TOKEN"],
            environ["AWS_REGION"],
        )


def sign_token(url: str, key: AccessKey, now: datetime) -> str:
    """Return a password of RDS' IAM authentication for the user, host and port of a URL.

    It is the presigned request `GET /?Action=connect&DBUser=…` of the service rds-db, by AWS
    Signature Version 4. botocore signs the same, but costs a cold start 70 ms, within the 400 that
    a request waits for PostgreSQL.
    """
    parts = conninfo_to_dict(url)
    host = f"{parts['host']}:{parts['port']}"
    moment = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{key.region}/rds-db/aws4_request"
    query = _encode(
        {
            "Action": "connect",
            "DBUser": str(parts["user"]),
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{key.id}/{scope}",
            "X-Amz-Date": moment,
            "X-Amz-Expires": str(TOKEN_SECONDS),
            "X-Amz-Security-Token": key.session_token,
            "X-Amz-SignedHeaders": "host",
        }
    )
    request = f"GET\n/\n{query}\nhost:{host}\n\nhost\n{hashlib.sha256(b'').hexdigest()}"
    digest = hashlib.sha256(request.encode()).hexdigest()
    signing_key = f"AWS4{key.secret}".encode()
    for part in scope.split("/"):
        signing_key = hmac.digest(signing_key, part.encode(), "sha256")
    to_sign = f"{_ALGORITHM}\n{moment}\n{scope}\n{digest}"
    signature = hmac.digest(signing_key, to_sign.encode(), "sha256").hex()
    return f"{host}/?{query}&X-Amz-Signature={signature}"


def _encode(query: Mapping[str, str]) -> str:
    return urlencode(sorted(query.items()), quote_via=quote, safe="-_.~")


def read_secret(arn: str) -> str:
    """Return the password in a secret of AWS Secrets Manager, in the form that RDS gives it.

    Raises botocore's errors.
    """
    from boto3.session import Session  # only the migration function needs it

    answer = Session().client("secretsmanager").get_secret_value(SecretId=arn)
    password: str = json.loads(answer["SecretString"])["password"]
    return password
