-- Readings that ops void, because they are wrong and nobody will correct them. A void is of a reading, and
-- stands until it is withdrawn. While it stands, the receipts of the reading are in …_void_receipt
-- instead of history, also those that come later (the store sets them aside, 0002), so that all that
-- is computed of history leaves them out. What was computed already is changed here, in one transaction,
-- under the lock of the live row that every writer of the device takes.
--
-- Faults that were raised stay: what was told stays told (0009). The two windows that are judged anew
-- follow.

-- Voids a reading, and says what came of it: 'voided'; 'standing', where it is voided already;
-- 'archived', where the reading, or what its live row would have to show instead, may be in the archive:
-- then nothing is changed; null where there is no such reading.
CREATE FUNCTION void_meter_reading(id text, ts timestamptz, by_whom text, why text, token text)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    in_hour constant timestamptz := rollup_hour(ts);
    live    meter_live_status;
    counted meter_telemetry_history;
    newest  meter_telemetry_history;
BEGIN
    PERFORM FROM devices WHERE device_id = id FOR UPDATE; -- as writers do, before the live row
    SELECT * INTO live FROM meter_live_status WHERE meter_id = id FOR UPDATE;
    IF EXISTS (SELECT FROM meter_void
               WHERE meter_id = id AND "timestamp" = ts AND withdrawn_at IS NULL) THEN
        RETURN 'standing';
    END IF;

    -- Look first: these hold history as it is until commit, so that no day is archived meanwhile.
    SELECT * INTO counted FROM meter_telemetry_history
    WHERE meter_id = id AND "timestamp" = ts ORDER BY received_at DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN (
            SELECT 'archived' FROM archive_horizon, meter_hourly_rollup hourly
            WHERE stream = 'meter' AND archived_to > ts AND meter_id = id AND hour = in_hour
              AND minutes & minute_bit(ts, in_hour) != 0);
    END IF;
    IF live.last_timestamp = ts THEN
        SELECT * INTO newest FROM meter_telemetry_history
        WHERE meter_id = id AND "timestamp" < ts ORDER BY "timestamp" DESC, received_at DESC LIMIT 1;
        IF NOT FOUND AND EXISTS (
            SELECT FROM meter_hourly_rollup
            WHERE meter_id = id AND (hour != in_hour OR readings > 1)) THEN
            RETURN 'archived';
        END IF;
    END IF;

    WITH moved AS (
        DELETE FROM meter_telemetry_history WHERE meter_id = id AND "timestamp" = ts RETURNING *
    )
    INSERT INTO meter_void_receipt SELECT * FROM moved;
    INSERT INTO meter_void ("timestamp", voided_at, meter_id, voided_by, voided_why, voided_token)
    VALUES (ts, clock_timestamp(), id, by_whom, why, token);

    -- The minute was heard from all the same where another reading ended in it. One that waits to be
    -- compared with the archive counts as that: see step 2 of the store.
    UPDATE meter_hourly_rollup rollup
    SET readings = readings - 1, kwh_consumed_ac = rollup.kwh_consumed_ac - counted.kwh_consumed_ac,
        minutes = CASE
            WHEN EXISTS (
                SELECT FROM meter_telemetry_history h
                WHERE h.meter_id = id AND h."timestamp" > minute.start
                  AND h."timestamp" <= minute.start + interval '1 minute')
              OR EXISTS (
                SELECT FROM meter_pending late
                WHERE late.meter_id = id AND late."timestamp" > minute.start
                  AND late."timestamp" <= minute.start + interval '1 minute')
            THEN minutes ELSE minutes & ~minute_bit(ts, in_hour)
        END
    FROM (SELECT date_bin('1 minute', ts - interval '1 microsecond', in_hour) AS start) AS minute
    WHERE meter_id = id AND hour = in_hour;
    DELETE FROM meter_hourly_rollup
    WHERE meter_id = id AND hour = in_hour AND readings = 0 AND minutes = 0;
    PERFORM change_meter_summaries(ARRAY[id], ARRAY[ts]);
    DELETE FROM meter_daily_rollup daily
    WHERE meter_id = id AND day = day_of(in_hour) AND NOT EXISTS (
        SELECT FROM meter_hourly_rollup hourly
        WHERE hourly.meter_id = id
          AND hourly.hour >= daily.day AND hourly.hour < daily.day + interval '24 hours');

    UPDATE meter_live_status SET voided_to = greatest(voided_to, ts) WHERE meter_id = id;
    IF newest.meter_id IS NOT NULL THEN
        UPDATE meter_live_status
        SET last_timestamp = newest."timestamp", updated_at = newest.received_at,
            last_kwh_consumed_ac = newest.kwh_consumed_ac, last_voltage = newest.voltage,
            last_register_kwh = newest.register_kwh
        WHERE meter_id = id;
    ELSIF live.last_timestamp = ts THEN
        DELETE FROM meter_live_status WHERE meter_id = id;
    END IF;
    PERFORM settle_meter_registers(ARRAY[id], ARRAY[ts]);
    RETURN 'voided';
