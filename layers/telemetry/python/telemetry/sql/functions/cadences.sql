-- How often devices of both streams report.

-- How often a device reports (s).
CREATE OR REPLACE FUNCTION {stream}_cadence(id text) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT cadence_now(id, reports_register, last_seconds)
        FROM {stream}_live_status WHERE {device} = id), 60)
$$;

-- How often a device is seen to report that says nothing of it (s): the usual step from one reading to the next,
-- of at least five readings between two instants, if four of five steps are like it. Null where it is a minute,
-- or nothing can be told.
CREATE OR REPLACE FUNCTION {stream}_cadence_seen(id text, after timestamptz, until timestamptz) RETURNS integer
LANGUAGE sql STABLE AS $$
    WITH hourly AS MATERIALIZED (
        SELECT hour, minutes FROM {stream}_hourly_rollup
        WHERE {device} = id AND hour >= after AND hour < until AND seconds IS NULL AND readings > 0
    ), step AS MATERIALIZED (
        SELECT minute - lag(minute) OVER (ORDER BY minute) AS minutes
        FROM hourly
        CROSS JOIN generate_series(0, 59) AS number
        CROSS JOIN LATERAL (SELECT extract(epoch FROM hour)::bigint / 60 + number) AS at (minute)
        WHERE hourly.minutes & (1::bigint << number) != 0
          AND (SELECT sum(bit_count(minutes::bit(64))) <= 30 * count(*) FROM hourly)
    ), usual AS (
        SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY minutes) AS minutes FROM step
    )
    SELECT 60 * max(usual.minutes)::integer
    FROM step, usual
    WHERE step.minutes IS NOT NULL
    HAVING count(*) >= 4 AND max(usual.minutes) > 1
       AND count(*) FILTER (WHERE abs(step.minutes - usual.minutes) <= greatest(1, usual.minutes / 10))
           >= 0.8 * count(*)
$$;

-- The devices after an id whose readings count as a minute each, though they are seen to come less often: they
-- tell no length, and are declared to have none. In the order of ids.
CREATE OR REPLACE FUNCTION undeclared_{stream}s(after_id text, most integer)
RETURNS TABLE (device_id text, cadence_seen integer) LANGUAGE sql STABLE AS $$
    SELECT {device}, seen
    FROM {stream}_live_status live
    CROSS JOIN LATERAL (
        SELECT CASE WHEN NOT reports_register OR NOT is_declared_now({device})
                    THEN {stream}_cadence_seen({device}, last_timestamp - interval '24 hours', last_timestamp) END
    ) AS reporting (seen)
    WHERE {device} > after_id AND last_seconds IS NULL AND seen IS NOT NULL
    ORDER BY {device}
    LIMIT most
$$;

GRANT EXECUTE ON FUNCTION {stream}_cadence, {stream}_cadence_seen TO telemetry_read;
GRANT EXECUTE ON FUNCTION {stream}_cadence TO telemetry_maintain;
