-- Both are STABLE, not IMMUTABLE, because timestamptz - interval is; that way they are inlined.
CREATE OR REPLACE FUNCTION rollup_hour("timestamp" timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN date_bin('1 hour', $1 - interval '1 microsecond', timestamptz '2000-01-01 00:00:00+00');

COMMENT ON FUNCTION rollup_hour IS
    'The start of the rollup hour (hour, hour + 1 h] that a timestamp belongs to.';

CREATE OR REPLACE FUNCTION minute_bit("timestamp" timestamptz, hour timestamptz) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN 1::bigint << (ceil(date_part('epoch', $1 - $2) / 60)::integer - 1);

COMMENT ON FUNCTION minute_bit IS
    'The bit of the minute (of the hour that starts at the second argument) in which a timestamp falls.';

-- STABLE, not IMMUTABLE, because timestamptz + interval is; that way they are inlined.
CREATE OR REPLACE FUNCTION day_of(hour timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN date_bin('1 day', $1, timestamptz '2000-01-01 00:00:00+00');

COMMENT ON FUNCTION day_of IS 'The start of the day (day, day + 24 h] that an hour belongs to.';

CREATE OR REPLACE FUNCTION ceil_hour("timestamp" timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN date_bin('1 hour', $1 + interval '1 hour - 1 microsecond',
                    timestamptz '2000-01-01 00:00:00+00');

-- Before archived_to there are rollups and no history: an edge there moves to the end of its hour, so that
-- windows and links which follow each other still do.
CREATE OR REPLACE FUNCTION countable_from(instant timestamptz, archived_to timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN $1 < $2 THEN ceil_hour($1) ELSE $1 END;

-- A reading's energy flowed in (timestamp - seconds, timestamp]: one of up to a minute counts where it ends,
-- a longer one everywhere in proportion to time. That is how much by an instant, to 12 decimals, and all of it
-- by the end: so what is between instants that follow each other adds up to the last decimal.
CREATE OR REPLACE FUNCTION energy_by(
    instant timestamptz, kwh numeric, seconds numeric, "timestamp" timestamptz
) RETURNS numeric LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN $1 >= $4 THEN $2
    WHEN $3 > 60 AND extract(epoch FROM $4 - $1) < $3
    THEN trunc($2 * ($3 - extract(epoch FROM $4 - $1)) / $3, 12)
    ELSE 0
END;

-- How far beyond an instant a device's readings may end that began before it; null: 60 s, which reach nowhere.
CREATE OR REPLACE FUNCTION reach_of(longest_seconds numeric) RETURNS interval
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(interval '1 second' * $1::double precision, '0');

-- Where a reading begins to count: one of up to a minute just before it ends.
CREATE OR REPLACE FUNCTION begin_of(seconds numeric, "timestamp" timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN $2 - CASE WHEN $1 > 60 THEN interval '1 second' * $1::double precision
                     ELSE interval '1 microsecond' END;

-- The minutes of an hour that an interval of up to an hour covers, as many as it has begun: the one in which
-- it ends, and those before. (10:00:30, 10:02:30] covers two, as a device that reports every minute at half
-- past would have.
CREATE OR REPLACE FUNCTION covered_minutes(hour timestamptz, seconds numeric, "timestamp" timestamptz)
RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN coalesce(seconds, 60) <= 3600 AND first_minute <= last_minute
                THEN ((1::bigint << (last_minute - first_minute + 1)) - 1) << first_minute
                ELSE 0 END
    FROM (
        SELECT greatest(0, ended - ceil(coalesce(seconds, 60) / 60)::integer + 1) AS first_minute,
               least(59, ended) AS last_minute
        FROM (SELECT ceil(extract(epoch FROM "timestamp" - hour) / 60)::integer - 1 AS ended) AS minute
    ) AS minutes
$$;

-- The hours that a reading is in, and what is there of it: energy; seconds heard, which an interval of more
-- than an hour has none of; the minutes it covers. Inlined.
CREATE OR REPLACE FUNCTION hours_of(kwh numeric, seconds numeric, "timestamp" timestamptz)
RETURNS TABLE (hour timestamptz, kwh_there numeric, seconds_there numeric, covered bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT hour,
           energy_by(hour + interval '1 hour', kwh, seconds, "timestamp")
               - energy_by(hour, kwh, seconds, "timestamp"),
           CASE WHEN seconds > 3600 THEN 0
                WHEN seconds > 60 THEN extract(epoch FROM least("timestamp", hour + interval '1 hour')
                    - greatest(hour, begin_of(seconds, "timestamp")))
                ELSE coalesce(seconds, 60) END,
           covered_minutes(hour, seconds, "timestamp")
    FROM generate_series(rollup_hour(begin_of(seconds, "timestamp") + interval '1 microsecond'),
                         rollup_hour("timestamp"), interval '1 hour') AS hour
$$;

-- How many seconds of an hour were heard, by its row.
CREATE OR REPLACE FUNCTION heard_seconds(minutes bigint, covered bigint, seconds numeric) RETURNS numeric
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN least(60 * bit_count(coalesce($2, $1)::bit(64)), $3);

GRANT EXECUTE ON FUNCTION
    rollup_hour, minute_bit, day_of, ceil_hour, countable_from,
    energy_by, reach_of, begin_of, covered_minutes, hours_of, heard_seconds
TO telemetry_read, telemetry_maintain;
