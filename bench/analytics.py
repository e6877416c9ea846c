"""Reports beside a bare SELECT of one row by its key, over the same connection."""

import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from statistics import median

from bench.workload import PARTITION, START
from telemetry.database import Connection, Database, connect
from telemetry.fleet import FleetSelection, report_fleet
from telemetry.reports import report_dashboard, report_performance
from telemetry.rules import Rules
from telemetry.streams import STREAMS, Stream
from telemetry.summaries import refresh_summaries

VEHICLES, WITH_HISTORY, OTHERS = 10_000, 100, 5_000
DAYS, YEAR = 366, timedelta(hours=8784)
ROUNDS, CALLS = 5, 100
OFTEN = {"bare_select", "performance_24h", "performance_lossy"}
# Ragged at both ends.
END = START + timedelta(hours=30, minutes=23)
RULES = Rules()

_BARE = f"""
    SELECT vehicle_id, last_timestamp, {STREAMS["vehicle"].energy.live}, last_battery_temp
    FROM vehicle_live_status WHERE vehicle_id = %s
"""
_EXPLAINED = """
    EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
    SELECT report_charging(ARRAY['VEH_000001'], ARRAY[NULL::timestamptz], ARRAY[%s], '24 hours',
                           true, true, 1, 0.5)
"""
# A year of hours of the first vehicles and their meters, a day of all; readings of the first.
_FILL = """
    INSERT INTO {stream}_telemetry_history
        ("timestamp", received_at, {stream}_id, {values})
    SELECT at, at, '{prefix}_' || lpad(device::text, 6, '0'), 0.125, 25
    FROM generate_series(1, {with_history}) AS device,
         generate_series('{start}'::timestamptz, '{end}', '1 minute') AS at;
    INSERT INTO {stream}_hourly_rollup ({stream}_id, hour, readings, minutes, {sums})
    SELECT '{prefix}_' || lpad(device::text, 6, '0'), hour, minutes, (1::bigint << minutes) - 1,
           {totals}
    FROM generate_series(1, {vehicles}) AS device,
         generate_series(date_trunc('hour', '{first}'::timestamptz), '{end}', '1 hour') AS hour,
         LATERAL (
             SELECT least(60, extract(epoch FROM '{end}' - hour) / 60)::integer AS minutes
         ) AS heard
    WHERE device <= {with_history} OR hour >= '{start}';
    INSERT INTO {stream}_live_status ({stream}_id, last_timestamp, updated_at, {live})
    SELECT '{prefix}_' || lpad(device::text, 6, '0'), '{end}', '{end}', 0.125, 25
    FROM generate_series(1, {vehicles}) AS device;
"""
# One in a hundred readings of the last vehicle and its meter gets lost, each on its own.
_LOSE = """
    DELETE FROM {stream}_telemetry_history
    WHERE {stream}_id = %(device)s AND hashtext("timestamp"::text || {stream}_id) %% 100 = 0;
    UPDATE {stream}_hourly_rollup rollup
    SET readings = kept.readings, minutes = kept.minutes, {energy} = kept.kwh
    FROM (
        SELECT rollup_hour("timestamp") AS hour, count(*) AS readings, sum({kwh}) AS kwh,
               bit_or(minute_bit("timestamp", rollup_hour("timestamp"))) AS minutes
        FROM {stream}_telemetry_history WHERE {stream}_id = %(device)s GROUP BY 1
    ) AS kept
    WHERE rollup.{stream}_id = %(device)s AND rollup.hour = kept.hour
"""
_GROW = """
    SET synchronous_commit = off;
    INSERT INTO {partition} ("timestamp", received_at, voltage, meter_id, kwh_consumed_ac)
    SELECT at, at, 230, 'OTHER_' || lpad(device::text, 6, '0'), 0.125
    FROM generate_series(1, {others}) AS device,
         generate_series('{start}'::timestamptz, '{end}', '1 minute') AS at;
"""


