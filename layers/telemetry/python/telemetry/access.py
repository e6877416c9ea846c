"""Who may do what: a route's scope, and the device ids that a token names.

API Gateway's authorizer verifies the token (telemetry.tokens) and hands on what it says; here it is
held against the request. Not in the authorizer: API Gateway keeps its answers by token alone, so
that a decision on one route would hold for all.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from telemetry.errors import NotAuthenticated, ScopeMissing


class Scope(StrEnum):
    """What a token may be for."""

    INGEST_METER = "ingest:meter"
    INGEST_VEHICLE = "ingest:vehicle"
    BACKFILL = "ingest:backfill"
    ANALYTICS_READ = "analytics:read"
    LINKS_WRITE = "links:write"
    FAULTS_WRITE = "faults:write"
    DEVICES_WRITE = "devices:write"
    READINGS_VOID = "readings:void"
    TARIFFS_WRITE = "tariffs:write"
    DEVICES_ERASE = "devices:erase"


# The decision on every route; None is open to everybody. A route that is missing here is closed.
ROUTES: Mapping[str, Scope | None] = {
    "GET /": None,
    "GET /health": Scope.ANALYTICS_READ,
    "GET /v1/analytics/faults": Scope.ANALYTICS_READ,
    "POST /v1/analytics/faults/{faultId}/acknowledge": Scope.FAULTS_WRITE,
    "GET /v1/analytics/fleet": Scope.ANALYTICS_READ,
    "GET /v1/analytics/performance": Scope.ANALYTICS_READ,
    "GET /v1/analytics/performance/{vehicleId}": Scope.ANALYTICS_READ,
    "GET /v1/analytics/vehicles/{vehicleId}/trend": Scope.ANALYTICS_READ,
    "GET /v1/live/meters": Scope.ANALYTICS_READ,
    "GET /v1/live/meters/{meterId}": Scope.ANALYTICS_READ,
    "GET /v1/live/vehicles": Scope.ANALYTICS_READ,
    "GET /v1/live/vehicles/{vehicleId}": Scope.ANALYTICS_READ,
    "GET /v1/meters/{meterId}/readings": Scope.ANALYTICS_READ,
    "GET /v1/vehicles/{vehicleId}/readings": Scope.ANALYTICS_READ,
    "GET /v1/devices": Scope.ANALYTICS_READ,
    "GET /v1/devices/{deviceId}": Scope.ANALYTICS_READ,
    "PUT /v1/devices/{deviceId}": Scope.DEVICES_WRITE,
    "DELETE /v1/devices/{deviceId}": Scope.DEVICES_WRITE,
    "GET /v1/links/{vehicleId}": Scope.ANALYTICS_READ,
    "PUT /v1/links/{vehicleId}": Scope.LINKS_WRITE,
    "DELETE /v1/links/{vehicleId}": Scope.LINKS_WRITE,
    "GET /v1/voids": Scope.ANALYTICS_READ,
    "POST /v1/voids": Scope.READINGS_VOID,
    "POST /v1/voids/withdrawals": Scope.READINGS_VOID,
    "GET /v1/tariffs/fleet": Scope.ANALYTICS_READ,
    "PUT /v1/tariffs/fleet": Scope.TARIFFS_WRITE,
    "DELETE /v1/tariffs/fleet": Scope.TARIFFS_WRITE,
    "GET /v1/tariffs/meters/{meterId}": Scope.ANALYTICS_READ,
    "PUT /v1/tariffs/meters/{meterId}": Scope.TARIFFS_WRITE,
    "DELETE /v1/tariffs/meters/{meterId}": Scope.TARIFFS_WRITE,
    "GET /v1/erasures": Scope.DEVICES_ERASE,
    "POST /v1/erasures": Scope.DEVICES_ERASE,
    "POST /ingest/meter": Scope.INGEST_METER,
    "POST /v1/ingestion/meter": Scope.INGEST_METER,
    "POST /v1/ingestion/meter/batch": Scope.INGEST_METER,
    "POST /ingest/vehicle": Scope.INGEST_VEHICLE,
    "POST /v1/ingestion/vehicle": Scope.INGEST_VEHICLE,
    "POST /v1/ingestion/vehicle/batch": Scope.INGEST_VEHICLE,
}


class DeviceIds:
    """Device ids, named one by one (`MTR-1`) or by what they begin with (`DEPOT7-*`, `*`)."""

    def __init__(self, names: str) -> None:
        """names: separated by spaces, which no id holds."""
        self._ids = frozenset(names.split())  # one with a `*` is the id of no device
        self._prefixes = (
            tuple(name[:-1] for name in self._ids if name.endswith("*")) if "*" in names else ()
        )

    def cover(self, device_id: str) -> bool:
        """Return whether the id is one of these."""
        return device_id in self._ids or device_id.startswith(self._prefixes)


class Identity(NamedTuple):
    """Who sends a request: the token's id (None where no token was asked for) and what it says."""

    token_id: str | None
    scopes: frozenset[str]
    meters: DeviceIds
    vehicles: DeviceIds


ANYBODY = Identity(None, frozenset(Scope), DeviceIds("*"), DeviceIds("*"))
NOBODY = Identity(None, frozenset(), DeviceIds(""), DeviceIds(""))
# What the authorizer would say of ops who invoke the analytics function directly: IAM let them in.
OPS_CONTEXT = {"tokenId": "iam", "scopes": Scope.ANALYTICS_READ}


class Access:
    """Decides which requests a function answers at all."""

    def __init__(self, *, by_token: bool) -> None:
        self._by_token = by_token

    def identify(self, event: Mapping[str, Any]) -> Identity:
        """Return who sends an HTTP API event (payload format 2.0).

        Raises NotAuthenticated where no authorizer has seen it, ScopeMissing where the token is not
        for its route.
        """
        if not self._by_token:
            return ANYBODY
        route = event["routeKey"]
        scope = ROUTES.get(route)
        if scope is None and route in ROUTES:
            return NOBODY
        try:
            said = event["requestContext"]["authorizer"]["lambda"]
            identity = Identity(
                said["tokenId"],
                frozenset(said["scopes"].split()),
                DeviceIds(said.get("meters", "")),
                DeviceIds(said.get("vehicles", "")),
            )
        except (KeyError, TypeError, AttributeError):
            raise NotAuthenticated from None
        if scope is None or scope not in identity.scopes:
            raise ScopeMissing(scope)
        return identity
