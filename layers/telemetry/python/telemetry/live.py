"""What each device reported last, and whether it still reports.

Live rows are rewritten at every reading, without touching an index. So there is none on their
time: a filtered list goes through the devices in the order of their ids, so many for each page.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from pydantic import Field

from telemetry.answers import Answer
from telemetry.database import Database, Row
from telemetry.errors import MeterNotFound, VehicleNotFound
from telemetry.pages import ITEMS, LastDevice, Page, encode_cursor
from telemetry.receipts import MeterValues, VehicleValues
from telemetry.streams import METERS, VEHICLES, Stream

# At most so many devices are looked at for a page; each takes about a microsecond.
MOST_SCANNED = 10_000

_SECOND = timedelta(seconds=1)

Status = Literal["online", "stale", "offline"]


class Liveness(NamedTuple):
    """How old a device's newest reading may be while it is online, and while it is stale.

    Of one that reports seldom it may be older: 1.5 and 3 of its cadences.
    """

    online_for: timedelta
    stale_for: timedelta


class LiveState(Answer):
    """When a device reported last."""

    received_at: datetime = Field(
        description="When the API accepted it", examples=["2026-02-10T10:00:01.250000Z"]
    )
    age_seconds: int = Field(
        description="How old it is by device time (s); 0 where the device's clock is ahead",
        examples=[12],
        json_schema_extra={"unit": "s"},
    )
    status: Status = Field(
        description="online up to an age of 5 minutes or 1.5 cadences, whichever is longer, stale "
        "up to an hour or 3 cadences, then offline; a deployment may have set other limits",
        examples=["online"],
    )
    cadence_seconds: float = Field(
        description="How often it reports (s): as it is declared, or else the length of its newest "
        "interval, if that is an hour at most, or else 60",
        examples=[60],
        json_schema_extra={"unit": "s"},
    )


class MeterState(LiveState, MeterValues):
    """The newest reading of a meter by device time, and whether it still reports."""


class VehicleState(LiveState, VehicleValues):
    """The newest reading of a vehicle by device time, and whether it still reports.

    `soc` is that of the newest reading which carried one.
    """

    soc_timestamp: datetime | None = Field(
        description="Device time of the reading that `soc` is of, which may be an older one; null "
        "where no reading carried one",
        examples=["2026-02-10T09:55:00Z"],
    )
    charging: bool | None = Field(
        description="Whether energy was delivered in the interval of the newest reading; null "
        "unless the vehicle is online, for nobody knows what one does that is not",
        examples=[True],
    )


class MeterStates(Page):
    """Meters in the order of their ids.

    A page that is filtered may hold fewer items than asked for, even none, while there are more.
    """

    items: list[MeterState] = ITEMS


class VehicleStates(Page):
    """Vehicles in the order of their ids.

    A page that is filtered may hold fewer items than asked for, even none, while there are more.
    """

    items: list[VehicleState] = ITEMS


# What a state shows beside its device, when it was told, and when it came: name and column.
_METER_VALUES = {value.name: value.live for value in METERS.always_shown}
_VEHICLE_VALUES = {value.name: value.live for value in VEHICLES.always_shown} | {
    "soc": "soc",
    "soc_timestamp": "nullif(soc_timestamp, '-infinity')",
}

_STATE = """
    FROM {table}
    CROSS JOIN LATERAL (
        SELECT cadence_now({key}, reports_register, last_seconds) AS cadence OFFSET 0) AS reporting
    CROSS JOIN LATERAL (
        SELECT device_status(extract(epoch FROM %(now)s - last_timestamp), cadence,
                             %(online)s::numeric, %(stale)s::numeric) AS status) AS reported
"""
_ONE = "SELECT {columns} {state} WHERE {key} = %(id)s"

# The last of the devices looked at comes along whether it is asked for or not: the next page goes
# on after it.
_PAGE = """
    SELECT {columns}, matches, place = %(most)s FROM (
        SELECT {table}.*, cadence, status, row_number() OVER (ORDER BY {key}) AS place,
               (%(status)s::text IS NULL OR status = %(status)s) AND {more} AS matches
        {state}
        WHERE {key} > %(after)s
        ORDER BY {key}
        LIMIT %(most)s
    ) AS scanned
    WHERE matches OR place = %(most)s
    ORDER BY {key}
    LIMIT %(limit)s + 1
