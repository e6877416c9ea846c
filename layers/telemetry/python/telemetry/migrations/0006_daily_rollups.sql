-- Daily rollups, made ahead by telemetry.summaries: of each device up to summed_to of its live row. They
-- hold at every instant what the hourly ones say, because whoever makes or changes them holds the
-- lock of the live row: the store locks it before it writes, and readings up to summed_to come here.

-- A day's row is the sum of its hours. Null days, and those without hours, are left out.
CREATE FUNCTION sum_meter_days(meter_ids text[], days timestamptz[]) RETURNS void
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO meter_daily_rollup (meter_id, day, readings, minutes_heard, kwh_consumed_ac)
    SELECT hourly.meter_id, item.day, sum(hourly.readings),
           sum(bit_count(hourly.minutes::bit(64))), sum(hourly.kwh_consumed_ac)
    FROM (SELECT DISTINCT id, day FROM unnest(meter_ids, days) AS day (id, day)) AS item
    JOIN meter_hourly_rollup hourly ON hourly.meter_id = item.id
        AND hourly.hour >= item.day AND hourly.hour < item.day + interval '24 hours'
    GROUP BY hourly.meter_id, item.day
    ORDER BY hourly.meter_id, item.day
    ON CONFLICT (meter_id, day) DO UPDATE SET
        readings = excluded.readings, minutes_heard = excluded.minutes_heard,
        kwh_consumed_ac = excluded.kwh_consumed_ac;
END
$$;

-- After a write: of readings up to summed_to, sums the days anew and marks the summaries.
CREATE FUNCTION change_meter_summaries(meter_ids text[], timestamps timestamptz[]) RETURNS void
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    ids   text[];
    times timestamptz[];
    days  timestamptz[];  -- null where the day is not summed yet
BEGIN
    SELECT array_agg(item.id), array_agg(item.ts),
           array_agg(CASE WHEN item.ts <= day_of(summed_to) THEN day_of(rollup_hour(item.ts)) END)
    INTO ids, times, days
    FROM unnest(meter_ids, timestamps) AS item (id, ts)
    CROSS JOIN LATERAL (  -- LIMIT: whatever the plan was made for, one look-up each
        SELECT summed_to FROM meter_live_status live
        WHERE live.meter_id = item.id AND live.summed_to >= item.ts
        LIMIT 1
    ) AS live;
    IF ids IS NULL THEN
        RETURN;
    END IF;

    PERFORM sum_meter_days(ids, days);

    UPDATE vehicle_summary summary
    SET stale = true
    FROM (
        SELECT link.vehicle_id, item.ts
        FROM unnest(ids, times) AS item (id, ts)
        JOIN links link ON link.meter_id = item.id
        UNION
        SELECT 'VEH' || substring(item.id FROM '^(?:METER|MTR)([._:-].+)$'), item.ts
        FROM unnest(ids, times) AS item (id, ts)
    ) AS fed
    WHERE summary.vehicle_id = fed.vehicle_id AND NOT summary.stale
      AND summary.window_end >= fed.ts AND summary.window_end - interval '24 hours' < fed.ts;
END
$$;

