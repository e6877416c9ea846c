"""Proves that what is derived is what history says: rollups, summaries, links, computed anew.
And that a voided reading is nowhere but beside history, with its guard in the live row, and an
erased one nowhere at all.

The computation shares nothing with the stored functions that maintain them. It reads all of
history: for an operator who wants to know, not for the path of a request.

What is archived is left out: up to the instant of archive_horizon, rollups are of readings that
history no longer has. Each was compared with its copy in the archive before it was dropped.
"""

from dataclasses import dataclass
from itertools import islice

import psycopg

from telemetry.cost_verification import COSTS, find_wrong_zones
from telemetry.database import Row
from telemetry.ground_verification import find_wrong_hours
from telemetry.rollup_verification import BETWEEN, DAYS, ROLLUPS, THERE, TIMES
from telemetry.streams import METERS, STREAMS, VEHICLES, Stream
from telemetry.zones import RELEASE

_ARCHIVED_TO = """coalesce(
            (SELECT archived_to FROM archive_horizon WHERE stream = '{stream}'), '-infinity')"""
_KEPT = f"""WHERE "timestamp" > {_ARCHIVED_TO}"""
_VEHICLES_KEPT = _KEPT.format(stream="vehicle")
_METERS_KEPT = _KEPT.format(stream="meter")

