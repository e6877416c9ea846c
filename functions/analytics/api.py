"""The read-only routes: how the service fares, how a vehicle charged, what devices reported."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from aws_lambda_powertools.event_handler import Response

from telemetry import __version__
from telemetry.access import Access
from telemetry.analytics_parameters import (
    AfterFault,
    AfterRank,
    AfterReceipt,
    Buckets,
    Charging,
    FleetEnd,
    Hours,
    OfBucket,
    OfChargingStatus,
    OfFaultKind,
    OfFaultState,
    OfSort,
    OfStatus,
    PerformanceEnd,
    TrendEnd,
    VehicleIds,
    WindowEnd,
    WindowStart,
    Zone,
)
from telemetry.answers import Service
from telemetry.charging import Dashboard, Performance
from telemetry.database import Database
from telemetry.errors import (
    DatabaseUnavailable,
    InvalidRequest,
    MeterNotFound,
    VehicleNotFound,
)
from telemetry.faults import Fault, Faults, FaultSelection, list_faults
from telemetry.fleet import Fleet, FleetSelection, FleetVehicle, report_fleet
from telemetry.health import Health, check_health
from telemetry.http import Event, build_handler, build_resolver, documents
from telemetry.invocation import answer_directly
from telemetry.live import (
    DeviceSelection,
    LiveDevices,
    Liveness,
    MeterState,
    MeterStates,
    VehicleState,
    VehicleStates,
)
from telemetry.observability import build_logger
from telemetry.parameters import AfterDevice, Limit, OfVehicle
from telemetry.paths import MeterId, VehicleId
from telemetry.receipts import (
    MeterReceipt,
    MeterReceipts,
    ReceiptSelection,
    VehicleReceipt,
    VehicleReceipts,
    list_meter_receipts,
    list_vehicle_receipts,
)
from telemetry.reports import report_dashboard, report_performance
from telemetry.rules import Rules
from telemetry.settings import Settings
from telemetry.tables import answer_table, documents_table
from telemetry.trends import Trend, TrendBucket, TrendSelection, report_trend

settings = Settings(os.environ)
logger = build_logger("analytics")
database = Database(settings.database_url, password=settings.database_password)
# Where there is a read replica, reports come from it: they may be a moment behind.
replica = (
    Database(settings.replica_database_url, password=settings.database_password)
    if settings.replica_database_url
    else database
)
rules = Rules.of(settings)
live = LiveDevices(database, Liveness(settings.online_for, settings.stale_for))
app = build_resolver(logger, enable_validation=True)


@app.get("/", summary="Which service this is", tags=["Service"], responses=documents(Service, 200))
def describe() -> Service:
    """Answer without asking the database."""
    return Service(version=__version__)


@app.get(
    "/health",
    summary="Whether the system can work",
    tags=["Service"],
    responses=documents(Health, 200) | documents(Health, 503),
)
def health() -> Response[Health]:
    """Answer 503 where the database cannot be reached, a migration or partitions are missing."""
    found = check_health(database, datetime.now(UTC))
    if found.status == "ok":
        return Response(200, "application/json", found)
    again = {"Retry-After": str(DatabaseUnavailable.retry_after)}
    return Response(503, "application/json", found, again)


@app.get(
    "/v1/analytics/performance",
    summary="How each of up to 100 vehicles charged",
    tags=["Analytics"],
    responses=documents(Dashboard, 200, InvalidRequest, DatabaseUnavailable),
)
def dashboard(vehicle_ids: VehicleIds, end: PerformanceEnd = None, hours: Hours = 24) -> Dashboard:
    """Report what the performance of each vehicle says, in one query."""
    return report_dashboard(replica, vehicle_ids, rules, end, timedelta(hours=hours))


@app.get(
    "/v1/analytics/performance/<vehicleId>",
    summary="How a vehicle charged",
    tags=["Analytics"],
    responses=documents(Performance, 200, InvalidRequest, VehicleNotFound, DatabaseUnavailable),
)
def performance(
    vehicle_id: VehicleId, end: PerformanceEnd = None, hours: Hours = 24
) -> Performance:
    """Report energy, efficiency, temperature, coverage and gaps over the hours up to `end`."""
    return report_performance(replica, vehicle_id, rules, end, timedelta(hours=hours))


@app.get(
    "/v1/analytics/fleet",
    summary="Which vehicles lose most energy, or money",
    tags=["Analytics"],
    responses=documents_table(Fleet, FleetVehicle, InvalidRequest, DatabaseUnavailable),
)
def fleet(
    *,
    status: OfChargingStatus = None,
    sort: OfSort = None,
    hours: Hours = 24,
    end: FleetEnd = None,
    limit: Limit = 100,
    after: AfterRank = None,
) -> Response[str]:
    """Rank vehicles by the energy lost between meter and battery, or its cost, with totals."""
    selection = FleetSelection(timedelta(hours=hours), end, status, limit, after, sort)
    page = report_fleet(replica, rules, selection, datetime.now(UTC))
    return answer_table(app, page, FleetVehicle, page.items, page.next_cursor)


@app.get(
    "/v1/analytics/faults",
    summary="Which chargers fail, and which did",
    tags=["Analytics"],
    responses=documents_table(Faults, Fault, InvalidRequest, DatabaseUnavailable),
)
def faults(
    *,
    state: OfFaultState = None,
    kind: OfFaultKind = None,
    vehicle_id: OfVehicle = None,
    limit: Limit = 100,
    after: AfterFault = None,
) -> Response[str]:
    """List faults of chargers with their history, those opened last first. JSON or CSV."""
    page = list_faults(
        database, FaultSelection(state, vehicle_id, limit, after, kind or "efficiency")
    )
    return answer_table(app, page, Fault, page.items, page.next_cursor)


@app.get(
    "/v1/analytics/vehicles/<vehicleId>/trend",
    summary="How a vehicle charged, hour by hour or day by day",
    tags=["Analytics"],
    responses=documents_table(
        Trend, TrendBucket, InvalidRequest, VehicleNotFound, DatabaseUnavailable
    ),
)
def trend(
    vehicle_id: VehicleId,
    *,
    bucket: OfBucket = "hour",
    buckets: Buckets = None,
    end: TrendEnd = None,
    zone: Zone = None,
) -> Response[str]:
    """Report consecutive hours or days, which are those of the time zone. JSON or CSV."""
    selection = TrendSelection(bucket, buckets, end, zone or UTC)
    found = report_trend(replica, vehicle_id, rules, selection)
    return answer_table(app, found, TrendBucket, found.items, None)


@app.get(
    "/v1/live/meters",
    summary="What meters reported last, page by page",
    tags=["Live"],
    responses=documents(MeterStates, 200, InvalidRequest, DatabaseUnavailable),
)
def list_meters(
    status: OfStatus = None, limit: Limit = 100, after: AfterDevice = None
) -> MeterStates:
    """List meters in the order of their ids, of one status or of any."""
    return live.list_meters(DeviceSelection(status, after, limit), datetime.now(UTC))


@app.get(
    "/v1/live/meters/<meterId>",
    summary="What a meter reported last",
    tags=["Live"],
    responses=documents(MeterState, 200, InvalidRequest, MeterNotFound, DatabaseUnavailable),
)
def find_meter(meter_id: MeterId) -> MeterState:
    """Tell a meter's newest reading and whether it still reports."""
    return live.find_meter(meter_id, datetime.now(UTC))


