"""Lets requests in whose bearer token is genuine, valid and not revoked.

It says who sends a request, and nothing about the route: API Gateway keeps its answer by the token
alone. What the token is for is held against the route by telemetry.access, in each function.
"""

import os
import re
from typing import Any

from telemetry.observability import build_logger
from telemetry.revocations import Revocations
from telemetry.settings import Settings
from telemetry.tokens import TokenRefused, read_keys, verify_token

settings = Settings(os.environ)
logger = build_logger("authorizer")
keys = read_keys(settings.token_keys)
revocations = Revocations(settings.revocations_table, settings.dynamodb_url, settings.access_key)


def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Answer an HTTP API's request for authorization (payload format 2.0, simple response).

    Where the table of revoked tokens does not answer, the error passes through: the request is
    answered 500, and nothing is kept.
    """
    logger.append_keys(request_id=event["requestContext"]["requestId"])
    bearer = re.fullmatch(r"bearer +([^ ]+)", event["identitySource"][0], re.IGNORECASE)
    try:
        if not bearer:
            raise TokenRefused("no bearer token")
        claims = verify_token(bearer[1], keys)
        if revocations.contain(claims.jti):
            raise TokenRefused(f"revoked: {claims.jti}")
    except TokenRefused as refusal:
        logger.info("token refused", reason=str(refusal))
        return {"isAuthorized": False}
    return {"isAuthorized": True, "context": claims.context}
