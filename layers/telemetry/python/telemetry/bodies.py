"""Bodies of requests: unpacked within bounds, and given to a route as what they say."""

import base64
import functools
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver

from telemetry.batches import MOST_READINGS, BatchMode, parse_batch
from telemetry.errors import BodyTooLarge, FieldError, InvalidRequest, UnsupportedEncoding
from telemetry.recognition import MOST_MESSAGE_BYTES, Reading

Event = dict[str, Any]
Answer = TypeVar("Answer")
Parsed = TypeVar("Parsed")

# What Lambda takes of a body that is not compressed; one that is may not unpack to more.
MOST_BODY_BYTES = 6 * 1024 * 1024
# A gateway may compress each reading by itself. Members that hold nothing cost time all the same.
MOST_MEMBERS = MOST_READINGS

_GZIP = 16 + zlib.MAX_WBITS
# What follows a member is copied, so that it is little; larger pieces are no faster.
_PIECE_BYTES = 4096


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
            body = body_of(resolver.current_event.raw_event, MOST_MESSAGE_BYTES)
            return route(*path.values(), parse(kind, body))

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
            return route(parse_batch(kind, body_of(event, MOST_BODY_BYTES)), mode)

        return call

    return decorate


def mode_of(event: Event) -> BatchMode:
    """Return the mode that a batch asks for; raise InvalidRequest where there is no such mode."""
    mode = (event.get("queryStringParameters") or {}).get("mode")
    if mode not in {None, "backfill"}:
        raise InvalidRequest([FieldError("mode", "Input should be 'backfill'")])
    return mode


def body_of(event: Event, most: int) -> str | bytes:
    """Return the body of an HTTP API event (payload format 2.0), empty where there is none.

    One that is compressed is unpacked, to at most so many bytes. Raises InvalidRequest,
    UnsupportedEncoding and BodyTooLarge.
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
    return _unzip(body if isinstance(body, bytes) else body.encode(errors="replace"), most)


def _unzip(body: bytes, most: int) -> bytes:
    if len(body) > most:
        raise BodyTooLarge(most)
    content, position = bytearray(), 0
    for _ in range(MOST_MEMBERS):
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            piece = body[position : position + _PIECE_BYTES]
            try:
                content += member.decompress(piece, most + 1 - len(content))
                if not piece:
                    raise EOFError
            except (zlib.error, EOFError):
                raise _bad_body("Input should be gzip, as Content-Encoding says") from None
            if len(content) > most:
                raise BodyTooLarge(most)
            position += len(piece) - len(member.unused_data) - len(member.unconsumed_tail)
        if position == len(body):
            return bytes(content)
    raise _bad_body(f"Input should be gzip of at most {MOST_MEMBERS:,} members")


def _bad_body(message: str) -> InvalidRequest:
    return InvalidRequest([FieldError("body", message)])
