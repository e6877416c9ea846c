-- Puts receipts of voided readings aside, as history would take them (step 3 below), and returns the
-- others. The locks keep a void from being withdrawn before the receipts are there.
CREATE FUNCTION set_aside_voided_meter_readings(
    INOUT meter_ids text[], INOUT timestamps timestamptz[], INOUT received_ats timestamptz[],
    INOUT kwhs double precision[], INOUT voltages double precision[],
    INOUT registers double precision[]
) LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    receipt record;
    others  integer[] := ARRAY(SELECT generate_subscripts(meter_ids, 1));
BEGIN
    FOR receipt IN
        SELECT item.*
        FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
            WITH ORDINALITY AS item (id, ts, received_at, kwh, voltage, register, position)
        JOIN meter_void void ON void.meter_id = item.id AND void."timestamp" = item.ts
            AND void.withdrawn_at IS NULL AND NOT void.pending
        ORDER BY item.position
        FOR SHARE OF void
    LOOP
        LOOP
            INSERT INTO meter_void_receipt
                (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage, register_kwh)
            VALUES (receipt.id, receipt.ts, receipt.received_at, receipt.kwh, receipt.voltage,
                    receipt.register)
            ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND OR EXISTS (
                SELECT FROM meter_void_receipt
                WHERE meter_id = receipt.id AND "timestamp" = receipt.ts
                  AND received_at = receipt.received_at
                  AND (coalesce(register_kwh, kwh_consumed_ac), voltage)
                      = (coalesce(receipt.register, receipt.kwh)::numeric, receipt.voltage));
            receipt.received_at := receipt.received_at + interval '1 microsecond';
        END LOOP;
        others := array_remove(others, receipt.position::integer);
    END LOOP;
    SELECT coalesce(array_agg(id), '{}'), array_agg(ts), array_agg(received_at), array_agg(kwh),
           array_agg(voltage), array_agg(register)
    INTO meter_ids, timestamps, received_ats, kwhs, voltages, registers
    FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers) WITH ORDINALITY
        AS item (id, ts, received_at, kwh, voltage, register, position)
    WHERE position = ANY (others);
END
$$;

-- Shows what was stored up to voided_to, which step 1 leaves to this: by then it is known what of it is
-- voided. A device that has nothing else gets no live row.
CREATE FUNCTION show_meter_readings(ids text[], timestamps timestamptz[]) RETURNS void
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
BEGIN
    UPDATE meter_live_status live
    SET last_timestamp = newest."timestamp", updated_at = newest.received_at,
        last_kwh_consumed_ac = newest.kwh_consumed_ac, last_voltage = newest.voltage,
        last_register_kwh = newest.register_kwh
    FROM (
        SELECT DISTINCT held.meter_id, held.last_timestamp
        FROM unnest(ids, timestamps) AS item (id, ts)
        JOIN meter_live_status held ON held.meter_id = item.id
            AND (held.voided_to >= item.ts OR held.last_timestamp = '-infinity')
    ) AS held
    CROSS JOIN LATERAL (
        SELECT * FROM meter_telemetry_history h
        WHERE h.meter_id = held.meter_id AND h."timestamp" >= held.last_timestamp
        ORDER BY h."timestamp" DESC, h.received_at DESC
        LIMIT 1
    ) AS newest
    WHERE live.meter_id = held.meter_id
      AND (newest."timestamp", newest.received_at) > (live.last_timestamp, live.updated_at);
    DELETE FROM meter_live_status WHERE meter_id = ANY (ids) AND last_timestamp = '-infinity';
END
$$;

