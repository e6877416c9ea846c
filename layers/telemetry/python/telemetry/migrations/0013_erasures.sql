-- Devices that are erased, with every number that is made of them. An erasure takes whatever was accepted
-- of a device up to the instant in which it was asked for (asked_at); what is accepted later begins
-- another life of the same id, and stays.
--
-- Asking (request_erasure) changes no number: it sets a guard. voided_to of the live row is raised to an
-- hour after asked_at, so that whatever was accepted before, and was never stored, counts as late to the
-- store, wherever it waited: the store drops it then (drop_erased_…_readings, 0002 and 0003). A device
-- without a live row gets the guard when it comes back.
--
-- The maintenance (telemetry.eraser) does the work: day by day of the device, each a transaction that
-- leaves everything as history says, then what is small, and then the id itself.

-- Objects of the bucket that are no part of the archive (any more), to be deleted.
CREATE TABLE archive_leftover (
    key text PRIMARY KEY
);

-- Asks that a device be erased; who asked first stands. Returns the erasure's id, and whether it is new.
CREATE FUNCTION request_erasure(of_stream text, id text, by_whom text, why text, token text)
RETURNS TABLE (erasing uuid, is_new boolean) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    asked uuid;
BEGIN
    PERFORM hold_erased(of_stream, id);
    INSERT INTO erasure_key DEFAULT VALUES ON CONFLICT DO NOTHING;
    INSERT INTO erasure (asked_at, stream, device_id, device_hash, asked_by, asked_why, asked_token)
    VALUES (clock_timestamp(), of_stream, id, hash_device(of_stream, id), by_whom, why, token)
    ON CONFLICT (stream, device_id) WHERE device_id IS NOT NULL DO NOTHING
    RETURNING erasure_id INTO asked;
    is_new := FOUND;
    erasing := coalesce(asked, (SELECT erasure_id FROM erasure
                                WHERE stream = of_stream AND device_id = id));
    PERFORM release_erased(of_stream, id);
    RETURN NEXT;
END
$$;

-- Erasures, the newest first; after_… are of the last row before.
CREATE FUNCTION list_erasures(asked uuid, after_at timestamptz, after_id uuid, most integer)
RETURNS TABLE (
    erasure_id uuid, stream text, device_id text, asked_at timestamptz, asked_by text, asked_why text,
    asked_token text, finished_at timestamptz, receipts bigint, files bigint
) LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, pg_temp AS $$
    SELECT erasure_id, stream, device_id, asked_at, asked_by, asked_why, asked_token, finished_at,
           receipts, files
    FROM erasure
    WHERE (asked IS NULL OR erasure_id = asked)
      AND (after_at IS NULL OR asked_at < after_at OR asked_at = after_at AND erasure_id > after_id)
    ORDER BY asked_at DESC, erasure_id
    LIMIT most
$$;

-- Locks the device as its writers do. A live row is made where there is none: whoever stores the first
-- reading of the device in this moment waits, and then sees what was done. Such a row may stay, to show what
-- the archive has left: so it has what the store goes by. guard is after whatever is voided by now as well.
CREATE FUNCTION hold_erased(of_stream text, id text) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    guard       constant timestamptz := clock_timestamp() + interval '1 hour';
    is_register boolean;
BEGIN
    PERFORM FROM devices WHERE device_id = id FOR UPDATE;
    is_register := EXISTS (SELECT FROM devices WHERE device_id = id AND NOT isempty(registers));
    IF of_stream = 'meter' THEN
        INSERT INTO meter_live_status AS live
            (meter_id, last_timestamp, updated_at, voided_to, reports_register,
             last_kwh_consumed_ac, last_voltage)
        VALUES (id, '-infinity', '-infinity', guard, is_register, 0, 0)
        ON CONFLICT (meter_id) DO UPDATE SET voided_to = greatest(live.voided_to, guard);
    ELSE
        INSERT INTO vehicle_live_status AS live
            (vehicle_id, last_timestamp, updated_at, voided_to, reports_register,
             last_kwh_delivered_dc, last_battery_temp)
        VALUES (id, '-infinity', '-infinity', guard, is_register, 0, 0)
        ON CONFLICT (vehicle_id) DO UPDATE SET voided_to = greatest(live.voided_to, guard);
    END IF;
