-- Begins a window, or begins it anew by other rules.
CREATE OR REPLACE FUNCTION begin_fleet_window(
    until timestamptz, by_name boolean, least_kwh double precision, least_coverage double precision
) RETURNS void LANGUAGE sql
SET search_path = public, pg_temp AS $$
    INSERT INTO fleet_window (window_end, by_name, least_kwh, least_coverage)
    VALUES (until, by_name, least_kwh, least_coverage)
    ON CONFLICT (window_end) DO UPDATE SET
        finished = false, by_name = excluded.by_name, least_kwh = excluded.least_kwh,
        least_coverage = excluded.least_coverage
    WHERE (fleet_window.by_name, fleet_window.least_kwh, fleet_window.least_coverage)
          != (excluded.by_name, excluded.least_kwh, excluded.least_coverage)
$$;

-- Adds what these vehicles' rows say to the window's totals, or takes it away.
CREATE OR REPLACE FUNCTION count_summaries(vehicle_ids text[], of_window_end timestamptz, sign integer)
RETURNS void LANGUAGE sql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
    INSERT INTO fleet_totals AS totals
        (window_end, vehicles, known, cost_known, co2_known, status, kwh_ac, kwh_dc,
         loss_cost, loss_co2_kg, kwh_ac_compared, kwh_dc_compared)
    SELECT of_window_end, sign * count(*), sign * count(*) FILTER (WHERE rank < 'Infinity'),
           sign * count(loss_cost), sign * count(loss_co2_kg), status,
           sign * coalesce(sum(kwh_ac) FILTER (WHERE rank < 'Infinity'), 0),
           sign * coalesce(sum(kwh_dc) FILTER (WHERE rank < 'Infinity'), 0),
           sign * coalesce(sum(loss_cost), 0), sign * coalesce(sum(loss_co2_kg), 0),
           sign * coalesce(sum(kwh_ac_compared) FILTER (WHERE rank < 'Infinity'), 0),
           sign * coalesce(sum(kwh_dc_compared) FILTER (WHERE rank < 'Infinity'), 0)
    FROM vehicle_summary
    WHERE vehicle_id = ANY (vehicle_ids) AND window_end = of_window_end
    GROUP BY status
    ON CONFLICT (window_end, status) DO UPDATE SET
        vehicles = totals.vehicles + excluded.vehicles, known = totals.known + excluded.known,
        cost_known = totals.cost_known + excluded.cost_known,
        co2_known = totals.co2_known + excluded.co2_known,
        kwh_ac = totals.kwh_ac + excluded.kwh_ac,
        kwh_dc = totals.kwh_dc + excluded.kwh_dc,
        loss_cost = totals.loss_cost + excluded.loss_cost,
        loss_co2_kg = totals.loss_co2_kg + excluded.loss_co2_kg,
        kwh_ac_compared = totals.kwh_ac_compared + excluded.kwh_ac_compared,
        kwh_dc_compared = totals.kwh_dc_compared + excluded.kwh_dc_compared
$$;

-- Writes the rows of these vehicles for a window that was begun, by its rules. The locks are taken in
-- this order: window, vehicles, links, meters. Returns false where the window was begun anew by other
-- rules: then whoever did makes it.
CREATE OR REPLACE FUNCTION summarize_vehicles(
    vehicle_ids text[], window_end timestamptz,
    by_name boolean, least_kwh double precision, least_coverage double precision
) RETURNS boolean LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    starts timestamptz[] := array_fill(window_end - interval '24 hours', ARRAY[cardinality(vehicle_ids)]);
    ends   timestamptz[] := array_fill(window_end, ARRAY[cardinality(vehicle_ids)]);
