-- Common ground: the time of a window in which a vehicle and the meter that feeds it were both heard. An
-- efficiency, a loss and a verdict count the energy of that time and nothing else: see docs/verdicts.md.
--
-- An hour of which both sides heard every minute counts whole. Another one with energy is split by the second, from
-- history. What is left over on either side is unmatched. So what is compared and what is unmatched add up to the
-- totals, by construction.

-- How long these parts of time are together (s).
CREATE OR REPLACE FUNCTION seconds_of(parts tstzmultirange) RETURNS numeric LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT coalesce(sum(extract(epoch FROM upper(part) - lower(part))), 0) FROM unnest(parts) AS part);

-- Which minutes of an hour lie in (after, until], as a mask.
CREATE OR REPLACE FUNCTION minutes_between(hour timestamptz, after timestamptz, until timestamptz)
RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN $3 <= $2 THEN 0
    ELSE ((1::bigint << ceil(extract(epoch FROM $3 - $1) / 60)::integer) - 1)
         & ~((1::bigint << floor(extract(epoch FROM $2 - $1) / 60)::integer) - 1)
END;

-- What a vehicle and a meter have in common in (after, until], an hour at most, while the one fed the other, in
-- (opened, closed]: AC, DC, seconds. reach is the length of the longest interval of either; those of more than an
-- hour say how much and not when, and have nothing in common with anything.
--
-- A slit of up to a tenth of the interval, and of two seconds always, is jitter and no loss. An interval of more
-- than two minutes counts whole or not at all: if a tenth of it, or two minutes, are not common, then its time is
-- common for neither side. kwh_unsure is what is still cut on the one side because the other's was left out.
CREATE OR REPLACE FUNCTION split_hour(
    vehicle text, meter text, opened timestamptz, closed timestamptz,
    after timestamptz, until timestamptz, reach interval,
    OUT kwh_ac numeric, OUT kwh_dc numeric, OUT seconds numeric, OUT kwh_unsure numeric
) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    -- So far beyond an interval may reach, one of the other side from there, and a slit between two.
    around    constant interval := CASE WHEN reach > interval '2 minutes' THEN 2 * least(reach, interval '1 hour')
                                        ELSE interval '2 minutes' END * 1.1;
    intervals measured_interval[];
    ground    tstzmultirange;
    cut       tstzmultirange;
