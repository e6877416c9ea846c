-- What is made ahead of questions, by telemetry.summaries: daily rollups of each device up to
-- summed_to of its live row, and of each vehicle one row for the fleet's current window. Both hold
-- at every instant what the rollups say, because whoever makes or changes them holds the lock of the
-- live row: the store locks it before it writes, and readings up to summed_to come here.

-- How each vehicle did in the 24 hours up to window_end, a whole hour.
CREATE TABLE vehicle_summary (
    window_end       timestamptz NOT NULL,
    readings         bigint      NOT NULL,
    minutes_heard    bigint      NOT NULL,
    meter_minutes    bigint      NOT NULL,
    linked_minutes   bigint      NOT NULL,
    stale            boolean     NOT NULL DEFAULT false,
    vehicle_id       text        COLLATE "C" NOT NULL,
    kwh_delivered_dc numeric,
    battery_temp_sum numeric,
    kwh_consumed_ac  numeric,
    meter_ids        text[],
    PRIMARY KEY (vehicle_id, window_end)
);
COMMENT ON COLUMN vehicle_summary.stale IS
    'A reading or a link in the window came later: to be computed when asked for.';
COMMENT ON COLUMN vehicle_summary.linked_minutes IS
    'Minutes of the window in which a meter fed the vehicle; meter_minutes of them it was heard from.';

-- The windows for which every vehicle has its row: the current one, and the one before for whoever
-- is still turning its pages.
CREATE TABLE fleet_window (
    window_end timestamptz PRIMARY KEY
);


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

    INSERT INTO meter_daily_rollup (meter_id, day, readings, minutes_heard, kwh_consumed_ac)
    SELECT hourly.meter_id, changed.day, sum(hourly.readings),
           sum(bit_count(hourly.minutes::bit(64))), sum(hourly.kwh_consumed_ac)
    FROM (SELECT DISTINCT id, day FROM unnest(ids, days) AS item (id, day)) AS changed
    JOIN meter_hourly_rollup hourly ON hourly.meter_id = changed.id
        AND hourly.hour >= changed.day AND hourly.hour < changed.day + interval '24 hours'
    GROUP BY hourly.meter_id, changed.day
    ORDER BY hourly.meter_id, changed.day
    ON CONFLICT (meter_id, day) DO UPDATE SET
        readings = excluded.readings, minutes_heard = excluded.minutes_heard,
        kwh_consumed_ac = excluded.kwh_consumed_ac;

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

    INSERT INTO meter_daily_rollup (meter_id, day, readings, minutes_heard, kwh_consumed_ac)
    SELECT hourly.meter_id, day_of(hourly.hour), sum(hourly.readings),
           sum(bit_count(hourly.minutes::bit(64))), sum(hourly.kwh_consumed_ac)
    FROM meter_live_status live
    JOIN meter_hourly_rollup hourly ON hourly.meter_id = live.meter_id
        AND hourly.hour >= day_of(live.summed_to) AND hourly.hour < day_of(until)
    WHERE live.meter_id = ANY (meter_ids) AND live.summed_to < until
    GROUP BY hourly.meter_id, day_of(hourly.hour);

    UPDATE meter_live_status SET summed_to = until
    WHERE meter_id = ANY (meter_ids) AND summed_to < until;
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

    INSERT INTO vehicle_daily_rollup (vehicle_id, day, readings, minutes_heard, kwh_delivered_dc, battery_temp_sum)
    SELECT hourly.vehicle_id, changed.day, sum(hourly.readings),
           sum(bit_count(hourly.minutes::bit(64))), sum(hourly.kwh_delivered_dc), sum(hourly.battery_temp_sum)
    FROM (SELECT DISTINCT id, day FROM unnest(ids, days) AS item (id, day)) AS changed
    JOIN vehicle_hourly_rollup hourly ON hourly.vehicle_id = changed.id
        AND hourly.hour >= changed.day AND hourly.hour < changed.day + interval '24 hours'
    GROUP BY hourly.vehicle_id, changed.day
    ORDER BY hourly.vehicle_id, changed.day
    ON CONFLICT (vehicle_id, day) DO UPDATE SET
        readings = excluded.readings, minutes_heard = excluded.minutes_heard,
        kwh_delivered_dc = excluded.kwh_delivered_dc, battery_temp_sum = excluded.battery_temp_sum;

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

    INSERT INTO vehicle_daily_rollup (vehicle_id, day, readings, minutes_heard, kwh_delivered_dc, battery_temp_sum)
    SELECT hourly.vehicle_id, day_of(hourly.hour), sum(hourly.readings),
           sum(bit_count(hourly.minutes::bit(64))), sum(hourly.kwh_delivered_dc), sum(hourly.battery_temp_sum)
    FROM vehicle_live_status live
    JOIN vehicle_hourly_rollup hourly ON hourly.vehicle_id = live.vehicle_id
        AND hourly.hour >= day_of(live.summed_to) AND hourly.hour < day_of(until)
    WHERE live.vehicle_id = ANY (vehicle_ids) AND live.summed_to < until
    GROUP BY hourly.vehicle_id, day_of(hourly.hour);

    UPDATE vehicle_live_status SET summed_to = until
    WHERE vehicle_id = ANY (vehicle_ids) AND summed_to < until;