def measure_analytics(url: str, read_url: str, say: Callable[[str], None]) -> dict[str, float]:
    """Return median times (ms) by name: of each report, and of the bare SELECT beside it.

    The database is empty; read_url is that of telemetry_read.
    """
    say(f"analytics: {VEHICLES:,} vehicles, a year of {WITH_HISTORY}")
    _fill(url)
    with connect(url) as connection:
        began = time.perf_counter()
        refresh_summaries(connection, END, RULES)
        connection.execute("VACUUM (ANALYZE)")
        measured = {"refresh_seconds": time.perf_counter() - began}
    reader = Database(read_url)
    vehicles = [f"VEH_{number:06}" for number in range(1, WITH_HISTORY + 1)]
    acts: dict[str, Callable[[], object]] = {
        "bare_select": lambda: reader.fetch(_BARE, (vehicles[0],)),
        "performance_24h": lambda: report_performance(reader, vehicles[0], RULES, END),
        "performance_lossy": lambda: report_performance(reader, vehicles[-1], RULES, END),
        "performance_year": lambda: report_performance(reader, vehicles[0], RULES, END, YEAR),
        "dashboard_100": lambda: report_dashboard(reader, vehicles, RULES, END),
        "fleet_10000": lambda: report_fleet(reader, RULES, FleetSelection(), END),
    }
    measured |= _time(acts, say) | {"performance_24h_buffers": _count_buffers(read_url)}
    say(f"analytics: a reading a minute of {OTHERS:,} other meters")
    with connect(url) as connection:
        grow = _GROW.format(partition=PARTITION, others=OTHERS, start=START, end=END)
        connection.execute(grow.encode())
        connection.execute(f"VACUUM (ANALYZE) {PARTITION}".encode())
    grown = _time({name: acts[name] for name in ("bare_select", "performance_24h")}, say)
    grown["performance_24h_buffers"] = _count_buffers(read_url)
    reader.close()
    return measured | {
        f"{name.removesuffix('_ms')}_grown" + "_ms" * name.endswith("_ms"): value
        for name, value in grown.items()
    }


def _count_buffers(read_url: str) -> int:
    """Return how many pages a vehicle's 24 hours touch, in a session that has asked before."""
    with connect(read_url) as connection:
        for _ in range(2):
            [(plan,)] = connection.execute(_EXPLAINED, (END,)).fetchall()
    found = plan[0]["Plan"]
    return int(found["Shared Hit Blocks"] + found["Shared Read Blocks"])


def _fill(url: str) -> None:
    kwh = "0.125 * minutes"
    kinds = (("meter", "MTR", kwh), ("vehicle", "VEH", f"{kwh}, 1500"))
    with connect(url) as connection:
        connection.execute("SET synchronous_commit = off")
        for stream, prefix, totals in kinds:
            summed = STREAMS[stream].summed
            shown = STREAMS[stream].always_shown
            connection.execute(
                _FILL.format(
                    stream=stream,
                    prefix=prefix,
                    values=", ".join(value.name for value in shown),
                    live=", ".join(value.live for value in shown),
                    totals=totals,
                    sums=", ".join(value.sum for value in summed),
                    vehicles=VEHICLES,
                    with_history=WITH_HISTORY,
                    first=END - timedelta(days=DAYS),
                    start=START,
                    end=END,
                ).encode()
            )
            _lose(connection, STREAMS[stream], f"{prefix}_{WITH_HISTORY:06}")


def _lose(connection: Connection, stream: Stream, device: str) -> None:
    for statement in _LOSE.format(
        stream=stream.name, energy=stream.energy.sum, kwh=stream.energy.name
    ).split(";"):
        connection.execute(statement.encode(), {"device": device})


def _time(acts: dict[str, Callable[[], object]], say: Callable[[str], None]) -> dict[str, float]:
    """Return the median time of each act (ms), over interleaved rounds."""
    times: dict[str, list[float]] = defaultdict(list)
    for number in range(ROUNDS + 1):
        say(f"analytics, round {number} of {ROUNDS}")
        for name, act in acts.items():
            for _ in range(CALLS if name in OFTEN else CALLS // 10):
                began = time.perf_counter()
                act()
                if number:
                    times[name].append((time.perf_counter() - began) * 1000)
    return {f"{name}_ms": median(values) for name, values in times.items()}