END
$$;

-- Takes a void back: the receipts are delivered again, as from a queue. Who did so first stands. Returns
-- whether there ever was one.
CREATE FUNCTION withdraw_meter_void(id text, ts timestamptz, by_whom text, why text, token text)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    back record;
BEGIN
    -- As writers do: the declaration, the live row, then the void.
    PERFORM FROM devices WHERE device_id = id FOR UPDATE;
    PERFORM FROM meter_live_status WHERE meter_id = id FOR UPDATE;
    UPDATE meter_void
    SET withdrawn_at = clock_timestamp(), withdrawn_by = by_whom, withdrawn_why = why,
        withdrawn_token = token
    WHERE meter_id = id AND "timestamp" = ts AND withdrawn_at IS NULL;
    IF NOT FOUND THEN
        RETURN EXISTS (SELECT FROM meter_void WHERE meter_id = id AND "timestamp" = ts);
    END IF;
    WITH moved AS (
        DELETE FROM meter_void_receipt WHERE meter_id = id AND "timestamp" = ts RETURNING *
    )
    SELECT array_agg(meter_id) AS ids, array_agg("timestamp") AS times, array_agg(received_at) AS receipts,
           array_agg(coalesce(register_kwh, kwh_consumed_ac)::double precision) AS kwhs, array_agg(voltage) AS voltages
    INTO back FROM moved;
    PERFORM store_meter_readings(back.ids, back.times, back.receipts, back.kwhs, back.voltages);
    RETURN true;
END
$$;

-- Voids a reading, and says what came of it: 'voided'; 'standing', where it is voided already;
-- 'archived', where the reading, or what its live row would have to show instead, may be in the archive:
-- then nothing is changed; null where there is no such reading.
CREATE FUNCTION void_vehicle_reading(id text, ts timestamptz, by_whom text, why text, token text)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    in_hour constant timestamptz := rollup_hour(ts);
    live    vehicle_live_status;
    counted vehicle_telemetry_history;
    newest  vehicle_telemetry_history;
