-- What a device of either stream did in parts of a window: readings, minutes heard from, and sums. Both are
-- inlined into the query that calls them.

-- Of whole hours: hourly rollups up to first_day, daily ones up to last_day, hourly ones up to last_hour.
CREATE OR REPLACE FUNCTION {stream}_whole_hours(
    id text, first_hour timestamptz, first_day timestamptz, last_day timestamptz, last_hour timestamptz
) RETURNS TABLE (readings bigint, minutes_heard bigint, {typed_sums}) LANGUAGE sql STABLE AS $$
    SELECT readings, bit_count(minutes::bit(64)), {sums}
    FROM {stream}_hourly_rollup
    WHERE {device} = id AND hour >= first_hour AND hour < first_day
    UNION ALL
    SELECT readings, minutes_heard, {sums}
    FROM {stream}_daily_rollup
    WHERE {device} = id AND day >= first_day AND day < last_day
    UNION ALL
    SELECT readings, bit_count(minutes::bit(64)), {sums}
    FROM {stream}_hourly_rollup
    WHERE {device} = id AND hour >= last_day AND hour < last_hour
$$;

-- Of the readings in (after, until]. The bounds of all edges of a call, as plain values, prune partitions
-- before the plan starts.
CREATE OR REPLACE FUNCTION {stream}_edge(
    id text, after timestamptz, until timestamptz, all_after timestamptz, all_until timestamptz
) RETURNS TABLE (readings bigint, minutes_heard bigint, {typed_sums}) LANGUAGE sql STABLE AS $$
    SELECT count(*),
           count(DISTINCT date_bin('1 minute', "timestamp" - interval '1 microsecond',
                                   timestamptz '2000-01-01 00:00:00+00')),
           {summed}
    FROM (
        SELECT DISTINCT ON (h."timestamp") h.*
        FROM {history} h
        WHERE h.{device} = id AND h."timestamp" > after AND h."timestamp" <= until
          AND h."timestamp" > all_after AND h."timestamp" <= all_until
        ORDER BY h."timestamp" DESC, h.received_at DESC
    ) AS counted
$$;

GRANT EXECUTE ON FUNCTION {stream}_whole_hours, {stream}_edge TO telemetry_read, telemetry_maintain;
