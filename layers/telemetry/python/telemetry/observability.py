"""Structured logs: one JSON object a line, each with the id of the request it belongs to."""

from aws_lambda_powertools import Logger


def build_logger(service: str) -> Logger:
    """Return a function's logger; its level comes from `POWERTOOLS_LOG_LEVEL`."""
    return Logger(service=service, use_rfc3339=True, utc=True, serialize_stacktrace=False)