BEGIN
    SELECT array_agg(ROW(begins, ends, length, kwh, of_meter, span)::measured_interval),
           range_agg(heard) FILTER (WHERE of_meter) * range_agg(heard) FILTER (WHERE NOT of_meter)
           * tstzmultirange(tstzrange(opened, closed, '(]'))
    INTO intervals, ground
    FROM (
        SELECT *, ends - begins AS length, tstzrange(begins, ends, '(]') AS span,
               lag(ends) OVER (PARTITION BY of_meter ORDER BY ends) AS latest
        FROM (
            SELECT *, true AS of_meter
            FROM meter_intervals(meter, after - around, until + around, after - around, until + around + around)
            UNION ALL
            SELECT *, false
            FROM vehicle_intervals(vehicle, after - around, until + around, after - around, until + around + around)
        ) AS told
        WHERE CASE WHEN ends - begins <= interval '1 minute' THEN ends > opened AND ends <= closed
                   ELSE ends > opened AND begins < closed END
    ) AS told
    CROSS JOIN LATERAL (
        SELECT tstzrange(CASE WHEN begins > latest AND begins <= latest + greatest(length / 10, interval '2 seconds')
                              THEN latest ELSE begins END, ends, '(]')
    ) AS slit_closed (heard);

    IF reach > interval '2 minutes' AND ground IS NOT NULL THEN
        SELECT range_agg(span) INTO cut
        FROM unnest(intervals)
        CROSS JOIN LATERAL seconds_of(ground * tstzmultirange(span)) AS within
        WHERE length > interval '2 minutes' AND within > 0
          AND within < extract(epoch FROM length - least(length / 10, interval '2 minutes'));
        ground := ground - coalesce(cut, '{}');
    END IF;

    SELECT coalesce(sum(common) FILTER (WHERE of_meter), 0), coalesce(sum(common) FILTER (WHERE NOT of_meter), 0),
           seconds_of(ground * tstzmultirange(tstzrange(after, until, '(]'))),
           coalesce(sum(unsure), 0)
    INTO kwh_ac, kwh_dc, seconds, kwh_unsure
    FROM (
        SELECT of_meter,
               CASE WHEN length > interval '1 minute' AND ground @> (span * tstzrange(after, until, '(]'))
                    THEN energy_by(until, kwh, extract(epoch FROM length), ends)
                         - energy_by(after, kwh, extract(epoch FROM length), ends)
                    WHEN length > interval '1 minute'
                    THEN trunc(kwh * seconds_of(ground * tstzmultirange(span * tstzrange(after, until, '(]')))
                               / extract(epoch FROM length), 12)
                    WHEN ends <= after OR ends > until THEN 0
                    WHEN ground @> span THEN kwh
                    WHEN ground && span
                    THEN trunc(kwh * seconds_of(ground * tstzmultirange(span)) / extract(epoch FROM length), 12)
                    ELSE 0 END AS common,
               CASE WHEN within < extract(epoch FROM length - least(length / 10, interval '2 minutes'))
                    THEN least(within, extract(epoch FROM length) - within) * kwh / extract(epoch FROM length)
               END AS unsure
        FROM unnest(intervals)
        CROSS JOIN LATERAL (
            SELECT CASE WHEN length > interval '2 minutes' AND ends > after AND ends <= until
                        THEN seconds_of(ground * tstzmultirange(span)) END
        ) AS long (within)
        WHERE ground IS NOT NULL
    ) AS part;
    seconds := coalesce(seconds, 0);
END
$$;

-- The hours of a part of a window in which a meter fed a vehicle: what both had, and how it is known.
--
-- is_whole: all of the hour is in the part. agrees: both were heard in each minute asked for, all of it, so that it
-- counts whole. An interval of more than two minutes may reach in from an hour beside it: then that has to be heard,
-- too. by_pair: it is to be split without regard to where the part begins and ends.
CREATE OR REPLACE FUNCTION ground_hours(
    vehicle text, meter text, opened timestamptz, closed timestamptz, reach interval
) RETURNS TABLE (
    hour timestamptz, after timestamptz, until timestamptz, is_whole boolean, agrees boolean, by_pair boolean,
    is_heard boolean, seconds numeric, kwh_ac numeric, kwh_dc numeric
) LANGUAGE sql STABLE AS $$
    SELECT hour, after, until, is_whole,
           is_full AND (reach <= interval '2 minutes' OR is_inner AND coalesce(
               lag(is_full) OVER hours AND lag(hour) OVER hours = hour - interval '1 hour'
               AND lead(is_full) OVER hours AND lead(hour) OVER hours = hour + interval '1 hour', false)),
           is_whole AND (reach <= interval '2 minutes' OR is_inner),
           meter_minutes != 0 AND vehicle_minutes != 0,
           least(60 * bit_count((meter_minutes & vehicle_minutes)::bit(64)), extract(epoch FROM until - after)),
           kwh_ac, kwh_dc
    FROM (
        SELECT *, until - after = interval '1 hour' AS is_whole,
               hour - interval '1 hour' >= opened AND hour + interval '2 hours' <= closed AS is_inner,
               meter_minutes & vehicle_minutes & asked = asked AND loses_nothing AS is_full
        FROM (
            SELECT hour, greatest(opened, hour) AS after, least(closed, hour + interval '1 hour') AS until,
                   coalesce(sum(ac), 0) AS kwh_ac, coalesce(sum(dc), 0) AS kwh_dc,
                   coalesce(bit_or(heard) FILTER (WHERE of_meter), 0) AS meter_minutes,
                   coalesce(bit_or(heard) FILTER (WHERE NOT of_meter), 0) AS vehicle_minutes,
                   minutes_between(hour, greatest(opened, hour), least(closed, hour + interval '1 hour')) AS asked,
                   bool_and(seconds >= 60 * bit_count(heard::bit(64)) IS NOT FALSE
                            AND coalesce(estimated, 0) = 0) AS loses_nothing
            FROM (
                SELECT hour, true AS of_meter, kwh_consumed_ac AS ac, NULL AS dc,
                       coalesce(covered, minutes) AS heard, seconds, kwh_estimated AS estimated
                FROM meter_hourly_rollup
                WHERE meter_id = meter AND hour > opened - interval '1 hour' AND hour < closed
                UNION ALL
                SELECT hour, false, NULL, kwh_delivered_dc, coalesce(covered, minutes), seconds, kwh_estimated
                FROM vehicle_hourly_rollup
                WHERE vehicle_id = vehicle AND hour > opened - interval '1 hour' AND hour < closed
            ) AS side
            GROUP BY hour
        ) AS both_sides
    ) AS hour
    WINDOW hours AS (ORDER BY hour)