BEGIN
    PERFORM FROM devices WHERE device_id = id FOR UPDATE; -- as writers do, before the live row
    SELECT * INTO live FROM vehicle_live_status WHERE vehicle_id = id FOR UPDATE;
    IF EXISTS (SELECT FROM vehicle_void
               WHERE vehicle_id = id AND "timestamp" = ts AND withdrawn_at IS NULL) THEN
        RETURN 'standing';
    END IF;

    -- Look first: these hold history as it is until commit, so that no day is archived meanwhile.
    SELECT * INTO counted FROM vehicle_telemetry_history
    WHERE vehicle_id = id AND "timestamp" = ts ORDER BY received_at DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN (
            SELECT 'archived' FROM archive_horizon, vehicle_hourly_rollup hourly
            WHERE stream = 'vehicle' AND archived_to > ts AND vehicle_id = id AND hour = in_hour
              AND minutes & minute_bit(ts, in_hour) != 0);
    END IF;
    IF live.last_timestamp = ts THEN
        SELECT * INTO newest FROM vehicle_telemetry_history
        WHERE vehicle_id = id AND "timestamp" < ts ORDER BY "timestamp" DESC, received_at DESC LIMIT 1;
        IF NOT FOUND AND EXISTS (
            SELECT FROM vehicle_hourly_rollup
            WHERE vehicle_id = id AND (hour != in_hour OR readings > 1)) THEN
            RETURN 'archived';
        END IF;
    END IF;

    WITH moved AS (
        DELETE FROM vehicle_telemetry_history WHERE vehicle_id = id AND "timestamp" = ts RETURNING *
    )
    INSERT INTO vehicle_void_receipt SELECT * FROM moved;
    INSERT INTO vehicle_void ("timestamp", voided_at, vehicle_id, voided_by, voided_why, voided_token)
    VALUES (ts, clock_timestamp(), id, by_whom, why, token);

    -- The minute was heard from all the same where another reading ended in it. One that waits to be
    -- compared with the archive counts as that: see step 2 of the store.
    UPDATE vehicle_hourly_rollup rollup
    SET readings = readings - 1, kwh_delivered_dc = rollup.kwh_delivered_dc - counted.kwh_delivered_dc,
        battery_temp_sum = battery_temp_sum - counted.battery_temp,
        minutes = CASE
            WHEN EXISTS (
                SELECT FROM vehicle_telemetry_history h
                WHERE h.vehicle_id = id AND h."timestamp" > minute.start
                  AND h."timestamp" <= minute.start + interval '1 minute')
              OR EXISTS (
                SELECT FROM vehicle_pending late
                WHERE late.vehicle_id = id AND late."timestamp" > minute.start
                  AND late."timestamp" <= minute.start + interval '1 minute')
            THEN minutes ELSE minutes & ~minute_bit(ts, in_hour)
        END
    FROM (SELECT date_bin('1 minute', ts - interval '1 microsecond', in_hour) AS start) AS minute
    WHERE vehicle_id = id AND hour = in_hour;
    DELETE FROM vehicle_hourly_rollup
    WHERE vehicle_id = id AND hour = in_hour AND readings = 0 AND minutes = 0;
    PERFORM change_vehicle_summaries(ARRAY[id], ARRAY[ts]);
    DELETE FROM vehicle_daily_rollup daily
    WHERE vehicle_id = id AND day = day_of(in_hour) AND NOT EXISTS (
        SELECT FROM vehicle_hourly_rollup hourly
        WHERE hourly.vehicle_id = id
          AND hourly.hour >= daily.day AND hourly.hour < daily.day + interval '24 hours');

    UPDATE vehicle_live_status SET voided_to = greatest(voided_to, ts) WHERE vehicle_id = id;
    IF newest.vehicle_id IS NOT NULL THEN
        UPDATE vehicle_live_status
        SET last_timestamp = newest."timestamp", updated_at = newest.received_at,
            last_kwh_delivered_dc = newest.kwh_delivered_dc, last_battery_temp = newest.battery_temp,
            last_register_kwh = newest.register_kwh
        WHERE vehicle_id = id;
    ELSIF live.last_timestamp = ts THEN
        -- Its summaries stay, marked: it may come back before they go.
        DELETE FROM vehicle_live_status WHERE vehicle_id = id;
    END IF;
    IF live.soc_timestamp = ts THEN
        UPDATE vehicle_live_status
        SET soc = charged.soc, soc_timestamp = coalesce(charged."timestamp", '-infinity'),
            soc_received_at = coalesce(charged.received_at, '-infinity')
        FROM (VALUES (1)) AS one LEFT JOIN (
            SELECT h.soc, h."timestamp", h.received_at FROM vehicle_telemetry_history h
            WHERE h.vehicle_id = id AND h."timestamp" < ts AND h.soc IS NOT NULL
            ORDER BY h."timestamp" DESC, h.received_at DESC
            LIMIT 1
        ) AS charged ON true
        WHERE vehicle_id = id;
    END IF;
    IF counted.meter_id IS NOT NULL THEN
        PERFORM claim_meters(ARRAY[id], ARRAY[ts], ARRAY[counted.meter_id], ARRAY[NULL::text]);
    END IF;
    PERFORM settle_vehicle_registers(ARRAY[id], ARRAY[ts]);
    RETURN 'voided';
END
$$;

-- Takes a void back: the receipts are delivered again, as from a queue. Who did so first stands. Returns
-- whether there ever was one.
CREATE FUNCTION withdraw_vehicle_void(id text, ts timestamptz, by_whom text, why text, token text)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    back record;
BEGIN
    -- As writers do: the declaration, the live row, then the void.
    PERFORM FROM devices WHERE device_id = id FOR UPDATE;
    PERFORM FROM vehicle_live_status WHERE vehicle_id = id FOR UPDATE;
    UPDATE vehicle_void
    SET withdrawn_at = clock_timestamp(), withdrawn_by = by_whom, withdrawn_why = why,
        withdrawn_token = token
    WHERE vehicle_id = id AND "timestamp" = ts AND withdrawn_at IS NULL;
    IF NOT FOUND THEN
        RETURN EXISTS (SELECT FROM vehicle_void WHERE vehicle_id = id AND "timestamp" = ts);
    END IF;
    WITH moved AS (
        DELETE FROM vehicle_void_receipt WHERE vehicle_id = id AND "timestamp" = ts RETURNING *
    )
    SELECT array_agg(vehicle_id) AS ids, array_agg("timestamp") AS times,
           array_agg(received_at) AS receipts,
           array_agg(coalesce(register_kwh, kwh_delivered_dc)::double precision) AS kwhs,
           array_agg(battery_temp::double precision) AS battery_temps, array_agg(soc) AS socs,
           CASE WHEN count(meter_id) > 0 THEN array_agg(meter_id) END AS meters
    INTO back FROM moved;
    PERFORM store_vehicle_readings(back.ids, back.times, back.receipts, back.kwhs, back.battery_temps,
                                   back.socs, back.meters);
    RETURN true;
