"""The ids in the paths of routes."""

from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Path

from telemetry.recognition import Id

VehicleId = Annotated[
    Id,
    Path(alias="vehicleId", description="Vehicle id", examples=["VEH-001"]),
]
DeviceId = Annotated[
    Id,
    Path(
        alias="deviceId",
        description="Meter id or vehicle id",
        examples=["METER-001"],
    ),
]
MeterId = Annotated[
    Id,
    Path(alias="meterId", description="Meter id", examples=["METER-001"]),
]
