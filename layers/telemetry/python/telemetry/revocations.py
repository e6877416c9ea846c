"""Tokens that are not to be accepted any more: their ids, in a DynamoDB table.

Not in PostgreSQL: a stolen token has to be stopped also while that is away, and the authorizer
needs no way into its network.
"""

import json
import ssl
from datetime import UTC, datetime
from urllib.parse import urlsplit

from urllib3 import PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError

from telemetry.errors import RevocationsUnavailable
from telemetry.signatures import AccessKey, CredentialScope, sign_post

# Seconds, each, and twice: nobody is let in while the table does not answer.
CONNECT_TIMEOUT = READ_TIMEOUT = 1


class Revocations:
    """The table, by requests that are signed here.

    A client of boto3 costs a cold start, for which a reading waits, 150 ms of processor time.
    """

    def __init__(self, table: str, url: str, key: AccessKey) -> None:
        """url: where DynamoDB is."""
        self._table, self._url, self._key = table, url, key
        self._host = urlsplit(url).netloc
        self._http = PoolManager(
            # One for all connections: it takes 20 ms to make.
            ssl_context=ssl.create_default_context(),
            timeout=Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
            # None of the methods is excepted: to read is safe to repeat, also by POST.
            retries=Retry(
                total=1,
                allowed_methods=None,
                status_forcelist={500, 502, 503, 504},
                respect_retry_after_header=False,
            ),
        )

    def contain(self, token_id: str) -> bool:
        """Return whether a token was revoked. Raises RevocationsUnavailable."""
        question = {
            "TableName": self._table,
            "Key": {"tokenId": {"S": token_id}},
            "ProjectionExpression": "tokenId",
            "ConsistentRead": True,
        }
        body = json.dumps(question).encode()
        headers = {
            "content-type": "application/x-amz-json-1.0",
            "x-amz-target": "DynamoDB_20120810.GetItem",
        }
        signed = sign_post(
            CredentialScope("dynamodb", self._key, datetime.now(UTC)), self._host, headers, body
        )
        try:
            answer = self._http.request(
                "POST", self._url, body=body, headers=signed, redirect=False
            )
            found = answer.json()
        except (HTTPError, ValueError) as error:
            raise RevocationsUnavailable(str(error)) from error
        if answer.status != 200 or not isinstance(found, dict):
            raise RevocationsUnavailable(f"{answer.status} {found}")
        return "Item" in found
