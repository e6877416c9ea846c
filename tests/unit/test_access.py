"""Which request is answered at all: by its route and by what the authorizer says of its token."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.configuration import read_local_template
from local.stack import TOKENS
from telemetry.access import ANYBODY, ROUTES, Access, DeviceIds, Scope
from telemetry.errors import NotAuthenticated, ScopeMissing

TEMPLATE = read_local_template({"DATABASE_URL": "postgresql://nobody", "AUTH": "token"})
ACCESS = Access(by_token=True)
EVERYTHING = {"tokenId": "t", "scopes": " ".join(Scope), "meters": "*", "vehicles": "*"}


def event(route: str, said: object = EVERYTHING) -> dict[str, Any]:
    return {"routeKey": route, "requestContext": {"authorizer": {"lambda": said}}}


def test_there_is_a_decision_on_every_route_and_on_nothing_else() -> None:
    assert sorted(ROUTES) == sorted(route.key for route in TEMPLATE.routes)


def test_the_gateway_asks_for_a_token_wherever_the_function_does() -> None:
    for route in TEMPLATE.routes:
        assert (route.authorizer is None) == (ROUTES[route.key] is None), route.key
    assert [route for route, scope in ROUTES.items() if scope is None] == ["GET /"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("scope", Scope)
def test_a_route_takes_its_scope_and_no_other(route: str, scope: Scope) -> None:
    asked = event(route, EVERYTHING | {"scopes": scope})
    if ROUTES[route] in {scope, None}:
        ACCESS.identify(asked)
    else:
        with pytest.raises(ScopeMissing, match=f"needs the scope {ROUTES[route]}"):
            ACCESS.identify(asked)


def test_a_route_without_a_decision_is_closed() -> None:
    for route in ("GET /v1/new", "$default", "ANY /", "get /"):
        with pytest.raises(ScopeMissing, match="is closed"):
            ACCESS.identify(event(route))


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"authorizer": None},
        {"authorizer": {}},
        {"authorizer": {"lambda": None}},
        {"authorizer": {"lambda": {}}},
        {"authorizer": {"lambda": {"tokenId": "t"}}},
        {"authorizer": {"lambda": {"tokenId": "t", "scopes": None}}},
        {"authorizer": {"jwt": {"claims": {"scope": "analytics:read"}}}},
    ],
)
def test_a_request_that_no_authorizer_saw_is_refused(context: dict[str, Any]) -> None:
    with pytest.raises(NotAuthenticated):
        ACCESS.identify({"routeKey": "GET /health", "requestContext": context})
    with pytest.raises((NotAuthenticated, ScopeMissing)):
        ACCESS.identify({"routeKey": "GET /v1/new", "requestContext": context})


def test_what_is_said_of_no_device_covers_none() -> None:
    identity = ACCESS.identify(
        event("POST /ingest/meter", {"tokenId": "t", "scopes": "ingest:meter"})
    )
    assert not identity.meters.cover("METER-001")
    assert not identity.vehicles.cover("")


def test_the_hint_of_the_local_system_names_every_scope() -> None:
    assert set(re.findall(r"--scope (\S+)", TOKENS)) == set(Scope)


def test_without_tokens_everybody_may_do_everything() -> None:
    assert Access(by_token=False).identify({"routeKey": "x"}) is ANYBODY
    assert ANYBODY.meters.cover("METER-001")


IDS = st.text("AB-1.:", min_size=1, max_size=4)


@given(st.lists(IDS), st.lists(IDS), IDS)
def test_ids_are_covered_by_name_or_by_what_they_begin_with(
    names: list[str], prefixes: list[str], device: str
) -> None:
    listed = " ".join([*names, *(f"{prefix}*" for prefix in prefixes)])
    expected = device in names or any(device.startswith(prefix) for prefix in prefixes)
    assert DeviceIds(listed).cover(device) == expected
