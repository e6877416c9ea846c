-- What a device of either stream did in parts of a window: readings that ended there, seconds heard, energy of
-- which it is not known when it flowed, and sums. All are inlined into the query that calls them.

-- Of whole hours: hourly rollups up to first_day, daily ones up to last_day, hourly ones up to last_hour.
CREATE OR REPLACE FUNCTION {stream}_whole_hours(
    id text, first_hour timestamptz, first_day timestamptz, last_day timestamptz, last_hour timestamptz
) RETURNS TABLE (
    readings bigint, seconds_heard numeric, kwh_estimated numeric,
    battery_temps bigint, -- of vehicles
    {typed_sums}
) LANGUAGE sql STABLE AS $$
    SELECT readings, heard_seconds(minutes, covered, seconds), kwh_estimated,
           coalesce(battery_temps, readings), -- of vehicles
           {sums}
    FROM {stream}_hourly_rollup
    WHERE {device} = id AND hour >= first_hour AND hour < first_day
    UNION ALL
    SELECT readings, coalesce(seconds_heard, 60 * minutes_heard), kwh_estimated,
           coalesce(battery_temps, readings), -- of vehicles
           {sums}
    FROM {stream}_daily_rollup
    WHERE {device} = id AND day >= first_day AND day < last_day
    UNION ALL
    SELECT readings, heard_seconds(minutes, covered, seconds), kwh_estimated,
           coalesce(battery_temps, readings), -- of vehicles
           {sums}
    FROM {stream}_hourly_rollup
    WHERE {device} = id AND hour >= last_day AND hour < last_hour
$$;

-- The receipts that count of the readings in (after, until]: those that end there, and those that end later,
-- up to all_until, and began before. The bounds of all parts of a call, as plain values, prune partitions
-- before the plan starts.
CREATE OR REPLACE FUNCTION {stream}_counted(
    id text, after timestamptz, until timestamptz, all_after timestamptz, all_until timestamptz
) RETURNS SETOF {history} LANGUAGE sql STABLE AS $$
    SELECT * FROM (
        SELECT DISTINCT ON (h."timestamp") h.*
        FROM {history} h
        WHERE h.{device} = id AND h."timestamp" > after AND h."timestamp" <= until
          AND h."timestamp" > all_after AND h."timestamp" <= all_until
        ORDER BY h."timestamp" DESC, h.received_at DESC
    ) AS ended
    UNION ALL
    SELECT h.*
    FROM {history} h
    WHERE h.{device} = id AND h.seconds > 60 AND begin_of(h.seconds, h."timestamp") < until
      AND after < until AND h."timestamp" > until AND h."timestamp" > all_after AND h."timestamp" <= all_until
      AND NOT EXISTS (
          SELECT FROM {history} later
          WHERE later.{device} = id AND later."timestamp" = h."timestamp"
            AND later.received_at > h.received_at
            AND later."timestamp" > all_after AND later."timestamp" <= all_until)
$$;

-- Of (after, until].
CREATE OR REPLACE FUNCTION {stream}_edge(
    id text, after timestamptz, until timestamptz, all_after timestamptz, all_until timestamptz
) RETURNS TABLE (
    readings bigint, seconds_heard numeric, kwh_estimated numeric,
    battery_temps bigint, -- of vehicles
    {typed_sums}
) LANGUAGE sql STABLE AS $$
    SELECT count(*) FILTER (WHERE "timestamp" <= until),
           CASE WHEN count(seconds) = 0
                THEN 60 * count(DISTINCT date_bin('1 minute', "timestamp" - interval '1 microsecond',
                                                  timestamptz '2000-01-01 00:00:00+00'))
                ELSE least(extract(epoch FROM until - after), sum(CASE
                    WHEN seconds > 3600 THEN 0
                    WHEN seconds > 60 THEN extract(epoch FROM
                        least("timestamp", until) - greatest(begin_of(seconds, "timestamp"), after))
                    ELSE coalesce(seconds, 60) END)) END,
           sum(energy_by(until, {energy}, seconds, "timestamp")
               - energy_by(after, {energy}, seconds, "timestamp")) FILTER (WHERE seconds > 3600),
           count(battery_temp) FILTER (WHERE "timestamp" <= until), -- of vehicles
           {shared}
    FROM {stream}_counted(id, after, until, all_after, all_until)
$$;

-- When the readings that count in (after, until] flowed, of those of up to an hour; those that end later and began
-- before, too.
CREATE OR REPLACE FUNCTION {stream}_intervals(
    id text, after timestamptz, until timestamptz, all_after timestamptz, all_until timestamptz
) RETURNS TABLE (begins timestamptz, ends timestamptz, kwh numeric) LANGUAGE sql STABLE AS $$
    SELECT "timestamp" - interval '1 second' * coalesce(seconds, 60)::double precision, "timestamp", {energy}
    FROM {stream}_counted(id, after, until, all_after, all_until)
    WHERE seconds <= 3600 IS NOT FALSE
$$;

-- Its cadence, and which minutes were heard of hours that a window has a part of, as
-- [cadence, [[hour, minutes], …]]: hour in epoch seconds, minutes as a mask.
CREATE OR REPLACE FUNCTION {stream}_heard_minutes(id text, window_start timestamptz, window_end timestamptz)
RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_array(
        {stream}_cadence(id),
        json_agg(json_build_array(extract(epoch FROM hour)::bigint, coalesce(covered, minutes))))
    FROM {stream}_hourly_rollup
    WHERE {device} = id AND hour > window_start - interval '1 hour' AND hour < window_end
$$;

GRANT EXECUTE ON FUNCTION
    {stream}_whole_hours, {stream}_counted, {stream}_edge, {stream}_intervals,
    {stream}_heard_minutes
TO telemetry_read, telemetry_maintain;
