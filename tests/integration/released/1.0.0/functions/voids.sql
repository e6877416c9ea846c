-- Readings that ops void, because they are wrong and nobody will correct them. A void is of a reading, and
-- stands until it is withdrawn. While it stands, the receipts of the reading are in …_void_receipt
-- instead of history, also those that come later (the store sets them aside), so that all that
-- is computed of history leaves them out. What was computed already is changed here, in one transaction,
-- under the lock of the live row that every writer of the device takes.
--
-- Where it takes the archive to do that, the void is pending: the reading counts, and is treated as any
-- other, until the maintenance has looked there (telemetry.archived_voids).
--
-- Faults that were raised stay: what was told stays told. The two windows that are judged anew
-- follow.

-- Takes a reading, whose receipts are set aside already, out of all that was computed of it. archived is
-- what the archive has of the device, as far as that matters: of the minute of the reading, and what was
-- the newest before it.
CREATE OR REPLACE FUNCTION leave_out_meter_reading(
    id text, ts timestamptz, counted meter_telemetry_history, archived jsonb
) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    in_hour constant timestamptz := rollup_hour(ts);
    minute  constant timestamptz := date_bin('1 minute', ts - interval '1 microsecond', in_hour);
    newest  meter_telemetry_history;
    follows timestamptz;
BEGIN
    -- The minute was heard from all the same where another reading ended in it. One that waits to be
    -- compared with the archive counts as that: see admit_late_meter_events.
    UPDATE meter_hourly_rollup rollup
    SET readings = readings - 1, kwh_consumed_ac = rollup.kwh_consumed_ac - coalesce(counted."kwh_consumed_ac", 0),
        minutes = CASE
            WHEN EXISTS (
                SELECT FROM meter_telemetry_history h
                WHERE h.meter_id = id AND h."timestamp" > minute
                  AND h."timestamp" <= minute + interval '1 minute')
              OR EXISTS (
                SELECT FROM meter_pending late
                WHERE late.meter_id = id AND late."timestamp" > minute
                  AND late."timestamp" <= minute + interval '1 minute')
              OR EXISTS (
                SELECT FROM jsonb_populate_recordset(NULL::meter_telemetry_history, archived) AS other
                WHERE other."timestamp" > minute AND other."timestamp" <= minute + interval '1 minute')
            THEN minutes ELSE minutes & ~minute_bit(ts, in_hour)
        END
    WHERE meter_id = id AND hour = in_hour;
    DELETE FROM meter_hourly_rollup
    WHERE meter_id = id AND hour = in_hour AND readings = 0 AND minutes = 0;
    PERFORM mark_meter_summaries(sum_meter_days(ARRAY[ROW(id, ts)::reading_key]));
    DELETE FROM meter_daily_rollup daily
    WHERE meter_id = id AND day = day_of(in_hour) AND NOT EXISTS (
        SELECT FROM meter_hourly_rollup hourly
        WHERE hourly.meter_id = id
          AND hourly.hour >= daily.day AND hourly.hour < daily.day + interval '24 hours');

    SELECT * INTO newest
    FROM (
        (SELECT * FROM meter_telemetry_history h
         WHERE h.meter_id = id AND h."timestamp" < ts
         ORDER BY h."timestamp" DESC, h.received_at DESC LIMIT 1)
        UNION ALL
        SELECT * FROM jsonb_populate_recordset(NULL::meter_telemetry_history, archived) AS other
        WHERE other."timestamp" < ts
    ) AS known
    ORDER BY "timestamp" DESC, received_at DESC
    LIMIT 1;
    UPDATE meter_live_status SET voided_to = greatest(voided_to, ts) WHERE meter_id = id;
    IF newest.meter_id IS NOT NULL THEN
        UPDATE meter_live_status
        SET last_timestamp = newest."timestamp", updated_at = newest.received_at, last_kwh_consumed_ac = newest.kwh_consumed_ac, last_voltage = newest.voltage, last_register_kwh = newest.register_kwh
        WHERE meter_id = id AND last_timestamp = ts;
    ELSE
        -- A vehicle's summaries stay, marked: it may come back before they go.
        DELETE FROM meter_live_status WHERE meter_id = id AND last_timestamp = ts;
    END IF;

    -- The first register in history follows the last one in the archive.
    DELETE FROM register_events WHERE device_id = id AND stream = 'meter' AND "timestamp" = ts;
    DELETE FROM register_baselines WHERE device_id = id AND stream = 'meter' AND "timestamp" = ts;
    IF FOUND THEN
        INSERT INTO register_baselines (device_id, stream, "timestamp", register_kwh)
        SELECT id, 'meter', newest."timestamp", newest.register_kwh WHERE newest.meter_id IS NOT NULL;
        follows := (
            SELECT min("timestamp") FROM meter_telemetry_history
            WHERE meter_id = id AND "timestamp" >= (
                SELECT archived_to FROM archive_horizon WHERE archive_horizon.stream = 'meter'));
    END IF;
    PERFORM store_meter_events(
        restate_meter_registers(ARRAY[ROW(id, coalesce(follows, ts))::reading_key]));