# Each statement returns (device, hour or null, what history says, what is stored) of the rows that
# differ; a row that one side lacks is null there.
_LIVE = """
    WITH expected AS (
        SELECT DISTINCT ON ({device}) {device} AS device,
               ROW("timestamp", received_at, {live_values})::text AS state
        FROM {history}
        WHERE "timestamp" > {archived_to}
        ORDER BY {device}, "timestamp" DESC, received_at DESC
    ), stored AS (
        SELECT {device} AS device,
               ROW(last_timestamp, updated_at, {live_columns})::text AS state
        FROM {live}
        WHERE last_timestamp > {archived_to}
    )
"""
_CHARGE = f"""
    WITH expected AS (
        SELECT DISTINCT ON (vehicle_id) vehicle_id AS device,
               ROW("timestamp", received_at, soc)::text AS state
        FROM vehicle_telemetry_history
        {_VEHICLES_KEPT} AND soc IS NOT NULL
        ORDER BY vehicle_id, "timestamp" DESC, received_at DESC
    ), stored AS (
        SELECT vehicle_id AS device, ROW(soc_timestamp, soc_received_at, soc)::text AS state
        FROM vehicle_live_status
        WHERE soc IS NOT NULL AND soc_timestamp > {_ARCHIVED_TO.format(stream="vehicle")}
    )
"""
_SUMMARIES = f"""
    WITH meter AS (
        SELECT DISTINCT ON (meter_id, "timestamp") meter_id, {TIMES}, {METERS.energy.name} AS kwh
        FROM meter_telemetry_history
        {_METERS_KEPT}
        ORDER BY meter_id, "timestamp", received_at DESC
    ), vehicle AS (
        SELECT DISTINCT ON (vehicle_id, "timestamp") vehicle_id, {TIMES},
               {VEHICLES.energy.name} AS kwh
        FROM vehicle_telemetry_history
        {_VEHICLES_KEPT}
        ORDER BY vehicle_id, "timestamp", received_at DESC
    ), fresh AS (
        SELECT vehicle_id, window_end, window_end - interval '24 hours' AS window_start,
               kwh_dc, kwh_ac, kwh_dc_linked, rank, meter_ids,
               kwh_ac_compared AS of_ac, kwh_dc_compared AS of_dc
        FROM vehicle_summary
        WHERE NOT stale
          AND window_end - interval '24 hours' >= (
              SELECT coalesce(max(archived_to), '-infinity') FROM archive_horizon)
    ), period AS (
        SELECT fresh.vehicle_id, window_end, link.meter_id,
               extract(epoch FROM greatest(valid_from, window_start)) AS opened,
               extract(epoch FROM least(valid_to, window_end)) AS closed
        FROM fresh JOIN link_periods link ON link.vehicle_id = fresh.vehicle_id
        WHERE meter_ids IS NOT NULL  -- of too many none counts
        UNION ALL
        SELECT fresh.vehicle_id, window_end, named,
               extract(epoch FROM window_start), extract(epoch FROM window_end)
        FROM fresh, unnest(meter_ids) AS named
        WHERE NOT EXISTS (SELECT FROM links WHERE links.vehicle_id = fresh.vehicle_id)
    ), delivered AS (
        SELECT vehicle_id, window_end, trim_scale(sum({BETWEEN})) AS kwh
        FROM (SELECT *, extract(epoch FROM window_start) AS opened,
                     extract(epoch FROM window_end) AS closed FROM fresh) AS span
        JOIN vehicle USING (vehicle_id)
        WHERE {THERE}
        GROUP BY 1, 2
    ), consumed AS (
        SELECT vehicle_id, window_end, trim_scale(sum({BETWEEN})) AS kwh
        FROM period JOIN meter USING (meter_id)
        WHERE opened < closed AND {THERE}
        GROUP BY 1, 2
    ), linked AS (
        SELECT vehicle_id, window_end, trim_scale(sum({BETWEEN})) AS kwh
        FROM period JOIN vehicle USING (vehicle_id)
        WHERE opened < closed AND {THERE}
        GROUP BY 1, 2
    ), expected AS (
        SELECT vehicle_id AS device, window_end AS hour,
               ROW(delivered.kwh, consumed.kwh,
                   CASE WHEN delivered.kwh IS NOT NULL THEN coalesce(linked.kwh, 0) END,
                   trim_scale(coalesce(CASE
                       WHEN of_ac != 0 OR of_dc != 0 OR consumed.kwh + coalesce(linked.kwh, 0) = 0
                       THEN of_dc - of_ac END, 'Infinity')),
                   (of_ac BETWEEN 0 AND consumed.kwh
                    AND of_dc BETWEEN 0 AND coalesce(linked.kwh, 0)) IS NOT FALSE
               )::text AS state
        FROM fresh
        LEFT JOIN delivered USING (vehicle_id, window_end)
        LEFT JOIN consumed USING (vehicle_id, window_end)
        LEFT JOIN linked USING (vehicle_id, window_end)
    ), stored AS (
        SELECT vehicle_id AS device, window_end AS hour,
               ROW(trim_scale(kwh_dc), trim_scale(kwh_ac), trim_scale(kwh_dc_linked),
                   trim_scale(rank), true)::text AS state
        FROM fresh
    )
"""
# Of a register counts what it is more than the one before, unless an event of it says otherwise. A
# rollover is taken as it is while another declaration, with another modulus, is about to change it.
_REGISTERS = """
    WITH counted AS (
        SELECT DISTINCT ON ({device}, "timestamp") {device} AS device, "timestamp" AS hour,
               register_kwh AS register, {energy} AS kwh, received_at
        FROM {history}
        WHERE "timestamp" > {archived_to}
        ORDER BY {device}, "timestamp", received_at DESC
    ), followed AS (
        SELECT *, lag(register) OVER (PARTITION BY device ORDER BY hour) AS previous,
               lag(hour) OVER (PARTITION BY device ORDER BY hour) IS NULL AS is_first
        FROM counted
    ), followed_event AS (
        SELECT DISTINCT ON (device, hour) followed.*, noted.event, register_modulus AS modulus,
               changed_after IS NOT NULL AS pending
        FROM followed
        LEFT JOIN devices ON devices.device_id = device
        LEFT JOIN device_declarations version
            ON version.device_id = device AND valid_from < followed.received_at
        LEFT JOIN register_events noted
            ON noted.device_id = device AND noted.stream = '{stream}' AND noted."timestamp" = hour
        ORDER BY device, hour, valid_from DESC
    ), expected AS (
        SELECT device, hour,
               ROW(trim_scale((CASE WHEN previous IS NULL OR event = 'jump' THEN 0
                                    WHEN event = 'reset' THEN register
                                    WHEN event = 'rollover' AND pending THEN kwh
                                    WHEN event = 'rollover' THEN register - previous + modulus
                                    ELSE register - previous END)::double precision::numeric)
               )::text AS state
        FROM followed_event
        WHERE register IS NOT NULL AND NOT is_first
    ), stored AS (
        SELECT device, hour, ROW(trim_scale(kwh))::text AS state FROM followed
        WHERE register IS NOT NULL AND NOT is_first
    )
"""
# What the rows of a fleet's window make up, by status.
_TOTALS = """
    WITH expected AS (
        SELECT status AS device, window_end AS hour,
               ROW(count(*), count(*) FILTER (WHERE rank < 'Infinity'), count(loss_cost),
                   count(loss_co2_kg), trim_scale(coalesce(sum(loss_cost), 0)),
                   trim_scale(coalesce(sum(loss_co2_kg), 0)),
                   trim_scale(coalesce(sum(kwh_ac) FILTER (WHERE rank < 'Infinity'), 0)),
                   trim_scale(coalesce(sum(kwh_dc) FILTER (WHERE rank < 'Infinity'), 0)),
                   trim_scale(coalesce(sum(kwh_ac_compared) FILTER (WHERE rank < 'Infinity'), 0)),
                   trim_scale(coalesce(sum(kwh_dc_compared) FILTER (WHERE rank < 'Infinity'), 0))
               )::text AS state
        FROM vehicle_summary JOIN fleet_window USING (window_end)
        GROUP BY 1, 2
    ), stored AS (
        SELECT status AS device, window_end AS hour,
               ROW(vehicles, known, cost_known, co2_known, trim_scale(loss_cost),
                   trim_scale(loss_co2_kg), trim_scale(kwh_ac),
                   trim_scale(kwh_dc), trim_scale(kwh_ac_compared),
                   trim_scale(kwh_dc_compared))::text AS state
        FROM fleet_totals
        WHERE (vehicles, known, kwh_ac, kwh_dc) != (0, 0, 0, 0)
    )
"""
_DIFFERENCES = """
    SELECT device, {hour}, expected.state, stored.state
    FROM expected FULL JOIN stored USING ({key})
    WHERE expected.state IS DISTINCT FROM stored.state
    ORDER BY 1, 2
    LIMIT %s
"""

