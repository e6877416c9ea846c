-- What a device of either stream did in parts of a window: readings, minutes heard from, and sums. Both are
-- inlined into the query that calls them.

-- Of whole hours: hourly rollups up to first_day, daily ones up to last_day, hourly ones up to last_hour.
CREATE OR REPLACE FUNCTION meter_whole_hours(
    id text, first_hour timestamptz, first_day timestamptz, last_day timestamptz, last_hour timestamptz
) RETURNS TABLE (readings bigint, minutes_heard bigint, kwh_consumed_ac numeric) LANGUAGE sql STABLE AS $$
    SELECT readings, bit_count(minutes::bit(64)), kwh_consumed_ac
    FROM meter_hourly_rollup
    WHERE meter_id = id AND hour >= first_hour AND hour < first_day
    UNION ALL
    SELECT readings, minutes_heard, kwh_consumed_ac
    FROM meter_daily_rollup
    WHERE meter_id = id AND day >= first_day AND day < last_day
    UNION ALL
    SELECT readings, bit_count(minutes::bit(64)), kwh_consumed_ac
    FROM meter_hourly_rollup
    WHERE meter_id = id AND hour >= last_day AND hour < last_hour
$$;

-- Of the readings in (after, until]. The bounds of all edges of a call, as plain values, prune partitions
-- before the plan starts.
CREATE OR REPLACE FUNCTION meter_edge(
    id text, after timestamptz, until timestamptz, all_after timestamptz, all_until timestamptz
) RETURNS TABLE (readings bigint, minutes_heard bigint, kwh_consumed_ac numeric) LANGUAGE sql STABLE AS $$
    SELECT count(*),
           count(DISTINCT date_bin('1 minute', "timestamp" - interval '1 microsecond',
                                   timestamptz '2000-01-01 00:00:00+00')),
           sum("kwh_consumed_ac")
    FROM (
        SELECT DISTINCT ON (h."timestamp") h.*
        FROM meter_telemetry_history h
        WHERE h.meter_id = id AND h."timestamp" > after AND h."timestamp" <= until
          AND h."timestamp" > all_after AND h."timestamp" <= all_until
        ORDER BY h."timestamp" DESC, h.received_at DESC
    ) AS counted
$$;

GRANT EXECUTE ON FUNCTION meter_whole_hours, meter_edge TO telemetry_read, telemetry_maintain;
-- What a device of either stream did in parts of a window: readings, minutes heard from, and sums. Both are
-- inlined into the query that calls them.

-- Of whole hours: hourly rollups up to first_day, daily ones up to last_day, hourly ones up to last_hour.
CREATE OR REPLACE FUNCTION vehicle_whole_hours(
    id text, first_hour timestamptz, first_day timestamptz, last_day timestamptz, last_hour timestamptz
) RETURNS TABLE (readings bigint, minutes_heard bigint, kwh_delivered_dc numeric, battery_temp_sum numeric) LANGUAGE sql STABLE AS $$
    SELECT readings, bit_count(minutes::bit(64)), kwh_delivered_dc, battery_temp_sum
    FROM vehicle_hourly_rollup
    WHERE vehicle_id = id AND hour >= first_hour AND hour < first_day
    UNION ALL
    SELECT readings, minutes_heard, kwh_delivered_dc, battery_temp_sum
    FROM vehicle_daily_rollup
    WHERE vehicle_id = id AND day >= first_day AND day < last_day
    UNION ALL
    SELECT readings, bit_count(minutes::bit(64)), kwh_delivered_dc, battery_temp_sum
    FROM vehicle_hourly_rollup
    WHERE vehicle_id = id AND hour >= last_day AND hour < last_hour
$$;

-- Of the readings in (after, until]. The bounds of all edges of a call, as plain values, prune partitions
-- before the plan starts.
CREATE OR REPLACE FUNCTION vehicle_edge(
    id text, after timestamptz, until timestamptz, all_after timestamptz, all_until timestamptz
) RETURNS TABLE (readings bigint, minutes_heard bigint, kwh_delivered_dc numeric, battery_temp_sum numeric) LANGUAGE sql STABLE AS $$
    SELECT count(*),
           count(DISTINCT date_bin('1 minute', "timestamp" - interval '1 microsecond',
                                   timestamptz '2000-01-01 00:00:00+00')),
           sum("kwh_delivered_dc"), sum("battery_temp")
    FROM (
        SELECT DISTINCT ON (h."timestamp") h.*
        FROM vehicle_telemetry_history h
        WHERE h.vehicle_id = id AND h."timestamp" > after AND h."timestamp" <= until
          AND h."timestamp" > all_after AND h."timestamp" <= all_until
        ORDER BY h."timestamp" DESC, h.received_at DESC
    ) AS counted
$$;

GRANT EXECUTE ON FUNCTION vehicle_whole_hours, vehicle_edge TO telemetry_read, telemetry_maintain;