END
$$;

CREATE FUNCTION release_erased(of_stream text, id text) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM meter_live_status
    WHERE of_stream = 'meter' AND meter_id = id AND last_timestamp = '-infinity';
    DELETE FROM vehicle_live_status
    WHERE of_stream = 'vehicle' AND vehicle_id = id AND last_timestamp = '-infinity';
END
$$;

-- The steps of each stream: the same but for the columns.
DO $migration$
DECLARE
    stream text; sums text; summed text; added text; shown text; charge text; claims text; items text; types text;
BEGIN
    FOR stream, items, types, sums, summed, added, shown, charge, claims IN VALUES
        ('meter',
         'ids, timestamps, received_ats, kwhs, voltages, registers',
         'INOUT voltages double precision[]',
         'kwh_consumed_ac', 'sum(kwh_consumed_ac)',
         'kwh_consumed_ac = rollup.kwh_consumed_ac + excluded.kwh_consumed_ac',
         'last_kwh_consumed_ac = newest.kwh_consumed_ac, last_voltage = newest.voltage', '', ''),
        ('vehicle',
         'ids, timestamps, received_ats, kwhs, battery_temps, socs, meters, registers',
         'INOUT battery_temps double precision[], INOUT socs double precision[], INOUT meters text[]',
         'kwh_delivered_dc, battery_temp_sum', 'sum(kwh_delivered_dc), sum(battery_temp)',
         'kwh_delivered_dc = rollup.kwh_delivered_dc + excluded.kwh_delivered_dc,
          battery_temp_sum = rollup.battery_temp_sum + excluded.battery_temp_sum',
         'last_kwh_delivered_dc = newest.kwh_delivered_dc, last_battery_temp = newest.battery_temp',
         $$
    UPDATE vehicle_live_status
    SET soc = charged.soc, soc_timestamp = coalesce(charged."timestamp", '-infinity'),
        soc_received_at = coalesce(charged.received_at, '-infinity')
    FROM (VALUES (1)) AS one LEFT JOIN (
        SELECT h.soc, h."timestamp", h.received_at FROM vehicle_telemetry_history h
        WHERE h.vehicle_id = asked.device_id AND h.soc IS NOT NULL
        ORDER BY h."timestamp" DESC, h.received_at DESC
        LIMIT 1
    ) AS charged ON true
    WHERE vehicle_id = asked.device_id AND soc_received_at <= asked.asked_at
      AND soc_timestamp > of_day AND soc_timestamp <= until;$$,
         $$
    PERFORM claim_meters(array_agg(vehicle_id), array_agg(valid_from + cadence), array_agg(meter_id),
                         array_agg(NULL::text))
    FROM links
    WHERE vehicle_id = asked.device_id AND source = 'reading'
      AND valid_from + cadence > of_day AND valid_from + cadence <= until
      AND NOT EXISTS (
          SELECT FROM vehicle_telemetry_history h
          WHERE h.vehicle_id = asked.device_id AND h."timestamp" = valid_from + cadence
            AND h."timestamp" > of_day AND h."timestamp" <= until);$$)
    LOOP
        EXECUTE format($function$
-- Leaves out what was accepted of erased devices before. While an erasure is pending, a reading that history
-- has from before may still come again: it will go with that. A register has to, whose energy changes (0011).
CREATE FUNCTION drop_erased_%1$s_readings(
    INOUT ids text[], INOUT timestamps timestamptz[], INOUT received_ats timestamptz[],
    INOUT kwhs double precision[], %3$s, INOUT registers double precision[]
) LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    kept integer[];
BEGIN
    SELECT coalesce(array_agg(position ORDER BY position), '{}') INTO kept
    FROM unnest(ids, timestamps, received_ats) WITH ORDINALITY
        AS item (id, ts, received_at, position)
    WHERE NOT EXISTS (
        SELECT FROM erasure
        WHERE device_hash = hash_device('%1$s', item.id) AND asked_at >= item.received_at
          AND (device_id IS NULL OR NOT EXISTS (
              SELECT FROM %1$s_telemetry_history h
              WHERE h.%1$s_id = item.id AND h."timestamp" = item.ts
                AND h.received_at <= erasure.asked_at)));
    SELECT %4$s INTO %2$s;
END
$$;

-- Erases what was accepted of a day, (of_day, of_day + 24 h], before the erasure was asked for; survivors
-- are the rows that the archive keeps of it. Returns the number of receipts that history had.
CREATE FUNCTION erase_%1$s_day(erasing uuid, of_day timestamptz, survivors jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    cadence constant interval := '60 seconds';
    until   constant timestamptz := of_day + interval '24 hours';
    asked   erasure;
    gone    timestamptz[];
    erased  bigint;
BEGIN
    SELECT * INTO asked FROM erasure
    WHERE erasure_id = erasing AND erasure.stream = '%1$s' AND device_id IS NOT NULL;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM hold_erased('%1$s', asked.device_id);
    PERFORM FROM erasure WHERE erasure_id = erasing AND device_id IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN  -- another run was faster
        PERFORM release_erased('%1$s', asked.device_id);
        RETURN 0;
    END IF;

    WITH deleted AS (
        DELETE FROM %1$s_telemetry_history
        WHERE %1$s_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= until
          AND received_at <= asked.asked_at
        RETURNING "timestamp"
    )
    SELECT count(*), array_agg(DISTINCT "timestamp") INTO erased, gone FROM deleted;

    -- What is left of the day is summed anew. A minute of which something waits to be compared with the
    -- archive counts as heard from: see step 2 of the store.
    DELETE FROM %1$s_hourly_rollup
    WHERE %1$s_id = asked.device_id AND hour >= of_day AND hour < until;
    INSERT INTO %1$s_hourly_rollup AS rollup (%1$s_id, hour, readings, minutes, %5$s)
    SELECT asked.device_id, hour, count(*), bit_or(minute_bit("timestamp", hour)), %6$s
    FROM (
        SELECT DISTINCT ON ("timestamp") *
        FROM (
            SELECT * FROM %1$s_telemetry_history
            WHERE %1$s_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= until
            UNION ALL
            SELECT * FROM jsonb_populate_recordset(NULL::%1$s_telemetry_history, survivors)
        ) AS receipt
        ORDER BY "timestamp", received_at DESC
    ) AS counted
    CROSS JOIN LATERAL rollup_hour("timestamp") AS hour
    GROUP BY hour;
    INSERT INTO %1$s_hourly_rollup AS rollup (%1$s_id, hour, readings, minutes, %5$s)
    SELECT asked.device_id, hour, 0, bit_or(minute_bit("timestamp", hour)), %9$s
    FROM %1$s_pending CROSS JOIN LATERAL rollup_hour("timestamp") AS hour
    WHERE %1$s_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= until
      AND received_at > asked.asked_at
    GROUP BY hour
    ON CONFLICT (%1$s_id, hour) DO UPDATE SET minutes = rollup.minutes | excluded.minutes;

    PERFORM sum_%1$s_days(array_agg(%1$s_id), array_agg(day))
    FROM %1$s_daily_rollup WHERE %1$s_id = asked.device_id AND day = of_day;
    PERFORM change_%1$s_summaries(array_agg(asked.device_id), array_agg(ts))
    FROM generate_series(of_day + interval '1 hour', until, interval '1 hour') AS ts;
    DELETE FROM %1$s_daily_rollup
    WHERE %1$s_id = asked.device_id AND day = of_day AND NOT EXISTS (
        SELECT FROM %1$s_hourly_rollup
        WHERE %1$s_id = asked.device_id AND hour >= of_day AND hour < until);
%8$s
    -- The live row shows what is left, if it showed what has gone.
    UPDATE %1$s_live_status
    SET last_timestamp = '-infinity', updated_at = '-infinity', previous_timestamp = '-infinity'
    WHERE %1$s_id = asked.device_id AND updated_at <= asked.asked_at
      AND last_timestamp > of_day AND last_timestamp <= until;
    -- That may be in the archive alone.
    UPDATE %1$s_live_status live
    SET last_timestamp = newest."timestamp", updated_at = newest.received_at, %7$s,
        last_register_kwh = newest.register_kwh
    FROM (
        SELECT * FROM (
            (SELECT * FROM %1$s_telemetry_history
             WHERE %1$s_id = asked.device_id ORDER BY "timestamp" DESC, received_at DESC LIMIT 1)
            UNION ALL
            SELECT * FROM jsonb_populate_recordset(NULL::%1$s_telemetry_history, survivors)
        ) AS receipt
        ORDER BY "timestamp" DESC, received_at DESC
        LIMIT 1
    ) AS newest
    WHERE live.%1$s_id = asked.device_id AND live.last_timestamp = '-infinity';
%10$s
    DELETE FROM register_events noted
    WHERE device_id = asked.device_id AND stream = '%1$s'
      AND noted."timestamp" > of_day AND noted."timestamp" <= until
      AND NOT EXISTS (
          SELECT FROM %1$s_telemetry_history h
          WHERE h.%1$s_id = asked.device_id AND h."timestamp" = noted."timestamp"
            AND h."timestamp" > of_day AND h."timestamp" <= until);
    IF gone IS NOT NULL AND EXISTS (SELECT FROM devices WHERE device_id = asked.device_id) THEN
        PERFORM settle_%1$s_registers(array_agg(asked.device_id), array_agg(ts)) FROM unnest(gone) AS ts;
    END IF;
    PERFORM release_erased('%1$s', asked.device_id);
    UPDATE erasure SET receipts = receipts + erased WHERE erasure_id = erasing;
    RETURN erased;
END
$$;
        $function$,
        stream, items, types,
        (SELECT string_agg(format(
             '(SELECT coalesce(array_agg(value ORDER BY position), ''{}'') FROM unnest(%s) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept))',
             name), ', ') FROM regexp_split_to_table(items, ', ') AS name),
        sums, summed, shown, charge, regexp_replace(sums, '\w+', '0', 'g'), claims);
    END LOOP;
END
$migration$;

-- Leaves out the names of meters that were erased after vehicles told of them. While an erasure is pending,
-- a receipt that history has may still come again as it was: the name will go from both.
CREATE FUNCTION leave_out_erased_meters(
    ids text[], timestamps timestamptz[], received_ats timestamptz[], meters text[]
) RETURNS text[] LANGUAGE sql STABLE
SET search_path = public, pg_temp AS $$
    SELECT array_agg(CASE WHEN erased.is_out THEN NULL ELSE item.meter END ORDER BY position)
    FROM unnest(ids, timestamps, received_ats, meters) WITH ORDINALITY
        AS item (id, ts, received_at, meter, position)
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM erasure
            WHERE item.meter IS NOT NULL AND device_hash = hash_device('meter', item.meter)
              AND asked_at >= item.received_at
              AND (device_id IS NULL OR NOT EXISTS (
                  SELECT FROM vehicle_telemetry_history h
                  WHERE h.vehicle_id = item.id AND h."timestamp" = item.ts
                    AND h.received_at = item.received_at AND h.meter_id = item.meter))
        ) AS is_out
    ) AS erased
