-- Readings that ops void, because they are wrong and nobody will correct them. A void is of a reading, and
-- stands until it is withdrawn. While it stands, the receipts of the reading are in …_void_receipt
-- instead of history, also those that come later (the store sets them aside, 0002), so that all that
-- is computed of history leaves them out. What was computed already is changed here, in one transaction,
-- under the lock of the live row that every writer of the device takes.
--
-- Where it takes the archive to do that, the void is pending: the reading counts, and is treated as any
-- other, until the maintenance has looked there (telemetry.archived_voids).
--
-- Faults that were raised stay: what was told stays told (0009). The two windows that are judged anew
-- follow.
CREATE INDEX meter_void_pending ON meter_void (meter_id, "timestamp") WHERE pending;
CREATE INDEX vehicle_void_pending ON vehicle_void (vehicle_id, "timestamp") WHERE pending;

-- The functions of both streams: the same but for the columns.
DO $migration$
DECLARE
    stream text; subtracted text; shown text; charge text; claim text; brought text; given text;
BEGIN
    FOR stream, subtracted, shown, charge, claim, brought, given IN VALUES
        ('meter',
         'kwh_consumed_ac = rollup.kwh_consumed_ac - counted.kwh_consumed_ac',
         'last_kwh_consumed_ac = newest.kwh_consumed_ac, last_voltage = newest.voltage', '', '',
         'array_agg(coalesce(register_kwh, kwh_consumed_ac)::double precision) AS kwhs,
           array_agg(voltage) AS voltages',
         'back.kwhs, back.voltages'),
        ('vehicle',
         'kwh_delivered_dc = rollup.kwh_delivered_dc - counted.kwh_delivered_dc,
        battery_temp_sum = battery_temp_sum - counted.battery_temp',
         'last_kwh_delivered_dc = newest.kwh_delivered_dc, last_battery_temp = newest.battery_temp',
         $$
    UPDATE vehicle_live_status
    SET soc = charged.soc, soc_timestamp = coalesce(charged."timestamp", '-infinity'),
        soc_received_at = coalesce(charged.received_at, '-infinity')
    FROM (VALUES (1)) AS one LEFT JOIN (
        SELECT * FROM (
            (SELECT h.soc, h."timestamp", h.received_at FROM vehicle_telemetry_history h
             WHERE h.vehicle_id = id AND h."timestamp" < ts AND h.soc IS NOT NULL
             ORDER BY h."timestamp" DESC, h.received_at DESC
             LIMIT 1)
            UNION ALL
            SELECT other.soc, other."timestamp", other.received_at
            FROM jsonb_populate_recordset(NULL::vehicle_telemetry_history, archived) AS other
            WHERE other."timestamp" < ts AND other.soc IS NOT NULL
        ) AS known
        ORDER BY "timestamp" DESC, received_at DESC
        LIMIT 1
    ) AS charged ON true
    WHERE vehicle_id = id AND soc_timestamp = ts;$$,
         $$
    IF counted.meter_id IS NOT NULL THEN
        PERFORM claim_meters(ARRAY[id], ARRAY[ts], ARRAY[counted.meter_id], ARRAY[NULL::text]);
    END IF;$$,
         'array_agg(coalesce(register_kwh, kwh_delivered_dc)::double precision) AS kwhs,
           array_agg(battery_temp::double precision) AS battery_temps, array_agg(soc) AS socs,
           CASE WHEN count(meter_id) > 0 THEN array_agg(meter_id) END AS meters',
         'back.kwhs, back.battery_temps, back.socs, back.meters')
    LOOP
        EXECUTE format($function$
-- Takes a reading, whose receipts are set aside already, out of all that was computed of it. archived is
-- what the archive has of the device, as far as that matters: of the minute of the reading, and what was
-- the newest before it.
CREATE FUNCTION leave_out_%1$s_reading(
    id text, ts timestamptz, counted %1$s_telemetry_history, archived jsonb
) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    in_hour constant timestamptz := rollup_hour(ts);
    minute  constant timestamptz := date_bin('1 minute', ts - interval '1 microsecond', in_hour);
    newest  %1$s_telemetry_history;
    follows timestamptz;
BEGIN
    -- The minute was heard from all the same where another reading ended in it. One that waits to be
    -- compared with the archive counts as that: see step 2 of the store.
    UPDATE %1$s_hourly_rollup rollup
    SET readings = readings - 1, %2$s,
        minutes = CASE
            WHEN EXISTS (
                SELECT FROM %1$s_telemetry_history h
                WHERE h.%1$s_id = id AND h."timestamp" > minute
                  AND h."timestamp" <= minute + interval '1 minute')
              OR EXISTS (
                SELECT FROM %1$s_pending late
                WHERE late.%1$s_id = id AND late."timestamp" > minute
                  AND late."timestamp" <= minute + interval '1 minute')
              OR EXISTS (
                SELECT FROM jsonb_populate_recordset(NULL::%1$s_telemetry_history, archived) AS other
                WHERE other."timestamp" > minute AND other."timestamp" <= minute + interval '1 minute')
            THEN minutes ELSE minutes & ~minute_bit(ts, in_hour)
        END
    WHERE %1$s_id = id AND hour = in_hour;
    DELETE FROM %1$s_hourly_rollup
    WHERE %1$s_id = id AND hour = in_hour AND readings = 0 AND minutes = 0;
    PERFORM change_%1$s_summaries(ARRAY[id], ARRAY[ts]);
    DELETE FROM %1$s_daily_rollup daily
    WHERE %1$s_id = id AND day = day_of(in_hour) AND NOT EXISTS (
        SELECT FROM %1$s_hourly_rollup hourly
        WHERE hourly.%1$s_id = id
          AND hourly.hour >= daily.day AND hourly.hour < daily.day + interval '24 hours');

    SELECT * INTO newest
    FROM (
        (SELECT * FROM %1$s_telemetry_history h
         WHERE h.%1$s_id = id AND h."timestamp" < ts
         ORDER BY h."timestamp" DESC, h.received_at DESC LIMIT 1)
        UNION ALL
        SELECT * FROM jsonb_populate_recordset(NULL::%1$s_telemetry_history, archived) AS other
        WHERE other."timestamp" < ts
    ) AS known
    ORDER BY "timestamp" DESC, received_at DESC
    LIMIT 1;
    UPDATE %1$s_live_status SET voided_to = greatest(voided_to, ts) WHERE %1$s_id = id;
    IF newest.%1$s_id IS NOT NULL THEN
        UPDATE %1$s_live_status
        SET last_timestamp = newest."timestamp", updated_at = newest.received_at, %3$s,
            last_register_kwh = newest.register_kwh
        WHERE %1$s_id = id AND last_timestamp = ts;
    ELSE
        -- A vehicle's summaries stay, marked: it may come back before they go.
        DELETE FROM %1$s_live_status WHERE %1$s_id = id AND last_timestamp = ts;
    END IF;%4$s%5$s

    -- The first register in history follows the last one in the archive.
    DELETE FROM register_events WHERE device_id = id AND stream = '%1$s' AND "timestamp" = ts;
    DELETE FROM register_baselines WHERE device_id = id AND stream = '%1$s' AND "timestamp" = ts;
    IF FOUND THEN
        INSERT INTO register_baselines (device_id, stream, "timestamp", register_kwh)
        SELECT id, '%1$s', newest."timestamp", newest.register_kwh WHERE newest.%1$s_id IS NOT NULL;
        follows := (
            SELECT min("timestamp") FROM %1$s_telemetry_history
            WHERE %1$s_id = id AND "timestamp" >= (
                SELECT archived_to FROM archive_horizon WHERE archive_horizon.stream = '%1$s'));
    END IF;
    PERFORM settle_%1$s_registers(ARRAY[id], ARRAY[coalesce(follows, ts)]);
END
$$;

-- Voids a reading, and says what came of it: 'voided'; 'standing', where it is voided already;
-- 'pending', where the reading, or another of its minute, or what its live row would have to show instead,
-- may be in the archive: then only the void is noted; null where there is no such reading.
CREATE FUNCTION void_%1$s_reading(id text, ts timestamptz, by_whom text, why text, token text)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    in_hour  constant timestamptz := rollup_hour(ts);
    shown_at timestamptz;
    counted  %1$s_telemetry_history;
    horizon  timestamptz;
    waits    boolean;
BEGIN
    PERFORM FROM devices WHERE device_id = id FOR UPDATE; -- as writers do, before the live row
    shown_at := (SELECT last_timestamp FROM %1$s_live_status WHERE %1$s_id = id FOR UPDATE);
    IF EXISTS (SELECT FROM %1$s_void
               WHERE %1$s_id = id AND "timestamp" = ts AND withdrawn_at IS NULL) THEN
        RETURN 'standing';
    END IF;

    -- Look first: this holds history as it is until commit, so that no day is archived meanwhile.
    SELECT * INTO counted FROM %1$s_telemetry_history
    WHERE %1$s_id = id AND "timestamp" = ts ORDER BY received_at DESC LIMIT 1;
    horizon := (SELECT archived_to FROM archive_horizon WHERE stream = '%1$s');
    waits := horizon > date_bin('1 minute', ts - interval '1 microsecond', in_hour);
    IF counted.%1$s_id IS NULL THEN
        waits := waits AND EXISTS (
            SELECT FROM %1$s_hourly_rollup
            WHERE %1$s_id = id AND hour = in_hour AND minutes & minute_bit(ts, in_hour) != 0);
        IF NOT waits THEN
            RETURN NULL;
        END IF;
    END IF;
    waits := waits OR shown_at = ts AND horizon > '-infinity'
        AND NOT EXISTS (
            SELECT FROM %1$s_telemetry_history
            WHERE %1$s_id = id AND "timestamp" < ts AND "timestamp" >= horizon)
        AND EXISTS (
            SELECT FROM %1$s_hourly_rollup
            WHERE %1$s_id = id AND (hour != in_hour OR readings > 1));
    INSERT INTO %1$s_void ("timestamp", voided_at, %1$s_id, voided_by, voided_why, voided_token, pending)
    VALUES (ts, clock_timestamp(), id, by_whom, why, token, waits);
    IF waits THEN
        RETURN 'pending';
    END IF;

    WITH moved AS (
        DELETE FROM %1$s_telemetry_history WHERE %1$s_id = id AND "timestamp" = ts RETURNING *
    )
    INSERT INTO %1$s_void_receipt SELECT * FROM moved;
    PERFORM leave_out_%1$s_reading(id, ts, counted, '[]');
    RETURN 'voided';
END
$$;

-- Does what pending voids say, with what the archive has: of each its receipts, which the caller takes
-- out of the archive in the same transaction, and others, as leave_out_%1$s_reading wants them. Returns of
-- each 'voided'; 'missing', where there is no such reading, and the void is withdrawn; 'withdrawn', where
-- that was done meanwhile; 'waiting', where something is to be compared with the archive first. Where one of
-- the last two is returned, the caller has to roll back.
CREATE FUNCTION settle_%1$s_voids(ids text[], times timestamptz[], receipts jsonb[], others jsonb[])
RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    outcomes text[] := '{}';
    counted  %1$s_telemetry_history;
BEGIN
    PERFORM FROM devices WHERE device_id = ANY (ids) ORDER BY device_id FOR UPDATE; -- as writers do
    PERFORM FROM %1$s_live_status WHERE %1$s_id = ANY (ids) ORDER BY %1$s_id FOR UPDATE;
    FOR i IN 1..cardinality(ids) LOOP
        PERFORM FROM %1$s_void
        WHERE %1$s_id = ids[i] AND "timestamp" = times[i] AND pending FOR UPDATE;
        IF NOT FOUND THEN
            outcomes[i] := 'withdrawn';
            CONTINUE;
        END IF;
        IF EXISTS (
            SELECT FROM %1$s_pending late
            LEFT JOIN %1$s_live_status live ON live.%1$s_id = ids[i] AND last_timestamp = times[i]
            WHERE late.%1$s_id = ids[i] AND (late."timestamp" = times[i]
                  OR last_timestamp IS NOT NULL AND late."timestamp" < times[i])) THEN
            outcomes[i] := 'waiting';
            CONTINUE;
        END IF;

        WITH moved AS (
            DELETE FROM %1$s_telemetry_history
            WHERE %1$s_id = ids[i] AND "timestamp" = times[i] RETURNING *
        )
        INSERT INTO %1$s_void_receipt
        SELECT * FROM moved
        UNION
        SELECT * FROM jsonb_populate_recordset(NULL::%1$s_telemetry_history, receipts[i]);
        SELECT * INTO counted FROM %1$s_void_receipt
        WHERE %1$s_id = ids[i] AND "timestamp" = times[i] ORDER BY received_at DESC LIMIT 1;
        IF FOUND THEN
            UPDATE %1$s_void SET pending = false
            WHERE %1$s_id = ids[i] AND "timestamp" = times[i] AND pending;
            PERFORM leave_out_%1$s_reading(ids[i], times[i], counted, others[i]);
            outcomes[i] := 'voided';
        ELSE
            UPDATE %1$s_void
            SET pending = false, withdrawn_at = clock_timestamp(), withdrawn_by = 'maintenance',
                withdrawn_why = 'There is no such reading'
            WHERE %1$s_id = ids[i] AND "timestamp" = times[i] AND pending;
            outcomes[i] := 'missing';
        END IF;
    END LOOP;
    RETURN outcomes;
END
$$;

-- Takes a void back: the receipts are delivered again, as from a queue. Who did so first stands. Returns
-- whether there ever was one.
CREATE FUNCTION withdraw_%1$s_void(id text, ts timestamptz, by_whom text, why text, token text)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    back record;
BEGIN
    -- As writers do: the declaration, the live row, then the void.
    PERFORM FROM devices WHERE device_id = id FOR UPDATE;
    PERFORM FROM %1$s_live_status WHERE %1$s_id = id FOR UPDATE;
    UPDATE %1$s_void
    SET pending = false, withdrawn_at = clock_timestamp(), withdrawn_by = by_whom, withdrawn_why = why,
        withdrawn_token = token
    WHERE %1$s_id = id AND "timestamp" = ts AND withdrawn_at IS NULL;
    IF NOT FOUND THEN
        RETURN EXISTS (SELECT FROM %1$s_void WHERE %1$s_id = id AND "timestamp" = ts);
    END IF;
    WITH moved AS (
        DELETE FROM %1$s_void_receipt WHERE %1$s_id = id AND "timestamp" = ts RETURNING *
    )
    SELECT array_agg(%1$s_id) AS ids, array_agg("timestamp") AS times,
           array_agg(received_at) AS receipts,
           %6$s
    INTO back FROM moved;
    IF back.ids IS NOT NULL THEN
        PERFORM store_%1$s_readings(back.ids, back.times, back.receipts, %7$s);
    END IF;
    RETURN true;
END
$$;

REVOKE EXECUTE ON FUNCTION
    leave_out_%1$s_reading, void_%1$s_reading, settle_%1$s_voids, withdraw_%1$s_void
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION void_%1$s_reading, withdraw_%1$s_void TO telemetry_correct;
GRANT EXECUTE ON FUNCTION settle_%1$s_voids TO telemetry_maintain;
        $function$, stream, subtracted, shown, charge, claim, brought, given);
    END LOOP;