-- Makes the daily rollups of these meters up to `until`, a whole hour, and keeps their live rows
-- locked until the transaction ends.
CREATE FUNCTION sum_meters(meter_ids text[], until timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
BEGIN
    PERFORM FROM meter_live_status WHERE meter_id = ANY (meter_ids) ORDER BY meter_id FOR UPDATE;

    PERFORM sum_meter_days(array_agg(meter_id), array_agg(day))
    FROM (
        SELECT DISTINCT live.meter_id, day_of(hour) AS day
        FROM meter_live_status live
        JOIN meter_hourly_rollup hourly ON hourly.meter_id = live.meter_id
            AND hour >= day_of(live.summed_to) AND hour < day_of(until)
        WHERE live.meter_id = ANY (meter_ids) AND live.summed_to < until
    ) AS unsummed;

    UPDATE meter_live_status SET summed_to = until
    WHERE meter_id = ANY (meter_ids) AND summed_to < until;
END
$$;

-- A day's row is the sum of its hours. Null days, and those without hours, are left out.
CREATE FUNCTION sum_vehicle_days(vehicle_ids text[], days timestamptz[]) RETURNS void
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO vehicle_daily_rollup (vehicle_id, day, readings, minutes_heard, kwh_delivered_dc, battery_temp_sum)
    SELECT hourly.vehicle_id, item.day, sum(hourly.readings),
           sum(bit_count(hourly.minutes::bit(64))), sum(hourly.kwh_delivered_dc), sum(hourly.battery_temp_sum)
    FROM (SELECT DISTINCT id, day FROM unnest(vehicle_ids, days) AS day (id, day)) AS item
    JOIN vehicle_hourly_rollup hourly ON hourly.vehicle_id = item.id
        AND hourly.hour >= item.day AND hourly.hour < item.day + interval '24 hours'
    GROUP BY hourly.vehicle_id, item.day
    ORDER BY hourly.vehicle_id, item.day
    ON CONFLICT (vehicle_id, day) DO UPDATE SET
        readings = excluded.readings, minutes_heard = excluded.minutes_heard,
        kwh_delivered_dc = excluded.kwh_delivered_dc, battery_temp_sum = excluded.battery_temp_sum;
END
$$;

-- After a write: of readings up to summed_to, sums the days anew and marks the summaries.
CREATE FUNCTION change_vehicle_summaries(vehicle_ids text[], timestamps timestamptz[]) RETURNS void
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    ids   text[];
    times timestamptz[];
    days  timestamptz[];  -- null where the day is not summed yet
BEGIN
    SELECT array_agg(item.id), array_agg(item.ts),
           array_agg(CASE WHEN item.ts <= day_of(summed_to) THEN day_of(rollup_hour(item.ts)) END)
    INTO ids, times, days
    FROM unnest(vehicle_ids, timestamps) AS item (id, ts)
    CROSS JOIN LATERAL (  -- LIMIT: whatever the plan was made for, one look-up each
        SELECT summed_to FROM vehicle_live_status live
        WHERE live.vehicle_id = item.id AND live.summed_to >= item.ts
        LIMIT 1
    ) AS live;
    IF ids IS NULL THEN
        RETURN;
    END IF;

    PERFORM sum_vehicle_days(ids, days);

    UPDATE vehicle_summary summary
    SET stale = true
    FROM unnest(ids, times) AS item (id, ts)
    WHERE summary.vehicle_id = item.id AND NOT summary.stale
      AND summary.window_end >= item.ts AND summary.window_end - interval '24 hours' < item.ts;
END
$$;

-- Makes the daily rollups of these vehicles up to `until`, a whole hour, and keeps their live rows
-- locked until the transaction ends.
CREATE FUNCTION sum_vehicles(vehicle_ids text[], until timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
BEGIN
    PERFORM FROM vehicle_live_status WHERE vehicle_id = ANY (vehicle_ids) ORDER BY vehicle_id FOR UPDATE;

    PERFORM sum_vehicle_days(array_agg(vehicle_id), array_agg(day))
    FROM (
        SELECT DISTINCT live.vehicle_id, day_of(hour) AS day
        FROM vehicle_live_status live
        JOIN vehicle_hourly_rollup hourly ON hourly.vehicle_id = live.vehicle_id
            AND hour >= day_of(live.summed_to) AND hour < day_of(until)
        WHERE live.vehicle_id = ANY (vehicle_ids) AND live.summed_to < until
    ) AS unsummed;

    UPDATE vehicle_live_status SET summed_to = until
    WHERE vehicle_id = ANY (vehicle_ids) AND summed_to < until;
END
$$;

REVOKE EXECUTE ON FUNCTION
    change_meter_summaries, change_vehicle_summaries, sum_meter_days, sum_vehicle_days, sum_meters,
    sum_vehicles
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    change_meter_summaries, change_vehicle_summaries, sum_meter_days, sum_vehicle_days, sum_meters,
    sum_vehicles
TO telemetry_maintain;
