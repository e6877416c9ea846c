"""Registers: energy is what they have grown by, in whatever order their readings come."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate, count
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.databases import DatabaseUrls
from telemetry import devices
from telemetry.database import Database, Row, connect
from telemetry.devices import DeviceDeclaration, declare_device, find_device
from telemetry.errors import DeviceNotDeclared
from telemetry.readings import MeterReading, VehicleReading
from telemetry.redeclarations import store_again
from telemetry.store import (
    store_meter_reading,
    store_meter_readings,
    store_vehicle_reading,
    store_vehicle_readings,
)
from telemetry.verification import find_differences
from tests.conftest import unpooled
from tests.integration.conftest import Api, delete_all
from tests.wire import Wire

pytestmark = unpooled

START = datetime(2026, 2, 10, 10, tzinfo=UTC)
ACCEPTED = datetime(2026, 2, 12, tzinfo=UTC)
DECLARED = datetime(2026, 2, 11, tzinfo=UTC)
MOMENT = timedelta(milliseconds=1)
MODULUS = Decimal(1000)
MOST_KW = Decimal(60)


class Sent(NamedTuple):
    """A register as it is sent: the minute of its reading, and what it shows (kWh)."""

    minute: int
    kwh: float


class Stream(NamedTuple):
    """What differs between the streams here."""

    name: str
    energy: str
    make: Callable[[str, Sent], MeterReading | VehicleReading]
    store_one: Callable[..., None]
    store_many: Callable[..., object]


def meter_reading(device: str, sent: Sent) -> MeterReading:
    time = START + timedelta(minutes=sent.minute)
    return MeterReading.model_construct(
        meter_id=device, kwh_consumed_ac=sent.kwh, voltage=230.0, timestamp=time
    )


def vehicle_reading(device: str, sent: Sent) -> VehicleReading:
    return VehicleReading.model_construct(
        vehicle_id=device,
        kwh_delivered_dc=sent.kwh,
        battery_temp=30.0,
        soc=float(sent.minute % 100) if sent.minute % 3 else None,
        timestamp=START + timedelta(minutes=sent.minute),
    )


METERS = Stream(
    "meter", "kwh_consumed_ac", meter_reading, store_meter_reading, store_meter_readings
)
VEHICLES = Stream(
    "vehicle", "kwh_delivered_dc", vehicle_reading, store_vehicle_reading, store_vehicle_readings
)
streams = pytest.mark.parametrize("stream", [METERS, VEHICLES], ids=["meter", "vehicle"])


def expected_energies(
    registers: Mapping[int, float], modulus: Decimal | None = MODULUS
) -> dict[int, tuple[Decimal, str | None]]:
    """Return by minute what is counted of registers, and what is odd about them."""
    expected: dict[int, tuple[Decimal, str | None]] = {}
    before: tuple[int, Decimal] | None = None
    for minute, kwh in sorted(registers.items()):
        register = Decimal(str(kwh))
        counted, event = Decimal(0), None
        if before is not None:
            most = MOST_KW * (minute - before[0]) / 60 + 1
            grown = register - before[1]
            if 0 <= grown <= most:
                counted = grown
            elif grown > most:
                event = "jump"
            elif modulus is not None and 0 <= grown + modulus <= most:
                counted, event = grown + modulus, "rollover"
            elif register <= most:
                counted, event = register, "reset"
            else:
                event = "jump"
        expected[minute] = counted, event
        before = minute, register
    return expected


def stored_energies(
    connection: psycopg.Connection[Row], stream: Stream, device: str
) -> dict[int, tuple[Decimal, str | None]]:
    rows = connection.execute(
        f"""SELECT DISTINCT ON (h."timestamp") h."timestamp", h.{stream.energy}, noted.event
            FROM {stream.name}_telemetry_history h
            LEFT JOIN register_events noted
                ON device_id = h.{stream.name}_id AND stream = %s
               AND noted."timestamp" = h."timestamp"
            WHERE h.{stream.name}_id = %s
            ORDER BY h."timestamp", received_at DESC""".encode(),
        (stream.name, device),
    )
    return {
        round((time - START).total_seconds() / 60): (energy, event) for time, energy, event in rows
    }


def rolled_up(connection: psycopg.Connection[Row], stream: Stream, device: str) -> Decimal:
    [(total,)] = connection.execute(
        f"SELECT coalesce(sum({stream.energy}), 0) FROM {stream.name}_hourly_rollup"
        f" WHERE {stream.name}_id = %s".encode(),
        (device,),
    )
    return Decimal(total)


def declare(
    database: Database, device: str, at: datetime = DECLARED, most_kw: float = float(MOST_KW)
) -> None:
    declaration = DeviceDeclaration.model_construct(
        energy="register", register_modulus=float(MODULUS), max_power_kw=most_kw
    )
    declare_device(database, device, declaration, at)


def settle(urls: DatabaseUrls) -> int:
    """Store again what devices told that are declared otherwise since, as the maintenance does."""
    with connect(urls.maintain) as connection:
        return store_again(connection, lambda: True)


# Registers that mostly grow, and at times begin anew, jump, or come again as something else.
sent = st.builds(
    Sent,
    st.integers(0, 200),
    st.one_of(
        st.integers(0, 9_999).map(lambda value: value / 10),
        st.integers(4_000, 4_050).map(lambda value: value / 10),
        st.sampled_from([0.0, 0.3, 999.9, 999.5, 12_345_678.9]),
    ),
)
growing = st.lists(st.integers(0, 20), min_size=2, max_size=12).map(
    lambda steps: [Sent(place * 7, sum(steps[: place + 1]) / 10) for place in range(len(steps))]
)
arrivals = st.one_of(
    st.lists(st.lists(sent, min_size=1, max_size=5), min_size=1, max_size=6),
    growing.flatmap(st.permutations).map(lambda order: [[one] for one in order]),
)


def test_a_register_grows_by_what_can_be_delivered_and_a_kwh_beside(
    connection: psycopg.Connection[Row],
) -> None:
    at = START + timedelta(minutes=1)  # 1 kWh at 60 kW
    for before, register, grown, event in (
        ("500", "500", "0", None),
        ("500", "502", "2", None),
        ("500", "502.001", "0", "jump"),
        ("999", "1", "2", "rollover"),
        ("999", "1.001", "1.001", "reset"),
        ("500", "2", "2", "reset"),
        ("500", "2.001", "0", "jump"),
    ):
        found = connection.execute(
            "SELECT * FROM register_energy(%s, %s, %s, %s, %s, %s)",
            (START, Decimal(before), at, Decimal(register), MODULUS, MOST_KW),
        )
        assert found.fetchall() == [(Decimal(grown), event)]


@streams
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_energy_is_what_the_register_grew_by_whatever_the_order(
    urls: DatabaseUrls, superuser_url: str, stream: Stream, data: st.DataObject
) -> None:
    calls = data.draw(arrivals)
    registers: dict[int, float] = {}
    voided: set[int] = set()
    with connect(superuser_url) as connection, closing(Database(urls.ingest)) as database:
        delete_all(connection)
        declare(database, "D-1")
        for number, batch in enumerate(calls):
            accepted = ACCEPTED + timedelta(seconds=number)
            readings = [stream.make("D-1", one) for one in batch]
            if len(readings) == 1:
                stream.store_one(database, readings[0], accepted)
            else:
                stream.store_many(database, readings, accepted)
            registers.update({one.minute: one.kwh for one in batch})
            if data.draw(st.booleans()):
                stream.store_many(database, readings, accepted)  # delivered again
            if data.draw(st.integers(0, 2)) == 0:
                minute = data.draw(st.sampled_from(sorted(registers)))
                changed = "withdraw_{}_void" if minute in voided else "void_{}_reading"
                connection.execute(
                    f"SELECT {changed.format(stream.name)}('D-1', %s, 'Ada', '', NULL)".encode(),
                    (START + timedelta(minutes=minute),),
                )
                voided ^= {minute}

            expected = expected_energies(
                {minute: kwh for minute, kwh in registers.items() if minute not in voided}
            )
            assert stored_energies(connection, stream, "D-1") == expected
            assert rolled_up(connection, stream, "D-1") == sum(kwh for kwh, _ in expected.values())
            assert find_differences(connection) == []


@streams
def test_writers_at_once_of_a_new_device_that_is_being_declared(
    urls: DatabaseUrls, stream: Stream
) -> None:
    registers = {minute: minute / 10 for minute in range(0, 120, 3)}
    calls = [[Sent(minute, kwh)] for minute, kwh in registers.items()]
    calls[3:6] = [[one for call in calls[3:6] for one in call]]

    def send(worker: int) -> None:
        with closing(Database(urls.ingest)) as database:
            for number, batch in list(enumerate(calls))[worker::4]:
                readings = [stream.make("D-1", one) for one in batch]
                stream.store_many(database, readings, ACCEPTED + timedelta(seconds=number))

    with ThreadPoolExecutor(4) as pool, closing(Database(urls.ingest)) as database:
        declare(database, "D-1")
        for done in [pool.submit(send, worker) for worker in range(4)]:
            done.result()
    with connect(urls.owner) as connection:
        assert stored_energies(connection, stream, "D-1") == expected_energies(registers)


@streams
def test_no_first_reading_slips_past_a_declaration_made_in_the_same_moment(
    urls: DatabaseUrls, connection: psycopg.Connection[Row], stream: Stream
) -> None:
    devices = [f"D-{number}" for number in range(30)]

    def store(device: str) -> None:
        with closing(Database(urls.ingest)) as database:
            stream.store_one(database, stream.make(device, Sent(0, 1.0)), ACCEPTED)

    with ThreadPoolExecutor(2) as pool, closing(Database(urls.ingest)) as database:
        for device in devices:
            stored = pool.submit(store, device)
            if device == devices[0]:
                stored.result()  # of one at least, the reading is before the declaration
            declare(database, device)
            stored.result()
        # Whether the first came before or after: from the second on all are registers.
        for device in devices:
            stream.store_one(database, stream.make(device, Sent(1, 700.0)), ACCEPTED)
    [(flagged, most)] = connection.execute(
        f"""SELECT count(*) FILTER (WHERE reports_register), max({stream.energy})
            FROM {stream.name}_live_status JOIN {stream.name}_telemetry_history
            USING ({stream.name}_id)""".encode()
    )
    assert (flagged, most) == (2 * len(devices), Decimal(1))


@streams
def test_what_was_a_register_stays_one_when_its_device_has_told_intervals_in_between(
    urls: DatabaseUrls, connection: psycopg.Connection[Row], superuser_url: str, stream: Stream
) -> None:
    registers = {0: 500.0, 10: 502.0}
    with closing(Database(urls.ingest)) as database, connect(superuser_url) as ops:

        def send(accepted: datetime, minute: int, kwh: float) -> None:
            stream.store_one(database, stream.make("D-1", Sent(minute, kwh)), accepted)

        declare(database, "D-1")
        for minute, kwh in registers.items():
            send(ACCEPTED, minute, kwh)
        interval = DeviceDeclaration(energy="interval")
        declare_device(database, "D-1", interval, ACCEPTED + timedelta(minutes=10))
        send(ACCEPTED + timedelta(minutes=11), 20, 0.5)
        declare(database, "D-1", ACCEPTED + timedelta(minutes=20))
        send(ACCEPTED + timedelta(minutes=21), 30, 503.0)
        # From a queue: it is less than what it was the first time that the device told registers.
        send(ACCEPTED + timedelta(minutes=1), 5, 501.0)
        for change in ("void_{}_reading", "withdraw_{}_void"):
            ops.execute(
                f"SELECT {change.format(stream.name)}('D-1', %s, 'Ada', '', NULL)".encode(),
                (START + timedelta(minutes=10),),
            )
    assert {
        minute: float(energy)
        for minute, (energy, _) in stored_energies(connection, stream, "D-1").items()
    } == {0: 0, 5: 1, 10: 1, 20: 0.5, 30: 0}
    assert rolled_up(connection, stream, "D-1") == Decimal("2.5")


def test_a_difference_of_more_digits_than_are_stored_is_stored_once(
    writer: Database, connection: psycopg.Connection[Row]
) -> None:
    registers = {0: 9.12345678901234, 30: 20.5, 60: 23.4567890123456}
    declare(writer, "D-1")
    for minute in (0, 60, 60, 30, 30):  # late ones, and again
        store_meter_reading(writer, meter_reading("D-1", Sent(minute, registers[minute])), ACCEPTED)
    [(total,)] = connection.execute("SELECT sum(kwh_consumed_ac) FROM meter_hourly_rollup")
    assert float(total) == pytest.approx(registers[60] - registers[0])


@streams
def test_corrected_registers_are_stored_once_and_so_is_the_one_after_them(
    writer: Database, connection: psycopg.Connection[Row], stream: Stream
) -> None:
    declare(writer, "D-1")
    first, corrected = [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)], [(1, 2.5), (2, 3.25)]
    for seconds, registers in enumerate((first, corrected)):
        readings = [stream.make("D-1", Sent(*register)) for register in registers]
        stream.store_many(writer, readings, ACCEPTED + timedelta(seconds=seconds))
    energies = connection.execute(
        f"""SELECT array_agg({stream.energy}::float8 ORDER BY received_at)
            FROM {stream.name}_telemetry_history
            GROUP BY "timestamp" ORDER BY "timestamp" """.encode()
    )
    assert energies.fetchall() == [([0],), ([1, 1.5],), ([1, 0.75],), ([1, 0.75],)]


@streams
def test_a_device_that_tells_intervals_from_now_on_keeps_what_its_register_counted(
    urls: DatabaseUrls, connection: psycopg.Connection[Row], stream: Stream
) -> None:
    registers = {0: 999.5, 10: 0.5}
    with closing(Database(urls.ingest)) as database:
        declare(database, "D-1")
        for minute, kwh in registers.items():
            stream.store_one(database, stream.make("D-1", Sent(minute, kwh)), ACCEPTED)
        interval = DeviceDeclaration(energy="interval")
        declare_device(database, "D-1", interval, ACCEPTED + timedelta(minutes=1))
        assert [version.energy for version in find_device(database, "D-1").versions] == [
            *("interval", "register")
        ]
    assert stored_energies(connection, stream, "D-1") == expected_energies(registers)


# Wh of each interval of a day, the interval (minutes), and the order in which the readings come.
days = st.tuples(
    st.sampled_from([15, 17, 60, 1]),
    st.lists(st.integers(0, 200), min_size=4, max_size=90),
).flatmap(
    lambda day: st.tuples(
        st.just(day[0]),
        st.just(day[1]),
        st.permutations(range(len(day[1]) + 1)),
        st.integers(1, 40),
    )
)
numbers = count()


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(day=days, first=st.integers(0, 10**9))
def test_a_physical_day_is_the_same_by_intervals_and_by_registers(
    api: Api, day: tuple[int, list[int], list[int], int], first: int
) -> None:
    # Two chargers side by side: A tells the energy of each interval, B what its registers show.
    minutes, energies, order, size = day
    number = next(numbers)
    cadence = {"cadenceSeconds": 60 * minutes}
    for device in (f"METER-B{number}", f"VEH-B{number}"):
        assert api.put(f"/v1/devices/{device}", {"energy": "register"} | cadence).status == 201
    for device in (f"METER-A{number}", f"VEH-A{number}"):
        assert api.put(f"/v1/devices/{device}", {"energy": "interval"} | cadence).status == 201
    for name in ("A", "B"):
        told = [0, *energies] if name == "A" else list(accumulate([first, *energies]))
        for stream, fields, energy in (
            ("meter", {"meterId": f"METER-{name}{number}", "voltage": 230}, "kwhConsumedAc"),
            ("vehicle", {"vehicleId": f"VEH-{name}{number}", "batteryTemp": 30}, "kwhDeliveredDc"),
        ):
            readings = [
                fields
                | {
                    energy: told[place] / 1000,
                    "timestamp": (START + place * timedelta(minutes=minutes)).isoformat(),
                }
                for place in order
            ]
            for place in range(0, len(readings), size):
                part = readings[place : place + size]
                answer = api.post(f"/v1/ingestion/{stream}/batch", json.dumps(part).encode())
                assert answer.status == 201, answer.body
    link = {"validFrom": "2026-01-01T00:00:00Z"}
    for name in (f"A{number}", f"B{number}"):
        answer = api.put(f"/v1/links/VEH-{name}", link | {"meterId": f"METER-{name}"})
        assert answer.status == 201
    for route in (
        "/v1/analytics/performance/VEH-*",
        "/v1/analytics/vehicles/VEH-*/trend?bucket=hour",
        "/v1/live/vehicles/VEH-*",
    ):
        by_interval, by_register = (
            {
                field: value
                for field, value in api.get(route.replace("*", f"{name}{number}")).body.items()
                if field not in {"vehicleId", "meterIds", "links", "receivedAt", "ageSeconds"}
            }
            for name in ("A", "B")
        )
        said = json.dumps(by_register).replace(f"-B{number}", f"-A{number}")
        assert json.loads(said) == by_interval
    assert api.get(f"/v1/devices/METER-B{number}").body["events"] == []


def test_a_jump_is_kept_and_reported_and_counts_nothing(api: Api, urls: DatabaseUrls) -> None:
    limits = {"energy": "register", "maxPowerKw": 60, "registerModulus": 1000}
    assert api.put("/v1/devices/METER-1", limits).status == 201
    registers = {0: 990.0, 1: 990.5, 2: 0.2, 3: 500.0, 4: 500.4, 5: 0.1}
    for minute, kwh in registers.items():
        reading = {"meterId": "METER-1", "kwhConsumedAc": kwh, "voltage": 230}
        time = (START + timedelta(minutes=minute)).isoformat()
        assert api.post("/v1/ingestion/meter", reading | {"timestamp": time}).status == 201
    device = api.get("/v1/devices/METER-1").body
    assert [(one["timestamp"], one["event"]) for one in device["events"]] == [
        ("2026-02-10T10:05:00Z", "reset"),
        ("2026-02-10T10:03:00Z", "jump"),
        ("2026-02-10T10:02:00Z", "reset"),
    ]
    trail = api.get("/v1/meters/METER-1/readings").body["items"]
    assert [(one["registerKwh"], one["kwhConsumedAc"]) for one in trail] == [
        (990.0, 0),
        (990.5, 0.5),
        (0.2, 0.2),
        (500.0, 0),
        (500.4, 0.4),
        (0.1, 0.1),
    ]

    api.put("/v1/devices/METER-2", {"energy": "interval"})
    first = api.get("/v1/devices?limit=1").body
    assert [(one["deviceId"], one["jumps"]) for one in first["items"]] == [("METER-1", 1)]
    second = api.get(f"/v1/devices?limit=1&cursor={first['nextCursor']}").body
    assert [(one["deviceId"], one["energy"]) for one in second["items"]] == [
        ("METER-2", "interval")
    ]
    assert second["nextCursor"] is None

    # With what it can really deliver, the first was the end of the register.
    since = {"validFrom": device["validFrom"]}
    again = api.put("/v1/devices/METER-1", limits | {"maxPowerKw": 600} | since)
    assert (again.status, again.body["pending"], len(again.body["versions"])) == (200, True, 1)
    assert settle(urls) == 2  # METER-2, too
    assert not api.get("/v1/devices/METER-1").body["pending"]
    events = {
        one["timestamp"][14:16]: one["event"]
        for one in api.get("/v1/devices/METER-1").body["events"]
    }
    assert events == {"05": "reset", "03": "jump", "02": "rollover"}


def test_more_than_an_interval_can_have_is_taken_of_registers_alone(api: Api) -> None:
    reading = {"meterId": "METER-1", "kwhConsumedAc": 10_000.001, "voltage": 230}
    reading["timestamp"] = START.isoformat()
    refused = api.post("/v1/ingestion/meter", reading)
    assert refused.status == 400
    [error] = refused.body["errors"]
    assert error["field"] == "kwhConsumedAc"
    assert error["message"].startswith("Input should be less than or equal to 10000")
    batch = [reading, reading | {"kwhConsumedAc": 1}, reading | {"meterId": "METER-2"}]
    api.put("/v1/devices/METER-2", {"energy": "register"})
    answer = api.post("/v1/ingestion/meter/batch", json.dumps(batch).encode())
    assert (answer.status, answer.body["accepted"]) == (207, 2)
    assert [item["index"] for item in answer.body["rejections"]] == [0]
    api.put("/v1/devices/METER-1", {"energy": "register"})
    assert api.post("/v1/ingestion/meter", reading).status == 201


def test_what_is_queued_of_no_register_is_refused_by_the_store(writer: Database) -> None:
    reading = meter_reading("METER-1", Sent(0, 10_000.001))
    for store in (
        lambda: store_meter_reading(writer, reading, ACCEPTED),
        lambda: store_meter_readings(writer, [reading], ACCEPTED),
    ):
        with pytest.raises(psycopg.DataError, match="reports no register"):
            store()


def test_a_device_nobody_declared_is_not_found(api: Api) -> None:
    assert api.get("/v1/devices/METER-9").status == 404
    assert api.put("/v1/devices/METER 9", {"energy": "register"}).status == 400
    wrong = api.put("/v1/devices/METER-9", {"energy": "all", "maxPowerKw": 0, "colour": 1})
    assert {error["field"] for error in wrong.body["errors"]} == {
        *("energy", "maxPowerKw", "colour")
    }


def tell(api: Api, energies: Sequence[float], first: int = 0) -> None:
    for minute, kwh in enumerate(energies, first):
        reading = {"meterId": "METER-1", "kwhConsumedAc": kwh, "voltage": 230}
        time = (START + timedelta(minutes=minute)).isoformat()
        assert api.post("/v1/ingestion/meter", reading | {"timestamp": time}).status == 201


def take_back(api: Api) -> Any:
    """Take back the newest version of METER-1; return the answer."""
    [newest, *_] = api.get("/v1/devices/METER-1").body["versions"]
    answer = api.delete(f"/v1/devices/METER-1?validFrom={newest['validFrom']}")
    assert answer.status == 200
    return answer.body


def counted(api: Api) -> list[tuple[float | None, float]]:
    trail = api.get("/v1/meters/METER-1/readings").body["items"]
    return [(one["registerKwh"], one["kwhConsumedAc"]) for one in trail if one["counts"]]


def test_a_declaration_in_the_past_has_readings_stored_again(
    api: Api, urls: DatabaseUrls, connection: psycopg.Connection[Row]
) -> None:
    began = datetime.now(UTC).isoformat()
    tell(api, [100, 100.5, 101.25])
    said = {"energy": "register", "validFrom": began}
    declared = api.put("/v1/devices/METER-1", said)
    assert (declared.status, declared.body["pending"]) == (201, True)
    assert api.put("/v1/devices/METER-1", said).status == 200  # nothing new is said
    assert counted(api) == [(None, 100), (None, 100.5), (None, 101.25)]
    assert settle(urls) == 1
    assert counted(api) == [(100, 0), (100.5, 0.5), (101.25, 0.75)]
    assert find_differences(connection) == []
    assert settle(urls) == 0


def test_a_declaration_that_was_a_mistake_is_taken_back(
    api: Api, urls: DatabaseUrls, connection: psycopg.Connection[Row]
) -> None:
    tell(api, [0.1, 0.2])
    api.put("/v1/devices/METER-1", {"energy": "register"})
    tell(api, [0.3, 0.1, 0.4, 10_000.5], first=2)
    assert counted(api)[2:] == [(0.3, 0), (0.1, 0.1), (0.4, 0.3), (10_000.5, 0)]
    taken_back = take_back(api)
    assert (taken_back["pending"], taken_back["energy"], taken_back["versions"]) == (
        *(True, "interval", []),
    )
    assert settle(urls) == 1
    assert counted(api) == [
        *((None, kwh) for kwh in (0.1, 0.2, 0.3, 0.1, 0.4)),
        (10_000.5, 0),  # more than an interval can have
    ]
    assert find_differences(connection) == []
    assert api.get("/v1/devices/METER-1").status == 404
    assert settle(urls) == 0


@pytest.mark.parametrize("settled", [True, False])
def test_registers_that_no_interval_can_have_follow_a_void_whatever_is_declared(
    api: Api, urls: DatabaseUrls, connection: psycopg.Connection[Row], settled: bool
) -> None:
    api.put("/v1/devices/METER-1", {"energy": "register"})
    tell(api, [9_999.5, 10_000.25, 10_000.75, 10_001.5])
    take_back(api)
    if settled:
        assert settle(urls) == 1
    void = {"by": "Ada", "why": "a test", "meterId": "METER-1"}
    void["timestamp"] = (START + timedelta(minutes=2)).isoformat()
    assert api.post("/v1/voids", void).status == 201
    settle(urls)
    assert counted(api) == [(None, 9_999.5), (10_000.25, 0), (10_001.5, 1.25)]
    assert find_differences(connection) == []


# Its clock is the request's, and it may wait for a reading that came after that.
@streams
def test_what_is_stored_while_a_device_is_being_declared_is_looked_at_again(
    urls: DatabaseUrls, connection: psycopg.Connection[Row], stream: Stream
) -> None:
    with closing(Database(urls.ingest)) as database:
        stream.store_one(database, stream.make("D-1", Sent(0, 5_000.0)), DECLARED + MOMENT)
        declare(database, "D-1")
        assert find_device(database, "D-1").pending
    assert settle(urls) == 1
    assert stored_energies(connection, stream, "D-1") == {0: (Decimal(0), None)}


def test_a_version_is_taken_back_once_where_the_answer_was_lost(
    wire: Wire, writer: Database
) -> None:
    for days in (1, 2):
        declare(writer, "D-1", DECLARED + days * timedelta(days=1), 10.0 * days)
    [newest, _] = find_device(writer, "D-1").versions
    with closing(Database(wire.url)) as database:
        database.fetch("SELECT 1")
        wire.trap(5, wire.cut, delivered=True)
        with pytest.raises(DeviceNotDeclared):
            devices.take_back(database, "D-1", newest.valid_from, datetime.now(UTC))
    assert [one.max_power_kw for one in find_device(writer, "D-1").versions] == [10]


def test_what_is_declared_again_outlives_an_erasure_that_was_asked_for_before(
    api: Api, urls: DatabaseUrls
) -> None:
    api.put("/v1/devices/METER-1", {"energy": "register"})
    tell(api, [100, 100.5])
    erasure = {"by": "Ada", "why": "a test", "meterId": "METER-1"}
    asked = api.post("/v1/erasures", erasure).body["erasureId"]
    assert api.put("/v1/devices/METER-1", {"energy": "register"}).status == 200
    with connect(urls.maintain) as maintainer:
        for statement in ("erase_meter_day(%s, '2026-02-10', '[]')", "finish_erasure(%s)"):
            done = maintainer.execute(f"SELECT {statement}".encode(), (asked,)).fetchall()
            assert done == [(True,)]
    assert api.get("/v1/devices/METER-1").body["energy"] == "register"


def test_versions_hold_one_after_the_other(api: Api) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    first, second, third = (
        (now + timedelta(hours=hours)).isoformat().replace("+00:00", "Z") for hours in (-1, 0, 1)
    )
    for version in (
        {"energy": "interval", "validFrom": second},
        {"energy": "register", "maxPowerKw": 11, "validFrom": first},
        {"energy": "register", "maxPowerKw": 22, "validFrom": third},
    ):
        assert api.put("/v1/devices/METER-1", version).status == 201
    device = api.get("/v1/devices/METER-1").body
    assert [version["validFrom"] for version in device["versions"]] == [third, second, first]
    assert (device["energy"], device["validFrom"]) == ("interval", second)
    left = api.delete(f"/v1/devices/METER-1?validFrom={second}")
    assert [one["validFrom"] for one in left.body["versions"]] == [third, first]
    assert left.body["validFrom"] == first
    assert api.delete(f"/v1/devices/METER-1?validFrom={second}").status == 404
    wrong = api.put("/v1/devices/METER-1", {"energy": "interval", "validFrom": "1999-01-01"})
    assert [error["field"] for error in wrong.body["errors"]] == ["validFrom"]


@pytest.mark.parametrize(
    ("energy", "sent", "says"),
    [
        ("register", [0.2, 0.1, 0.3, 0.1, 0.2], "2 of 4 readings of the last day are less"),
        ("interval", list(range(20)), "does the device report a running register?"),
        ("register", list(range(20)), None),
        ("interval", [0.2, 0.1, 0.3, 0.1, 0.2], None),
        ("interval", [0] * 20, None),
    ],
)
def test_a_declaration_that_disagrees_with_what_was_sent_says_so(
    api: Api, energy: str, sent: list[float], says: str | None
) -> None:
    for minute, kwh in enumerate(sent):
        reading = {"meterId": "METER-1", "kwhConsumedAc": kwh, "voltage": 230}
        time = (datetime.now(UTC) - timedelta(minutes=60 - minute)).isoformat()
        assert api.post("/v1/ingestion/meter", reading | {"timestamp": time}).status == 201
    disagreement = api.put("/v1/devices/METER-1", {"energy": energy}).body["disagreement"]
    assert says in disagreement if says else disagreement is None