BEGIN
    PERFORM FROM fleet_window fleet
    WHERE fleet.window_end = window_end
      AND (fleet.by_name, fleet.least_kwh, fleet.least_coverage)
          = (by_name, least_kwh::numeric, least_coverage::numeric)
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM sum_vehicles(vehicle_ids, window_end);
    LOCK TABLE links IN SHARE MODE;
    PERFORM keep_ground(vehicle_ids, window_end - interval '24 hours', window_end, by_name);

    PERFORM count_summaries(vehicle_ids, window_end, -1);
    WITH done AS MATERIALIZED (
        SELECT *, energy_lost(kwh_ac_compared, kwh_dc_compared, kwh_ac, kwh_dc_linked) AS kwh_lost
        FROM vehicle_performance(vehicle_ids, starts, ends, NULL, by_name)
    )
    INSERT INTO vehicle_summary
    SELECT window_end, done.readings, done.minutes_heard, done.meter_minutes, done.linked_minutes,
           false, done.vehicle_id,
           charging_status(done.kwh_ac_compared, done.kwh_dc_compared, done.kwh_ac, done.kwh_dc_linked,
                           done.kwh_unsure, done.minutes_heard, 1440, done.meter_minutes, done.linked_minutes,
                           least_kwh::numeric, least_coverage::numeric),
           coalesce(-kwh_lost, 'Infinity'),
           coalesce(-loss_cost, 'Infinity'), done.kwh_dc, done.battery_temp_sum,
           done.kwh_ac, loss_cost, loss_co2_kg, done.meter_ids,
           done.kwh_ac_estimated, done.kwh_dc_estimated, done.battery_temps,
           done.compared_minutes, done.kwh_ac_compared, done.kwh_dc_compared, done.kwh_dc_linked, done.kwh_unsure
    FROM done
    LEFT JOIN loss_costs((
        SELECT array_agg(ROW(position, vehicle_id, window_start, done.window_end, meter_ids, valid_froms,
                             valid_tos, unmatched)::charged_window)
        FROM done WHERE kwh_lost IS NOT NULL)) AS cost USING (position)
    ON CONFLICT ON CONSTRAINT vehicle_summary_pkey DO UPDATE SET
        readings = excluded.readings, minutes_heard = excluded.minutes_heard,
        meter_minutes = excluded.meter_minutes, linked_minutes = excluded.linked_minutes,
        stale = false, status = excluded.status, rank = excluded.rank, cost_rank = excluded.cost_rank,
        kwh_dc = excluded.kwh_dc, battery_temp_sum = excluded.battery_temp_sum,
        kwh_ac = excluded.kwh_ac, loss_cost = excluded.loss_cost,
        loss_co2_kg = excluded.loss_co2_kg, meter_ids = excluded.meter_ids,
        kwh_ac_estimated = excluded.kwh_ac_estimated, kwh_dc_estimated = excluded.kwh_dc_estimated,
        battery_temps = excluded.battery_temps, compared_minutes = excluded.compared_minutes,
        kwh_ac_compared = excluded.kwh_ac_compared, kwh_dc_compared = excluded.kwh_dc_compared,
        kwh_dc_linked = excluded.kwh_dc_linked, kwh_unsure = excluded.kwh_unsure;
    PERFORM count_summaries(vehicle_ids, window_end, 1);
    RETURN true;
END
$$;

-- Makes a window the fleet's current one, when every vehicle has its row by its rules.
CREATE OR REPLACE FUNCTION finish_fleet_window(
    until timestamptz, by_name boolean, least_kwh double precision, least_coverage double precision
) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    UPDATE fleet_window fleet SET finished = true
    WHERE fleet.window_end = until
      AND (fleet.by_name, fleet.least_kwh, fleet.least_coverage)
          = (by_name, least_kwh::numeric, least_coverage::numeric);
    DELETE FROM fleet_window
    WHERE window_end < (SELECT window_end FROM fleet_window WHERE finished ORDER BY 1 DESC OFFSET 1 LIMIT 1);
    DELETE FROM fleet_totals WHERE window_end < (SELECT min(window_end) FROM fleet_window);
    -- What a writer is marking just now goes the next time.
    DELETE FROM vehicle_summary
    WHERE (vehicle_id, window_end) IN (
        SELECT vehicle_id, window_end FROM vehicle_summary
        WHERE window_end < (SELECT min(window_end) FROM fleet_window)
        FOR UPDATE SKIP LOCKED
    );