END
$$;

-- Writes the rows of these vehicles for the 24 hours up to window_end. The locks are taken in this
-- order: vehicles, links, meters.
CREATE FUNCTION summarize_vehicles(vehicle_ids text[], window_end timestamptz, by_name boolean)
RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    starts timestamptz[] := array_fill(window_end - interval '24 hours', ARRAY[cardinality(vehicle_ids)]);
    ends   timestamptz[] := array_fill(window_end, ARRAY[cardinality(vehicle_ids)]);
BEGIN
    PERFORM sum_vehicles(vehicle_ids, window_end);
    LOCK TABLE links IN SHARE MODE;
    PERFORM sum_meters(array_agg(DISTINCT meter_id), window_end)
    FROM vehicle_performance(vehicle_ids, starts, ends, NULL, by_name) AS done,
         unnest(done.meter_ids) AS meter_id;

    INSERT INTO vehicle_summary
    SELECT window_end, done.readings, done.minutes_heard, done.meter_minutes, done.linked_minutes,
           false, done.vehicle_id, done.kwh_delivered_dc, done.battery_temp_sum,
           done.kwh_consumed_ac, done.meter_ids
    FROM vehicle_performance(vehicle_ids, starts, ends, NULL, by_name) AS done
    ON CONFLICT ON CONSTRAINT vehicle_summary_pkey DO UPDATE SET
        readings = excluded.readings, minutes_heard = excluded.minutes_heard,
        meter_minutes = excluded.meter_minutes, linked_minutes = excluded.linked_minutes,
        stale = false, kwh_delivered_dc = excluded.kwh_delivered_dc,
        battery_temp_sum = excluded.battery_temp_sum, kwh_consumed_ac = excluded.kwh_consumed_ac,
        meter_ids = excluded.meter_ids;
END
$$;

-- Makes window_end the fleet's current window, when every vehicle has its row.
CREATE FUNCTION finish_fleet_window(until timestamptz) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO fleet_window VALUES (until) ON CONFLICT DO NOTHING;
    DELETE FROM fleet_window
    WHERE window_end < (SELECT window_end FROM fleet_window ORDER BY 1 DESC OFFSET 1 LIMIT 1);
    -- What a writer is marking just now goes the next time.
    DELETE FROM vehicle_summary
    WHERE (vehicle_id, window_end) IN (
        SELECT vehicle_id, window_end FROM vehicle_summary
        WHERE window_end < (SELECT min(window_end) FROM fleet_window)
        FOR UPDATE SKIP LOCKED
    );
END
$$;

-- Vehicles by the energy they lost, most first, those of which it is not known last (rank
-- '-Infinity'); and the fleet's totals. summarized: the rows made ahead, and what was marked since
-- computed; otherwise all of it is computed. after_rank and after_id are of the last row before.
CREATE FUNCTION report_fleet(
    window_start timestamptz, for_window_end timestamptz, summarized boolean, by_name boolean,
    least_kwh double precision, least_coverage double precision, of_status text,
    after_rank text, after_id text, most bigint
) RETURNS json LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    window_minutes constant numeric := extract(epoch FROM for_window_end - window_start) / 60;
    kwh            constant numeric := least_kwh;
    coverage       constant numeric := least_coverage;
    rank_before    constant numeric := after_rank;
    late           text[] := CASE WHEN summarized
        THEN array(SELECT vehicle_id FROM vehicle_summary
                   WHERE window_end = for_window_end AND stale)
        ELSE array(SELECT vehicle_id FROM vehicle_live_status) END;
    starts         timestamptz[] := array_fill(window_start, ARRAY[cardinality(late)]);
    ends           timestamptz[] := array_fill(for_window_end, ARRAY[cardinality(late)]);
