"""What CloudFormation asks of a function while a stack is deployed, and the answer."""

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import ConnectionTimeout

from telemetry.credentials import Password
from telemetry.database import PATIENT_TIMEOUT, Connection, Row, connect

# Those whom RDS lets in by a signed token, and no longer by a password. The owner is among them
# because RDS counts it in anyway: it is a member of those that it made.
IAM_USERS = (
    "telemetry_owner",
    *("telemetry_ingest", "telemetry_read", "telemetry_alerts", "telemetry_correct"),
    "telemetry_maintain",
)
ANSWER_TIMEOUT = 30.0
# CloudFormation takes 4 KB in all.
MOST_REASON = 1000
# How often, and after how many seconds: a deployment that is well would be rolled back.
MOST_TRIES = 3
PAUSE = 2.0


def deploy(event: dict[str, Any], change: Callable[[], object]) -> None:
    """Make a change for a custom resource of CloudFormation and tell it whether that worked.

    Where it did not, CloudFormation fails the deployment and rolls it back. Nothing is done where
    the resource is deleted. Raises what the change raises, and OSError where the answer cannot be
    given.
    """
    if event["RequestType"] == "Delete":
        return _answer(event)
    try:
        change()
    except Exception as error:
        _answer(event, f"{type(error).__name__}: {error}")
        raise
    return _answer(event)


def _answer(event: dict[str, Any], failure: str | None = None) -> None:
    answer = {
        "Status": "FAILED" if failure else "SUCCESS",
        # JSON would make six characters of each that is not in ASCII.
        "Reason": (failure or "").encode("ascii", "replace").decode()[:MOST_REASON],
        # Always the same, or CloudFormation would take an update for another resource.
        "PhysicalResourceId": event.get("PhysicalResourceId", "schema"),
        **{name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
    }
    # The URL is signed for a request without a content type.
    request = urllib.request.Request(  # noqa: S310 - CloudFormation's own URL
        event["ResponseURL"], json.dumps(answer).encode(), {"Content-Type": ""}, method="PUT"
    )
    for number in range(MOST_TRIES):
        try:
            urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT).close()  # noqa: S310
        except OSError:
            if number == MOST_TRIES - 1:
                raise
            time.sleep(PAUSE)
        else:
            return


def connect_owner(url: str, token: Password | None, password: Password | None) -> Connection:
    """Return the owner's connection: by a token, else by the password that a new database asks for.

    Raises psycopg.OperationalError, and what reading the password does.
    """
    try:
        return connect(url, password=token, time_limit=PATIENT_TIMEOUT)
    except psycopg.OperationalError as refused:
        if password is None or isinstance(refused, ConnectionTimeout):
            raise
        try:
            return connect(url, password=password, time_limit=PATIENT_TIMEOUT)
        except psycopg.OperationalError as error:
            # One of the two is what a new database says, or one that is not new.
            raise psycopg.OperationalError(f"by token: {refused}; by password: {error}") from error


def admit_by_iam(connection: psycopg.Connection[Row]) -> None:
    """Have RDS let all users in by tokens alone. Safe to repeat."""
    for user in IAM_USERS:
        connection.execute(sql.SQL("GRANT rds_iam TO {}").format(sql.Identifier(user)))
