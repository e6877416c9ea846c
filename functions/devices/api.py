"""What devices report, declared over HTTP: the energy of each interval, or a running register."""

import os
from datetime import UTC, datetime
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from telemetry import device_lists, devices, http
from telemetry.access import Access
from telemetry.bodies import receives
from telemetry.database import Database
from telemetry.device_lists import DeclaredDevices
from telemetry.devices import Device, DeviceAnswer, DeviceDeclaration
from telemetry.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    DeviceNotDeclared,
    InvalidRequest,
    UnsupportedEncoding,
)
from telemetry.observability import build_logger
from telemetry.parameters import AfterDevice, Limit
from telemetry.paths import DeviceId
from telemetry.recognition import QueriedTime, check_id, parse_reading
from telemetry.settings import Settings

logger = build_logger("devices")
settings = Settings(os.environ)
database = Database(settings.database_url, password=settings.database_password)
app = http.build_resolver(logger, enable_validation=True)

PATH = "/v1/devices/<deviceId>"
Undeclared = Annotated[
    bool, Query(description="List the devices that should be declared, and are not")
]
ValidFrom = Annotated[QueriedTime, Query(alias="validFrom", description="Of the version")]


@app.put(
    PATH,
    summary="Declare what a device reports",
    enable_validation=False,
    tags=["Devices"],
    status_code=201,
    responses=http.documents(
        DeviceAnswer, 201, InvalidRequest, UnsupportedEncoding, BodyTooLarge, DatabaseUnavailable
    )
    | http.documents(DeviceAnswer, 200),
)
@receives(parse_reading, DeviceDeclaration, app)
def declare(device_id: str, declaration: DeviceDeclaration) -> Response[DeviceAnswer]:
    """Say whether a meter or vehicle reports the energy of each interval or a running register.

    Each declaration is a version: it holds for readings accepted after `validFrom`, or from now on.
    A version of the same `validFrom` is replaced; one that says what holds then anyway is not kept
    (200). With a `validFrom` in the past the next maintenance stores the readings since then again
    (`pending`). A register's energy is what it has grown by since the reading before it by device
    time, in whatever order readings come.
    """
    device = check_id(device_id, "deviceId")
    found, created = devices.declare_device(database, device, declaration, datetime.now(UTC))
    return Response(201 if created else 200, "application/json", found)


@app.delete(
    PATH,
    summary="Take a declaration back",
    tags=["Devices"],
    responses=http.documents(Device, 200, InvalidRequest, DeviceNotDeclared, DatabaseUnavailable),
)
def take_back(device_id: DeviceId, valid_from: ValidFrom) -> Device:
    """Take a version back, as if it had never been, and show what is declared then.

    What came by it is stored again by the next maintenance (`pending`).
    """
    return devices.take_back(database, device_id, valid_from, datetime.now(UTC))


@app.get(
    "/v1/devices",
    summary="The devices that were declared",
    tags=["Devices"],
    responses=http.documents(DeclaredDevices, 200, InvalidRequest, DatabaseUnavailable),
)
def list_declared(
    limit: Limit = 100, after: AfterDevice = None, *, undeclared: Undeclared = False
) -> DeclaredDevices:
    """List what devices are declared to report, and how many readings of each are left out.

    With `undeclared=true`, list those instead that are not declared, and report less often than
    every minute: until they are, each reading counts for a minute, and they are not judged.
    """
    if undeclared:
        return device_lists.list_undeclared(database, after, limit)
    return device_lists.list_devices(database, after, limit)


@app.get(
    PATH,
    summary="What a device is declared to report",
    tags=["Devices"],
    responses=http.documents(Device, 200, InvalidRequest, DeviceNotDeclared, DatabaseUnavailable),
)
def show(device_id: DeviceId) -> Device:
    """Show a declaration, and the jumps, resets and rollovers of the device's register."""
    return devices.find_device(database, device_id)


handler = http.build_handler(app, logger, Access(by_token=settings.by_token))
