"""The HTTP API on this machine: a WSGI application that calls the handlers as API Gateway does.

Each worker process is one execution environment of every function: one event at a time. What API
Gateway itself answers (unknown route, too large a body) has its shape and status here too.
"""

import base64
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from local.configuration import read_local_template
from local.docs_page import render_docs_page
from local.event import build_authorizer_event, build_event, request_path
from local.runtime import Environment, time_limit, watch_time_limits
from local.template import Authorizer, Route, Template

# Lambda takes events of up to 6 MB.
MOST_BODY_BYTES = 6 * 1024 * 1024

MOST_REMEMBERED = 10_000

# API Gateway gathers a body before it calls; here a slow one holds up a worker.
BODY_SECONDS = 10

Start = Callable[[str, list[tuple[str, str]]], Any]
Answer = tuple[int, list[tuple[str, str]], bytes]


class Gateway:
    """Finds the route, builds the event, calls the function and returns its answer."""

    def __init__(self, template: Template) -> None:
        called = {route.function for route in template.routes}
        called |= {route.authorizer.function for route in template.routes if route.authorizer}
        self._environments = {
            name: Environment(function)
            for name, function in template.functions.items()
            if name in called
        }
        # What authorizers said of a token, and until when that holds.
        self._authorized: dict[tuple[Authorizer, str], tuple[float, dict[str, Any]]] = {}
        # As in an HTTP API, a route without a variable goes before one that has one.
        self._routes = [
            (_pattern(route), route)
            for route in sorted(template.routes, key=lambda route: "{" in route.path)
        ]

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        """Answer one request."""
        began = time.perf_counter()
        request_id = str(uuid.uuid4())
        path = request_path(environ)
        status, headers, body = self._answer(environ, path, request_id)
        start_response(
            f"{status} ",
            [*headers, ("content-length", str(len(body))), ("apigw-requestid", request_id)],
        )
        shown = path if path.isprintable() else ascii(path)
        took = (time.perf_counter() - began) * 1000
        sys.stdout.write(
            f"{time.strftime('%H:%M:%S')} {environ['REQUEST_METHOD']} {shown} {status} "
            f"{took:.1f} ms {request_id}\n"
        )
        sys.stdout.flush()
        return [body]

    def _answer(self, environ: dict[str, Any], path: str, request_id: str) -> Answer:
        method = environ["REQUEST_METHOD"]
        for pattern, route in self._routes:
            matched = pattern.fullmatch(path) if route.method in {method, "ANY"} else None
            if matched:
                break
        else:
            if environ.get("QUERY_STRING") == "format=json":  # the page's own link to its source
                path = path.replace("/docs", "/openapi.json")
            page = render_docs_page(path) if method == "GET" else None
            return page or _gateway_answer(404, "Not Found")
        with time_limit(BODY_SECONDS, f"the body of {request_id}"):
            body = environ["wsgi.input"].read(MOST_BODY_BYTES + 1)
        if len(body) > MOST_BODY_BYTES:
            return _gateway_answer(413, "Request Entity Too Large")
        if len(body) < int(environ.get("CONTENT_LENGTH") or 0):
            return _gateway_answer(400, "Bad Request")  # the client left in the middle
        try:
            event = build_event(environ, route, matched.groupdict(), body, request_id)
        except UnicodeDecodeError:
            return _gateway_answer(400, "Bad Request")
        return self._invoke(route, event, request_id)

    def _invoke(self, route: Route, event: dict[str, Any], request_id: str) -> Answer:
        try:
            if route.authorizer:
                identity = event["headers"].get(route.authorizer.header)
                if not identity:
                    return _gateway_answer(401, "Unauthorized")
                said = self._authorize(route.authorizer, identity, event)
                if said["isAuthorized"] is not True:
                    return _gateway_answer(403, "Forbidden")
                event["requestContext"]["authorizer"] = {"lambda": said.get("context")}
            returned = self._environments[route.function].invoke(event, request_id)
            return _handler_answer(returned)
        except Exception as error:  # noqa: BLE001 - as Lambda: reported, and the next event served
            print(f"{route.function} {request_id} raised {error!r}", flush=True)
            return _gateway_answer(500, "Internal Server Error")

    def _authorize(
        self, authorizer: Authorizer, identity: str, event: dict[str, Any]
    ) -> dict[str, Any]:
        """Return what the authorizer says, or said of the same token on whatever route."""
        now = time.monotonic()
        until, said = self._authorized.get((authorizer, identity), (0.0, {}))
        if now >= until:
            question = build_authorizer_event(event, identity)
            request_id = event["requestContext"]["requestId"]
            said = self._environments[authorizer.function].invoke(question, request_id)
            if len(self._authorized) >= MOST_REMEMBERED:
                self._authorized.clear()
            self._authorized[authorizer, identity] = now + authorizer.cache_seconds, said
        return said


def _pattern(route: Route) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)(\+?)\}", route.path)
    # split leaves: literal, name, plus, literal, name, plus, …
    pattern = "".join(
        re.escape(literal) + (f"(?P<{name}>{'.+' if plus else '[^/]+'})" if name else "")
        for literal, name, plus in zip(
            parts[::3], [*parts[1::3], ""], [*parts[2::3], ""], strict=True
        )
    )
    return re.compile(pattern)


def _handler_answer(returned: dict[str, Any]) -> Answer:
    body = returned.get("body") or ""
    raw = base64.b64decode(body) if returned.get("isBase64Encoded") else body.encode()
    headers = [(name.lower(), str(value)) for name, value in returned["headers"].items()]
    headers += [("set-cookie", cookie) for cookie in returned.get("cookies") or []]
    return returned["statusCode"], headers, raw


def _gateway_answer(status: int, message: str) -> Answer:
    body = json.dumps({"message": message}).encode()
    return status, [("content-type", "application/json")], body


def build_application() -> Gateway:
    """Build the application in a worker process; the server calls this."""
    watch_time_limits()
    return Gateway(read_local_template(os.environ))