END
$$;

-- Voids a reading, and says what came of it: 'voided'; 'standing', where it is voided already;
-- 'pending', where the reading, or another of its minute, or what its live row would have to show instead,
-- may be in the archive: then only the void is noted; null where there is no such reading.
CREATE OR REPLACE FUNCTION set_aside_meter_reading(
    id text, ts timestamptz, by_whom text, why text, token text
) RETURNS text LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    in_hour  constant timestamptz := rollup_hour(ts);
    shown_at timestamptz;
    counted  meter_telemetry_history;
    horizon  timestamptz;
    waits    boolean;
BEGIN
    PERFORM FROM devices WHERE device_id = id FOR UPDATE; -- as writers do, before the live row
    shown_at := (SELECT last_timestamp FROM meter_live_status WHERE meter_id = id FOR UPDATE);
    IF EXISTS (SELECT FROM meter_void
               WHERE meter_id = id AND "timestamp" = ts AND withdrawn_at IS NULL) THEN
        RETURN 'standing';
    END IF;

    -- Look first: this holds history as it is until commit, so that no day is archived meanwhile.
    SELECT * INTO counted FROM meter_telemetry_history
    WHERE meter_id = id AND "timestamp" = ts ORDER BY received_at DESC LIMIT 1;
    horizon := (SELECT archived_to FROM archive_horizon WHERE stream = 'meter');
    waits := horizon > date_bin('1 minute', ts - interval '1 microsecond', in_hour);
    IF counted.meter_id IS NULL THEN
        waits := waits AND EXISTS (
            SELECT FROM meter_hourly_rollup
            WHERE meter_id = id AND hour = in_hour AND minutes & minute_bit(ts, in_hour) != 0);
        IF NOT waits THEN
            RETURN NULL;
        END IF;
    END IF;
    waits := waits OR shown_at = ts AND horizon > '-infinity'
        AND NOT EXISTS (
            SELECT FROM meter_telemetry_history
            WHERE meter_id = id AND "timestamp" < ts AND "timestamp" >= horizon)
        AND EXISTS (SELECT FROM meter_hourly_rollup WHERE meter_id = id AND hour != in_hour);
    INSERT INTO meter_void ("timestamp", voided_at, meter_id, voided_by, voided_why, voided_token, pending)
    VALUES (ts, clock_timestamp(), id, by_whom, why, token, waits);
    IF waits THEN
        RETURN 'pending';
    END IF;

    WITH moved AS (
        DELETE FROM meter_telemetry_history WHERE meter_id = id AND "timestamp" = ts RETURNING *
    )
    INSERT INTO meter_void_receipt ("meter_id", "timestamp", "received_at", "kwh_consumed_ac", "voltage", "register_kwh") SELECT "meter_id", "timestamp", "received_at", "kwh_consumed_ac", "voltage", "register_kwh" FROM moved;
    PERFORM leave_out_meter_reading(id, ts, counted, '[]');
    RETURN 'voided';
