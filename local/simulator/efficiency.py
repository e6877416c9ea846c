"""Reads back from the system how efficiently vehicles charged."""

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import NamedTuple

from local import LocalError
from local.simulator.sender import Client, DeviceCount, System, Unanswered, rfc3339

WINDOW = timedelta(hours=24)
# The API rounds energies to 3 decimals and percentages to 2.
ENERGY_ROUNDING_KWH = 0.0005
RATIO_ROUNDING = 0.005
FLOAT_ERROR = 1e-6

# A charger below this percentage is a hardware fault to raise.
FAULT_BELOW = 85


class Assumption(NamedTuple):
    """A vehicle as simulated: the efficiency (0 to 1), its first and its last reading's time."""

    vehicle_id: str
    meter_id: str
    efficiency: float
    first: datetime
    last: datetime

    @property
    def outlasts_window(self) -> bool:
        """Whether the system's 24 hours up to the last reading miss the first ones."""
        return self.first <= self.last - WINDOW


class Performance(NamedTuple):
    """What the system reports of 24 hours: kWh, %, and how many vehicle readings it counted."""

    ac_kwh: float | None
    dc_kwh: float | None
    ratio: float | None
    data_points: int


def read_performances(
    asked: Sequence[tuple[str, datetime]], system: System, clients: int
) -> list[Performance | None]:
    """Return the performance of each (vehicle, end of the window), None for an unknown vehicle.

    Raises LocalError where the system does not answer.
    """

    def read(share: Sequence[tuple[str, datetime]]) -> list[Performance | None]:
        client = Client(system)
        try:
            return [_read_performance(client, vehicle_id, end) for vehicle_id, end in share]
        finally:
            client.close()

    size = math.ceil(len(asked) / clients) or 1
    shares = [asked[first : first + size] for first in range(0, len(asked), size)]
    with ThreadPoolExecutor(clients) as pool:
        return [found for answers in pool.map(read, shares) for found in answers]


def _read_performance(client: Client, vehicle_id: str, end: datetime) -> Performance | None:
    path = f"/v1/analytics/performance/{vehicle_id}"
    try:
        status, content = client.request("GET", f"{path}?end={rfc3339(end)}")
    except Unanswered as error:
        raise LocalError(f"GET {path} is not answered: {error}") from None
    if status == 404:
        return None
    if status != 200:
        raise LocalError(f"GET {path} answers {status}: {content[:200].decode(errors='replace')}")
    answer = json.loads(content)
    return Performance(
        answer["acEnergyConsumed"],
        answer["dcEnergyDelivered"],
        answer["efficiencyRatio"],
        answer["dataPoints"],
    )


def has_other_readings(
    assumed: Assumption, found: Performance | None, devices: Mapping[str, DeviceCount]
) -> bool:
    """Whether the window also holds readings of the vehicle that were not sent just now."""
    sent = devices.get(assumed.vehicle_id, DeviceCount(""))
    return (
        found is not None
        and not assumed.outlasts_window
        and found.data_points > sent.accepted + sent.failed
    )


def contradiction(
    assumed: Assumption, found: Performance | None, devices: Mapping[str, DeviceCount]
) -> str | None:
    """Return what the system reports other than it was sent, None where it all agrees."""
    vehicle = devices.get(assumed.vehicle_id, DeviceCount(""))
    meter = devices.get(assumed.meter_id, DeviceCount(""))
    if found is None:
        return f"{assumed.vehicle_id} is unknown to the system"
    if has_other_readings(assumed, found, devices):
        return None
    if not assumed.outlasts_window:
        if found.data_points < vehicle.accepted:
            return (
                f"{assumed.vehicle_id}: {vehicle.accepted} readings accepted, "
                f"{found.data_points} reported"
            )
        for side, reported, kwh in (
            ("AC", found.ac_kwh, meter.kwh),
            ("DC", found.dc_kwh, vehicle.kwh),
        ):
            if abs((reported or 0) - kwh) > ENERGY_ROUNDING_KWH + FLOAT_ERROR:
                return f"{assumed.vehicle_id}: {kwh:.4f} kWh {side} accepted, {reported} reported"
    if meter.kwh and (
        found.ratio is None
        or abs(found.ratio - assumed.efficiency * 100) > RATIO_ROUNDING + FLOAT_ERROR
    ):
        return (
            f"{assumed.vehicle_id}: an efficiency of {assumed.efficiency:.2%} assumed, "
            f"{found.ratio} % reported"
        )
    return None