# All claims, of the API and of the readings that count. A reading's is left out of links where the
# vehicle's claim before it and the meter's claim before it are one: it has the meter still. Those
# of archived readings are taken as they are.
_LINKS = f"""
    WITH counted AS (
        SELECT DISTINCT ON (vehicle_id, "timestamp") vehicle_id, meter_id, "timestamp" AS ended,
               "timestamp" - interval '1 second' * least(coalesce(seconds, 60), CASE
                   WHEN told_seconds IS NULL AND register_kwh IS NULL THEN 86400
                   ELSE 60 END)::double precision AS valid_from
        FROM vehicle_telemetry_history
        {_VEHICLES_KEPT}
        ORDER BY vehicle_id, "timestamp", received_at DESC
    ), claim AS (
        SELECT vehicle_id, valid_from, meter_id, source, true AS given FROM links
        WHERE source = 'api'
           OR valid_from < {_ARCHIVED_TO.format(stream="vehicle")}
        UNION ALL
        (SELECT DISTINCT ON (vehicle_id, valid_from)
               vehicle_id, valid_from, meter_id, 'reading', false
        FROM counted
        WHERE meter_id IS NOT NULL
          AND valid_from >= {_ARCHIVED_TO.format(stream="vehicle")}
          AND NOT EXISTS (
              SELECT FROM links
              WHERE (vehicle_id, valid_from, source)
                  = (counted.vehicle_id, counted.valid_from, 'api'))
        ORDER BY vehicle_id, valid_from, ended DESC)
    ), placed AS (
        SELECT *,
               lag(meter_id) OVER (PARTITION BY vehicle_id ORDER BY valid_from) AS meter_before,
               lag(vehicle_id) OVER (PARTITION BY meter_id ORDER BY valid_from, vehicle_id)
                   AS vehicle_before
        FROM claim
    ), expected AS (
        SELECT vehicle_id AS device, valid_from AS hour, ROW(meter_id, source)::text AS state
        FROM placed
        WHERE given
           OR (meter_before = meter_id AND vehicle_before = vehicle_id) IS NOT TRUE
    ), stored AS (
        SELECT vehicle_id AS device, valid_from AS hour, ROW(meter_id, source)::text AS state
        FROM links
    )
"""
# What no row of links can bring about.
_OVERLAPS = """
    SELECT {device}, valid_from::text, 'ends by ' || next_from, coalesce(valid_to::text, 'goes on')
    FROM (
        SELECT *, lead(valid_from) OVER (PARTITION BY {device} ORDER BY valid_from) AS next_from
        FROM link_periods
    ) AS period
    WHERE valid_to > next_from IS NOT FALSE AND next_from IS NOT NULL
    ORDER BY 1, 2
    LIMIT %s
"""

