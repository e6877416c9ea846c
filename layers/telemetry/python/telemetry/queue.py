"""SQS, where readings wait that PostgreSQL could not take."""

import time
from collections.abc import Mapping
from typing import Any

from telemetry.clients import open_client
from telemetry.database import MOST_IDLE
from telemetry.errors import QueueUnavailable

# Seconds, each. A request comes here after 0.4 s behind a database that did not answer; it shall be
# answered within a second even where the queue does not answer either.
CONNECT_TIMEOUT = READ_TIMEOUT = 0.5
# What fails sooner than that, such as a connection that was closed while nobody used it, is tried
# once more, at once.
AGAIN_WITHIN = 0.05


class Queue:
    """One SQS queue; connects when first used, for most execution environments never need to."""

    def __init__(self, url: str, read_timeout: float = READ_TIMEOUT) -> None:
        """Wait for an answer for read_timeout seconds."""
        self._url = url
        self._read_timeout = read_timeout
        self._client: Any = None
        self._used_at = 0.0

    def send(self, body: str, attributes: Mapping[str, str] | None = None) -> None:
        """Put a message of at most 1 MiB on the queue; when this returns, it is durable.

        Raises QueueUnavailable.
        """
        # Loaded here, because it costs a cold start more than everything else together.
        from botocore.exceptions import BotoCoreError, ClientError

        message = {
            "QueueUrl": self._url,
            "MessageBody": body,
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value}
                for name, value in (attributes or {}).items()
            },
        }
        try:
            client = self._connect()
            began = time.monotonic()
            try:
                client.send_message(**message)
            except (BotoCoreError, ClientError):
                if time.monotonic() - began > AGAIN_WITHIN:
                    raise
                client.send_message(**message)
            self._used_at = time.time()
        except (BotoCoreError, ClientError) as error:
            raise QueueUnavailable from error

    def _connect(self) -> Any:
        if self._client is None:
            self._client = open_client(
                "sqs", connect_timeout=CONNECT_TIMEOUT, read_timeout=self._read_timeout
            )
        elif time.time() - self._used_at > MOST_IDLE:
            # Its connections: it opens others. On one that is gone a request would wait, and be
            # refused.
            self._client.close()
        return self._client
