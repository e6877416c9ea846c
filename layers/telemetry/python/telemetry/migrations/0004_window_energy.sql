-- What a device did in a window (window_start, window_end]: whole hours from the rollup, the two
-- ragged edges from history by a bounded index range. The cost depends on the window, never on the
-- size of history. No row is returned for a device without a reading in the window.
-- No sequential scans: a plan may have been made when a partition was empty, and is kept.
CREATE FUNCTION meter_energy(
    for_meter_id text, window_start timestamptz, window_end timestamptz
) RETURNS TABLE (readings bigint, kwh_consumed_ac numeric) LANGUAGE plpgsql STABLE
SET enable_seqscan = off AS $$
DECLARE
    origin      constant timestamptz := '2000-01-01 00:00:00+00';
    last_hour   constant timestamptz := date_bin('1 hour', window_end, origin);
    first_hour  timestamptz := date_bin('1 hour', window_start, origin);
BEGIN
    IF first_hour < window_start THEN
        first_hour := first_hour + interval '1 hour';
    END IF;
    RETURN QUERY
    WITH part AS (
        SELECT rollup.readings, rollup.kwh_consumed_ac AS kwh
        FROM meter_hourly_rollup rollup
        WHERE rollup.meter_id = for_meter_id
          AND rollup.hour >= first_hour AND rollup.hour < last_hour
        UNION ALL
        SELECT 1, counted.kwh
        FROM (
            SELECT DISTINCT ON (h."timestamp") h.kwh_consumed_ac AS kwh
            FROM meter_telemetry_history h
            WHERE h.meter_id = for_meter_id
              AND h."timestamp" > window_start AND h."timestamp" <= least(first_hour, window_end)
            ORDER BY h."timestamp", h.received_at DESC
        ) AS counted
        UNION ALL
        SELECT 1, counted.kwh
        FROM (
            SELECT DISTINCT ON (h."timestamp") h.kwh_consumed_ac AS kwh
            FROM meter_telemetry_history h
            WHERE h.meter_id = for_meter_id
              AND h."timestamp" > greatest(last_hour, least(first_hour, window_end))
              AND h."timestamp" <= window_end
            ORDER BY h."timestamp", h.received_at DESC
        ) AS counted
    )
    SELECT sum(part.readings), sum(part.kwh) FROM part HAVING count(*) > 0;
END
$$;

CREATE FUNCTION vehicle_energy(
    for_vehicle_id text, window_start timestamptz, window_end timestamptz
) RETURNS TABLE (readings bigint, kwh_delivered_dc numeric, battery_temp_sum numeric)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off AS $$
DECLARE
    origin      constant timestamptz := '2000-01-01 00:00:00+00';
    last_hour   constant timestamptz := date_bin('1 hour', window_end, origin);
    first_hour  timestamptz := date_bin('1 hour', window_start, origin);
BEGIN
    IF first_hour < window_start THEN
        first_hour := first_hour + interval '1 hour';
    END IF;
    RETURN QUERY
    WITH part AS (
        SELECT rollup.readings, rollup.kwh_delivered_dc AS kwh, rollup.battery_temp_sum AS temp
        FROM vehicle_hourly_rollup rollup
        WHERE rollup.vehicle_id = for_vehicle_id
          AND rollup.hour >= first_hour AND rollup.hour < last_hour
        UNION ALL
        SELECT 1, counted.kwh, counted.temp
        FROM (
            SELECT DISTINCT ON (h."timestamp") h.kwh_delivered_dc AS kwh, h.battery_temp AS temp
            FROM vehicle_telemetry_history h
            WHERE h.vehicle_id = for_vehicle_id
              AND h."timestamp" > window_start AND h."timestamp" <= least(first_hour, window_end)
            ORDER BY h."timestamp", h.received_at DESC
        ) AS counted
        UNION ALL
        SELECT 1, counted.kwh, counted.temp
        FROM (
            SELECT DISTINCT ON (h."timestamp") h.kwh_delivered_dc AS kwh, h.battery_temp AS temp
            FROM vehicle_telemetry_history h
            WHERE h.vehicle_id = for_vehicle_id
              AND h."timestamp" > greatest(last_hour, least(first_hour, window_end))
              AND h."timestamp" <= window_end
            ORDER BY h."timestamp", h.received_at DESC
        ) AS counted
    )
    SELECT sum(part.readings), sum(part.kwh), sum(part.temp) FROM part HAVING count(*) > 0;
END
$$;
