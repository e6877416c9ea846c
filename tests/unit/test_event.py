"""The local system makes the events that AWS makes: HTTP API (payload format 2.0), and SQS."""

import base64
from typing import Any

import pytest

from local.event import build_event, build_record
from local.template import Route

ROUTE = Route("POST", "/my/{name}", "Function")

# The sample in AWS's documentation of the format, less what only AWS can add (authorizer, client
# certificate, stage variables).
DOCUMENTED: dict[str, Any] = {
    "version": "2.0",
    "routeKey": "$default",
    "rawPath": "/my/path",
    "rawQueryString": "parameter1=value1&parameter1=value2&parameter2=value",
    "cookies": ["cookie1", "cookie2"],
    "headers": {"header1": "value1", "header2": "value1,value2"},
    "queryStringParameters": {"parameter1": "value1,value2", "parameter2": "value"},
    "requestContext": {
        "accountId": "123456789012",
        "apiId": "api-id",
        "domainName": "id.execute-api.us-east-1.amazonaws.com",
        "domainPrefix": "id",
        "http": {
            "method": "POST",
            "path": "/my/path",
            "protocol": "HTTP/1.1",
            "sourceIp": "192.0.2.1",
            "userAgent": "agent",
        },
        "requestId": "id",
        "routeKey": "$default",
        "stage": "$default",
        "time": "12/Mar/2020:19:03:58 +0000",
        "timeEpoch": 1583348638390,
    },
    "body": "Hello from Lambda",
    "pathParameters": {"parameter1": "value1"},
    "isBase64Encoded": False,
}


def environ(**changes: str) -> dict[str, str]:
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/my/path",
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_HOST": "localhost:3000",
        "HTTP_USER_AGENT": "agent",
        "CONTENT_TYPE": "application/json",
        **changes,
    }


def event(body: bytes = b"", **changes: str) -> dict[str, Any]:
    return build_event(environ(**changes), ROUTE, {"name": "path"}, body, "request-1")


def test_events_have_the_documented_shape() -> None:
    built = event(
        b"Hello from Lambda",
        QUERY_STRING="parameter1=value1&parameter1=value2&parameter2=value",
        HTTP_COOKIE="cookie1; cookie2",
        CONTENT_TYPE="text/plain",
    )
    assert built.keys() == DOCUMENTED.keys()
    context, documented = built["requestContext"], DOCUMENTED["requestContext"]
    assert context.keys() == documented.keys()
    assert context["http"] == documented["http"]
    for field in ("rawQueryString", "queryStringParameters", "cookies", "body", "rawPath"):
        assert built[field] == DOCUMENTED[field]
    assert built["routeKey"] == context["routeKey"] == "POST /my/{name}"
    assert built["headers"]["content-type"] == "text/plain"
    assert "cookie" not in built["headers"]
    assert context["timeEpoch"] > 1583348638390


def test_what_is_not_there_is_left_out() -> None:
    assert not event().keys() & {"body", "cookies", "queryStringParameters"}


@pytest.mark.parametrize(
    "headers",
    [
        {"CONTENT_TYPE": "application/octet-stream"},
        {"CONTENT_TYPE": "application/x-www-form-urlencoded"},
        {"HTTP_CONTENT_ENCODING": "gzip"},
    ],
)
def test_bodies_that_are_no_text_come_in_base64(headers: dict[str, str]) -> None:
    built = event(b"\x1f\x8b\xff", **headers)
    assert built["isBase64Encoded"] is True
    assert base64.b64decode(built["body"]) == b"\x1f\x8b\xff"


def test_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        event(b"\xff")


def test_a_message_becomes_the_record_that_is_documented() -> None:
    message = {
        "MessageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
        "ReceiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
        "Body": "Test message.",
        "MD5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "Attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": "1545082649183",
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": "1545082649185",
        },
        "MessageAttributes": {
            "myAttribute": {"DataType": "String", "StringValue": "myValue"},
            "bytes": {"DataType": "Binary", "BinaryValue": b"\x00"},
        },
        "MD5OfMessageAttributes": "00484c68",
    }
    lists: dict[str, Any] = {"stringListValues": [], "binaryListValues": []}
    assert build_record(message, "arn:aws:sqs:us-east-2:123456789012:my-queue") == {
        "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
        "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
        "body": "Test message.",
        "attributes": message["Attributes"],
        "messageAttributes": {
            "myAttribute": {"stringValue": "myValue", **lists, "dataType": "String"},
            "bytes": {"binaryValue": "AA==", **lists, "dataType": "Binary"},
        },
        "md5OfMessageAttributes": "00484c68",
        "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:my-queue",
        "awsRegion": "us-east-2",
    }