$$;

-- Takes the name of an erased meter out of what a vehicle has told in a day, (of_day, of_day + 24 h].
CREATE FUNCTION erase_meter_name(erasing uuid, vehicle text, of_day timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    cadence constant interval := '60 seconds';
    until   constant timestamptz := of_day + interval '24 hours';
    asked   erasure;
BEGIN
    SELECT * INTO asked FROM erasure
    WHERE erasure_id = erasing AND stream = 'meter' AND device_id IS NOT NULL;
    PERFORM FROM devices WHERE device_id = vehicle FOR UPDATE;
    PERFORM FROM vehicle_live_status WHERE vehicle_id = vehicle FOR UPDATE;
    UPDATE vehicle_telemetry_history SET meter_id = NULL
    WHERE vehicle_id = vehicle AND meter_id = asked.device_id AND received_at <= asked.asked_at
      AND "timestamp" > of_day AND "timestamp" <= until;
    PERFORM claim_meters(array_agg(vehicle_id), array_agg(valid_from + cadence), array_agg(meter_id),
                         array_agg(NULL::text))
    FROM links
    WHERE vehicle_id = vehicle AND meter_id = asked.device_id AND source = 'reading'
      AND valid_from + cadence > of_day AND valid_from + cadence <= until
      AND asked.device_id IS DISTINCT FROM (
          SELECT h.meter_id FROM vehicle_telemetry_history h
          WHERE h.vehicle_id = vehicle AND h."timestamp" = valid_from + cadence
            AND h."timestamp" > of_day AND h."timestamp" <= until
          ORDER BY h.received_at DESC LIMIT 1);
END
$$;

-- Erases what is small, and at last the id itself, when history has nothing left that was accepted before;
-- returns whether that is done.
CREATE FUNCTION finish_erasure(erasing uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    cadence constant interval := '60 seconds';
    asked   erasure;
    claimed record;
    named   text;
    fleet   record;
    since   timestamptz;
BEGIN
    IF EXISTS (SELECT FROM erasure JOIN tariff ON meter_id = device_id
               WHERE erasure_id = erasing AND stream = 'meter') THEN
        LOCK TABLE fleet_window IN EXCLUSIVE MODE;  -- as delete_tariff does below
    END IF;
    PERFORM FROM fleet_window ORDER BY window_end FOR UPDATE;  -- before vehicles: 0007
    SELECT * INTO asked FROM erasure WHERE erasure_id = erasing AND device_id IS NOT NULL;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    PERFORM hold_erased(asked.stream, asked.device_id);
    PERFORM FROM erasure WHERE erasure_id = erasing AND device_id IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN  -- another run was faster
        PERFORM release_erased(asked.stream, asked.device_id);
        RETURN true;
    END IF;
    IF asked.stream = 'meter' AND EXISTS (
           SELECT FROM meter_telemetry_history
           WHERE meter_id = asked.device_id AND received_at <= asked.asked_at)
       OR asked.stream = 'vehicle' AND EXISTS (
           SELECT FROM vehicle_telemetry_history
           WHERE vehicle_id = asked.device_id AND received_at <= asked.asked_at) THEN
        PERFORM release_erased(asked.stream, asked.device_id);
        RETURN false;
    END IF;

    IF asked.stream = 'meter' THEN
        FOREACH since IN ARRAY array(SELECT valid_from FROM tariff WHERE meter_id = asked.device_id) LOOP
            PERFORM delete_tariff(asked.device_id, since);
        END LOOP;
    END IF;

    -- A void stays that keeps something aside which was accepted later.
    IF asked.stream = 'meter' THEN
        DELETE FROM meter_pending
        WHERE meter_id = asked.device_id AND received_at <= asked.asked_at;
        DELETE FROM meter_void_receipt
        WHERE meter_id = asked.device_id AND received_at <= asked.asked_at;
        DELETE FROM meter_void void
        WHERE meter_id = asked.device_id AND NOT (pending AND voided_at > asked.asked_at) AND NOT EXISTS (
            SELECT FROM meter_void_receipt kept
            WHERE kept.meter_id = void.meter_id AND kept."timestamp" = void."timestamp");
        UPDATE vehicle_void_receipt SET meter_id = NULL
        WHERE meter_id = asked.device_id AND received_at <= asked.asked_at;
        UPDATE vehicle_pending SET meter_id = NULL
        WHERE meter_id = asked.device_id AND received_at <= asked.asked_at;
    ELSE
        DELETE FROM vehicle_pending
        WHERE vehicle_id = asked.device_id AND received_at <= asked.asked_at;
        DELETE FROM vehicle_void_receipt
        WHERE vehicle_id = asked.device_id AND received_at <= asked.asked_at;
        DELETE FROM vehicle_void void
        WHERE vehicle_id = asked.device_id AND NOT (pending AND voided_at > asked.asked_at) AND NOT EXISTS (
            SELECT FROM vehicle_void_receipt kept
            WHERE kept.vehicle_id = void.vehicle_id AND kept."timestamp" = void."timestamp");
    END IF;

    -- What was accepted later does not go on from what is erased.
    DELETE FROM register_baselines WHERE device_id = asked.device_id AND stream = asked.stream;
    IF asked.stream = 'meter' THEN
        PERFORM settle_meter_registers(ARRAY[asked.device_id], ARRAY[first_left])
        FROM (SELECT min("timestamp") FROM meter_telemetry_history
              WHERE meter_id = asked.device_id
                AND "timestamp" >= (SELECT archived_to FROM archive_horizon WHERE stream = 'meter')
             ) AS oldest (first_left);
    ELSE
        PERFORM settle_vehicle_registers(ARRAY[asked.device_id], ARRAY[first_left])
        FROM (SELECT min("timestamp") FROM vehicle_telemetry_history
              WHERE vehicle_id = asked.device_id
                AND "timestamp" >= (SELECT archived_to FROM archive_horizon WHERE stream = 'vehicle')
             ) AS oldest (first_left);
    END IF;

    -- A declaration is of an id, which a device of the other stream may have as well. It stays where
    -- what is left is a register: the next one would count as the energy of an interval.
    DELETE FROM devices
    WHERE device_id = asked.device_id AND declared_at <= asked.asked_at
      AND NOT EXISTS (SELECT FROM meter_live_status
                      WHERE asked.stream = 'vehicle' AND meter_id = asked.device_id)
      AND NOT EXISTS (SELECT FROM vehicle_live_status
                      WHERE asked.stream = 'meter' AND vehicle_id = asked.device_id)
      AND NOT EXISTS (SELECT FROM meter_live_status
                      WHERE meter_id = asked.device_id AND last_register_kwh IS NOT NULL)
      AND NOT EXISTS (SELECT FROM vehicle_live_status
                      WHERE vehicle_id = asked.device_id AND last_register_kwh IS NOT NULL);
    DELETE FROM register_events
    WHERE device_id = asked.device_id AND stream = asked.stream
      AND NOT EXISTS (SELECT FROM devices WHERE device_id = asked.device_id);

    -- Faults are of 24 hours up to a window's end.
    LOCK TABLE charger_window IN SHARE ROW EXCLUSIVE MODE;  -- as who judges: 0009
    DELETE FROM charger_window
    WHERE asked.device_id = CASE asked.stream WHEN 'meter' THEN meter_id ELSE vehicle_id END
      AND window_end - interval '24 hours' < asked.asked_at;
    DELETE FROM fault
    WHERE asked.device_id = CASE asked.stream WHEN 'meter' THEN meter_id ELSE vehicle_id END
      AND opened_window - interval '24 hours' < asked.asked_at;

    FOR claimed IN
        SELECT * FROM links
        WHERE asked.device_id = CASE asked.stream WHEN 'meter' THEN meter_id ELSE vehicle_id END
          AND created_at <= asked.asked_at
          AND (source = 'api' OR asked.stream = 'meter')
        ORDER BY vehicle_id, valid_from
    LOOP
        -- What a reading says of that instant stands now, unless it names the same meter.
        PERFORM lock_links(ARRAY[claimed.vehicle_id]);
        named := (
            SELECT h.meter_id FROM vehicle_telemetry_history h
            WHERE h.vehicle_id = claimed.vehicle_id AND h."timestamp" = claimed.valid_from + cadence
            ORDER BY h.received_at DESC LIMIT 1);
        CONTINUE WHEN claimed.source = 'reading' AND named IS NOT DISTINCT FROM claimed.meter_id;
        PERFORM lock_links(ARRAY[claimed.meter_id, named]);
        DELETE FROM links WHERE vehicle_id = claimed.vehicle_id AND valid_from = claimed.valid_from;
        PERFORM settle_claim(claimed.vehicle_id, claimed.valid_from, named);
        PERFORM settle_neighbours(claimed.vehicle_id, claimed.valid_from, named,
                                  ARRAY[claimed.meter_id]);
    END LOOP;
    DELETE FROM link_locks
    WHERE device_id = asked.device_id
      AND NOT EXISTS (SELECT FROM links
                      WHERE vehicle_id = asked.device_id OR meter_id = asked.device_id);

    -- A vehicle leaves the fleet until the next hour; one that the meter fed is computed when asked for.
    IF asked.stream = 'vehicle' THEN
        FOR fleet IN SELECT window_end FROM vehicle_summary WHERE vehicle_id = asked.device_id LOOP
            IF EXISTS (SELECT FROM fleet_window WHERE window_end = fleet.window_end) THEN
                PERFORM count_summaries(ARRAY[asked.device_id], fleet.window_end, -1);
            END IF;
            DELETE FROM vehicle_summary
            WHERE vehicle_id = asked.device_id AND window_end = fleet.window_end;
        END LOOP;
    ELSE
        UPDATE vehicle_summary
        SET stale = true, meter_ids = array_remove(meter_ids, asked.device_id)
        WHERE asked.device_id = ANY (meter_ids);
    END IF;

    PERFORM release_erased(asked.stream, asked.device_id);
    UPDATE erasure SET device_id = NULL, finished_at = clock_timestamp() WHERE erasure_id = erasing;
    RETURN true;
END
$$;

-- For telemetry.verification: devices that are erased and of which history has something from before.
CREATE FUNCTION list_unerased(of_stream text) RETURNS TABLE (device_id text, asked_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, pg_temp AS $$
    SELECT live.id, erased.asked_at
    FROM (
        SELECT meter_id AS id FROM meter_live_status WHERE of_stream = 'meter'
        UNION ALL
        SELECT vehicle_id FROM vehicle_live_status WHERE of_stream = 'vehicle'
    ) AS live
    JOIN erasure erased
        ON device_hash = hash_device(of_stream, live.id) AND finished_at IS NOT NULL
    WHERE of_stream = 'meter' AND EXISTS (
              SELECT FROM meter_telemetry_history h
              WHERE h.meter_id = live.id AND h.received_at <= erased.asked_at)
       OR of_stream = 'vehicle' AND EXISTS (
              SELECT FROM vehicle_telemetry_history h
              WHERE h.vehicle_id = live.id AND h.received_at <= erased.asked_at)
$$;

REVOKE EXECUTE ON FUNCTION
    list_unerased, hash_device, erased_devices, request_erasure, list_erasures, hold_erased, release_erased,
    drop_erased_meter_readings, drop_erased_vehicle_readings, leave_out_erased_meters, erase_meter_day, erase_vehicle_day,
    erase_meter_name, finish_erasure
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION request_erasure, list_erasures TO telemetry_correct;
GRANT EXECUTE ON FUNCTION erase_meter_day, erase_vehicle_day, erase_meter_name, finish_erasure
TO telemetry_maintain;
GRANT EXECUTE ON FUNCTION list_unerased TO telemetry_read, telemetry_maintain;
GRANT SELECT ON erasure TO telemetry_maintain;
GRANT UPDATE (receipts, files) ON erasure TO telemetry_maintain;
GRANT SELECT, INSERT, UPDATE, DELETE ON archive_leftover TO telemetry_maintain;
