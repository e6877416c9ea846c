"""Tokens that are not to be accepted any more: their ids, in a DynamoDB table.

Not in PostgreSQL: a stolen token has to be stopped also while that is away, and the authorizer
needs no way into its network.
"""

import time
from typing import Any

from telemetry.clients import open_client

# Seconds, each, and twice: nobody is let in while the table does not answer.
CONNECT_TIMEOUT = READ_TIMEOUT = 1


class Revocations:
    """The table, by a client of DynamoDB."""

    def __init__(self, table: str, client: Any = None) -> None:
        """client: left out, one of this environment's own."""
        self._table = table
        self._client = client or open_client(
            "dynamodb", connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, attempts=2
        )

    def contain(self, token_id: str) -> bool:
        """Return whether a token was revoked. Raises botocore's errors."""
        answer = self._client.get_item(
            TableName=self._table,
            Key={"tokenId": {"S": token_id}},
            ProjectionExpression="tokenId",
            ConsistentRead=True,
        )
        return "Item" in answer

    def add(self, token_id: str, seconds: float) -> None:
        """Revoke a token, for as long as it may be valid (s). Raises botocore's errors."""
        expires = int(time.time() + seconds)
        self._client.put_item(
            TableName=self._table,
            Item={"tokenId": {"S": token_id}, "expiresAt": {"N": str(expires)}},
        )