END
$$;

-- Vehicles by the energy they lost or by what that cost (sort: energy, cost; null is by cost where the
-- fleet has a tariff in the window), most first, those of which it is not known last; and the fleet's
-- totals. after_rank and after_id are of the last row before.
--
-- A window without an end is the newest that is summarized by these rules, or else ends at otherwise;
-- one without a start is so long. Of a summarized window `most` rows are read in their order, the
-- totals, and what was marked since, which is computed; of another, every vehicle is.
CREATE OR REPLACE FUNCTION report_fleet(
    asked_start timestamptz, asked_end timestamptz, length interval, otherwise timestamptz,
    by_name boolean, least_kwh double precision, least_coverage double precision,
    of_status text, asked_sort text, after_rank text, after_id text, most bigint
) RETURNS json LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    kwh          constant numeric := least_kwh;
    coverage     constant numeric := least_coverage;
    last_rank    constant numeric := coalesce(after_rank, '-Infinity');
    last_id      constant text := coalesce(after_id, '');
    newest       timestamptz;
    closed       timestamptz := asked_end;
    opened       timestamptz;
    summarized   boolean;
    by_cost      boolean;
    computed_ids text[];
    priced_in    constant text := (SELECT currency FROM tariff LIMIT 1);
BEGIN
    SELECT max(window_end), bool_or(window_end = asked_end IS NOT FALSE)
    INTO newest, summarized
    FROM fleet_window fleet
    WHERE finished AND (fleet.by_name, fleet.least_kwh, fleet.least_coverage)
                       = (report_fleet.by_name, kwh, coverage);
    closed := coalesce(asked_end, newest, otherwise);
    opened := coalesce(asked_start, closed - length);
    summarized := summarized IS TRUE AND closed - opened = interval '24 hours';
    by_cost := coalesce(asked_sort = 'cost', EXISTS (
        SELECT FROM tariff
        WHERE meter_id = '*' AND valid_from < closed AND valid_to > opened IS NOT FALSE));
    computed_ids := CASE WHEN summarized
        THEN array(SELECT vehicle_id FROM vehicle_summary WHERE window_end = closed AND stale)
        ELSE array(SELECT vehicle_id FROM vehicle_live_status) END;
    RETURN (
        WITH charging AS MATERIALIZED (
            SELECT *, energy_lost(kwh_ac_compared, kwh_dc_compared, kwh_ac, kwh_dc_linked) AS kwh_lost
            FROM vehicle_performance(
                computed_ids, array_fill(opened, ARRAY[cardinality(computed_ids)]),
                array_fill(closed, ARRAY[cardinality(computed_ids)]), NULL, by_name)
            WHERE computed_ids != '{}'
        ), computed AS MATERIALIZED (
            SELECT vehicle_id, kwh_ac, kwh_dc, readings, minutes_heard,
                   meter_minutes, linked_minutes, battery_temp_sum, battery_temps,
                   kwh_ac_estimated, kwh_dc_estimated, meter_ids, loss_cost, loss_co2_kg,
                   compared_minutes, kwh_ac_compared, kwh_dc_compared, kwh_dc_linked, kwh_lost,
                   coalesce(-CASE WHEN by_cost THEN loss_cost ELSE kwh_lost END, 'Infinity') AS rank,
                   charging_status(kwh_ac_compared, kwh_dc_compared, kwh_ac, kwh_dc_linked, kwh_unsure,
                                   minutes_heard, extract(epoch FROM closed - opened) / 60,
                                   meter_minutes, linked_minutes, kwh, coverage) AS status
            FROM charging
            LEFT JOIN (
                SELECT * FROM loss_costs((
                    SELECT array_agg(ROW(position, vehicle_id, window_start, window_end, meter_ids,
                                         valid_froms, valid_tos, unmatched)::charged_window)
                    FROM charging WHERE kwh_lost IS NOT NULL))
                WHERE priced_in IS NOT NULL
            ) AS cost USING (position)
        ), page AS (
            (SELECT vehicle_id, kwh_ac, kwh_dc, readings, minutes_heard,
                    meter_minutes, linked_minutes, battery_temp_sum,
                    coalesce(battery_temps, readings) AS battery_temps,
                    kwh_ac_estimated, kwh_dc_estimated, meter_ids, loss_cost, loss_co2_kg,
                    compared_minutes, kwh_ac_compared, kwh_dc_compared, kwh_dc_linked,
                    energy_lost(kwh_ac_compared, kwh_dc_compared, kwh_ac, kwh_dc_linked) AS kwh_lost,
                    rank, status
             FROM vehicle_summary
             WHERE summarized AND NOT by_cost
               AND window_end = closed AND NOT stale AND (rank, vehicle_id) > (last_rank, last_id)
               AND (of_status IS NULL OR status = of_status)
             ORDER BY rank, vehicle_id
             LIMIT most)
            UNION ALL
            (SELECT vehicle_id, kwh_ac, kwh_dc, readings, minutes_heard,
                    meter_minutes, linked_minutes, battery_temp_sum,
                    coalesce(battery_temps, readings) AS battery_temps,
                    kwh_ac_estimated, kwh_dc_estimated, meter_ids, loss_cost, loss_co2_kg,
                    compared_minutes, kwh_ac_compared, kwh_dc_compared, kwh_dc_linked,
                    energy_lost(kwh_ac_compared, kwh_dc_compared, kwh_ac, kwh_dc_linked),
                    cost_rank, status
             FROM vehicle_summary
             WHERE summarized AND by_cost
               AND window_end = closed AND NOT stale AND (cost_rank, vehicle_id) > (last_rank, last_id)
               AND (of_status IS NULL OR status = of_status)
             ORDER BY cost_rank, vehicle_id
             LIMIT most)
            UNION ALL
            SELECT vehicle_id, kwh_ac, kwh_dc, readings, minutes_heard,
                   meter_minutes, linked_minutes, battery_temp_sum, battery_temps,
                   kwh_ac_estimated, kwh_dc_estimated, meter_ids, loss_cost, loss_co2_kg,
                   compared_minutes, kwh_ac_compared, kwh_dc_compared, kwh_dc_linked, kwh_lost,
                   rank, status
            FROM computed
            WHERE (rank, vehicle_id) > (last_rank, last_id)
              AND (of_status IS NULL OR status = of_status)
            ORDER BY rank, vehicle_id
            LIMIT most
        ), totals AS (
            SELECT status, vehicles, known, cost_known, co2_known, kwh_ac, kwh_dc,
                   kwh_ac_compared, kwh_dc_compared, loss_cost, loss_co2_kg
            FROM fleet_totals
            WHERE summarized AND window_end = closed
            UNION ALL
            SELECT status, sign, sign * known, sign * (loss_cost IS NOT NULL)::integer,
                   sign * (loss_co2_kg IS NOT NULL)::integer, sign * known * kwh_ac,
                   sign * known * kwh_dc, sign * known * kwh_ac_compared, sign * known * kwh_dc_compared,
                   sign * loss_cost, sign * loss_co2_kg
            FROM (
                SELECT -1 AS sign, (rank < 'Infinity')::integer AS known, status, kwh_ac,
                       kwh_dc, kwh_ac_compared, kwh_dc_compared, loss_cost, loss_co2_kg
                FROM vehicle_summary
                WHERE summarized AND window_end = closed AND stale
                UNION ALL
                SELECT 1, (kwh_lost IS NOT NULL)::integer, status, kwh_ac, kwh_dc, kwh_ac_compared, kwh_dc_compared,
                       loss_cost, loss_co2_kg
                FROM computed
            ) AS changed
        )
        SELECT json_build_object(
            'window_start', opened,
            'window_end', closed,
            'sort', CASE WHEN by_cost THEN 'cost' ELSE 'energy' END,
            'currency', priced_in,
            'page', (SELECT json_agg(page) FROM page),
            'totals', (
                SELECT json_agg(by_status) FROM (
                    SELECT status, sum(vehicles) AS vehicles, sum(known) AS known,
                           sum(cost_known) AS cost_known, sum(co2_known) AS co2_known,
                           sum(kwh_ac) AS kwh_ac,
                           sum(kwh_dc) AS kwh_dc, sum(kwh_ac_compared) AS kwh_ac_compared,
                           sum(kwh_dc_compared) AS kwh_dc_compared,
                           sum(loss_cost) AS loss_cost, sum(loss_co2_kg) AS loss_co2_kg
                    FROM totals
                    GROUP BY status
                ) AS by_status))
    );