BEGIN
    RETURN (
        WITH fleet AS (
            SELECT vehicle_id, kwh_consumed_ac, kwh_delivered_dc, readings, minutes_heard,
                   meter_minutes, linked_minutes, battery_temp_sum, meter_ids
            FROM vehicle_summary
            WHERE summarized AND window_end = for_window_end AND NOT stale
            UNION ALL
            SELECT vehicle_id, kwh_consumed_ac, kwh_delivered_dc, readings, minutes_heard,
                   meter_minutes, linked_minutes, battery_temp_sum, meter_ids
            FROM vehicle_performance(late, starts, ends, NULL, by_name)
            WHERE late != '{}'
        ), judged AS MATERIALIZED (
            SELECT *, kwh_consumed_ac - kwh_delivered_dc AS loss,
                   coalesce(kwh_consumed_ac - kwh_delivered_dc, '-Infinity') AS rank,
                   charging_status(kwh_consumed_ac, kwh_delivered_dc, minutes_heard,
                                   window_minutes, meter_minutes, linked_minutes, kwh, coverage)
                       AS status
            FROM fleet
        ), page AS (
            SELECT * FROM judged
            WHERE (of_status IS NULL OR status = of_status)
              AND (rank_before IS NULL OR rank < rank_before
                   OR rank = rank_before AND vehicle_id > after_id)
            ORDER BY rank DESC, vehicle_id
            LIMIT most
        )
        SELECT json_build_object(
            'page', (SELECT json_agg(page) FROM page),
            'totals', (
                SELECT json_build_object(
                    'vehicles', count(*),
                    'ac', sum(kwh_consumed_ac) FILTER (WHERE loss IS NOT NULL),
                    'dc', sum(kwh_delivered_dc) FILTER (WHERE loss IS NOT NULL),
                    'loss', sum(loss),
                    'healthy', count(*) FILTER (WHERE status = 'healthy'),
                    'degraded', count(*) FILTER (WHERE status = 'degraded'),
                    'fault', count(*) FILTER (WHERE status = 'fault'),
                    'implausible', count(*) FILTER (WHERE status = 'implausible'),
                    'insufficient', count(*) FILTER (WHERE status = 'insufficient'))
                FROM judged))
    );
END
$$;

-- A link that is made, moved or taken away changes what its vehicle consumed, that of any vehicle
-- that had the meter before or after, and of the one that was paired with the meter by its name.
CREATE FUNCTION mark_summaries_of_link() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    changed links := coalesce(NEW, OLD);
    meters  text[] := ARRAY[NEW.meter_id, OLD.meter_id];
BEGIN
    UPDATE vehicle_summary SET stale = true
    WHERE NOT stale AND vehicle_id IN (
        SELECT changed.vehicle_id
        UNION ALL
        SELECT vehicle_id FROM links WHERE meter_id = ANY (meters)
        UNION ALL
        SELECT 'VEH' || substring(meter_id FROM '^(?:METER|MTR)([._:-].+)$')
        FROM unnest(meters) AS meter_id
    );
    RETURN NULL;
END
$$;
CREATE TRIGGER links_change_summaries AFTER INSERT OR UPDATE OR DELETE ON links
    FOR EACH ROW EXECUTE FUNCTION mark_summaries_of_link();

REVOKE EXECUTE ON FUNCTION
    change_meter_summaries, change_vehicle_summaries, sum_meters, sum_vehicles, summarize_vehicles,
    finish_fleet_window, mark_summaries_of_link, report_fleet
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION report_fleet TO telemetry_read;
GRANT SELECT ON vehicle_summary, fleet_window TO telemetry_read;
