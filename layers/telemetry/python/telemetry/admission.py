"""Which readings are let in: those of devices that the token names, at the rate they may send."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver

from telemetry.access import Identity, Scope
from telemetry.batches import Batch, BatchMode, Rejection
from telemetry.errors import DeviceNotCovered, ScopeMissing, TooManyReadings
from telemetry.limits import DeviceLimit
from telemetry.readings import MeterReading, Reading, VehicleReading

AnyReading = MeterReading | VehicleReading


class Admission:
    """Lets readings in; each execution environment of an ingest function has its own."""

    def __init__(self, resolver: APIGatewayHttpResolver, limit: DeviceLimit) -> None:
        """resolver: its context holds the identity that build_handler found."""
        self._resolver = resolver
        self._limit = limit

    def admit(self, reading: AnyReading) -> None:
        """Return where a reading may be taken. Raises DeviceNotCovered and TooManyReadings."""
        for refusal in self._refuse([reading]).values():
            raise refusal

    def admit_batch(self, batch: Batch[Reading], mode: BatchMode = None) -> Batch[Reading]:
        """Return the batch, what may not be taken of it among its rejections (403, 429).

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

    def _refuse(
        self, readings: Sequence[Any], *, limited: bool = True
    ) -> dict[int, DeviceNotCovered | TooManyReadings]:
        """Return the positions of what is not taken; charge the devices of all else."""
        identity: Identity = self._resolver.context["identity"]
        refused: dict[int, DeviceNotCovered | TooManyReadings] = {
            position: DeviceNotCovered(field)
            for position, reading in enumerate(readings)
            if (field := _uncovered_field(identity, reading))
        }
        # Where no token was asked for, whoever pretends to be a device could silence it.
        if identity.token_id is not None and limited:
            devices = [
                reading.meter_id if isinstance(reading, MeterReading) else reading.vehicle_id
                for reading in readings
            ]
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


def _uncovered_field(identity: Identity, reading: AnyReading) -> str | None:
    if isinstance(reading, MeterReading):
        return None if identity.meters.cover(reading.meter_id) else "meterId"
    if not identity.vehicles.cover(reading.vehicle_id):
        return "vehicleId"
    # Naming a meter takes it from the vehicle that it fed until then.
    if reading.meter_id is not None and not identity.meters.cover(reading.meter_id):
        return "meterId"
    return None
