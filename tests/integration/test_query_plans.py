"""Query plans: every hot statement uses its index and touches what it was asked for, no more.

auto_explain reports the plans as they were executed, also those inside the stored functions. The
history read here is in two of some twenty partitions, which meet at MIDNIGHT.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import NamedTuple, cast, get_args

import pytest

from local.databases import OWNER, DatabaseUrls
from telemetry.database import Database, connect
from telemetry.devices import DeviceDeclaration, declare_device
from telemetry.fleet import FleetSelection, FleetSort, LastRank, report_fleet
from telemetry.live import DeviceSelection, LiveDevices, Liveness
from telemetry.pages import LastDevice
from telemetry.readings import MeterReading, VehicleReading
from telemetry.receipts import (
    LastReceipt,
    ReceiptSelection,
    list_meter_receipts,
    list_vehicle_receipts,
)
from telemetry.reports import fetch_charging, report_performance
from telemetry.rules import Rules
from telemetry.store import (
    store_meter_reading,
    store_meter_readings,
    store_vehicle_reading,
    store_vehicle_readings,
)
from telemetry.summaries import refresh_summaries
from telemetry.tariffs import FLEET, Tariff, delete_tariff, put_tariff
from telemetry.verification import find_differences
from tests.conftest import Server, unpooled
from tests.integration.plans import Explained, report_plans

pytestmark = unpooled

MIDNIGHT = datetime(2025, 1, 1, tzinfo=UTC)
LIVE, ROLLUP, DAYS = "live_status", "hourly_rollup", "daily_rollup"
OLDEST, OLD, NEW = (f"telemetry_history_{part}" for part in ("2010_2019", "2024", "2025"))

# Times are minutes after MIDNIGHT. Every device has sent each minute of these hours. The idle ones
# sent one reading: without them, live rows are so few that reading them all is the right plan.
HOURS = range(-13 * 60, 13 * 60, 60)
NEXT = HOURS.stop
DEVICES, IDLE_DEVICES = range(64), range(1000, 4000)

Sent = Sequence[tuple[int, float]]  # device and time
STORES: dict[str, tuple[Callable[..., object], Callable[..., object]]] = {
    "meter": (store_meter_reading, store_meter_readings),
    "vehicle": (store_vehicle_reading, store_vehicle_readings),
}
DEVICE_NAMES = {"meter": "METER-{}", "vehicle": "VEH-{}"}


def make_reading(
    stream: str, device: int, time: float, kwh: float
) -> MeterReading | VehicleReading:
    name, timestamp = DEVICE_NAMES[stream].format(device), MIDNIGHT + timedelta(minutes=time)
    if stream == "meter":
        return MeterReading.model_construct(
            meter_id=name, kwh_consumed_ac=kwh, voltage=230.0, timestamp=timestamp
        )
    return VehicleReading.model_construct(
        vehicle_id=name, soc=50.0, kwh_delivered_dc=kwh, battery_temp=25.0, timestamp=timestamp
    )


def send(database: Database, stream: str, sent: Sent, kwh: float = 1.0, second: int = 0) -> None:
    """Store as the API does: one reading by the function for one."""
    store_one, store_many = STORES[stream]
    accepted = MIDNIGHT + timedelta(days=1, seconds=second)
    readings = [make_reading(stream, device, time, kwh) for device, time in sent]
    if len(readings) == 1:
        store_one(database, readings[0], accepted)
    else:
        store_many(database, readings, accepted)


class Seeded(NamedTuple):
    urls: DatabaseUrls
    unused_devices: dict[str, Iterator[int]]


@pytest.fixture(scope="module")
def seeded(server: Server) -> Iterator[Seeded]:
    """One database for all the tests here, each of which writes for devices of its own."""
    with connect(server.url) as superuser:
        superuser.execute(f"CREATE DATABASE seeded TEMPLATE migrated OWNER {OWNER}".encode())
    urls = server.urls("seeded")
    database = Database(urls.ingest)
    for stream in STORES:
        send(database, stream, [(device, HOURS.start) for device in IDLE_DEVICES])
        for hour in HOURS:
            times = range(hour, hour + 60)
            send(database, stream, [(device, time) for time in times for device in DEVICES])
        for second in (1, 2):  # what is corrected below has been before: just the last one counts
            corrected = [(device, time) for device in DEVICES for time in (-90, 90)]
            send(database, stream, corrected, second=second)
    database.close()
    with connect(urls.owner) as connection:
        idle = "generate_series(%s::integer, %s) AS device"
        connection.execute(
            f"""INSERT INTO links (vehicle_id, valid_from, meter_id, source)
                SELECT 'VEH-' || device, %s, 'METER-' || device, 'api' FROM {idle}
                UNION ALL
                SELECT 'VEH-LINKED', %s + device * interval '1 minute', 'METER-LINKED', 'api'
                FROM generate_series(1, 1000) AS device""".encode(),
            [MIDNIGHT, IDLE_DEVICES.start, IDLE_DEVICES.stop - 1, MIDNIGHT],
        )
        connection.execute("VACUUM (ANALYZE) links")
        for stream in STORES:
            for changed in (LIVE, ROLLUP, OLD, NEW):  # as autovacuum does
                connection.execute(f"VACUUM (ANALYZE) {stream}_{changed}".encode())
        report_plans(server, "seeded")
        yield Seeded(urls, {stream: iter(DEVICES) for stream in STORES})
        assert find_differences(connection) == []


# Plans for the given values are what a session begins with, generic ones what it may settle on.
@pytest.fixture(params=["force_custom_plan", "force_generic_plan"])
def explained(
    seeded: Seeded, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Explained]:
    opened = Explained(seeded.urls, request.param, monkeypatch)
    yield opened
    opened.close()


def check(touched: dict[str, int], bounds: dict[str, int], *streams: str) -> None:
    """See that these tables' indexes were used, no others, and rows touched within the bounds.

    Each partition has an index of its own: those not named were not read.
    """
    assert touched.pop("all of fleet_window_pkey", 0) <= 2  # the current window, the one before
    assert touched.pop("all of devices_pkey", 0) <= 2  # whether there are any
    assert touched.pop("devices_pkey", 0) <= 8  # and whether these are among them
    for index in ("newest", "of_device", "pending", "pkey"):  # whether any was ever erased
        assert touched.pop(f"all of erasure_{index}", 0) <= 2
    for index in [index for index in touched if "_timestamp_idx" in index]:
        assert touched.pop(index) <= 8  # whether a longer reading ends beyond an edge
    for stream in streams:  # whether anything was ever voided of these devices
        assert touched.pop(f"{stream}_void_pkey", 0) <= 1
    allowed = {f"{stream}_{table}_pkey": bounds[table] for stream in streams for table in bounds}
    assert touched.keys() == allowed.keys()
    assert {index: rows for index, rows in touched.items() if rows > allowed[index]} == {}


def three(*times: float) -> Sent:
    return [(device, time) for device in range(3) for time in times]


class Case(NamedTuple):
    sent: Sent
    bounds: dict[str, int]
    # The same was accepted in the same microsecond before, with so much energy; what is sent has 1.
    before: float | None = None


# A reading that is not newer than all before looks for the receipt that counted so far. One that
# is not inserted, because it is there, is then compared with what is. Whether its day is summed
# already, its live row tells.
SIX = {LIVE: 9, ROLLUP: 6, OLD: 3, NEW: 3}
CASES = {
    "in order": Case([(0, NEXT)], {LIVE: 1, ROLLUP: 1}),
    "first of its hour": Case([(0, NEXT + 1)], {LIVE: 1, ROLLUP: 1}),
    "late": Case([(0, -89.5)], {LIVE: 3, ROLLUP: 1, OLD: 1}),
    "corrected": Case([(0, -90)], {LIVE: 3, ROLLUP: 1, OLD: 1}),
    "re-sent": Case([(0, -89.5)], {LIVE: 3, OLD: 2}, before=1),
    "batch": Case(three(NEXT, NEXT + 1), {LIVE: 3, ROLLUP: 6}),
    "late batch": Case(three(-89.5, 90.5), SIX),
    "corrected batch": Case(three(-90, 90), SIX),
    "re-sent batch": Case(three(-89.5, 90.5), {LIVE: 9, OLD: 6, NEW: 6}, before=1),
    "batch of other events of the same instants": Case(
        three(-89.5, 90.5), {LIVE: 15, ROLLUP: 6, OLD: 12, NEW: 12}, before=2
    ),
    "batch of readings that are years apart": Case(
        [(0, -89.5), (0, -8 * 365 * 24 * 60)], {LIVE: 3, ROLLUP: 2, OLD: 1, OLDEST: 1}
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("stream", STORES)
def test_storing_touches_the_readings_stored(
    explained: Explained, seeded: Seeded, stream: str, case: Case
) -> None:
    own = {device: next(seeded.unused_devices[stream]) for device in dict(case.sent)}
    sent = [(own[device], time) for device, time in case.sent]
    if case.before:
        send(explained.ingest, stream, sent, case.before, 3)
    touched = explained.touched_by(send, explained.ingest, stream, sent, 1.0, 3)
    check(touched, case.bounds, stream)


@pytest.mark.parametrize(
    ("time", "bounds"),
    [
        (NEXT, {LIVE: 6, ROLLUP: 2}),
        # The readings before and after are looked for where rollups say that there are any.
        (-89.5, {LIVE: 9, ROLLUP: 8, OLD: 9, NEW: 1}),
        (-0.5, {LIVE: 9, ROLLUP: 8, OLD: 9, NEW: 3}),
    ],
    ids=["in order", "late", "late, the next in another partition"],
)
@pytest.mark.parametrize("stream", STORES)
def test_storing_a_register_touches_its_neighbours(
    explained: Explained, seeded: Seeded, stream: str, time: float, bounds: dict[str, int]
) -> None:
    device = next(seeded.unused_devices[stream])
    declaration = DeviceDeclaration(energy="register")
    declare_device(explained.ingest, DEVICE_NAMES[stream].format(device), declaration, MIDNIGHT)
    touched = explained.touched_by(send, explained.ingest, stream, [(device, time)], 1.0, 3)
    assert touched.pop("device_declarations_pkey") <= 8  # of each receipt that is looked at
    assert touched.pop("register_events_pkey", 0) <= 3
    assert touched.pop("register_baselines_pkey", 0) <= 2
    check(touched, bounds, stream)


# What comes before the first whole hour of a window that ends then, and after its last one. Nothing
# comes after the latest reading, so that its hour counts as whole.
@pytest.mark.parametrize(("end", "edges"), [(None, {OLD: 1}), (12.5 * 60, {OLD: 30, NEW: 30})])
def test_a_report_touches_rollups_and_two_edges_of_history(
    explained: Explained, end: float | None, edges: dict[str, int]
) -> None:
    window_end = None if end is None else MIDNIGHT + timedelta(minutes=end)
    vehicle_id = f"VEH-{DEVICES[-1]}"
    touched = explained.touched_by(
        report_performance, explained.read, vehicle_id, Rules(), window_end
    )
    # Without links, these were looked for once each; and days, of which there are none.
    for index in ("links_pkey", "links_meter"):
        assert touched.pop(index) <= 3
    assert touched.pop("device_declarations_pkey", 0) <= 2  # their cadences
    # Hours once for their energy, once for the minutes heard from.
    check(touched, {LIVE: 5, ROLLUP: 50, DAYS: 1} | edges, *STORES)


LIST_RECEIPTS = {"meter": list_meter_receipts, "vehicle": list_vehicle_receipts}

# Lists are statements of the client's, planned for their values at each call. (By a
# generic plan every partition of a window would be begun, to see which comes first.)
planned_for_values = pytest.mark.parametrize("explained", ["force_custom_plan"], indirect=True)


@planned_for_values
@pytest.mark.parametrize(
    ("minutes", "limit", "bounds"),
    [
        ((-30, 30), 1000, {LIVE: 1, OLD: 30, NEW: 31}),
        ((-30, 30), 20, {LIVE: 1, OLD: 21}),  # one more tells whether there is another page
        ((-30, None), 1000, {LIVE: 1, OLD: 30, NEW: 782}),  # to the latest reading
    ],
)
@pytest.mark.parametrize("stream", STORES)
def test_a_page_of_receipts_touches_its_rows(
    explained: Explained,
    stream: str,
    minutes: tuple[int, int | None],
    limit: int,
    bounds: dict[str, int],
) -> None:
    device = DEVICE_NAMES[stream].format(DEVICES[-1])
    start, end = (
        None if minute is None else MIDNIGHT + timedelta(minutes=minute) for minute in minutes
    )
    selection = ReceiptSelection(start, end, limit=limit)
    check(
        explained.touched_by(LIST_RECEIPTS[stream], explained.read, device, selection),
        bounds,
        stream,
    )


@planned_for_values
@pytest.mark.parametrize("stream", STORES)
def test_a_later_page_of_receipts_does_not_read_what_was_before(
    explained: Explained, stream: str
) -> None:
    device = DEVICE_NAMES[stream].format(DEVICES[-1])
    first, last = MIDNIGHT + timedelta(minutes=HOURS.start), MIDNIGHT + timedelta(minutes=NEXT)
    for minute, bounds in ((-600, {OLD: 10}), (600, {NEW: 10})):
        ended = MIDNIGHT + timedelta(minutes=minute)
        after = LastReceipt(start=first, end=last, timestamp=ended, received_at=last)
        selection = ReceiptSelection(after=after, limit=9)
        touched = explained.touched_by(LIST_RECEIPTS[stream], explained.read, device, selection)
        check(touched, bounds, stream)


NOBODY = Liveness(timedelta(days=-40_000), timedelta(days=-40_000))  # is online or stale
EVERYBODY = Liveness(timedelta(days=40_000), timedelta(days=40_000))


@pytest.mark.parametrize(
    ("liveness", "most"), [(EVERYBODY, 11), (NOBODY, 500)], ids=["unfiltered", "in vain"]
)
@pytest.mark.parametrize("stream", STORES)
def test_a_page_of_live_devices_touches_no_more_than_it_may(
    explained: Explained,
    stream: str,
    liveness: Liveness,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("telemetry.live.MOST_SCANNED", 500)
    live = LiveDevices(explained.read, liveness)
    list_page = live.list_meters if stream == "meter" else live.list_vehicles
    selection = DeviceSelection("online", LastDevice(device_id="M"), limit=10)
    touched = explained.touched_by(list_page, selection, MIDNIGHT)
    index = f"all of {stream}_live_status_pkey"
    assert touched.keys() == {index}
    assert most <= touched[index] <= most + 1  # PostgreSQL 15 numbers rows one ahead


TARIFF = Tariff.model_construct(
    currency="EUR",
    time_zone="Europe/Berlin",
    price_per_kwh=0.3,
    kg_co2_per_kwh=0.4,
    periods=[],
    valid_from=MIDNIGHT - timedelta(days=400),
    valid_to=None,
)


# With a tariff the hours are read once more, and the edges, also the one up to the latest reading.
@pytest.mark.parametrize(
    ("end", "edges"), [(None, {OLD: 2, NEW: 60}), (12.5 * 60, {OLD: 60, NEW: 60})]
)
def test_a_priced_report_touches_hours_and_edges_once_more(
    explained: Explained, seeded: Seeded, end: float | None, edges: dict[str, int]
) -> None:
    window_end = None if end is None else MIDNIGHT + timedelta(minutes=end)
    call = (report_performance, explained.read, f"VEH-{DEVICES[-1]}", Rules(), window_end)
    put_tariff(explained.ingest, FLEET, TARIFF)
    try:
        assert report_performance(*call[1:]).loss_cost == 0
        touched = explained.touched_by(*call)
    finally:
        delete_tariff(explained.ingest, FLEET, TARIFF.valid_from)
    for index in ("links_pkey", "links_meter"):
        assert touched.pop(index) <= 3
    assert touched.pop("zone_offset_pkey") <= 4 * 25  # of each quarter of the hours with energy
    assert touched.pop("device_declarations_pkey", 0) <= 2
    check(touched, {LIVE: 8, ROLLUP: 75, DAYS: 1} | edges, *STORES)


LINKS, LINKS_METER, LOCKS = "links_pkey", "links_meter", "link_locks_pkey"


# Where the link goes on: twice the vehicle's and the meter's claims before, and a lock between.
# Where it moves, also the claims and readings after it, of which there are none.
@pytest.mark.parametrize(
    ("moves", "bounds"),
    [
        (False, {"vehicle_live_status_pkey": 1, LINKS: 2, LINKS_METER: 2, LOCKS: 1}),
        (True, {"vehicle_live_status_pkey": 12, LINKS: 9, LINKS_METER: 6, LOCKS: 5}),
    ],
)
def test_a_reading_that_names_its_meter_finds_its_link_among_many(
    explained: Explained, seeded: Seeded, moves: bool, bounds: dict[str, int]
) -> None:
    vehicle = next(seeded.unused_devices["vehicle"])
    first, second = (make_reading("vehicle", vehicle, time, 1.0) for time in (NEXT, NEXT + 1))
    meters = [f"METER-{IDLE_DEVICES[vehicle]}", f"METER-{IDLE_DEVICES[vehicle + 1000 * moves]}"]
    accepted = MIDNIGHT + timedelta(days=1)
    named = first.model_copy(update={"meter_id": meters[0]})
    store_vehicle_reading(explained.ingest, cast("VehicleReading", named), accepted)
    named = second.model_copy(update={"meter_id": meters[1]})
    touched = explained.touched_by(store_vehicle_reading, explained.ingest, named, accepted)
    bounds = {f"vehicle_{ROLLUP}_pkey": 1, "erasure_newest": 1, **bounds}
    if moves:  # the summaries of all whom the meters have fed are marked
        assert touched.pop("vehicle_summary_pkey") <= 8
        # And whether another reading claims at that instant.
        assert touched.pop(f"vehicle_{NEW}_pkey") <= 4
        assert touched.pop(f"vehicle_{NEW}_vehicle_id_timestamp_idx") <= 4
    assert touched.keys() == bounds.keys()
    assert {index: rows for index, rows in touched.items() if rows > bounds[index]} == {}


def test_links_are_read_within_the_window(explained: Explained) -> None:
    window = [MIDNIGHT + timedelta(minutes=minute) for minute in (100, 103)]
    statement = "SELECT count(*) FROM links_of(%s, %s, %s)"
    assert explained.read.fetch(statement, ["VEH-LINKED", *window]) == [(3,)]
    touched = explained.touched_by(explained.read.fetch, statement, ["VEH-LINKED", *window])
    assert touched.keys() == {LINKS, LINKS_METER}
    assert touched[LINKS] <= 9
    assert touched[LINKS_METER] <= 8


# A plan does not tell how much of an index it skipped: what it looks for has to be one range.
def test_every_index_is_in_the_order_of_device_and_time(seeded: Seeded) -> None:
    with connect(seeded.urls.owner) as connection:
        found = connection.execute(
            """SELECT DISTINCT pg_get_indexdef(indexrelid, 1, false),
                               pg_get_indexdef(indexrelid, 2, false)
               FROM pg_index WHERE indrelid::regclass::text ~ '^(meter|vehicle)_(?!pending)'
                               AND indrelid != 'vehicle_summary'::regclass"""
        ).fetchall()
    times = {'"timestamp"', "hour", "day", ""}  # a live row has just the device
    expected = {(device, time) for device in ("meter_id", "vehicle_id") for time in times}
    assert set(found) == expected


# Of the vehicles as many as are shown, and those that were marked; of the totals one a status.
@pytest.mark.parametrize("sort", get_args(FleetSort))
def test_the_fleet_is_read_in_its_order(
    server: Server, urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch, sort: FleetSort
) -> None:
    ingest = Database(urls.ingest)
    for stream in STORES:
        send(ingest, stream, [(device, -60) for device in IDLE_DEVICES])
    put_tariff(ingest, FLEET, TARIFF)
    with connect(urls.owner) as connection:
        refresh_summaries(connection, MIDNIGHT, Rules())
        connection.execute("VACUUM (ANALYZE)")
    send(ingest, "vehicle", [(IDLE_DEVICES[7], -30)])
    ingest.close()
    report_plans(server, urls.owner.rpartition("/")[2])
    explained = Explained(urls, "force_generic_plan", monkeypatch)
    start = MIDNIGHT - timedelta(days=1)
    after = LastRank(start=start, end=MIDNIGHT, rank=Decimal(0), vehicle_id="VEH-2000", sort=sort)
    index = {"energy": "vehicle_summary_rank", "cost": "vehicle_summary_cost_rank"}[sort]
    bounds = {
        "all of fleet_window": 1,
        "all of fleet_totals_pkey": 5,
        "all of vehicle_summary_stale": 2,  # for its id and for what the totals hold of it
        f"all of {index}": 12,  # one for whether there are more, and the marked one
    }
    try:
        for cursor in (None, after):
            selection = FleetSelection(limit=10, after=cursor, sort=sort)
            page = report_fleet(explained.read, Rules(), selection, MIDNIGHT)
            touched = explained.touched_by(
                report_fleet, explained.read, Rules(), selection, MIDNIGHT
            )
            assert (len(page.items), page.totals.vehicles) == (10, len(IDLE_DEVICES))
            assert touched.keys() >= bounds.keys()
            # What computes the one that was marked looks up few rows, of links there are none.
            assert touched.pop("zone_offset_pkey", 0) <= 4 * 2  # quarters of hours with energy
            assert {i: rows for i, rows in touched.items() if rows > bounds.get(i, 6)} == {}
    finally:
        explained.close()


# A session keeps its plans, and tomorrow's partition is empty when it makes them.
@pytest.mark.parametrize("stream", STORES)
def test_a_plan_made_while_a_partition_was_empty_uses_its_index_once_it_has_filled(
    server: Server, urls: DatabaseUrls, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(urls.owner) as connection:
        connection.execute("ANALYZE")  # of all tables, such as after an upgrade of the server
    report_plans(server, urls.owner.rpartition("/")[2])
    explained = Explained(urls, "force_generic_plan", monkeypatch)
    try:
        for time, history in ((-90, OLD), (90, NEW)):
            sent = three(time, time + 1, time + 2)
            send(explained.ingest, stream, sent)
            touched = explained.touched_by(send, explained.ingest, stream, sent)
            check(touched, {LIVE: 12, history: 18}, stream)

            if stream == "vehicle":
                start, end = (MIDNIGHT + timedelta(minutes=time + edge) for edge in (-1, 1))
                touched = explained.touched_by(
                    partial(fetch_charging, starts=[start], ends=[end]),
                    explained.read,
                    ["VEH-0"],
                    Rules(by_name=False),
                )
                assert touched.pop("links_pkey") <= 4  # twice: are there none, or too many
                # Two readings, the edge that is empty, and looks at hours and days there are not.
                check(touched, {LIVE: 1, ROLLUP: 2, DAYS: 1, history: 3}, stream)
    finally:
        explained.close()