$$;

-- What was compared in a window of a vehicle, in the parts in which a meter fed it: the energy that is left out on
-- either side, by hour; the vehicle's energy in these parts; seconds compared. Hours before archived_to are as
-- common_hour has them; of an hour that it has not, nothing is compared.
CREATE OR REPLACE FUNCTION compare_sides(
    vehicle text, parts charging_window[], vehicle_reach interval, archived_to timestamptz,
    OUT unmatched unmatched_hour[], OUT kwh_ac_unmatched numeric, OUT kwh_dc_unmatched numeric,
    OUT kwh_dc_linked numeric, OUT seconds numeric, OUT kwh_unsure numeric
) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    SELECT array_agg(ROW(hour, meter_id, ac - ac_common, dc - dc_common)::unmatched_hour)
           FILTER (WHERE ac != ac_common OR dc != dc_common),
           coalesce(sum(ac - ac_common), 0), coalesce(sum(dc - dc_common), 0), coalesce(sum(dc), 0),
           coalesce(sum(seconds_common), 0), coalesce(sum(unsure), 0)
    INTO unmatched, kwh_ac_unmatched, kwh_dc_unmatched, kwh_dc_linked, seconds, kwh_unsure
    FROM (
        SELECT here.hour, part.id AS meter_id, total.ac, total.dc,
               CASE WHEN agrees THEN total.ac ELSE coalesce(common.kwh_ac, 0) END AS ac_common,
               CASE WHEN agrees THEN total.dc ELSE coalesce(common.kwh_dc, 0) END AS dc_common,
               coalesce(common.seconds, CASE WHEN agrees OR total.ac = 0 AND total.dc = 0 THEN here.seconds END)
                   AS seconds_common,
               common.kwh_unsure AS unsure
        FROM unnest(parts) AS part
        CROSS JOIN LATERAL ground_hours(vehicle, part.id, part.window_start, part.window_end,
                                        greatest(vehicle_reach, part.reach)) AS here
        CROSS JOIN LATERAL (
            SELECT kwh_ac, kwh_dc WHERE is_whole
            UNION ALL
            SELECT (SELECT coalesce(sum(kwh_consumed_ac), 0)
                    FROM meter_edge(part.id, here.after, here.until, here.after,
                                    here.until + coalesce(part.reach, '0'))),
                   (SELECT coalesce(sum(kwh_delivered_dc), 0)
                    FROM vehicle_edge(vehicle, here.after, here.until, here.after, here.until + vehicle_reach))
            WHERE NOT is_whole
        ) AS total (ac, dc)
        CROSS JOIN LATERAL (
            SELECT NOT agrees AND is_heard AND (total.ac != 0 OR total.dc != 0)
        ) AS unclear (is_to_split)
        LEFT JOIN LATERAL (  -- the conditions are in here, so that nothing is looked up where they do not hold
            SELECT kept.kwh_ac, kept.kwh_dc, kept.seconds, kept.kwh_unsure
            FROM common_hour kept
            WHERE is_to_split AND by_pair
              AND kept.vehicle_id = vehicle AND kept.meter_id = part.id AND kept.hour = here.hour
            UNION ALL
            SELECT split.*
            FROM split_hour(
                vehicle, part.id, CASE WHEN by_pair THEN '-infinity' ELSE part.window_start END,
                CASE WHEN by_pair THEN 'infinity' ELSE part.window_end END,
                here.after, here.until, greatest(vehicle_reach, part.reach)) AS split
            WHERE is_to_split AND here.hour >= archived_to
            LIMIT 1
        ) AS common ON true
        WHERE part.window_start < part.window_end
    ) AS compared;
