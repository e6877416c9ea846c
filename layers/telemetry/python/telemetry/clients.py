"""Clients of AWS whose calls end in time."""

from typing import Any


def open_client(
    service: str, *, connect_timeout: float, read_timeout: float, attempts: int = 1
) -> Any:
    """Return a client of a service, which tries so often; the time limits are in seconds, each.

    More than once only where nobody waits: botocore's own pause before is up to a second.
    """
    # Loaded here, because it costs a cold start more than everything else together.
    from boto3.session import Session
    from botocore.config import Config

    # Not boto3's own session, which every entry point of a process would share.
    return Session().client(
        service,
        config=Config(
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            retries={"mode": "standard", "total_max_attempts": attempts},
        ),
    )
