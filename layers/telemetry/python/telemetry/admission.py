"""Which readings are let in.

Those of devices that the token names, at the rate they may send; and as energy no more than an
interval can have, unless the device reports a register.
"""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver

from telemetry.access import Identity, Scope
from telemetry.batches import Batch, BatchMode, Rejection
from telemetry.database import Database
from telemetry.errors import (
    DatabaseUnavailable,
    DeviceNotCovered,
    FieldError,
    InvalidRequest,
    ScopeMissing,
    TooManyReadings,
)
from telemetry.limits import DeviceLimit
from telemetry.readings import MeterReading, VehicleReading
from telemetry.recognition import MOST_KWH, Reading

Refusal = DeviceNotCovered | TooManyReadings | InvalidRequest
AnyReading = MeterReading | VehicleReading

# A register may be part of what is queued for a while after its device reports none any more.
_WITH_REGISTER = """
    SELECT DISTINCT device_id FROM device_declarations
    WHERE device_id = ANY (%s) AND is_register AND valid_from < %s
"""

_TOO_GREAT = (
    f"Input should be less than or equal to {MOST_KWH}, unless the device is declared to report "
    "a register: PUT /v1/devices/{deviceId}"
)


class Admission:
    """Lets readings in; each execution environment of an ingest function has its own."""

    def __init__(
        self, resolver: APIGatewayHttpResolver, limit: DeviceLimit, database: Database
    ) -> None:
        """resolver: its context holds the identity that build_handler found."""
        self._resolver = resolver
        self._limit = limit
        self._database = database

    def admit(self, reading: AnyReading) -> None:
        """Return where a reading may be taken.

        Raises DeviceNotCovered, TooManyReadings and InvalidRequest.
        """
        for refusal in self._refuse([reading]).values():
            raise refusal

    def admit_batch(self, batch: Batch[Reading], mode: BatchMode = None) -> Batch[Reading]:
        """Return the batch, what may not be taken of it among its rejections (400, 403, 429).

        A backfill is for who may, whatever the rate: months of a device are more than it may send.
        Raises ScopeMissing.
        """
        identity: Identity = self._resolver.context["identity"]
        if mode == "backfill" and Scope.BACKFILL not in identity.scopes:
            raise ScopeMissing(Scope.BACKFILL)
        refused = self._refuse(batch.readings, limited=mode is None)
        if not refused:
            return batch
        admitted = [each for each in range(len(batch.readings)) if each not in refused]
        return Batch(
            [batch.readings[each] for each in admitted],
            [batch.indexes[each] for each in admitted],
            batch.rejections
            + [
                Rejection(batch.indexes[each], refusal.status, refusal.errors, refusal.retry_after)
                for each, refusal in refused.items()
            ],
        )

    def _refuse(self, readings: Sequence[Any], *, limited: bool = True) -> dict[int, Refusal]:
        """Return the positions of what is not taken; charge the devices of all else."""
        identity: Identity = self._resolver.context["identity"]
        refused: dict[int, Refusal] = {
            position: DeviceNotCovered(field)
            for position, reading in enumerate(readings)
            if (field := _uncovered_field(identity, reading))
        }
        great = {
            position: reading
            for position, reading in enumerate(readings)
            if reading.kwh > MOST_KWH and position not in refused
        }
        if great:
            refused |= self._refuse_energies(great)
        # Where no token was asked for, whoever pretends to be a device could silence it.
        if identity.token_id is not None and limited:
            devices = [reading.device_id for reading in readings]
            covered = (
                (device for each, device in enumerate(devices) if each not in refused)
                if refused
                else devices
            )
            waits = self._limit.charge(Counter(covered), time.monotonic())
            if waits:
                field = "meterId" if isinstance(readings[0], MeterReading) else "vehicleId"
                refused |= {
                    position: TooManyReadings(field, math.ceil(waits[device]))
                    for position, device in enumerate(devices)
                    if device in waits and position not in refused
                }
        return refused

    def _refuse_energies(self, great: Mapping[int, AnyReading]) -> dict[int, Refusal]:
        """Return which of these readings are no registers.

        While the database is away nobody knows: then the worker decides, who finds it again.
        """
        devices = list({reading.device_id for reading in great.values()})
        try:
            found = self._database.fetch(_WITH_REGISTER, (devices, datetime.now(UTC)))
        except DatabaseUnavailable:
            return {}
        registers = {device for (device,) in found}
        return {
            position: InvalidRequest([FieldError(reading.ENERGY, _TOO_GREAT)])
            for position, reading in great.items()
            if reading.device_id not in registers
        }


def _uncovered_field(identity: Identity, reading: AnyReading) -> str | None:
    if isinstance(reading, MeterReading):
        return None if identity.meters.cover(reading.meter_id) else "meterId"
    if not identity.vehicles.cover(reading.vehicle_id):
        return "vehicleId"
    # Naming a meter takes it from the vehicle that it fed until then.
    if reading.meter_id is not None and not identity.meters.cover(reading.meter_id):
        return "meterId"
    return None
