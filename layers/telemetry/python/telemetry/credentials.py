"""Where the password of a database connection comes from, where it is not in the URL."""

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from urllib.parse import quote, urlencode

from telemetry.signatures import ALGORITHM, AccessKey, CredentialScope

# Returns the password for a connection to the URL that it is given.
Password = Callable[[str], str]

# Seconds that a signed token lets in for, the most there is; a connection outlives it.
TOKEN_SECONDS = 900


def sign_token(url: str, key: AccessKey, now: datetime) -> str:
    """Return a password of RDS' IAM authentication for the user, host and port of a URL.

    It is the presigned request `GET /?Action=connect&DBUser=…` of the service rds-db.
    """
    # Here, because the authorizer, which has settings as well, has no database.
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(url)
    host = f"{parts['host']}:{parts.get('port', 5432)}"
    scope = CredentialScope("rds-db", key, now)
    query = {
        "Action": "connect",
        "DBUser": str(parts["user"]),
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{key.id}/{scope.name}",
        "X-Amz-Date": scope.moment,
        "X-Amz-Expires": str(TOKEN_SECONDS),
        "X-Amz-SignedHeaders": "host",
    }
    if key.session_token:
        query["X-Amz-Security-Token"] = key.session_token
    encoded = urlencode(sorted(query.items()), quote_via=quote, safe="-_.~")
    nothing = hashlib.sha256(b"").hexdigest()
    signature = scope.sign(f"GET\n/\n{encoded}\nhost:{host}\n\nhost\n{nothing}")
    return f"{host}/?{encoded}&X-Amz-Signature={signature}"


def read_secret(arn: str) -> str:
    """Return the password in a secret of AWS Secrets Manager, in the form that RDS gives it.

    Raises botocore's errors.
    """
    from boto3.session import Session  # only the migration function needs it

    answer = Session().client("secretsmanager").get_secret_value(SecretId=arn)
    password: str = json.loads(answer["SecretString"])["password"]
    return password
