"""Invents a fleet: vehicles that charge, each at a charger of its own with a meter."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from local.simulator.sender import Reading

MINUTE = timedelta(minutes=1)
HEALTHY_EFFICIENCY = (0.88, 0.94)
FAILING_EFFICIENCY = 0.80
# The meter stands before a three-phase charger.
VOLTAGE = 400.0
METERS = "chargers AC"
VEHICLES = "vehicles DC"


class Charger(NamedTuple):
    """A charger and the vehicle at it: ratio, kW (DC), kWh, and % at the beginning."""

    suffix: str
    efficiency: float
    power_kw: float
    battery_kwh: float
    soc: float
    seed: str

    @property
    def vehicle_id(self) -> str:
        """The vehicle's id."""
        return f"VEH-{self.suffix}"

    @property
    def meter_id(self) -> str:
        """The id of the meter that both contracts' naming convention pairs with the vehicle."""
        return f"METER-{self.suffix}"


def invent_fleet(vehicles: int, failing: int, minutes: int, seed: int) -> list[Charger]:
    """Return chargers that charge for so many minutes, the first `failing` of them at 0.80.

    The same seed gives the same chargers, however many. No battery is over 100 % at the end.
    """
    chargers = []
    for number in range(vehicles):
        own = random.Random(f"{seed}/{number}")  # noqa: S311 - an invented fleet is no secret
        efficiency = own.uniform(*HEALTHY_EFFICIENCY)
        battery = own.uniform(50, 100)
        soc = own.uniform(10, 50)
        room = battery * (own.uniform(80, 100) - soc) / 100
        chargers.append(
            Charger(
                suffix=f"{number + 1:03}",
                efficiency=FAILING_EFFICIENCY if number < failing else efficiency,
                power_kw=min(own.uniform(11, 150), room * 60 / minutes),
                battery_kwh=battery,
                soc=soc,
                seed=f"{seed}/{number}/charge",
            )
        )
    return chargers


def charge(charger: Charger, start: datetime, minutes: int) -> Iterator[Reading]:
    """Yield a meter reading and a vehicle reading for each minute after start."""
    drawn = random.Random(charger.seed)  # noqa: S311
    delivered = 0.0
    for minute in range(1, minutes + 1):
        time = start + minute * MINUTE
        kwh = charger.power_kw / 60 * drawn.uniform(0.9, 1.0)
        delivered += kwh
        yield Reading(
            METERS,
            "meter",
            charger.meter_id,
            time,
            kwh / charger.efficiency,
            {"voltage": round(VOLTAGE + drawn.uniform(-4, 4), 1)},
        )
        warming = 10 * (1 - math.exp(-minute / 30))
        yield Reading(
            VEHICLES,
            "vehicle",
            charger.vehicle_id,
            time,
            kwh,
            {
                "soc": round(min(100.0, charger.soc + delivered / charger.battery_kwh * 100), 2),
                "batteryTemp": round(24 + warming + drawn.uniform(-0.2, 0.2), 1),
            },
        )


def fleet_lanes(
    fleet: Sequence[Charger], start: datetime, minutes: int, clients: int
) -> list[Iterator[Reading]]:
    """Return a lane for each client: minute by minute, the readings of its share of the fleet."""
    return [
        itertools.chain.from_iterable(
            zip(
                *(charge(charger, start, minutes) for charger in fleet[first::clients]), strict=True
            )
        )
        for first in range(min(clients, len(fleet)))
    ]
