-- How vehicles charged in windows (start, end]: days from the daily rollups where there are any, hours
-- from the hourly ones, and the two ragged edges from history by a bounded index range. The cost
-- depends on the windows, never on the size of history.
--
-- One function takes many windows at once: a vehicle's day, a hundred vehicles of a dashboard and
-- the buckets of a trend are the same three statements. The roles that call it plan without
-- sequential scans and generically (migration 0001): a plan may have been made when a partition was empty,
-- and is kept. The bounds of all edges, as plain values, prune the partitions before a plan starts
-- instead of for each window.

-- OFFSET 0 keeps each expression to one place: merged into the caller's query they would be repeated
-- in every column that uses them, and be made ready at every call.
--
-- How a window is put together: history (window_start, first_hour], hours up to first_day, days up
-- to last_day, hours up to last_hour, history (last_hour, until]. Nothing is newer than the live
-- row's reading: from there on its last hour is as good as over, and the rest is empty.
CREATE OR REPLACE FUNCTION cut_window(
    window_start timestamptz, window_end timestamptz,
    last_timestamp timestamptz, summed_to timestamptz
) RETURNS TABLE (
    until timestamptz, first_hour timestamptz, first_day timestamptz, last_day timestamptz,
    last_hour timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT until, first_hour,
           CASE WHEN first_day < last_day THEN first_day ELSE last_hour END,
           CASE WHEN first_day < last_day THEN last_day ELSE last_hour END,
           last_hour
    FROM (
        SELECT *,
               day_of(first_hour + interval '1 day - 1 microsecond') AS first_day,
               day_of(least(last_hour, summed_to)) AS last_day
        FROM (
            SELECT ceil_hour(window_start) AS first_hour,
                   least(window_end, ceil_hour(last_timestamp)) AS until,
                   greatest(
                       ceil_hour(window_start),
                       CASE WHEN window_end >= last_timestamp THEN ceil_hour(last_timestamp)
                            ELSE date_bin('1 hour', window_end,
                                          timestamptz '2000-01-01 00:00:00+00') END
                   ) AS last_hour
            OFFSET 0
        ) AS hours
        OFFSET 0
    ) AS days
    OFFSET 0
$$;

-- The meters that fed a vehicle in a window, by its links that count. Where it was never linked and by_name is true,
-- its meter is the one whose id has the same separator and suffix, if exactly one such meter has reported and no link
-- names it. Inlined.
CREATE OR REPLACE FUNCTION meters_of(
    vehicle text, window_start timestamptz, window_end timestamptz, by_name boolean
) RETURNS TABLE (meter_id text, valid_from timestamptz, valid_to timestamptz, source text)
LANGUAGE sql STABLE AS $$
    SELECT meter_id, valid_from, valid_to, source FROM judged_links_of(vehicle, window_start, window_end)
    UNION ALL
    SELECT named.meter_id, NULL, NULL, 'name'
    FROM (
        SELECT min(meter.meter_id) AS meter_id
        FROM unnest(ARRAY['METER', 'MTR']) AS prefix
        CROSS JOIN LATERAL (
            SELECT meter_id FROM meter_live_status
            WHERE meter_id = prefix || substr(vehicle, 4) LIMIT 1
        ) AS meter
        HAVING count(*) = 1
    ) AS named
    WHERE by_name AND vehicle ~ '^VEH[._:-].'
      AND NOT EXISTS (SELECT FROM links WHERE links.vehicle_id = vehicle)
      AND NOT EXISTS (SELECT FROM links WHERE links.meter_id = named.meter_id)
$$;

-- What reached each vehicle's battery in its window, and what the meters that fed the vehicle
-- measured while they did. A window without an end ends at the vehicle's latest reading; one without
-- a start begins `length` before its end. Unknown vehicles have no row. A period of a link is open
-- at either side where its bound is null.
--
-- too_many_links: there are more than judged_links_of has, and none counts.
--
-- Compared is what common_ground.sql says; where both were heard all the time, and one meter fed the vehicle, that
-- is everything. kwh_dc_linked is of the time in which a meter fed the vehicle. unmatched is left out, by hour.
--
-- with_hours adds which minutes were heard from, as vehicle_heard_minutes has them: of the vehicle, and one such
-- list for each period of a link.
CREATE OR REPLACE FUNCTION vehicle_performance(
    vehicle_ids text[], starts timestamptz[], ends timestamptz[], length interval, by_name boolean,
    with_hours boolean DEFAULT false
) RETURNS TABLE (
    "position" bigint, vehicle_id text, window_start timestamptz, window_end timestamptz,
    readings bigint, minutes_heard bigint, kwh_dc numeric, kwh_dc_estimated numeric,
    battery_temp_sum numeric, battery_temps bigint,
    kwh_ac numeric, kwh_ac_estimated numeric, meter_minutes bigint, linked_minutes bigint,
    meter_ids text[], valid_froms timestamptz[], valid_tos timestamptz[], sources text[],
    kwhs numeric[], vehicle_hours json, meter_hours json, too_many_links boolean,
    compared_minutes bigint, kwh_ac_compared numeric, kwh_dc_compared numeric, kwh_dc_linked numeric,
    kwh_unsure numeric, unmatched unmatched_hour[]
) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    archived_to     constant timestamptz := (SELECT max(archived_to) FROM archive_horizon);
    windows charging_window[]; parts charging_window[];  -- of vehicles, and of the meters that fed them
    head_after timestamptz; head_until timestamptz; part_head_after timestamptz; part_head_until timestamptz;
    tail_after timestamptz; tail_until timestamptz; part_tail_after timestamptz; part_tail_until timestamptz;
BEGIN
    SELECT array_agg(ROW(w.position, w.id, opened, closed, until, first_hour, first_day, last_day,
                         last_hour, NULL, NULL, NULL, longest)::charging_window),
           min(opened), max(least(first_hour, until) + longest),
           min(last_hour) FILTER (WHERE last_hour < until), max(until + longest) FILTER (WHERE last_hour < until)
    INTO windows, head_after, head_until, tail_after, tail_until
    FROM unnest(vehicle_ids, starts, ends) WITH ORDINALITY
        AS w (id, window_start, window_end, position)
    -- LIMIT: whatever the plan was made for, one look-up each.
    CROSS JOIN LATERAL (
        SELECT last_timestamp, summed_to, reach_of(longest_seconds) AS longest
        FROM vehicle_live_status
        WHERE vehicle_id = w.id LIMIT 1
    ) AS live
    CROSS JOIN LATERAL (
        SELECT countable_from(coalesce(w.window_start, coalesce(w.window_end, last_timestamp) - length),
                              archived_to),
               countable_from(coalesce(w.window_end, last_timestamp), archived_to)
    ) AS bounds (opened, closed)
    CROSS JOIN LATERAL cut_window(opened, closed, last_timestamp, summed_to);

    SELECT array_agg(ROW(period.position, period.meter_id, opened, closed, until, first_hour,
                         first_day, last_day, last_hour, valid_from, valid_to, source, longest
                        )::charging_window),
           min(opened), max(least(first_hour, until) + longest),
           min(last_hour) FILTER (WHERE last_hour < until), max(until + longest) FILTER (WHERE last_hour < until)
    INTO parts, part_head_after, part_head_until, part_tail_after, part_tail_until
    FROM (
        SELECT w.position, w.window_start, w.window_end, fed.*
        FROM unnest(windows) AS w
        CROSS JOIN LATERAL meters_of(w.id, w.window_start, w.window_end, by_name) AS fed
        ORDER BY position, valid_from
    ) AS period
    CROSS JOIN LATERAL (
        SELECT countable_from(greatest(valid_from, window_start), archived_to),
               countable_from(least(valid_to, window_end), archived_to)
    ) AS bounds (opened, closed)
    LEFT JOIN LATERAL (
        SELECT last_timestamp, summed_to, reach_of(longest_seconds) AS longest
        FROM meter_live_status
        WHERE meter_id = period.meter_id LIMIT 1
    ) AS live ON true
    CROSS JOIN LATERAL cut_window(opened, closed, last_timestamp, summed_to);

    RETURN QUERY
    SELECT w.position, w.id, w.window_start, w.window_end,
           coalesce(dc.readings, 0), coalesce(dc.minutes_heard, 0), dc.kwh_dc, dc.kwh_estimated,
           dc.battery_temp_sum, dc.battery_temps, ac.kwh_ac, ac.kwh_estimated,
           coalesce(ac.minutes_heard, 0), coalesce(ac.linked_minutes, 0),
           ac.meter_ids, ac.valid_froms, ac.valid_tos, ac.sources, ac.kwhs,
           CASE WHEN with_hours THEN vehicle_heard_minutes(w.id, w.window_start, w.window_end) END,
           ac.hours,
           ac.position IS NULL AND EXISTS (SELECT FROM links_of(w.id, w.window_start, w.window_end)),
           coalesce(floor(compared.seconds / 60), 0)::bigint, ac.kwh_ac - compared.kwh_ac_unmatched,
           CASE WHEN dc.kwh_dc IS NOT NULL
                THEN coalesce(compared.kwh_dc_linked - compared.kwh_dc_unmatched, 0) END,
           CASE WHEN dc.kwh_dc IS NOT NULL THEN coalesce(compared.kwh_dc_linked, 0) END,
           compared.kwh_unsure, compared.unmatched
    FROM unnest(windows) AS w
    CROSS JOIN LATERAL (
        SELECT sum(part.readings)::bigint, floor(sum(part.seconds_heard) / 60)::bigint,
               sum(part.seconds_heard), sum(part.kwh_delivered_dc), sum(part.kwh_estimated),
               sum(part.battery_temp_sum), sum(part.battery_temps)::bigint
        FROM (
            SELECT * FROM vehicle_whole_hours(w.id, w.first_hour, w.first_day, w.last_day, w.last_hour)
            UNION ALL
            SELECT * FROM vehicle_edge(w.id, w.window_start, least(w.first_hour, w.until), head_after, head_until)
            UNION ALL
            SELECT * FROM vehicle_edge(w.id, w.last_hour, w.until, tail_after, tail_until)
        ) AS part
    ) AS dc (readings, minutes_heard, seconds_heard, kwh_dc, kwh_estimated, battery_temp_sum, battery_temps)
    LEFT JOIN (
        SELECT w.position,
               sum(energy.kwh) AS kwh_ac, sum(energy.kwh_estimated) AS kwh_estimated,
               floor(sum(energy.seconds_heard) / 60)::bigint AS minutes_heard,
               sum(energy.seconds_heard) AS seconds_heard,
               floor(sum(extract(epoch FROM w.window_end - w.window_start)) / 60)::bigint
                   AS linked_minutes,
               count(*) AS links, min(w.window_start) AS opened, max(w.window_end) AS closed,
               max(w.reach) AS reach, array_agg(w) AS parts,
               array_agg(w.id) AS meter_ids, array_agg(nullif(w.valid_from, '-infinity')) AS valid_froms,
               array_agg(nullif(w.valid_to, 'infinity')) AS valid_tos, array_agg(w.source) AS sources,
               array_agg(energy.kwh) AS kwhs, json_agg(energy.hours) AS hours
        FROM unnest(parts) AS w
        CROSS JOIN LATERAL (
            SELECT sum(part.seconds_heard), sum(part.kwh_consumed_ac), sum(part.kwh_estimated),
                   CASE WHEN with_hours THEN meter_heard_minutes(w.id, w.window_start, w.window_end) END
            FROM (
                SELECT * FROM meter_whole_hours(w.id, w.first_hour, w.first_day, w.last_day, w.last_hour)
                UNION ALL
                SELECT * FROM meter_edge(w.id, w.window_start, least(w.first_hour, w.until),
                                         part_head_after, part_head_until)
                UNION ALL
                SELECT * FROM meter_edge(w.id, w.last_hour, w.until, part_tail_after, part_tail_until)
            ) AS part
        ) AS energy (seconds_heard, kwh, kwh_estimated, hours)
        GROUP BY w.position
    ) AS ac ON ac.position = w.position
    CROSS JOIN LATERAL (
        SELECT coalesce(
            ac.links = 1 AND ac.opened = w.window_start AND ac.closed = w.window_end
            AND least(dc.seconds_heard, ac.seconds_heard) >= extract(epoch FROM w.window_end - w.window_start)
            AND greatest(w.reach, ac.reach) <= interval '2 minutes'
            AND coalesce(dc.kwh_estimated, ac.kwh_estimated) IS NULL, false)
    ) AS both_sides (is_complete)
    LEFT JOIN LATERAL (
        SELECT NULL::unmatched_hour[] AS unmatched, 0 AS kwh_ac_unmatched, 0 AS kwh_dc_unmatched,
               dc.kwh_dc AS kwh_dc_linked, 60 * ac.linked_minutes AS seconds, NULL AS kwh_unsure
        WHERE is_complete
        UNION ALL
        SELECT * FROM compare_sides(w.id, ac.parts, w.reach, coalesce(archived_to, '-infinity'))
        WHERE NOT is_complete AND ac.parts IS NOT NULL
    ) AS compared ON true;
END
$$;

-- A charger is told by the ratio of what the battery got to what the meter measured, of what was compared. It takes
-- evidence: at least so much energy (kWh); so large a part of either side's energy while they were linked, and of
-- the minutes heard from; and of the energy at most 2 % of which is not known on which side of a cut it flowed.
CREATE OR REPLACE FUNCTION charging_status(
    kwh_ac_compared numeric, kwh_dc_compared numeric, kwh_ac numeric, kwh_dc_linked numeric, kwh_unsure numeric,
    minutes_heard bigint, window_minutes numeric, meter_minutes bigint, linked_minutes bigint,
    least_kwh numeric, least_coverage numeric
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN kwh_ac_compared IS NULL OR kwh_dc_compared IS NULL
         OR kwh_ac_compared < least_kwh OR kwh_ac_compared = 0
         OR kwh_ac_compared < least_coverage * kwh_ac OR kwh_dc_compared < least_coverage * kwh_dc_linked
         OR kwh_unsure > 0.02 * kwh_ac_compared
         OR minutes_heard < least_coverage * window_minutes
         OR meter_minutes < least_coverage * linked_minutes THEN 'insufficient'
    WHEN kwh_dc_compared > kwh_ac_compared THEN 'implausible'
    WHEN kwh_dc_compared >= 0.88 * kwh_ac_compared THEN 'healthy'
    WHEN kwh_dc_compared >= 0.85 * kwh_ac_compared THEN 'degraded'
    ELSE 'fault'
END;

-- Energy lost (AC - DC) of what was compared: null where nothing was, though there is energy on either side.
CREATE OR REPLACE FUNCTION energy_lost(
    kwh_ac_compared numeric, kwh_dc_compared numeric, kwh_ac numeric, kwh_dc_linked numeric
) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN (kwh_ac_compared, kwh_dc_compared) != (0, 0) OR (kwh_ac, kwh_dc_linked) = (0, 0)
            THEN kwh_ac_compared - kwh_dc_compared END;

-- The rows of vehicle_performance with their status and, where there is a tariff, what the energy
-- lost cost, as one JSON array: a caller's statement is planned at every call, this one is not.
CREATE OR REPLACE FUNCTION report_charging(
    vehicle_ids text[], starts timestamptz[], ends timestamptz[], length interval, by_name boolean,
    with_hours boolean, least_kwh double precision, least_coverage double precision
) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    horizon   timestamptz;
    priced_in text;
BEGIN
    SELECT (SELECT max(archived_to) FROM archive_horizon), (SELECT currency FROM tariff LIMIT 1)
    INTO horizon, priced_in;
    IF priced_in IS NULL THEN  -- apart: joined to no prices, it takes a twentieth longer
        RETURN json_agg(charging ORDER BY position)
        FROM (
            SELECT *, charging_status(
                kwh_ac_compared, kwh_dc_compared, kwh_ac, kwh_dc_linked, kwh_unsure, minutes_heard,
                extract(epoch FROM window_end - window_start) / 60, meter_minutes, linked_minutes,
                least_kwh::numeric, least_coverage::numeric) AS status,
                energy_lost(kwh_ac_compared, kwh_dc_compared, kwh_ac, kwh_dc_linked) AS kwh_lost,
                CASE WHEN horizon > window_start THEN horizon END AS archived_to
            FROM vehicle_performance(vehicle_ids, starts, ends, length, by_name, with_hours)
        ) AS charging;
    END IF;
    RETURN (
        WITH charging AS MATERIALIZED (
            SELECT *, charging_status(
                kwh_ac_compared, kwh_dc_compared, kwh_ac, kwh_dc_linked, kwh_unsure, minutes_heard,
                extract(epoch FROM window_end - window_start) / 60, meter_minutes, linked_minutes,
                least_kwh::numeric, least_coverage::numeric) AS status,
                energy_lost(kwh_ac_compared, kwh_dc_compared, kwh_ac, kwh_dc_linked) AS kwh_lost,
                CASE WHEN horizon > window_start THEN horizon END AS archived_to
            FROM vehicle_performance(vehicle_ids, starts, ends, length, by_name, with_hours)
        )
        SELECT json_agg(priced ORDER BY position)
        FROM (
            SELECT charging.*, loss_cost, loss_co2_kg, priced_in AS currency
            FROM charging
            LEFT JOIN loss_costs((
                SELECT array_agg(ROW(position, vehicle_id, window_start, window_end, meter_ids,
                                     valid_froms, valid_tos, unmatched)::charged_window)
                FROM charging WHERE kwh_lost IS NOT NULL)) AS cost USING (position)
        ) AS priced
    );
END
$$;

GRANT EXECUTE ON FUNCTION cut_window, meters_of, vehicle_performance, charging_status, energy_lost TO telemetry_maintain;
GRANT EXECUTE ON FUNCTION
    cut_window, meters_of, vehicle_performance, charging_status, energy_lost, report_charging
TO telemetry_read;
