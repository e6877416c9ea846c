-- Daily rollups of both streams, made ahead by telemetry.summaries: of each device up to summed_to of its
-- live row. They hold at every instant what the hourly ones say, because whoever makes or changes them
-- holds the lock of the live row: the store locks it before it writes, and readings up to summed_to come
-- here.

-- Sums the days anew that these readings are of, each day's row from its hours, and takes those away that have
-- none; days that are not summed yet are left out. Returns the readings up to summed_to: summaries may have
-- them. Null where there is none.
CREATE OR REPLACE FUNCTION sum_{stream}_days(changed reading_key[]) RETURNS reading_key[]
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
        SELECT summed_to FROM {stream}_live_status live
        WHERE live.{device} = reading.device_id AND live.summed_to >= reading."timestamp"
        LIMIT 1
    ) AS live;
    IF days IS NOT NULL THEN
        WITH item AS (
            SELECT DISTINCT device_id, "timestamp" AS day FROM unnest(days)
        ), written AS (
            INSERT INTO {stream}_daily_rollup AS daily
                ({device}, day, readings, minutes_heard, seconds_heard, {sums},
                 battery_temps, -- of vehicles
                 kwh_estimated)
            SELECT hourly.{device}, item.day, sum(hourly.readings), floor(sum(heard) / 60),
                   CASE WHEN count(hourly.seconds) > 0 THEN sum(heard) END, {resummed hourly},
                   CASE WHEN count(battery_temps) > 0 THEN sum(coalesce(battery_temps, hourly.readings)) END, -- of vehicles
                   sum(hourly.kwh_estimated)
            FROM item
            JOIN {stream}_hourly_rollup hourly ON hourly.{device} = item.device_id
                AND hourly.hour >= item.day AND hourly.hour < item.day + interval '24 hours'
            CROSS JOIN LATERAL heard_seconds(minutes, covered, seconds) AS heard
            GROUP BY hourly.{device}, item.day
            ORDER BY hourly.{device}, item.day
            ON CONFLICT ({device}, day) DO UPDATE SET
                readings = excluded.readings, minutes_heard = excluded.minutes_heard,
                seconds_heard = excluded.seconds_heard, kwh_estimated = excluded.kwh_estimated,
                battery_temps = excluded.battery_temps, -- of vehicles
                {replaced}
            RETURNING {device}, day
        )
        DELETE FROM {stream}_daily_rollup empty
        USING item
        WHERE empty.{device} = item.device_id AND empty.day = item.day
          AND NOT EXISTS (SELECT FROM written
                          WHERE written.{device} = item.device_id AND written.day = item.day);
    END IF;
    RETURN summed;
END
$$;

-- Makes the daily rollups of these devices up to `until`, a whole hour, and keeps their live rows locked
-- until the transaction ends.
CREATE OR REPLACE FUNCTION sum_{stream}s(ids text[], until timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    unsummed reading_key[];
BEGIN
    PERFORM FROM {stream}_live_status WHERE {device} = ANY (ids) ORDER BY {device} FOR UPDATE;

    unsummed := ARRAY(
        SELECT DISTINCT ROW(live.{device}, day_of(hour) + interval '24 hours')::reading_key
        FROM {stream}_live_status live
        JOIN {stream}_hourly_rollup hourly ON hourly.{device} = live.{device}
            AND hour >= day_of(live.summed_to) AND hour < day_of(until)
        WHERE live.{device} = ANY (ids) AND live.summed_to < until);
    UPDATE {stream}_live_status SET summed_to = until
    WHERE {device} = ANY (ids) AND summed_to < until;
    PERFORM sum_{stream}_days(unsummed);
END
$$;

GRANT EXECUTE ON FUNCTION sum_{stream}_days, sum_{stream}s TO telemetry_maintain;
