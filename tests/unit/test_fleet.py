"""An invented fleet: energies, states of charge and times that could be real."""

import math
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise

import pytest

from local.simulator.fleet import charge, fleet_lanes, invent_fleet
from local.simulator.sender import Reading

START = datetime(2026, 2, 10, 10, tzinfo=UTC)


def by_device(readings: list[Reading]) -> dict[str, list[Reading]]:
    found: dict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        found[reading.device_id].append(reading)
    return found


@pytest.mark.parametrize("minutes", [1, 60, 2000])
def test_a_charge_has_a_reading_of_both_devices_for_each_minute(minutes: int) -> None:
    [charger] = invent_fleet(1, 0, minutes, seed=1)
    devices = by_device(list(charge(charger, START, minutes)))
    assert set(devices) == {"VEH-001", "METER-001"}
    for readings in devices.values():
        assert [reading.time for reading in readings] == [
            START + timedelta(minutes=minute) for minute in range(1, minutes + 1)
        ]


def test_energy_of_both_sides_has_the_ratio_of_the_charger() -> None:
    for charger in invent_fleet(20, 4, 60, seed=1):
        devices = by_device(list(charge(charger, START, 60)))
        dc = math.fsum(reading.kwh for reading in devices[charger.vehicle_id])
        ac = math.fsum(reading.kwh for reading in devices[charger.meter_id])
        assert dc > 0
        assert dc / ac == pytest.approx(charger.efficiency, rel=1e-12)


def test_the_first_chargers_fail_and_the_others_are_healthy() -> None:
    efficiencies = [charger.efficiency for charger in invent_fleet(50, 7, 60, seed=1)]
    assert efficiencies[:7] == [0.80] * 7
    assert all(0.88 <= efficiency <= 0.94 for efficiency in efficiencies[7:])
    assert len(set(efficiencies[7:])) == 43


@pytest.mark.parametrize("minutes", [1, 60, 10_000])
def test_state_of_charge_rises_with_the_energy_and_never_above_full(minutes: int) -> None:
    for charger in invent_fleet(10, 0, minutes, seed=3):
        vehicle = by_device(list(charge(charger, START, minutes)))[charger.vehicle_id]
        socs = [reading.others["soc"] for reading in vehicle]
        assert all(before <= after for before, after in pairwise(socs))
        assert socs[-1] <= 100
        delivered = math.fsum(reading.kwh for reading in vehicle)
        assert socs[-1] - charger.soc == pytest.approx(
            delivered / charger.battery_kwh * 100, abs=0.01
        )


def test_a_seed_gives_the_same_chargers_however_many() -> None:
    assert invent_fleet(5, 1, 60, seed=1) == invent_fleet(8, 1, 60, seed=1)[:5]
    assert invent_fleet(5, 1, 60, seed=1) != invent_fleet(5, 1, 60, seed=2)


@pytest.mark.parametrize(("vehicles", "clients"), [(1, 8), (5, 2), (8, 8), (10, 3)])
def test_lanes_hold_every_reading_and_each_device_in_one_lane(vehicles: int, clients: int) -> None:
    fleet = invent_fleet(vehicles, 0, 3, seed=1)
    lanes = [list(lane) for lane in fleet_lanes(fleet, START, 3, clients)]
    assert len(lanes) == min(vehicles, clients)
    expected = chain.from_iterable(charge(charger, START, 3) for charger in fleet)
    assert sorted(map(str, chain.from_iterable(lanes))) == sorted(map(str, expected))
    devices = [{reading.device_id for reading in lane} for lane in lanes]
    assert sum(map(len, devices)) == 2 * vehicles
    for lane in lanes:  # all devices of one minute before any of the next
        times = [reading.time for reading in lane]
        assert times == sorted(times)