"""
_IS_CHARGING = f"""(%(charging)s::boolean IS NULL
    OR status = 'online' AND ({VEHICLES.energy.live} > 0) = %(charging)s)"""


def _names(stream: Stream, values: Mapping[str, str], more: str) -> dict[str, str]:
    state = ("last_timestamp", "updated_at", "cadence", "status")
    return {
        "columns": ", ".join((stream.device, *state, *values.values())),
        "state": _STATE.format(table=stream.live, key=stream.device),
        "table": stream.live,
        "key": stream.device,
        "more": more,
    }


_METERS = _names(METERS, _METER_VALUES, "true")
_VEHICLES = _names(VEHICLES, _VEHICLE_VALUES, _IS_CHARGING)
_ONE_METER, _METER_PAGE = _ONE.format(**_METERS), _PAGE.format(**_METERS)
_ONE_VEHICLE, _VEHICLE_PAGE = _ONE.format(**_VEHICLES), _PAGE.format(**_VEHICLES)


class DeviceSelection(NamedTuple):
    """Which devices a page is to list: those of a status, and of a cursor's place on."""

    status: Status | None = None
    after: LastDevice | None = None
    limit: int = 100


class LiveDevices:
    """The live rows, as they are at an instant `now`."""

    def __init__(self, database: Database, liveness: Liveness) -> None:
        self._database = database
        self._liveness = liveness

    def find_meter(self, meter_id: str, now: datetime) -> MeterState:
        """Return what a meter reported last; raise MeterNotFound and DatabaseUnavailable."""
        for row in self._database.fetch(_ONE_METER, {"id": meter_id} | self._limits(now)):
            return self._meter(row, now)
        raise MeterNotFound

    def find_vehicle(self, vehicle_id: str, now: datetime) -> VehicleState:
        """Return what a vehicle reported last; raise VehicleNotFound and DatabaseUnavailable."""
        for row in self._database.fetch(_ONE_VEHICLE, {"id": vehicle_id} | self._limits(now)):
            return self._vehicle(row, now)
        raise VehicleNotFound

    def list_meters(self, selection: DeviceSelection, now: datetime) -> MeterStates:
        """Return a page of meters; raise DatabaseUnavailable."""
        rows, cursor = self._fetch_page(_METER_PAGE, selection, now)
        return MeterStates(items=[self._meter(row, now) for row in rows], next_cursor=cursor)

    def list_vehicles(
        self, selection: DeviceSelection, now: datetime, charging: bool | None = None
    ) -> VehicleStates:
        """Return a page of vehicles, of those that (do not) charge only; raise DatabaseUnavailable.

        Of a vehicle that is not online nobody knows: it is in neither list.
        """
        rows, cursor = self._fetch_page(_VEHICLE_PAGE, selection, now, charging)
        return VehicleStates(items=[self._vehicle(row, now) for row in rows], next_cursor=cursor)

    def _fetch_page(
        self,
        statement: str,
        selection: DeviceSelection,
        now: datetime,
        charging: bool | None = None,
    ) -> tuple[list[Row], str | None]:
        found = self._database.fetch(
            statement,
            self._limits(now)
            | {
                "status": selection.status,
                "charging": charging,
                "after": selection.after.device_id if selection.after else "",
                "most": MOST_SCANNED,
                "limit": selection.limit,
            },
        )
        rows = [row[:-2] for row in found if row[-2]][: selection.limit]
        if len(found) > selection.limit:
            last = rows[-1]
        elif found and found[-1][-1]:
            last = found[-1]
        else:
            return rows, None
        return rows, encode_cursor(LastDevice(device_id=last[0]))

    def _limits(self, now: datetime) -> dict[str, Any]:
        online, stale = (limit.total_seconds() for limit in self._liveness)
        return {"now": now, "online": online, "stale": stale}

    def _meter(self, row: Row, now: datetime) -> MeterState:
        meter_id, *state = row[:5]
        return MeterState(
            meter_id=meter_id,
            **_state(state, now),
            **dict(zip(_METER_VALUES, row[5:], strict=True)),
        )

    def _vehicle(self, row: Row, now: datetime) -> VehicleState:
        vehicle_id, *state = row[:5]
        told = dict(zip(_VEHICLE_VALUES, row[5:], strict=True))
        reported = _state(state, now)
        soc_timestamp = told.pop("soc_timestamp")
        is_online = reported["status"] == "online"
        return VehicleState(
            vehicle_id=vehicle_id,
            **reported,
            **told,
            soc_timestamp=soc_timestamp and soc_timestamp.astimezone(UTC),
            charging=told[VEHICLES.energy.name] > 0 if is_online else None,
        )


def _state(row: Sequence[Any], now: datetime) -> dict[str, Any]:
    timestamp, received_at, cadence, status = row
    return {
        "timestamp": timestamp.astimezone(UTC),
        "received_at": received_at.astimezone(UTC),
        "age_seconds": max(0, (now - timestamp) // _SECOND),
        "cadence_seconds": cadence,
        "status": status,
    }
