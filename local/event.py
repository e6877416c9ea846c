"""Requests and messages as the events that AWS makes of them.

An HTTP request as API Gateway passes it on (HTTP API, payload format 2.0):
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
A message as Lambda's event source mapping does:
https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
"""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from local.template import Route

# Bodies of other types, and compressed ones, arrive in Base64.
_TEXT = re.compile(r"text/.*|application/(json|javascript|xml|.*\+json|.*\+xml)")


def request_path(environ: Mapping[str, Any]) -> str:
    """Return the decoded path of a WSGI request (which gives its UTF-8 bytes as Latin-1)."""
    path: str = environ["PATH_INFO"]
    return path.encode("latin-1").decode("utf-8", "replace")


def build_event(
    environ: Mapping[str, Any],
    route: Route,
    path_parameters: Mapping[str, str],
    body: bytes,
    request_id: str,
) -> dict[str, Any]:
    """Return the HTTP API event of a WSGI request.

    Raises UnicodeDecodeError where a text is not UTF-8.
    """
    path = request_path(environ)
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    headers |= {
        name.replace("_", "-").lower(): environ[name]
        for name in ("CONTENT_TYPE", "CONTENT_LENGTH")
        if environ.get(name)
    }
    now = datetime.now(UTC)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route.key,
        "rawPath": path,
        "rawQueryString": environ.get("QUERY_STRING", ""),
        "headers": headers,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "local",
            "domainName": headers.get("host", "localhost"),
            "domainPrefix": "local",
            "http": {
                "method": environ["REQUEST_METHOD"],
                "path": path,
                "protocol": environ.get("SERVER_PROTOCOL", "HTTP/1.1"),
                "sourceIp": environ.get("REMOTE_ADDR", "127.0.0.1"),
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": route.key,
            "stage": "$default",
            "time": f"{now:%d/%b/%Y:%H:%M:%S +0000}",
            "timeEpoch": int(now.timestamp() * 1000),
        },
        "isBase64Encoded": False,
    }
    if "cookie" in headers:
        event["cookies"] = headers.pop("cookie").split("; ")
    if event["rawQueryString"]:
        parameters: dict[str, str] = {}
        for name, value in parse_qsl(event["rawQueryString"], keep_blank_values=True):
            parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
        event["queryStringParameters"] = parameters
    if path_parameters:
        event["pathParameters"] = dict(path_parameters)
    if body:
        media_type = headers.get("content-type", "text/plain").split(";")[0].strip().lower()
        as_text = _TEXT.fullmatch(media_type) and "content-encoding" not in headers
        event["isBase64Encoded"] = not as_text
        event["body"] = body.decode() if as_text else base64.b64encode(body).decode()
    return event


def build_authorizer_event(event: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """Return what an authorizer is asked about an HTTP API event (payload format 2.0).

    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html
    """
    context = event["requestContext"]
    method, path = context["http"]["method"], event["rawPath"]
    kept = {name: value for name, value in event.items() if name not in {"body", "isBase64Encoded"}}
    return kept | {
        "type": "REQUEST",
        "routeArn": f"arn:aws:execute-api:local:{context['accountId']}:{context['apiId']}"
        f"/{context['stage']}/{method}{path}",
        "identitySource": [identity],
    }


def build_record(message: Mapping[str, Any], queue_arn: str) -> dict[str, Any]:
    """Return the entry that a message received from SQS has in an event's `Records`."""
    record = {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message.get("Attributes", {})),
        "messageAttributes": {
            name: _attribute(value) for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }
    if "MD5OfMessageAttributes" in message:
        record["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
    return record


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    attribute: dict[str, Any] = {
        "stringListValues": [],
        "binaryListValues": [],
        "dataType": value["DataType"],
    }
    if "StringValue" in value:
        attribute["stringValue"] = value["StringValue"]
    if "BinaryValue" in value:
        attribute["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    return attribute