END
$$;

-- The voids of both streams, the newest first, or those of a device or a reading; after_… are of the
-- last row before. receipts are those that are kept aside.
CREATE FUNCTION list_voids(
    of_stream text, of_device text, of_time timestamptz, after_at timestamptz, after_stream text, after_device text,
    after_time timestamptz, most integer
) RETURNS TABLE (
    stream text, device_id text, "timestamp" timestamptz, voided_at timestamptz, voided_by text,
    voided_why text, voided_token text, withdrawn_at timestamptz, withdrawn_by text,
    withdrawn_why text, withdrawn_token text, receipts jsonb
) LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, pg_temp
SET timezone = 'UTC' AS $$
    SELECT page.*, CASE page.stream
        WHEN 'meter' THEN (
            SELECT jsonb_agg(jsonb_build_object(
                       'receivedAt', received_at, 'kwhConsumedAc', kwh_consumed_ac, 'voltage', voltage,
                       'registerKwh', register_kwh)
                   ORDER BY received_at)
            FROM meter_void_receipt kept
            WHERE kept.meter_id = page.device_id AND kept."timestamp" = page."timestamp"
              AND page.withdrawn_at IS NULL)
        ELSE (
            SELECT jsonb_agg(jsonb_build_object(
                       'receivedAt', received_at, 'kwhDeliveredDc', kwh_delivered_dc,
                       'batteryTemp', battery_temp, 'soc', soc, 'meterId', meter_id,
                       'registerKwh', register_kwh)
                   ORDER BY received_at)
            FROM vehicle_void_receipt kept
            WHERE kept.vehicle_id = page.device_id AND kept."timestamp" = page."timestamp"
              AND page.withdrawn_at IS NULL)
        END
    FROM (
        SELECT * FROM (
            SELECT 'meter' AS stream, meter_id AS device_id, "timestamp", voided_at, voided_by,
                   voided_why, voided_token, withdrawn_at, withdrawn_by, withdrawn_why,
                   withdrawn_token
            FROM meter_void
            WHERE (of_stream IS NULL OR of_stream = 'meter' AND meter_id = of_device)
              AND (of_time IS NULL OR "timestamp" = of_time)
              AND (after_at IS NULL OR voided_at <= after_at)
            UNION ALL
            SELECT 'vehicle', vehicle_id, "timestamp", voided_at, voided_by, voided_why,
                   voided_token, withdrawn_at, withdrawn_by, withdrawn_why, withdrawn_token
            FROM vehicle_void
            WHERE (of_stream IS NULL OR of_stream = 'vehicle' AND vehicle_id = of_device)
              AND (of_time IS NULL OR "timestamp" = of_time)
              AND (after_at IS NULL OR voided_at <= after_at)
        ) AS void
        WHERE after_at IS NULL OR voided_at < after_at
           OR (void.stream, void.device_id, void."timestamp") > (after_stream, after_device, after_time)
        ORDER BY voided_at DESC, void.stream, void.device_id, void."timestamp"
        LIMIT most
    ) AS page
    ORDER BY voided_at DESC, page.stream, page.device_id, page."timestamp"
$$;

REVOKE EXECUTE ON FUNCTION
    void_meter_reading, withdraw_meter_void, void_vehicle_reading, withdraw_vehicle_void, list_voids
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    void_meter_reading, withdraw_meter_void, void_vehicle_reading, withdraw_vehicle_void, list_voids
TO telemetry_correct;
GRANT SELECT ON meter_void, vehicle_void, meter_void_receipt, vehicle_void_receipt
TO telemetry_read, telemetry_maintain;
GRANT SELECT ON meter_pending, vehicle_pending TO telemetry_read;  -- telemetry.verification looks there