END
$$;

-- After a write of these readings, which sum_meter_days returned: marks the summaries of windows that they
-- are in, of the vehicles that the meters fed then or are named like.
CREATE OR REPLACE FUNCTION mark_meter_summaries(changed reading_key[]) RETURNS void
LANGUAGE plpgsql STRICT
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
BEGIN
    UPDATE vehicle_summary summary
    SET stale = true
    FROM (
        SELECT holder.vehicle_id, reading."timestamp" AS ts
        FROM unnest(changed) AS reading
        CROSS JOIN LATERAL holder_of(reading.device_id, reading."timestamp", '') AS holder
        UNION
        SELECT 'VEH' || substring(reading.device_id FROM '^(?:METER|MTR)([._:-].+)$'), reading."timestamp"
        FROM unnest(changed) AS reading
    ) AS fed
    WHERE summary.vehicle_id = fed.vehicle_id AND NOT summary.stale
      AND summary.window_end >= fed.ts AND summary.window_end - interval '24 hours' < fed.ts;
    PERFORM forget_meter_ground(changed);
END
$$;

-- The same of the vehicles' own readings.
CREATE OR REPLACE FUNCTION mark_vehicle_summaries(changed reading_key[]) RETURNS void
LANGUAGE plpgsql STRICT
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
BEGIN
    UPDATE vehicle_summary summary
    SET stale = true
    FROM unnest(changed) AS reading
    WHERE summary.vehicle_id = reading.device_id AND NOT summary.stale
      AND summary.window_end >= reading."timestamp"
      AND summary.window_end - interval '24 hours' < reading."timestamp";
    PERFORM forget_vehicle_ground(changed);