END
$$;

-- The same for its callers, who also get the reading's void.
CREATE OR REPLACE FUNCTION void_meter_reading(
    id text, ts timestamptz, by_whom text, why text, token text, OUT outcome text, OUT void listed_void
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    outcome := set_aside_meter_reading(id, ts, by_whom, why, token);
    SELECT * INTO void FROM list_voids('meter', id, ts, NULL, NULL, NULL, NULL, 1);
END
$$;

-- Does what pending voids say, with what the archive has: of each its receipts, which the caller takes
-- out of the archive in the same transaction, and others, as leave_out_meter_reading wants them. Returns of
-- each 'voided'; 'missing', where there is no such reading, and the void is withdrawn; 'withdrawn', where
-- that was done meanwhile; 'waiting', where something is to be compared with the archive first. Where one of
-- the last two is returned, the caller has to roll back.
CREATE OR REPLACE FUNCTION settle_meter_voids(ids text[], times timestamptz[], receipts jsonb[], others jsonb[])
RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    outcomes text[] := '{}';
    counted  meter_telemetry_history;
BEGIN
    PERFORM FROM devices WHERE device_id = ANY (ids) ORDER BY device_id FOR UPDATE; -- as writers do
    PERFORM FROM meter_live_status WHERE meter_id = ANY (ids) ORDER BY meter_id FOR UPDATE;
    FOR i IN 1..cardinality(ids) LOOP
        PERFORM FROM meter_void
        WHERE meter_id = ids[i] AND "timestamp" = times[i] AND pending FOR UPDATE;
        IF NOT FOUND THEN
            outcomes[i] := 'withdrawn';
            CONTINUE;
        END IF;
        IF EXISTS (
            SELECT FROM meter_pending late
            LEFT JOIN meter_live_status live ON live.meter_id = ids[i] AND last_timestamp = times[i]
            WHERE late.meter_id = ids[i] AND (late."timestamp" = times[i]
                  OR last_timestamp IS NOT NULL AND late."timestamp" < times[i])) THEN
            outcomes[i] := 'waiting';
            CONTINUE;
        END IF;

        WITH moved AS (
            DELETE FROM meter_telemetry_history
            WHERE meter_id = ids[i] AND "timestamp" = times[i] RETURNING *
        )
        INSERT INTO meter_void_receipt ("meter_id", "timestamp", "received_at", "kwh_consumed_ac", "voltage", "register_kwh")
        SELECT "meter_id", "timestamp", "received_at", "kwh_consumed_ac", "voltage", "register_kwh" FROM moved
        UNION
        SELECT "meter_id", "timestamp", "received_at", "kwh_consumed_ac", "voltage", "register_kwh" FROM jsonb_populate_recordset(NULL::meter_telemetry_history, receipts[i]);
        SELECT * INTO counted FROM meter_void_receipt
        WHERE meter_id = ids[i] AND "timestamp" = times[i] ORDER BY received_at DESC LIMIT 1;
        IF FOUND THEN
            UPDATE meter_void SET pending = false
            WHERE meter_id = ids[i] AND "timestamp" = times[i] AND pending;
            PERFORM leave_out_meter_reading(ids[i], times[i], counted, others[i]);
            outcomes[i] := 'voided';
        ELSE
            UPDATE meter_void
            SET pending = false, withdrawn_at = clock_timestamp(), withdrawn_by = 'maintenance',
                withdrawn_why = 'There is no such reading'
            WHERE meter_id = ids[i] AND "timestamp" = times[i] AND pending;
            outcomes[i] := 'missing';
        END IF;
    END LOOP;
    RETURN outcomes;
END
$$;

-- Takes a void back: the receipts are delivered again, as from a queue. Who did so first stands. Returns
-- the void, and null where there never was one.
CREATE OR REPLACE FUNCTION withdraw_meter_void(
    id text, ts timestamptz, by_whom text, why text, token text, OUT void listed_void
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    back meter_event[];
BEGIN
    -- As writers do: the declaration, the live row, then the void.
    PERFORM FROM devices WHERE device_id = id FOR UPDATE;
    PERFORM FROM meter_live_status WHERE meter_id = id FOR UPDATE;
    UPDATE meter_void
    SET pending = false, withdrawn_at = clock_timestamp(), withdrawn_by = by_whom, withdrawn_why = why,
        withdrawn_token = token
    WHERE meter_id = id AND "timestamp" = ts AND withdrawn_at IS NULL;
    IF FOUND THEN
        WITH moved AS (
            DELETE FROM meter_void_receipt WHERE meter_id = id AND "timestamp" = ts RETURNING *
        )
        SELECT array_agg(ROW(moved."meter_id", moved."timestamp", moved."received_at", moved."kwh_consumed_ac", moved."voltage", moved."register_kwh")::meter_event) INTO back FROM moved;
        PERFORM store_meter_events(back);
    END IF;
    SELECT * INTO void FROM list_voids('meter', id, ts, NULL, NULL, NULL, NULL, 1);
END
$$;

GRANT EXECUTE ON FUNCTION void_meter_reading, withdraw_meter_void TO telemetry_correct;
GRANT EXECUTE ON FUNCTION settle_meter_voids TO telemetry_maintain;
-- Readings that ops void, because they are wrong and nobody will correct them. A void is of a reading, and
-- stands until it is withdrawn. While it stands, the receipts of the reading are in …_void_receipt
-- instead of history, also those that come later (the store sets them aside), so that all that
-- is computed of history leaves them out. What was computed already is changed here, in one transaction,
-- under the lock of the live row that every writer of the device takes.
--
-- Where it takes the archive to do that, the void is pending: the reading counts, and is treated as any
-- other, until the maintenance has looked there (telemetry.archived_voids).
--
-- Faults that were raised stay: what was told stays told. The two windows that are judged anew
-- follow.

-- Takes a reading, whose receipts are set aside already, out of all that was computed of it. archived is
-- what the archive has of the device, as far as that matters: of the minute of the reading, and what was
-- the newest before it.
CREATE OR REPLACE FUNCTION leave_out_vehicle_reading(
    id text, ts timestamptz, counted vehicle_telemetry_history, archived jsonb
) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    in_hour constant timestamptz := rollup_hour(ts);
    minute  constant timestamptz := date_bin('1 minute', ts - interval '1 microsecond', in_hour);
    newest  vehicle_telemetry_history;
    follows timestamptz;
BEGIN
    -- The minute was heard from all the same where another reading ended in it. One that waits to be
    -- compared with the archive counts as that: see admit_late_vehicle_events.
    UPDATE vehicle_hourly_rollup rollup
    SET readings = readings - 1, kwh_delivered_dc = rollup.kwh_delivered_dc - coalesce(counted."kwh_delivered_dc", 0), battery_temp_sum = rollup.battery_temp_sum - coalesce(counted."battery_temp", 0),
        minutes = CASE
            WHEN EXISTS (
                SELECT FROM vehicle_telemetry_history h
                WHERE h.vehicle_id = id AND h."timestamp" > minute
                  AND h."timestamp" <= minute + interval '1 minute')
              OR EXISTS (
                SELECT FROM vehicle_pending late
                WHERE late.vehicle_id = id AND late."timestamp" > minute
                  AND late."timestamp" <= minute + interval '1 minute')
              OR EXISTS (
                SELECT FROM jsonb_populate_recordset(NULL::vehicle_telemetry_history, archived) AS other
                WHERE other."timestamp" > minute AND other."timestamp" <= minute + interval '1 minute')
            THEN minutes ELSE minutes & ~minute_bit(ts, in_hour)
        END
    WHERE vehicle_id = id AND hour = in_hour;
    DELETE FROM vehicle_hourly_rollup
    WHERE vehicle_id = id AND hour = in_hour AND readings = 0 AND minutes = 0;
    PERFORM mark_vehicle_summaries(sum_vehicle_days(ARRAY[ROW(id, ts)::reading_key]));
    DELETE FROM vehicle_daily_rollup daily
    WHERE vehicle_id = id AND day = day_of(in_hour) AND NOT EXISTS (
        SELECT FROM vehicle_hourly_rollup hourly
        WHERE hourly.vehicle_id = id
          AND hourly.hour >= daily.day AND hourly.hour < daily.day + interval '24 hours');

    SELECT * INTO newest
    FROM (
        (SELECT * FROM vehicle_telemetry_history h
         WHERE h.vehicle_id = id AND h."timestamp" < ts
         ORDER BY h."timestamp" DESC, h.received_at DESC LIMIT 1)
        UNION ALL
        SELECT * FROM jsonb_populate_recordset(NULL::vehicle_telemetry_history, archived) AS other
        WHERE other."timestamp" < ts
    ) AS known
    ORDER BY "timestamp" DESC, received_at DESC
    LIMIT 1;
    UPDATE vehicle_live_status SET voided_to = greatest(voided_to, ts) WHERE vehicle_id = id;
    IF newest.vehicle_id IS NOT NULL THEN
        UPDATE vehicle_live_status
        SET last_timestamp = newest."timestamp", updated_at = newest.received_at, last_kwh_delivered_dc = newest.kwh_delivered_dc, last_battery_temp = newest.battery_temp, last_register_kwh = newest.register_kwh
        WHERE vehicle_id = id AND last_timestamp = ts;
    ELSE
        -- A vehicle's summaries stay, marked: it may come back before they go.
        DELETE FROM vehicle_live_status WHERE vehicle_id = id AND last_timestamp = ts;
    END IF;
    PERFORM show_charge(id, archived) FROM vehicle_live_status           -- of vehicles
    WHERE vehicle_id = id AND soc_timestamp = ts;                        -- of vehicles
    PERFORM claim_meters(ARRAY[ROW(id, ts, counted.meter_id, NULL)::link_claim]) -- of vehicles
    WHERE counted.meter_id IS NOT NULL;                                  -- of vehicles

    -- The first register in history follows the last one in the archive.
    DELETE FROM register_events WHERE device_id = id AND stream = 'vehicle' AND "timestamp" = ts;
    DELETE FROM register_baselines WHERE device_id = id AND stream = 'vehicle' AND "timestamp" = ts;
    IF FOUND THEN
        INSERT INTO register_baselines (device_id, stream, "timestamp", register_kwh)
        SELECT id, 'vehicle', newest."timestamp", newest.register_kwh WHERE newest.vehicle_id IS NOT NULL;
        follows := (
            SELECT min("timestamp") FROM vehicle_telemetry_history
            WHERE vehicle_id = id AND "timestamp" >= (
                SELECT archived_to FROM archive_horizon WHERE archive_horizon.stream = 'vehicle'));
    END IF;
    PERFORM store_vehicle_events(
        restate_vehicle_registers(ARRAY[ROW(id, coalesce(follows, ts))::reading_key]));
END
$$;

-- Voids a reading, and says what came of it: 'voided'; 'standing', where it is voided already;
-- 'pending', where the reading, or another of its minute, or what its live row would have to show instead,
-- may be in the archive: then only the void is noted; null where there is no such reading.
CREATE OR REPLACE FUNCTION set_aside_vehicle_reading(
    id text, ts timestamptz, by_whom text, why text, token text
) RETURNS text LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    in_hour  constant timestamptz := rollup_hour(ts);
    shown_at timestamptz;
    counted  vehicle_telemetry_history;
    horizon  timestamptz;
    waits    boolean;
BEGIN
    PERFORM FROM devices WHERE device_id = id FOR UPDATE; -- as writers do, before the live row
    shown_at := (SELECT last_timestamp FROM vehicle_live_status WHERE vehicle_id = id FOR UPDATE);
    IF EXISTS (SELECT FROM vehicle_void
               WHERE vehicle_id = id AND "timestamp" = ts AND withdrawn_at IS NULL) THEN
        RETURN 'standing';
    END IF;

    -- Look first: this holds history as it is until commit, so that no day is archived meanwhile.
    SELECT * INTO counted FROM vehicle_telemetry_history
    WHERE vehicle_id = id AND "timestamp" = ts ORDER BY received_at DESC LIMIT 1;
    horizon := (SELECT archived_to FROM archive_horizon WHERE stream = 'vehicle');
    waits := horizon > date_bin('1 minute', ts - interval '1 microsecond', in_hour);
    IF counted.vehicle_id IS NULL THEN
        waits := waits AND EXISTS (
            SELECT FROM vehicle_hourly_rollup
            WHERE vehicle_id = id AND hour = in_hour AND minutes & minute_bit(ts, in_hour) != 0);
        IF NOT waits THEN
            RETURN NULL;
        END IF;
    END IF;
    waits := waits OR shown_at = ts AND horizon > '-infinity'
        AND NOT EXISTS (
            SELECT FROM vehicle_telemetry_history
            WHERE vehicle_id = id AND "timestamp" < ts AND "timestamp" >= horizon)
        AND EXISTS (SELECT FROM vehicle_hourly_rollup WHERE vehicle_id = id AND hour != in_hour);
    INSERT INTO vehicle_void ("timestamp", voided_at, vehicle_id, voided_by, voided_why, voided_token, pending)
    VALUES (ts, clock_timestamp(), id, by_whom, why, token, waits);
    IF waits THEN
        RETURN 'pending';
    END IF;

    WITH moved AS (
        DELETE FROM vehicle_telemetry_history WHERE vehicle_id = id AND "timestamp" = ts RETURNING *
    )
    INSERT INTO vehicle_void_receipt ("vehicle_id", "timestamp", "received_at", "kwh_delivered_dc", "battery_temp", "soc", "register_kwh", "meter_id") SELECT "vehicle_id", "timestamp", "received_at", "kwh_delivered_dc", "battery_temp", "soc", "register_kwh", "meter_id" FROM moved;
    PERFORM leave_out_vehicle_reading(id, ts, counted, '[]');
    RETURN 'voided';
END
$$;

-- The same for its callers, who also get the reading's void.
CREATE OR REPLACE FUNCTION void_vehicle_reading(
    id text, ts timestamptz, by_whom text, why text, token text, OUT outcome text, OUT void listed_void
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    outcome := set_aside_vehicle_reading(id, ts, by_whom, why, token);
    SELECT * INTO void FROM list_voids('vehicle', id, ts, NULL, NULL, NULL, NULL, 1);
END
$$;

-- Does what pending voids say, with what the archive has: of each its receipts, which the caller takes
-- out of the archive in the same transaction, and others, as leave_out_vehicle_reading wants them. Returns of
-- each 'voided'; 'missing', where there is no such reading, and the void is withdrawn; 'withdrawn', where
-- that was done meanwhile; 'waiting', where something is to be compared with the archive first. Where one of
-- the last two is returned, the caller has to roll back.
CREATE OR REPLACE FUNCTION settle_vehicle_voids(ids text[], times timestamptz[], receipts jsonb[], others jsonb[])
RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    outcomes text[] := '{}';
    counted  vehicle_telemetry_history;
BEGIN
    PERFORM FROM devices WHERE device_id = ANY (ids) ORDER BY device_id FOR UPDATE; -- as writers do
    PERFORM FROM vehicle_live_status WHERE vehicle_id = ANY (ids) ORDER BY vehicle_id FOR UPDATE;
    FOR i IN 1..cardinality(ids) LOOP
        PERFORM FROM vehicle_void
        WHERE vehicle_id = ids[i] AND "timestamp" = times[i] AND pending FOR UPDATE;
        IF NOT FOUND THEN
            outcomes[i] := 'withdrawn';
            CONTINUE;
        END IF;
        IF EXISTS (
            SELECT FROM vehicle_pending late
            LEFT JOIN vehicle_live_status live ON live.vehicle_id = ids[i] AND last_timestamp = times[i]
            WHERE late.vehicle_id = ids[i] AND (late."timestamp" = times[i]
                  OR last_timestamp IS NOT NULL AND late."timestamp" < times[i])) THEN
            outcomes[i] := 'waiting';
            CONTINUE;
        END IF;

        WITH moved AS (
            DELETE FROM vehicle_telemetry_history
            WHERE vehicle_id = ids[i] AND "timestamp" = times[i] RETURNING *
        )
        INSERT INTO vehicle_void_receipt ("vehicle_id", "timestamp", "received_at", "kwh_delivered_dc", "battery_temp", "soc", "register_kwh", "meter_id")
        SELECT "vehicle_id", "timestamp", "received_at", "kwh_delivered_dc", "battery_temp", "soc", "register_kwh", "meter_id" FROM moved
        UNION
        SELECT "vehicle_id", "timestamp", "received_at", "kwh_delivered_dc", "battery_temp", "soc", "register_kwh", "meter_id" FROM jsonb_populate_recordset(NULL::vehicle_telemetry_history, receipts[i]);
        SELECT * INTO counted FROM vehicle_void_receipt
        WHERE vehicle_id = ids[i] AND "timestamp" = times[i] ORDER BY received_at DESC LIMIT 1;
        IF FOUND THEN
            UPDATE vehicle_void SET pending = false
            WHERE vehicle_id = ids[i] AND "timestamp" = times[i] AND pending;
            PERFORM leave_out_vehicle_reading(ids[i], times[i], counted, others[i]);
            outcomes[i] := 'voided';
        ELSE
            UPDATE vehicle_void
            SET pending = false, withdrawn_at = clock_timestamp(), withdrawn_by = 'maintenance',
                withdrawn_why = 'There is no such reading'
            WHERE vehicle_id = ids[i] AND "timestamp" = times[i] AND pending;
            outcomes[i] := 'missing';
        END IF;
    END LOOP;
    RETURN outcomes;
END
$$;

-- Takes a void back: the receipts are delivered again, as from a queue. Who did so first stands. Returns
-- the void, and null where there never was one.
CREATE OR REPLACE FUNCTION withdraw_vehicle_void(
    id text, ts timestamptz, by_whom text, why text, token text, OUT void listed_void
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    back vehicle_event[];
BEGIN
    -- As writers do: the declaration, the live row, then the void.
    PERFORM FROM devices WHERE device_id = id FOR UPDATE;
    PERFORM FROM vehicle_live_status WHERE vehicle_id = id FOR UPDATE;
    UPDATE vehicle_void
    SET pending = false, withdrawn_at = clock_timestamp(), withdrawn_by = by_whom, withdrawn_why = why,
        withdrawn_token = token
    WHERE vehicle_id = id AND "timestamp" = ts AND withdrawn_at IS NULL;
    IF FOUND THEN
        WITH moved AS (
            DELETE FROM vehicle_void_receipt WHERE vehicle_id = id AND "timestamp" = ts RETURNING *
        )
        SELECT array_agg(ROW(moved."vehicle_id", moved."timestamp", moved."received_at", moved."kwh_delivered_dc", moved."battery_temp", moved."soc", moved."register_kwh", moved."meter_id")::vehicle_event) INTO back FROM moved;
        PERFORM store_vehicle_events(back);
    END IF;
    SELECT * INTO void FROM list_voids('vehicle', id, ts, NULL, NULL, NULL, NULL, 1);
END
$$;

GRANT EXECUTE ON FUNCTION void_vehicle_reading, withdraw_vehicle_void TO telemetry_correct;
GRANT EXECUTE ON FUNCTION settle_vehicle_voids TO telemetry_maintain;