END
$migration$;

-- The voids of both streams, the newest first, or those of a device or a reading; after_… are of the
-- last row before. receipts are those that are kept aside.
CREATE FUNCTION list_voids(
    of_stream text, of_device text, of_time timestamptz, after_at timestamptz, after_stream text, after_device text,
    after_time timestamptz, most integer
) RETURNS TABLE (
    stream text, device_id text, "timestamp" timestamptz, voided_at timestamptz, voided_by text,
    voided_why text, voided_token text, withdrawn_at timestamptz, withdrawn_by text,
    withdrawn_why text, withdrawn_token text, pending boolean, receipts jsonb
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
                   withdrawn_token, pending
            FROM meter_void
            WHERE (of_stream IS NULL OR of_stream = 'meter' AND meter_id = of_device)
              AND (of_time IS NULL OR "timestamp" = of_time)
              AND (after_at IS NULL OR voided_at <= after_at)
            UNION ALL
            SELECT 'vehicle', vehicle_id, "timestamp", voided_at, voided_by, voided_why,
                   voided_token, withdrawn_at, withdrawn_by, withdrawn_why, withdrawn_token,
                   pending
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

REVOKE EXECUTE ON FUNCTION list_voids FROM PUBLIC;
GRANT EXECUTE ON FUNCTION list_voids TO telemetry_correct;
GRANT SELECT ON meter_void, vehicle_void, meter_void_receipt, vehicle_void_receipt
TO telemetry_read, telemetry_maintain;
GRANT SELECT ON meter_pending, vehicle_pending TO telemetry_read;  -- telemetry.verification looks there
