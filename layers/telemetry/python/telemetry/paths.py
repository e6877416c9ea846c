"""The ids in the paths of routes."""

from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Path

from telemetry.recognition import DEVICE_ID

VehicleId = Annotated[
    str,
    Path(alias="vehicleId", pattern=DEVICE_ID, description="Vehicle id", examples=["VEH-001"]),
]
DeviceId = Annotated[
    str,
    Path(
        alias="deviceId",
        pattern=DEVICE_ID,
        description="Meter id or vehicle id",
        examples=["METER-001"],
    ),
]
MeterId = Annotated[
    str,
    Path(alias="meterId", pattern=DEVICE_ID, description="Meter id", examples=["METER-001"]),
]