-- Stores meter events: live row, history and hourly rollup in the caller's one transaction.
-- The arrays run in parallel, one element an event, in any order and with repeats.
--
-- Why the rollup stays equal to history under concurrency: the first statement locks the live row
-- of every device in the call, in device order, until commit. Writers of one device therefore run
-- one after another, and each later statement here takes a new snapshot (READ COMMITTED), which
-- sees what the writer before committed.
--
-- Generic plans: otherwise a call plans each statement over all partitions anew, which takes longer
-- than a small batch. They prune partitions as they run. No sequential scans: a plan may have been
-- made when a partition was empty, and is kept while it fills.
CREATE FUNCTION store_meter_readings(
    meter_ids    text[],
    timestamps   timestamptz[],
    received_ats timestamptz[],
    kwhs         double precision[],
    voltages     double precision[],
    OUT duplicates  bigint,
    OUT corrections bigint
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    inserted        bigint;
    distinct_new    bigint;
    collided        boolean;
    ids             text[];
    previous        timestamptz[];
    summed          timestamptz[];
    late_ids        text[];
    late_timestamps timestamptz[];
    first_late      timestamptz;
    last_late       timestamptz;
    old_ids         text[];
    old_timestamps  timestamptz[];
    old_receipts    timestamptz[];
    old_kwhs        numeric[];
    old_voltages    double precision[];
    old_registers   numeric[];
    registers       double precision[];
    archived_to     timestamptz;
    has_voids       boolean := false;
    was_erased      boolean := false;
BEGIN
    -- 0. Of a register that was reported counts what it has grown by (0011).
    IF EXISTS (SELECT FROM devices) THEN
        SELECT * INTO kwhs, registers
        FROM convert_meter_registers(meter_ids, timestamps, received_ats, kwhs);
    END IF;
    PERFORM refuse_energies(kwhs, registers);

    -- 1. Lock the devices and update their live rows: the newest device time wins, on a tie the
    --    latest receipt. A row that is not updated is locked all the same. What is returned is the
    --    device time that was shown before, '-infinity' for a new device. What may be voided is not
    --    shown yet, and counts as shown before.
    WITH written AS (
        INSERT INTO meter_live_status AS live
            (meter_id, last_timestamp, updated_at, last_kwh_consumed_ac, last_voltage,
             last_register_kwh, summed_to)
        SELECT DISTINCT ON (id COLLATE "C") id, ts, received_at, kwh, voltage, register,
               -- A new device counts as summed up to where the others are.
               coalesce((SELECT max(window_end) FROM fleet_window), '-infinity')
        FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
            AS item (id, ts, received_at, kwh, voltage, register)
        ORDER BY id COLLATE "C", ts DESC, received_at DESC
        ON CONFLICT (meter_id) DO UPDATE SET
            previous_timestamp = live.last_timestamp,
            last_timestamp = excluded.last_timestamp,
            updated_at = excluded.updated_at,
            last_kwh_consumed_ac = excluded.last_kwh_consumed_ac,
            last_voltage = excluded.last_voltage,
            last_register_kwh = excluded.last_register_kwh
        WHERE (excluded.last_timestamp, excluded.updated_at)
            > (live.last_timestamp, live.updated_at)
          AND excluded.last_timestamp > live.voided_to
        RETURNING meter_id, greatest(previous_timestamp, voided_to) AS previous_timestamp, summed_to
    )
    SELECT array_agg(meter_id), array_agg(previous_timestamp), array_agg(summed_to)
    INTO ids, previous, summed
    FROM written;

    -- A device that is new here may have been declared while this waited for it (0011), and may be one
    -- of which every reading was voided (0012), or that was erased (0013).
    IF '-infinity' = ANY (previous) THEN
        UPDATE meter_live_status SET reports_register = true
        FROM devices
        WHERE meter_id = ANY (ids) AND NOT reports_register
          AND device_id = meter_id AND NOT isempty(devices.registers);
        UPDATE meter_live_status live
        SET voided_to = void.last, last_timestamp = '-infinity', updated_at = '-infinity'
        FROM (SELECT meter_id, max(guard) AS last
              FROM (SELECT meter_id, "timestamp" AS guard FROM meter_void WHERE meter_id = ANY (ids)
                    UNION ALL SELECT * FROM erased_devices('meter', ids)) AS guard
              GROUP BY meter_id) AS void
        WHERE live.meter_id = void.meter_id AND live.voided_to = '-infinity';
        IF FOUND THEN
            previous := array_fill(timestamptz 'infinity', ARRAY[cardinality(ids)]);
        END IF;
    END IF;

    -- 2. A reading newer than what the live row showed before cannot have been in history. Of any
    --    other, look up the receipt that counted so far.
    SELECT array_agg(id), array_agg(ts), min(ts), max(ts)
    INTO late_ids, late_timestamps, first_late, last_late
    FROM (
        SELECT DISTINCT item.id, item.ts
        FROM unnest(meter_ids, timestamps) AS item (id, ts)
        LEFT JOIN unnest(ids, previous) AS written (id, shown_before) USING (id)
        WHERE item.ts <= written.shown_before OR written.id IS NULL
    ) AS late;

    IF late_ids IS NOT NULL THEN
        was_erased := EXISTS (SELECT FROM erased_devices('meter', late_ids));
        IF was_erased THEN
            SELECT * INTO meter_ids, timestamps, received_ats, kwhs, voltages, registers
            FROM drop_erased_meter_readings(
                meter_ids, timestamps, received_ats, kwhs, voltages, registers);
        END IF;
        has_voids := EXISTS (SELECT FROM meter_void WHERE meter_id = ANY (late_ids));
        IF has_voids THEN
            SELECT * INTO meter_ids, timestamps, received_ats, kwhs, voltages, registers
            FROM set_aside_voided_meter_readings(
                meter_ids, timestamps, received_ats, kwhs, voltages, registers);
        END IF;

        -- first_late and last_late repeat the join's condition as plain values: partitions outside
        -- them are then pruned once, instead of being opened for each reading.
        SELECT array_agg(late.id), array_agg(late.ts), array_agg(counted.received_at),
               array_agg(counted.kwh_consumed_ac), array_agg(counted.voltage),
               array_agg(counted.register_kwh)
        INTO old_ids, old_timestamps, old_receipts, old_kwhs, old_voltages, old_registers
        FROM unnest(late_ids, late_timestamps) AS late (id, ts)
        CROSS JOIN LATERAL (
            SELECT h.received_at, h.kwh_consumed_ac, h.voltage, h.register_kwh
            FROM meter_telemetry_history h
            WHERE h.meter_id = late.id AND h."timestamp" = late.ts
              AND h."timestamp" >= first_late AND h."timestamp" <= last_late
            ORDER BY h.received_at DESC
            LIMIT 1
        ) AS counted;

        -- Of a day that is archived the receipts are no longer here. A reading is new all the same where
        -- its device was not heard from in its minute, and where it is newer than what the live row shows,
        -- so that only voided_to made it late (of a device that was erased the archive may have newer ones).
        -- Any other waits until the maintenance has compared it with the archive. The look-up holds a
        -- lock on history until this transaction ends: no day is archived between the two.
        archived_to := (SELECT horizon.archived_to FROM archive_horizon horizon WHERE stream = 'meter');
        IF first_late < archived_to THEN
            WITH item AS (
                SELECT item.*,
                       late.id IS NOT NULL AND item.ts < archived_to AND old.id IS NULL
                       AND (item.ts <= live.last_timestamp OR was_erased)
                       AND hourly.minutes & minute_bit(item.ts, hourly.hour) != 0 IS TRUE AS unclear
                FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
                    AS item (id, ts, received_at, kwh, voltage, register)
                LEFT JOIN unnest(late_ids, late_timestamps) AS late (id, ts)
                    ON late.id = item.id AND late.ts = item.ts
                LEFT JOIN unnest(old_ids, old_timestamps) AS old (id, ts)
                    ON old.id = item.id AND old.ts = item.ts
                JOIN meter_live_status live ON live.meter_id = item.id
                LEFT JOIN meter_hourly_rollup hourly
                    ON hourly.meter_id = item.id AND hourly.hour = rollup_hour(item.ts)
            ), pending AS (
                INSERT INTO meter_pending
                    (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage, register_kwh)
                SELECT id, ts, received_at, kwh, voltage, register FROM item WHERE unclear
            )
            SELECT coalesce(array_agg(id), '{}'), array_agg(ts), array_agg(received_at),
                   array_agg(kwh), array_agg(voltage), array_agg(register)
            INTO meter_ids, timestamps, received_ats, kwhs, voltages, registers
            FROM item WHERE NOT unclear;
        END IF;
    END IF;

    -- 3. Append. An event already there with the same values is the same receipt, delivered again.
    --    With other values it is another event accepted in the same microsecond: it takes the next
    --    free one. A redelivery walks the same steps, and so finds its own row.
    LOOP
        INSERT INTO meter_telemetry_history
            (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage, register_kwh)
        SELECT id, ts, received_at, kwh, voltage, register
        FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
            AS item (id, ts, received_at, kwh, voltage, register)
        ORDER BY id COLLATE "C", ts, received_at
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS inserted = ROW_COUNT;
        EXIT WHEN inserted = cardinality(meter_ids);

        SELECT array_agg(received_at + CASE WHEN other THEN interval '1 microsecond'
                                            ELSE interval '0' END ORDER BY position),
               bool_or(other)
        INTO received_ats, collided
        FROM (
            SELECT item.received_at, item.position,
                   (coalesce(stored.register_kwh, stored.kwh_consumed_ac), stored.voltage)
                   IS DISTINCT FROM
                   (coalesce(item.register, item.kwh)::numeric, item.voltage) AS other
            FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
                WITH ORDINALITY AS item (id, ts, received_at, kwh, voltage, register, position)
            CROSS JOIN LATERAL (
                SELECT * FROM meter_telemetry_history h
                WHERE h.meter_id = item.id AND h."timestamp" = item.ts
                  AND h.received_at = item.received_at
                LIMIT 1
            ) AS stored
        ) AS compared;
        EXIT WHEN NOT collided;

        -- The live row may show one of them under the instant that it did not get.
        UPDATE meter_live_status live
        SET updated_at = newest.received_at,
            last_kwh_consumed_ac = newest.kwh,
            last_voltage = newest.voltage,
            last_register_kwh = newest.register
        FROM (
            SELECT DISTINCT ON (id COLLATE "C") *
            FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
                AS item (id, ts, received_at, kwh, voltage, register)
            ORDER BY id COLLATE "C", ts DESC, received_at DESC
        ) AS newest
        WHERE live.meter_id = newest.id
          AND live.last_timestamp = newest.ts AND live.updated_at < newest.received_at;
    END LOOP;
    IF has_voids OR was_erased THEN
        PERFORM show_meter_readings(late_ids, late_timestamps);
    END IF;

    -- 4. Rollup: what each reading adds to its hour is its values less those that counted for it
    --    before. Sums are numeric, so this is exact.
    WITH counted AS (
        SELECT DISTINCT ON (item.id COLLATE "C", item.ts)
               item.id, rollup_hour(item.ts) AS hour, item.ts,
               CASE WHEN old.id IS NULL THEN 1 ELSE 0 END AS is_new,
               item.kwh::numeric - coalesce(old.kwh, 0) AS kwh
        FROM unnest(meter_ids, timestamps, received_ats, kwhs)
            AS item (id, ts, received_at, kwh)
        LEFT JOIN unnest(old_ids, old_timestamps, old_receipts, old_kwhs)
            AS old (id, ts, received_at, kwh) ON old.id = item.id AND old.ts = item.ts
        WHERE old.id IS NULL OR item.received_at > old.received_at
        ORDER BY item.id COLLATE "C", item.ts, item.received_at DESC
    ), written AS (
        INSERT INTO meter_hourly_rollup AS rollup
            (meter_id, hour, readings, minutes, kwh_consumed_ac)
        SELECT id, hour, sum(is_new), bit_or(minute_bit(ts, hour)), sum(kwh)
        FROM counted
        GROUP BY id, hour
        ORDER BY id COLLATE "C", hour
        ON CONFLICT (meter_id, hour) DO UPDATE SET
            readings = rollup.readings + excluded.readings,
            minutes = rollup.minutes | excluded.minutes,
            kwh_consumed_ac = rollup.kwh_consumed_ac + excluded.kwh_consumed_ac
    )
    SELECT count(*) INTO distinct_new FROM counted;

    -- 5. Days that are summed already are summed anew: late_ids holds every reading that is not the
    --    newest of its device, and the newest may still be of such a day.
    IF late_ids IS NOT NULL
       OR (SELECT min(ts) FROM unnest(timestamps) AS ts)
          <= (SELECT max(summed_to) FROM unnest(summed) AS summed_to) THEN
        PERFORM change_meter_summaries(meter_ids, timestamps);
    END IF;

    -- 6. Tell re-sent readings from new ones: by the receipt before each, of this call or the one
    --    that counted.
    duplicates := 0;
    corrections := 0;
    IF distinct_new < cardinality(meter_ids) OR old_ids IS NOT NULL THEN
        SELECT count(*) FILTER (WHERE was = came), count(*) FILTER (WHERE was != came)
        INTO duplicates, corrections
        FROM (
            SELECT ROW(coalesce(item.register, item.kwh)::numeric, item.voltage)::text AS came,
                   coalesce(
                       lag(ROW(coalesce(item.register, item.kwh)::numeric, item.voltage)::text) OVER (
                           PARTITION BY item.id COLLATE "C", item.ts ORDER BY item.received_at),
                       CASE WHEN old.id IS NOT NULL
                           THEN ROW(coalesce(old.register, old.kwh), old.voltage)::text
                       END
                   ) AS was
            FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
                AS item (id, ts, received_at, kwh, voltage, register)
            LEFT JOIN unnest(old_ids, old_timestamps, old_kwhs, old_voltages, old_registers)
                AS old (id, ts, kwh, voltage, register) ON old.id = item.id AND old.ts = item.ts
        ) AS compared;
    END IF;

    -- 7. What a late register is less than the one after it, that one has no longer grown by.
    IF late_ids IS NOT NULL AND EXISTS (SELECT FROM devices) THEN
        PERFORM settle_meter_registers(late_ids, late_timestamps);
    END IF;
END
$$;

-- One meter event, as store_meter_readings stores it, by three plain statements where the reading
-- is newer than the live row: that it is, the update itself proves, and then history cannot hold it
-- yet. The first reading of a meter, and any that is late, re-sent or corrected, takes the long way.
--
-- Names with their schema instead of a search_path of its own: setting one takes a quarter of the
-- time. Who may call this can make no objects that would be found before pg_catalog's. For the same
-- reason the caller brings rollup_hour and minute_bit: working them out here takes an eighth.
CREATE FUNCTION store_meter_reading(
    id          text,
    ts          timestamptz,
    received_at timestamptz,
    kwh         double precision,
    voltage     double precision,
    in_hour     timestamptz,
    minute      bigint
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_variable
BEGIN
    UPDATE public.meter_live_status
    SET last_timestamp = ts, updated_at = received_at,
        last_kwh_consumed_ac = kwh, last_voltage = voltage
    WHERE meter_id = id AND last_timestamp < ts AND summed_to < ts AND voided_to < ts
      AND NOT reports_register AND kwh <= 10000;
    IF NOT FOUND THEN
        PERFORM public.store_meter_readings(ARRAY[id], ARRAY[ts], ARRAY[received_at], ARRAY[kwh],
                                     ARRAY[voltage]);
        RETURN;
    END IF;

    INSERT INTO public.meter_telemetry_history
        (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage)
    VALUES (id, ts, received_at, kwh, voltage);

    UPDATE public.meter_hourly_rollup
    SET readings = readings + 1,
        minutes = minutes | minute,
        kwh_consumed_ac = kwh_consumed_ac + kwh::numeric
    WHERE meter_id = id AND hour = in_hour;
    IF NOT FOUND THEN
        INSERT INTO public.meter_hourly_rollup (meter_id, hour, readings, minutes, kwh_consumed_ac)
        VALUES (id, in_hour, 1, minute, kwh);
    END IF;
END
$$;

REVOKE EXECUTE ON FUNCTION set_aside_voided_meter_readings, show_meter_readings FROM PUBLIC;