END
$$;

-- A link that is made, moved or taken away changes what its vehicle consumed, that of the vehicle which
-- had the meter before, and of the one that was paired with the meter by its name.
CREATE OR REPLACE FUNCTION mark_summaries_of_link() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    changed links := coalesce(NEW, OLD);
    meters  text[] := ARRAY[NEW.meter_id, OLD.meter_id];
BEGIN
    UPDATE vehicle_summary SET stale = true
    WHERE NOT stale AND vehicle_id = ANY (array(  -- one look-up each, whatever the plan was made for
        SELECT changed.vehicle_id
        UNION ALL
        SELECT holder.vehicle_id
        FROM unnest(meters) AS meter_id
        CROSS JOIN LATERAL holder_of(meter_id, changed.valid_from, changed.vehicle_id) AS holder
        UNION ALL
        SELECT 'VEH' || substring(meter_id FROM '^(?:METER|MTR)([._:-].+)$')
        FROM unnest(meters) AS meter_id
    ));
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER links_change_summaries AFTER INSERT OR UPDATE OR DELETE ON links
    FOR EACH ROW EXECUTE FUNCTION mark_summaries_of_link();

GRANT EXECUTE ON FUNCTION
    mark_meter_summaries, mark_vehicle_summaries, begin_fleet_window, count_summaries,
    summarize_vehicles, finish_fleet_window
TO telemetry_maintain;
GRANT EXECUTE ON FUNCTION report_fleet TO telemetry_read;