END
$$;

-- Keeps what has to be split of the hours of (opened, closed] in which these vehicles were fed: so their history may
-- go. An hour is kept when the one after it is over, too (where there are long intervals, the one after that): what
-- reaches from there into it comes no more without being late. The live rows of the vehicles and their meters are
-- locked, and summed up to closed: a reading that changes what is kept takes it away.
CREATE OR REPLACE FUNCTION keep_ground(
    vehicle_ids text[], opened timestamptz, closed timestamptz, by_name boolean
) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    pairs device_pair[];
BEGIN
    PERFORM sum_vehicles(vehicle_ids, closed);
    pairs := ARRAY(
        SELECT DISTINCT ROW(id, fed.meter_id)::device_pair
        FROM unnest(vehicle_ids) AS id
        CROSS JOIN LATERAL meters_of(id, opened, closed, by_name) AS fed);
    PERFORM sum_meters(ARRAY(SELECT DISTINCT meter_id FROM unnest(pairs)), closed);

    WITH missing AS MATERIALIZED (  -- so that nothing is split in vain
        SELECT pair.vehicle_id, pair.meter_id, here.hour, here.after, here.until, reach
        FROM unnest(pairs) AS pair
        JOIN vehicle_live_status vehicle ON vehicle.vehicle_id = pair.vehicle_id
        JOIN meter_live_status meter ON meter.meter_id = pair.meter_id
        CROSS JOIN LATERAL (
            SELECT greatest(reach_of(vehicle.longest_seconds), reach_of(meter.longest_seconds))
        ) AS longest (reach)
        CROSS JOIN LATERAL ground_hours(
            pair.vehicle_id, pair.meter_id, opened - interval '1 hour', closed, reach) AS here
        WHERE here.by_pair AND NOT here.agrees AND here.is_heard AND (here.kwh_ac != 0 OR here.kwh_dc != 0)
          AND here.hour + CASE WHEN reach > interval '2 minutes' THEN interval '3 hours'
                               ELSE interval '2 hours' END <= closed
          AND here.hour >= (SELECT coalesce(max(archived_to), '-infinity') FROM archive_horizon)
          AND NOT EXISTS (SELECT FROM common_hour kept
                          WHERE kept.vehicle_id = pair.vehicle_id AND kept.meter_id = pair.meter_id
                            AND kept.hour = here.hour)
    )
    INSERT INTO common_hour (hour, seconds, vehicle_id, meter_id, kwh_ac, kwh_dc, kwh_unsure)
    SELECT hour, split.seconds, vehicle_id, meter_id, split.kwh_ac, split.kwh_dc, split.kwh_unsure
    FROM missing
    CROSS JOIN LATERAL split_hour(
        missing.vehicle_id, missing.meter_id, '-infinity', 'infinity', missing.after, missing.until, missing.reach
    ) AS split;
END
$$;

GRANT EXECUTE ON FUNCTION
    seconds_of, minutes_between, split_hour, ground_hours, compare_sides
TO telemetry_read, telemetry_maintain;
GRANT EXECUTE ON FUNCTION keep_ground TO telemetry_maintain;
