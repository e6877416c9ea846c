"""What the energy lost in summarized windows cost, computed anew: a part of telemetry.verification.

Each reading that counts has the mean price of the four quarters of its hour, by the periods of the
tariff as they were sent; it shares nothing with the stored functions of tariffs.sql. Windows
that reach into what is archived are left out, and those of which a part only was compared.
"""

from datetime import UTC

import psycopg

from telemetry.database import Row
from telemetry.rollup_verification import BETWEEN, THERE, TIMES
from telemetry.streams import METERS, VEHICLES
from telemetry.zones import RELEASE, utc_offsets

COSTS = f"""
    WITH fresh AS (
        SELECT vehicle_id, window_end, window_end - interval '24 hours' AS window_start,
               loss_cost, loss_co2_kg, meter_ids
        FROM vehicle_summary
        WHERE NOT stale
          -- Wrapped, so that the plan reckons with many.
          AND coalesce(kwh_ac_compared = kwh_ac AND kwh_dc_compared = kwh_dc, false)
          AND coalesce(rank < 'Infinity', false)
          AND EXISTS (SELECT FROM tariff)
          AND window_end - interval '24 hours' >= (
              SELECT coalesce(max(archived_to), '-infinity') FROM archive_horizon)
    ), period AS (
        SELECT fresh.vehicle_id, window_end, link.meter_id,
               greatest(valid_from, window_start) AS opened,
               least(valid_to, window_end) AS closed
        FROM fresh JOIN link_periods link ON link.vehicle_id = fresh.vehicle_id
        UNION ALL
        SELECT fresh.vehicle_id, window_end, named, window_start, window_end
        FROM fresh, unnest(meter_ids) AS named
        WHERE NOT EXISTS (SELECT FROM links WHERE links.vehicle_id = fresh.vehicle_id)
    ), meter AS (
        SELECT DISTINCT ON (meter_id, "timestamp") meter_id, {TIMES},
               {METERS.energy.name} AS kwh
        FROM meter_telemetry_history
        WHERE "timestamp" > (SELECT min(window_start) FROM fresh)
        ORDER BY meter_id, "timestamp", received_at DESC
    ), vehicle AS (
        SELECT DISTINCT ON (vehicle_id, "timestamp") vehicle_id, {TIMES},
               {VEHICLES.energy.name} AS kwh
        FROM vehicle_telemetry_history
        WHERE "timestamp" > (SELECT min(window_start) FROM fresh)
        ORDER BY vehicle_id, "timestamp", received_at DESC
    ), stretch AS (  -- of a meter's link: an hour at most
        SELECT vehicle_id, window_end, meter_id, hour,
               greatest(extract(epoch FROM opened), hour) AS opened,
               least(extract(epoch FROM closed), hour + 3600) AS closed
        FROM period
        CROSS JOIN LATERAL generate_series(
            floor(extract(epoch FROM opened) / 3600) * 3600,
            extract(epoch FROM closed), 3600) AS hour
        WHERE opened < closed
    ), hours AS (
        SELECT stretch.vehicle_id, window_end, meter_id, to_timestamp(hour) AS hour,
               {BETWEEN} AS kwh
        FROM stretch JOIN meter USING (meter_id)
        WHERE {THERE}
        UNION ALL
        SELECT vehicle_id, window_end, meter_id, to_timestamp(hour), -{BETWEEN}
        FROM stretch JOIN vehicle USING (vehicle_id)
        WHERE {THERE}
    ), quarters AS (
        SELECT DISTINCT meter_id, hour, hour + number * interval '15 minutes' AS quarter
        FROM hours, generate_series(0, 3) AS number
    ), clock AS (
        SELECT *, lead(starts) OVER (PARTITION BY time_zone ORDER BY starts) AS stops
        FROM zone_offset
    ), version AS (
        SELECT *, least(valid_to, lead(valid_from) OVER (
                   PARTITION BY meter_id ORDER BY valid_from)) AS ends
        FROM tariff
    ), prices AS (
        SELECT quarters.meter_id, hour, quarter, version.meter_id != '*' AS own,
               coalesce((
                   SELECT (entry->>'pricePerKwh')::numeric
                   FROM jsonb_array_elements(periods) AS entry,
                        jsonb_array_elements_text(entry->'days') AS day,
                        to_char(local_time, 'HH24:MI') AS clock
                   WHERE day = to_char(local_time - CASE
                             WHEN entry->>'from' > entry->>'to' AND clock < entry->>'to'
                             THEN interval '1 day' ELSE '0' END, 'dy')
                     AND CASE WHEN entry->>'from' < entry->>'to'
                         THEN clock >= entry->>'from' AND clock < entry->>'to'
                         ELSE clock >= entry->>'from' OR clock < entry->>'to' END
               ), price_per_kwh) AS price, kg_co2_per_kwh AS co2
        FROM quarters
        JOIN version ON version.meter_id IN ('*', quarters.meter_id)
             AND valid_from <= quarter AND (ends > quarter) IS NOT FALSE
        JOIN clock ON clock.time_zone = version.time_zone
             AND starts <= quarter AND (stops > quarter) IS NOT FALSE
        CROSS JOIN LATERAL (SELECT quarter AT TIME ZONE 'UTC' + utc_offset) AS here (local_time)
    ), priced AS (
        SELECT meter_id, hour, quarter,
               coalesce(max(price) FILTER (WHERE own), max(price) FILTER (WHERE NOT own)) AS price,
               coalesce(max(co2) FILTER (WHERE own), max(co2) FILTER (WHERE NOT own)) AS co2
        FROM prices
        GROUP BY meter_id, hour, quarter
    ), mean AS (
        SELECT meter_id, hour, CASE WHEN count(price) = 4 THEN avg(price) END AS price,
               CASE WHEN count(co2) = 4 THEN avg(co2) END AS co2
        FROM priced
        GROUP BY meter_id, hour
    ), expected AS (
        SELECT vehicle_id AS device, window_end AS hour,
               ROW(round(CASE WHEN bool_and(price IS NOT NULL OR kwh = 0)
                   THEN coalesce(sum(kwh * price), 0) END, 9),
                   round(CASE WHEN bool_and(co2 IS NOT NULL OR kwh = 0)
                   THEN coalesce(sum(kwh * co2), 0) END, 9))::text AS state
        FROM hours
        LEFT JOIN mean ON mean.hour = hours.hour
             AND mean.meter_id IS NOT DISTINCT FROM hours.meter_id
        GROUP BY 1, 2
    ), stored AS (
        SELECT vehicle_id AS device, window_end AS hour,
               ROW(round(loss_cost, 9), round(loss_co2_kg, 9))::text AS state
        FROM fresh
    )
"""


def find_wrong_zones(connection: psycopg.Connection[Row]) -> list[str]:
    """Return the zones whose offsets are not those of the release that they are said to be of.

    Those of other releases than this version's are left out: /health tells of them.
    """
    kept = connection.execute(
        """SELECT time_zone, array_agg(starts ORDER BY starts),
                  array_agg(utc_offset ORDER BY starts)
           FROM zone_offset WHERE release = %s GROUP BY 1 ORDER BY 1""",
        (RELEASE,),
    )
    wrong = []
    for zone, starts, offsets in kept:
        # In UTC: in the session's own zone an hour that clocks repeat equals nothing.
        instants = [start.astimezone(UTC) for start in starts]
        if list(zip(instants, offsets, strict=True)) != utc_offsets(zone):
            wrong.append(zone)
    return wrong
