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

GRANT EXECUTE ON FUNCTION rollup_hour, minute_bit, day_of, ceil_hour, countable_from
TO telemetry_read, telemetry_maintain;