# A reading is in history or beside it; voided_to of its live row keeps one that is sent again out.
# A void that does not stand needs no guard: its reading counts as any other, or there is none.
_VOIDS = """
    SELECT {device}, "timestamp"::text, expected, stored
    FROM (
        SELECT {device}, "timestamp", 'voided' AS expected, 'in history' AS stored
        FROM {stream}_void JOIN {history} USING ({device}, "timestamp")
        WHERE withdrawn_at IS NULL AND NOT pending
        UNION
        SELECT {device}, "timestamp", 'voided', 'waits to be counted'
        FROM {stream}_void JOIN {stream}_pending USING ({device}, "timestamp")
        WHERE withdrawn_at IS NULL AND NOT pending
        UNION
        SELECT {device}, "timestamp", 'counts', 'set aside'
        FROM {stream}_void_receipt receipt
        WHERE NOT EXISTS (
            SELECT FROM {stream}_void void
            WHERE (void.{device}, void."timestamp") = (receipt.{device}, receipt."timestamp")
              AND withdrawn_at IS NULL AND NOT pending)
        UNION
        SELECT {device}, "timestamp", 'guarded', 'up to ' || voided_to
        FROM {stream}_void JOIN {live} USING ({device})
        WHERE "timestamp" > voided_to AND withdrawn_at IS NULL AND NOT pending
    ) AS wrong
    ORDER BY 1, 2
    LIMIT %s
"""

# Nothing is left of what was accepted of a device before it was erased.
_UNERASED = """
    SELECT device_id, NULL::text, 'erased', 'accepted before ' || asked_at
    FROM list_unerased('{stream}')
    ORDER BY 1
    LIMIT %s
"""


def _names(stream: Stream) -> dict[str, str]:
    temperature = next((value for value in stream.summed if value != stream.energy), None)
    return {
        "stream": stream.name,
        "device": stream.device,
        "archived_to": _ARCHIVED_TO.format(stream=stream.name),
        "energy": stream.energy.name,
        "history": stream.history,
        "live": stream.live,
        "live_values": ", ".join(value.name for value in stream.shown),
        "live_columns": ", ".join(value.live for value in stream.shown),
        "rollup": f"{stream.name}_hourly_rollup",
        "days": f"{stream.name}_daily_rollup",
        "temperature": temperature.name if temperature else "NULL::numeric",
        "expected_temperature": "trim_scale(temperature), temperatures" if temperature else "NULL",
        "stored_temperature": (
            f"trim_scale({temperature.sum}), coalesce(battery_temps, readings)"
            if temperature
            else "NULL"
        ),
    }


@dataclass(frozen=True)
class Difference:
    """A row that is not what history says; None stands for a row that is not there.

    hour is that of a rollup; of a link, where it begins; of history, the time of a register's
    reading, and of a void, that of its reading. Of fleet_totals, device is a status; of zone_offset
    it is a time zone.
    """

    table: str
    device: str
    hour: str | None
    expected: str | None
    stored: str | None


def find_differences(connection: psycopg.Connection[Row], most: int = 100) -> list[Difference]:
    """Compare every derived row with history; return at most `most` per table."""
    by_hour = _DIFFERENCES.format(hour="hour::text", key="device, hour")
    by_device = _DIFFERENCES.format(hour="NULL::text", key="device")
    statements = [("vehicle_live_status", _CHARGE + by_device), ("links", _LINKS + by_hour)]
    for stream in map(_names, STREAMS.values()):
        statements.append((stream["live"], _LIVE.format(**stream) + by_device))
        statements.append((stream["rollup"], ROLLUPS.format(**stream) + by_hour))
        statements.append(("link_periods", _OVERLAPS.format(**stream)))
        statements.append((f"{stream['stream']}_void", _VOIDS.format(**stream)))
        statements.append((stream["history"], _UNERASED.format(**stream)))
        statements.append((stream["days"], DAYS.format(**stream) + by_hour))
        statements.append((stream["history"], _REGISTERS.format(**stream) + by_hour))
    statements.append(("vehicle_summary", _SUMMARIES + by_hour))
    statements.append(("vehicle_summary", COSTS + by_hour))
    statements.append(("fleet_totals", _TOTALS + by_hour))
    with connection.transaction():
        # One snapshot for all: a write between two statements is no difference.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        found = [
            Difference(table, *row)
            for table, statement in statements
            for row in connection.execute(statement.encode(), (most,))
        ]
        found += [
            Difference("common_hour", *row) for row in islice(find_wrong_hours(connection), most)
        ]
        found += [
            Difference("zone_offset", zone, None, f"as in {RELEASE}", "other offsets")
            for zone in find_wrong_zones(connection)
        ]
    return found