@app.get(
    "/v1/live/vehicles",
    summary="What vehicles reported last, page by page",
    tags=["Live"],
    responses=documents(VehicleStates, 200, InvalidRequest, DatabaseUnavailable),
)
def list_vehicles(
    status: OfStatus = None,
    charging: Charging = None,
    limit: Limit = 100,
    after: AfterDevice = None,
) -> VehicleStates:
    """List vehicles in the order of their ids, of one status, charging or not, or any."""
    selection = DeviceSelection(status, after, limit)
    return live.list_vehicles(selection, datetime.now(UTC), charging)


@app.get(
    "/v1/live/vehicles/<vehicleId>",
    summary="What a vehicle reported last",
    tags=["Live"],
    responses=documents(VehicleState, 200, InvalidRequest, VehicleNotFound, DatabaseUnavailable),
)
def find_vehicle(vehicle_id: VehicleId) -> VehicleState:
    """Tell a vehicle's newest reading, whether it still reports, and whether it charges."""
    return live.find_vehicle(vehicle_id, datetime.now(UTC))


@app.get(
    "/v1/meters/<meterId>/readings",
    summary="Every receipt of a meter's readings, page by page",
    tags=["Readings"],
    responses=documents_table(
        MeterReceipts, MeterReceipt, InvalidRequest, MeterNotFound, DatabaseUnavailable
    ),
)
def list_meter_readings(
    meter_id: MeterId,
    *,
    start: WindowStart = None,
    end: WindowEnd = None,
    limit: Limit = 100,
    after: AfterReceipt = None,
    zone: Zone = None,
) -> Response[str]:
    """List what was received of a meter, by device time: the audit trail. JSON or CSV."""
    selection = ReceiptSelection(start, end, after, limit, zone or UTC)
    page = list_meter_receipts(database, meter_id, selection)
    return answer_table(app, page, MeterReceipt, page.items, page.next_cursor)


@app.get(
    "/v1/vehicles/<vehicleId>/readings",
    summary="Every receipt of a vehicle's readings, page by page",
    tags=["Readings"],
    responses=documents_table(
        VehicleReceipts, VehicleReceipt, InvalidRequest, VehicleNotFound, DatabaseUnavailable
    ),
)
def list_vehicle_readings(
    vehicle_id: VehicleId,
    *,
    start: WindowStart = None,
    end: WindowEnd = None,
    limit: Limit = 100,
    after: AfterReceipt = None,
    zone: Zone = None,
) -> Response[str]:
    """List what was received of a vehicle, by device time: the audit trail. JSON or CSV."""
    selection = ReceiptSelection(start, end, after, limit, zone or UTC)
    page = list_vehicle_receipts(database, vehicle_id, selection)
    return answer_table(app, page, VehicleReceipt, page.items, page.next_cursor)


answer_http = build_handler(app, logger, Access(by_token=settings.by_token))


def handler(event: Event, context: Any) -> dict[str, Any]:
    """Answer the HTTP API, and questions that ops ask directly."""
    if "requestContext" in event:
        return answer_http(event, context)
    return answer_directly(answer_http, event, context)
