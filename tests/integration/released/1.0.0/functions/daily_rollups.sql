-- Daily rollups of both streams, made ahead by telemetry.summaries: of each device up to summed_to of its
-- live row. They hold at every instant what the hourly ones say, because whoever makes or changes them
-- holds the lock of the live row: the store locks it before it writes, and readings up to summed_to come
-- here.

-- Sums the days anew that these readings are of, each day's row from its hours; days that are not summed
-- yet, and those without hours, are left out. Returns the readings up to summed_to: summaries may have
-- them. Null where there is none.
CREATE OR REPLACE FUNCTION sum_meter_days(changed reading_key[]) RETURNS reading_key[]
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    summed reading_key[];
    days   reading_key[];
BEGIN
    SELECT array_agg(ROW(reading.device_id, reading."timestamp")::reading_key),
           array_agg(ROW(reading.device_id, day_of(rollup_hour(reading."timestamp")))::reading_key)
           FILTER (WHERE reading."timestamp" <= day_of(live.summed_to))
    INTO summed, days
    FROM unnest(changed) AS reading
    CROSS JOIN LATERAL (  -- LIMIT: whatever the plan was made for, one look-up each
        SELECT summed_to FROM meter_live_status live
        WHERE live.meter_id = reading.device_id AND live.summed_to >= reading."timestamp"
        LIMIT 1
    ) AS live;
    IF days IS NOT NULL THEN
        INSERT INTO meter_daily_rollup (meter_id, day, readings, minutes_heard, kwh_consumed_ac)
        SELECT hourly.meter_id, item.day, sum(hourly.readings),
               sum(bit_count(hourly.minutes::bit(64))), sum(hourly."kwh_consumed_ac")
        FROM (SELECT DISTINCT device_id, "timestamp" AS day FROM unnest(days)) AS item
        JOIN meter_hourly_rollup hourly ON hourly.meter_id = item.device_id
            AND hourly.hour >= item.day AND hourly.hour < item.day + interval '24 hours'
        GROUP BY hourly.meter_id, item.day
        ORDER BY hourly.meter_id, item.day
        ON CONFLICT (meter_id, day) DO UPDATE SET
            readings = excluded.readings, minutes_heard = excluded.minutes_heard, kwh_consumed_ac = excluded.kwh_consumed_ac;
    END IF;
    RETURN summed;
END
$$;

-- Makes the daily rollups of these devices up to `until`, a whole hour, and keeps their live rows locked
-- until the transaction ends.
CREATE OR REPLACE FUNCTION sum_meters(ids text[], until timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    unsummed reading_key[];
BEGIN
    PERFORM FROM meter_live_status WHERE meter_id = ANY (ids) ORDER BY meter_id FOR UPDATE;

    unsummed := ARRAY(
        SELECT DISTINCT ROW(live.meter_id, day_of(hour) + interval '24 hours')::reading_key
        FROM meter_live_status live
        JOIN meter_hourly_rollup hourly ON hourly.meter_id = live.meter_id
            AND hour >= day_of(live.summed_to) AND hour < day_of(until)
        WHERE live.meter_id = ANY (ids) AND live.summed_to < until);
    UPDATE meter_live_status SET summed_to = until
    WHERE meter_id = ANY (ids) AND summed_to < until;
    PERFORM sum_meter_days(unsummed);
END
$$;

GRANT EXECUTE ON FUNCTION sum_meter_days, sum_meters TO telemetry_maintain;
-- Daily rollups of both streams, made ahead by telemetry.summaries: of each device up to summed_to of its
-- live row. They hold at every instant what the hourly ones say, because whoever makes or changes them
-- holds the lock of the live row: the store locks it before it writes, and readings up to summed_to come
-- here.

-- Sums the days anew that these readings are of, each day's row from its hours; days that are not summed
-- yet, and those without hours, are left out. Returns the readings up to summed_to: summaries may have
-- them. Null where there is none.
CREATE OR REPLACE FUNCTION sum_vehicle_days(changed reading_key[]) RETURNS reading_key[]
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    summed reading_key[];
    days   reading_key[];
BEGIN
    SELECT array_agg(ROW(reading.device_id, reading."timestamp")::reading_key),
           array_agg(ROW(reading.device_id, day_of(rollup_hour(reading."timestamp")))::reading_key)
           FILTER (WHERE reading."timestamp" <= day_of(live.summed_to))
    INTO summed, days
    FROM unnest(changed) AS reading
    CROSS JOIN LATERAL (  -- LIMIT: whatever the plan was made for, one look-up each
        SELECT summed_to FROM vehicle_live_status live
        WHERE live.vehicle_id = reading.device_id AND live.summed_to >= reading."timestamp"
        LIMIT 1
    ) AS live;
    IF days IS NOT NULL THEN
        INSERT INTO vehicle_daily_rollup (vehicle_id, day, readings, minutes_heard, kwh_delivered_dc, battery_temp_sum)
        SELECT hourly.vehicle_id, item.day, sum(hourly.readings),
               sum(bit_count(hourly.minutes::bit(64))), sum(hourly."kwh_delivered_dc"), sum(hourly."battery_temp_sum")
        FROM (SELECT DISTINCT device_id, "timestamp" AS day FROM unnest(days)) AS item
        JOIN vehicle_hourly_rollup hourly ON hourly.vehicle_id = item.device_id
            AND hourly.hour >= item.day AND hourly.hour < item.day + interval '24 hours'
        GROUP BY hourly.vehicle_id, item.day
        ORDER BY hourly.vehicle_id, item.day
        ON CONFLICT (vehicle_id, day) DO UPDATE SET
            readings = excluded.readings, minutes_heard = excluded.minutes_heard, kwh_delivered_dc = excluded.kwh_delivered_dc, battery_temp_sum = excluded.battery_temp_sum;
    END IF;
    RETURN summed;
END
$$;

-- Makes the daily rollups of these devices up to `until`, a whole hour, and keeps their live rows locked
-- until the transaction ends.
CREATE OR REPLACE FUNCTION sum_vehicles(ids text[], until timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    unsummed reading_key[];
BEGIN
    PERFORM FROM vehicle_live_status WHERE vehicle_id = ANY (ids) ORDER BY vehicle_id FOR UPDATE;

    unsummed := ARRAY(
        SELECT DISTINCT ROW(live.vehicle_id, day_of(hour) + interval '24 hours')::reading_key
        FROM vehicle_live_status live
        JOIN vehicle_hourly_rollup hourly ON hourly.vehicle_id = live.vehicle_id
            AND hour >= day_of(live.summed_to) AND hour < day_of(until)
        WHERE live.vehicle_id = ANY (ids) AND live.summed_to < until);
    UPDATE vehicle_live_status SET summed_to = until
    WHERE vehicle_id = ANY (ids) AND summed_to < until;
    PERFORM sum_vehicle_days(unsummed);
END
$$;

GRANT EXECUTE ON FUNCTION sum_vehicle_days, sum_vehicles TO telemetry_maintain;
