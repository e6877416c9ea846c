"""Bodies of requests: unpacked within bounds, and given to a route as what they say."""

import base64
import functools
import gzip
import io
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver

from telemetry.batches import BatchMode, parse_batch
from telemetry.errors import BodyTooLarge, FieldError, InvalidRequest, UnsupportedEncoding
from telemetry.recognition import Reading

Event = dict[str, Any]
Answer = TypeVar("Answer")
Parsed = TypeVar("Parsed")

# What Lambda takes of a body that is not compressed; one that is may not unpack to more.
MOST_BODY_BYTES = 6 * 1024 * 1024


def receives(
    parse: Callable[[type[Reading], str | bytes], Parsed],
    kind: type[Reading],
    resolver: APIGatewayHttpResolver,
) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Decorate a route so that it gets the request's body parsed, or is not called at all.

    Before it come the variables of the route's path, as they were sent.

    Powertools' own body parsing reads JSON leniently and costs twice as much as the whole request.
    """

    def decorate(route: Callable[..., Answer]) -> Callable[..., Answer]:
        @functools.wraps(route)
        def call(**path: str) -> Answer:
            return route(*path.values(), parse(kind, body_of(resolver.current_event.raw_event)))

        return call

    return decorate


def receives_batch(
    kind: type[Reading], resolver: APIGatewayHttpResolver
) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Decorate a route so that it gets a batch of readings, as receives does, and its mode."""

    def decorate(route: Callable[..., Answer]) -> Callable[..., Answer]:
        @functools.wraps(route)
        def call() -> Answer:
            event = resolver.current_event.raw_event
            mode = mode_of(event)
            return route(parse_batch(kind, body_of(event)), mode)

        return call

    return decorate


def mode_of(event: Event) -> BatchMode:
    """Return the mode that a batch asks for; raise InvalidRequest where there is no such mode."""
    mode = (event.get("queryStringParameters") or {}).get("mode")
    if mode not in {None, "backfill"}:
        raise InvalidRequest([FieldError("mode", "Input should be 'backfill'")])
    return mode


def body_of(event: Event) -> str | bytes:
    """Return the body of an HTTP API event (payload format 2.0), empty where there is none.

    Raises InvalidRequest and UnsupportedEncoding.
    """
    body: str | bytes = event.get("body") or ""
    if event.get("isBase64Encoded"):
        try:
            body = base64.b64decode(body, validate=True)
        except ValueError:
            raise _bad_body("Input should be JSON") from None
    encoding = event["headers"].get("content-encoding", "identity").lower()
    if encoding == "identity":
        return body
    if encoding not in {"gzip", "x-gzip"}:
        raise UnsupportedEncoding
    return _unzip(body if isinstance(body, bytes) else body.encode(errors="replace"))


def _unzip(body: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(body)) as unzipped:
            content = unzipped.read(MOST_BODY_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        raise _bad_body("Input should be gzip, as Content-Encoding says") from None
    if len(content) > MOST_BODY_BYTES:
        raise BodyTooLarge(MOST_BODY_BYTES)
    return content


def _bad_body(message: str) -> InvalidRequest:
    return InvalidRequest([FieldError("body", message)])
