-- The same for vehicle events; 0002 says why each step is as it is. What differs is the state of
-- charge, which a reading may leave out: the live row shows that of the newest receipt that has
-- one, also where that receipt is not the newest of all. And a reading may name the meter that feeds
-- the vehicle, which 0008 makes links of; meter_ids is null where not one does.
CREATE FUNCTION set_aside_voided_vehicle_readings(
    INOUT vehicle_ids text[], INOUT timestamps timestamptz[], INOUT received_ats timestamptz[],
    INOUT kwhs double precision[], INOUT battery_temps double precision[],
    INOUT socs double precision[], INOUT meter_ids text[], INOUT registers double precision[]
) LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    receipt    record;
    name_meter constant boolean := meter_ids IS NOT NULL;
    others     integer[] := ARRAY(SELECT generate_subscripts(vehicle_ids, 1));
BEGIN
    FOR receipt IN
        SELECT item.*
        FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                    registers) WITH ORDINALITY
            AS item (id, ts, received_at, kwh, battery_temp, soc, meter, register, position)
        JOIN vehicle_void void ON void.vehicle_id = item.id AND void."timestamp" = item.ts
            AND void.withdrawn_at IS NULL AND NOT void.pending
        ORDER BY item.position
        FOR SHARE OF void
    LOOP
        LOOP
            INSERT INTO vehicle_void_receipt
                (vehicle_id, "timestamp", received_at, kwh_delivered_dc, battery_temp, soc, meter_id,
                 register_kwh)
            VALUES (receipt.id, receipt.ts, receipt.received_at, receipt.kwh, receipt.battery_temp,
                    receipt.soc, receipt.meter, receipt.register)
            ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND OR EXISTS (
                SELECT FROM vehicle_void_receipt
                WHERE vehicle_id = receipt.id AND "timestamp" = receipt.ts
                  AND received_at = receipt.received_at
                  AND (coalesce(register_kwh, kwh_delivered_dc), battery_temp, soc, meter_id)
                      IS NOT DISTINCT FROM
                      (coalesce(receipt.register, receipt.kwh)::numeric,
                       receipt.battery_temp::numeric, receipt.soc, receipt.meter));
            receipt.received_at := receipt.received_at + interval '1 microsecond';
        END LOOP;
        others := array_remove(others, receipt.position::integer);
    END LOOP;
    SELECT coalesce(array_agg(id), '{}'), array_agg(ts), array_agg(received_at), array_agg(kwh),
           array_agg(battery_temp), array_agg(soc), CASE WHEN name_meter THEN array_agg(meter) END,
           array_agg(register)
    INTO vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids, registers
    FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                registers) WITH ORDINALITY
        AS item (id, ts, received_at, kwh, battery_temp, soc, meter, register, position)
    WHERE position = ANY (others);
END
$$;

CREATE FUNCTION show_vehicle_readings(ids text[], timestamps timestamptz[]) RETURNS void
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
BEGIN
    UPDATE vehicle_live_status live
    SET soc = charged.soc, soc_timestamp = charged."timestamp",
        soc_received_at = charged.received_at
    FROM (
        SELECT DISTINCT held.vehicle_id, held.soc_timestamp
        FROM unnest(ids, timestamps) AS item (id, ts)
        JOIN vehicle_live_status held ON held.vehicle_id = item.id
            AND (held.voided_to >= item.ts OR held.last_timestamp = '-infinity')
    ) AS held
    CROSS JOIN LATERAL (
        SELECT * FROM vehicle_telemetry_history h
        WHERE h.vehicle_id = held.vehicle_id AND h."timestamp" >= held.soc_timestamp
          AND h.soc IS NOT NULL
        ORDER BY h."timestamp" DESC, h.received_at DESC
        LIMIT 1
    ) AS charged
    WHERE live.vehicle_id = held.vehicle_id
      AND (charged."timestamp", charged.received_at) > (live.soc_timestamp, live.soc_received_at);

    UPDATE vehicle_live_status live
    SET last_timestamp = newest."timestamp", updated_at = newest.received_at,
        last_kwh_delivered_dc = newest.kwh_delivered_dc, last_battery_temp = newest.battery_temp,
        last_register_kwh = newest.register_kwh
    FROM (
        SELECT DISTINCT held.vehicle_id, held.last_timestamp
        FROM unnest(ids, timestamps) AS item (id, ts)
        JOIN vehicle_live_status held ON held.vehicle_id = item.id
            AND (held.voided_to >= item.ts OR held.last_timestamp = '-infinity')
    ) AS held
    CROSS JOIN LATERAL (
        SELECT * FROM vehicle_telemetry_history h
        WHERE h.vehicle_id = held.vehicle_id AND h."timestamp" >= held.last_timestamp
        ORDER BY h."timestamp" DESC, h.received_at DESC
        LIMIT 1
    ) AS newest
    WHERE live.vehicle_id = held.vehicle_id
      AND (newest."timestamp", newest.received_at) > (live.last_timestamp, live.updated_at);
    DELETE FROM vehicle_live_status WHERE vehicle_id = ANY (ids) AND last_timestamp = '-infinity';
END
$$;

CREATE FUNCTION store_vehicle_readings(
    vehicle_ids   text[],
    timestamps    timestamptz[],
    received_ats  timestamptz[],
    kwhs          double precision[],
    battery_temps double precision[],
    socs          double precision[],
    meter_ids     text[],
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
    old_temps       numeric[];
    old_socs        double precision[];
    old_meters      text[];
    claiming        text[];
    claimed_at      timestamptz[];
    given_up        text[];
    claimed         text[];
    old_registers   numeric[];
    registers       double precision[];
    archived_to     timestamptz;
    has_voids       boolean := false;
    was_erased      boolean := false;
BEGIN
    -- What waited while a meter was erased that it names comes without the name (0013).
    IF meter_ids IS NOT NULL AND EXISTS (
        SELECT FROM erasure
        WHERE asked_at >= (SELECT min(received_at) FROM unnest(received_ats) AS received_at)) THEN
        meter_ids := leave_out_erased_meters(vehicle_ids, timestamps, received_ats, meter_ids);
    END IF;

    -- 0. Of a register that was reported counts what it has grown by.
    IF EXISTS (SELECT FROM devices) THEN
        SELECT * INTO kwhs, registers
        FROM convert_vehicle_registers(vehicle_ids, timestamps, received_ats, kwhs);
    END IF;
    PERFORM refuse_energies(kwhs, registers);

    -- 1. Lock the devices and update their live rows.
    WITH newest AS (
        SELECT DISTINCT ON (id COLLATE "C") *
        FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, registers)
            AS item (id, ts, received_at, kwh, battery_temp, register)
        ORDER BY id COLLATE "C", ts DESC, received_at DESC
    ), charged AS (
        SELECT DISTINCT ON (id COLLATE "C") *
        FROM unnest(vehicle_ids, timestamps, received_ats, socs)
            AS item (id, ts, received_at, soc)
        WHERE soc IS NOT NULL
        ORDER BY id COLLATE "C", ts DESC, received_at DESC
    ), written AS (
        INSERT INTO vehicle_live_status AS live
            (vehicle_id, last_timestamp, updated_at, last_kwh_delivered_dc, last_battery_temp,
             last_register_kwh, soc, soc_timestamp, soc_received_at, summed_to)
        SELECT newest.id, newest.ts, newest.received_at, newest.kwh, newest.battery_temp,
               newest.register,
               charged.soc, coalesce(charged.ts, '-infinity'),
               coalesce(charged.received_at, '-infinity'),
               coalesce((SELECT max(window_end) FROM fleet_window), '-infinity')
        FROM newest LEFT JOIN charged USING (id)
        ORDER BY newest.id COLLATE "C"
        ON CONFLICT (vehicle_id) DO UPDATE SET
            previous_timestamp = live.last_timestamp,
            last_timestamp = greatest(excluded.last_timestamp, live.last_timestamp),
            updated_at =
                CASE WHEN (excluded.last_timestamp, excluded.updated_at)
                          > (live.last_timestamp, live.updated_at)
                     THEN excluded.updated_at ELSE live.updated_at END,
            last_kwh_delivered_dc =
                CASE WHEN (excluded.last_timestamp, excluded.updated_at)
                          > (live.last_timestamp, live.updated_at)
                     THEN excluded.last_kwh_delivered_dc ELSE live.last_kwh_delivered_dc END,
            last_battery_temp =
                CASE WHEN (excluded.last_timestamp, excluded.updated_at)
                          > (live.last_timestamp, live.updated_at)
                     THEN excluded.last_battery_temp ELSE live.last_battery_temp END,
            last_register_kwh =
                CASE WHEN (excluded.last_timestamp, excluded.updated_at)
                          > (live.last_timestamp, live.updated_at)
                     THEN excluded.last_register_kwh ELSE live.last_register_kwh END,
            soc =
                CASE WHEN (excluded.soc_timestamp, excluded.soc_received_at)
                          > (live.soc_timestamp, live.soc_received_at)
                     THEN excluded.soc ELSE live.soc END,
            soc_received_at =
                CASE WHEN (excluded.soc_timestamp, excluded.soc_received_at)
                          > (live.soc_timestamp, live.soc_received_at)
                     THEN excluded.soc_received_at ELSE live.soc_received_at END,
            soc_timestamp = greatest(excluded.soc_timestamp, live.soc_timestamp)
        WHERE ((excluded.last_timestamp, excluded.updated_at)
               > (live.last_timestamp, live.updated_at)
            OR (excluded.soc_timestamp, excluded.soc_received_at)
               > (live.soc_timestamp, live.soc_received_at))
          AND least(excluded.last_timestamp, nullif(excluded.soc_timestamp, '-infinity'))
            > live.voided_to
        RETURNING vehicle_id, greatest(previous_timestamp, voided_to) AS previous_timestamp,
                  summed_to
    )
    SELECT array_agg(vehicle_id), array_agg(previous_timestamp), array_agg(summed_to)
    INTO ids, previous, summed
    FROM written;
    IF '-infinity' = ANY (previous) THEN
        UPDATE vehicle_live_status SET reports_register = true
        FROM devices
        WHERE vehicle_id = ANY (ids) AND NOT reports_register
          AND device_id = vehicle_id AND NOT isempty(devices.registers);
        UPDATE vehicle_live_status live
        SET voided_to = void.last, last_timestamp = '-infinity', updated_at = '-infinity',
            soc = NULL, soc_timestamp = '-infinity', soc_received_at = '-infinity'
        FROM (SELECT vehicle_id, max(guard) AS last
              FROM (SELECT vehicle_id, "timestamp" AS guard FROM vehicle_void WHERE vehicle_id = ANY (ids)
                    UNION ALL SELECT * FROM erased_devices('vehicle', ids)) AS guard
              GROUP BY vehicle_id) AS void
        WHERE live.vehicle_id = void.vehicle_id AND live.voided_to = '-infinity';
        IF FOUND THEN
            previous := array_fill(timestamptz 'infinity', ARRAY[cardinality(ids)]);
        END IF;
    END IF;

    -- 2. Look up the receipts that counted so far.
    SELECT array_agg(id), array_agg(ts), min(ts), max(ts)
    INTO late_ids, late_timestamps, first_late, last_late
    FROM (
        SELECT DISTINCT item.id, item.ts
        FROM unnest(vehicle_ids, timestamps) AS item (id, ts)
        LEFT JOIN unnest(ids, previous) AS written (id, shown_before) USING (id)
        WHERE item.ts <= written.shown_before OR written.id IS NULL
    ) AS late;

    IF late_ids IS NOT NULL THEN
        was_erased := EXISTS (SELECT FROM erased_devices('vehicle', late_ids));
        IF was_erased THEN
            SELECT * INTO vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids, registers
            FROM drop_erased_vehicle_readings(
                vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids, registers);
        END IF;
        has_voids := EXISTS (SELECT FROM vehicle_void WHERE vehicle_id = ANY (late_ids));
        IF has_voids THEN
            SELECT * INTO vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                          registers
            FROM set_aside_voided_vehicle_readings(
                vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                registers);
        END IF;

        SELECT array_agg(late.id), array_agg(late.ts), array_agg(counted.received_at),
               array_agg(counted.kwh_delivered_dc), array_agg(counted.battery_temp),
               array_agg(counted.soc), array_agg(counted.meter_id),
               array_agg(counted.register_kwh)
        INTO old_ids, old_timestamps, old_receipts, old_kwhs, old_temps, old_socs, old_meters,
             old_registers
        FROM unnest(late_ids, late_timestamps) AS late (id, ts)
        CROSS JOIN LATERAL (
            SELECT h.received_at, h.kwh_delivered_dc, h.battery_temp, h.soc, h.meter_id,
                   h.register_kwh
            FROM vehicle_telemetry_history h
            WHERE h.vehicle_id = late.id AND h."timestamp" = late.ts
              AND h."timestamp" >= first_late AND h."timestamp" <= last_late
            ORDER BY h.received_at DESC
            LIMIT 1
        ) AS counted;

        archived_to := (SELECT horizon.archived_to FROM archive_horizon horizon WHERE stream = 'vehicle');
        IF first_late < archived_to THEN
            WITH item AS (
                SELECT item.*,
                       late.id IS NOT NULL AND item.ts < archived_to AND old.id IS NULL
                       AND (item.ts <= live.last_timestamp OR was_erased)
                       AND hourly.minutes & minute_bit(item.ts, hourly.hour) != 0 IS TRUE AS unclear
                FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs,
                            meter_ids, registers)
                    AS item (id, ts, received_at, kwh, battery_temp, soc, meter, register)
                LEFT JOIN unnest(late_ids, late_timestamps) AS late (id, ts)
                    ON late.id = item.id AND late.ts = item.ts
                LEFT JOIN unnest(old_ids, old_timestamps) AS old (id, ts)
                    ON old.id = item.id AND old.ts = item.ts
                JOIN vehicle_live_status live ON live.vehicle_id = item.id
                LEFT JOIN vehicle_hourly_rollup hourly
                    ON hourly.vehicle_id = item.id AND hourly.hour = rollup_hour(item.ts)
            ), pending AS (
                INSERT INTO vehicle_pending (vehicle_id, "timestamp", received_at, kwh_delivered_dc,
                                             battery_temp, soc, meter_id, register_kwh)
                SELECT id, ts, received_at, kwh, battery_temp, soc, meter, register
                FROM item WHERE unclear
            )
            SELECT coalesce(array_agg(id), '{}'), array_agg(ts), array_agg(received_at),
                   array_agg(kwh), array_agg(battery_temp), array_agg(soc), array_agg(meter),
                   array_agg(register)
            INTO vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                 registers
            FROM item WHERE NOT unclear;
        END IF;
    END IF;

    -- 3. Append.
    LOOP
        INSERT INTO vehicle_telemetry_history
            (vehicle_id, "timestamp", received_at, kwh_delivered_dc, battery_temp, soc, meter_id,
             register_kwh)
        SELECT id, ts, received_at, kwh, battery_temp, soc, meter, register
        FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                    registers)
            AS item (id, ts, received_at, kwh, battery_temp, soc, meter, register)
        ORDER BY id COLLATE "C", ts, received_at
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS inserted = ROW_COUNT;
        EXIT WHEN inserted = cardinality(vehicle_ids);

        SELECT array_agg(received_at + CASE WHEN other THEN interval '1 microsecond'
                                            ELSE interval '0' END ORDER BY position),
               bool_or(other)
        INTO received_ats, collided
        FROM (
            SELECT item.received_at, item.position,
                   (coalesce(stored.register_kwh, stored.kwh_delivered_dc), stored.battery_temp,
                    stored.soc, stored.meter_id)
                   IS DISTINCT FROM
                   (coalesce(item.register, item.kwh)::numeric, item.battery_temp::numeric,
                    item.soc, item.meter) AS other
            FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                        registers) WITH ORDINALITY
                AS item (id, ts, received_at, kwh, battery_temp, soc, meter, register, position)
            CROSS JOIN LATERAL (
                SELECT * FROM vehicle_telemetry_history h
                WHERE h.vehicle_id = item.id AND h."timestamp" = item.ts
                  AND h.received_at = item.received_at
                LIMIT 1
            ) AS stored
        ) AS compared;
        EXIT WHEN NOT collided;

        UPDATE vehicle_live_status live
        SET updated_at = newest.received_at,
            last_kwh_delivered_dc = newest.kwh,
            last_battery_temp = newest.battery_temp,
            last_register_kwh = newest.register
        FROM (
            SELECT DISTINCT ON (id COLLATE "C") *
            FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, registers)
                AS item (id, ts, received_at, kwh, battery_temp, register)
            ORDER BY id COLLATE "C", ts DESC, received_at DESC
        ) AS newest
        WHERE live.vehicle_id = newest.id
          AND live.last_timestamp = newest.ts AND live.updated_at < newest.received_at;

        UPDATE vehicle_live_status live
        SET soc = charged.soc, soc_received_at = charged.received_at
        FROM (
            SELECT DISTINCT ON (id COLLATE "C") *
            FROM unnest(vehicle_ids, timestamps, received_ats, socs)
                AS item (id, ts, received_at, soc)
            WHERE soc IS NOT NULL
            ORDER BY id COLLATE "C", ts DESC, received_at DESC
        ) AS charged
        WHERE live.vehicle_id = charged.id
          AND live.soc_timestamp = charged.ts AND live.soc_received_at < charged.received_at;
    END LOOP;
    IF has_voids OR was_erased THEN
        PERFORM show_vehicle_readings(late_ids, late_timestamps);
    END IF;

    -- 4. Rollup.
    WITH counted AS (
        SELECT DISTINCT ON (item.id COLLATE "C", item.ts)
               item.id, rollup_hour(item.ts) AS hour, item.ts,
               CASE WHEN old.id IS NULL THEN 1 ELSE 0 END AS is_new,
               item.kwh::numeric - coalesce(old.kwh, 0) AS kwh,
               item.battery_temp::numeric - coalesce(old.battery_temp, 0) AS battery_temp
        FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps)
            AS item (id, ts, received_at, kwh, battery_temp)
        LEFT JOIN unnest(old_ids, old_timestamps, old_receipts, old_kwhs, old_temps)
            AS old (id, ts, received_at, kwh, battery_temp) ON old.id = item.id AND old.ts = item.ts
        WHERE old.id IS NULL OR item.received_at > old.received_at
        ORDER BY item.id COLLATE "C", item.ts, item.received_at DESC
    ), written AS (
        INSERT INTO vehicle_hourly_rollup AS rollup
            (vehicle_id, hour, readings, minutes, kwh_delivered_dc, battery_temp_sum)
        SELECT id, hour, sum(is_new), bit_or(minute_bit(ts, hour)), sum(kwh), sum(battery_temp)
        FROM counted
        GROUP BY id, hour
        ORDER BY id COLLATE "C", hour
        ON CONFLICT (vehicle_id, hour) DO UPDATE SET
            readings = rollup.readings + excluded.readings,
            minutes = rollup.minutes | excluded.minutes,
            kwh_delivered_dc = rollup.kwh_delivered_dc + excluded.kwh_delivered_dc,
            battery_temp_sum = rollup.battery_temp_sum + excluded.battery_temp_sum
    )
    SELECT count(*) INTO distinct_new FROM counted;

    -- 5. The meters that readings name now and did not before, or no longer.
    IF meter_ids IS NOT NULL OR array_remove(old_meters, NULL) != '{}' THEN
        SELECT array_agg(id), array_agg(ts), array_agg(old_meter), array_agg(meter)
        INTO claiming, claimed_at, given_up, claimed
        FROM (
            SELECT DISTINCT ON (item.id COLLATE "C", item.ts)
                   item.id, item.ts, old.meter AS old_meter, item.meter
            FROM unnest(vehicle_ids, timestamps, received_ats, meter_ids)
                AS item (id, ts, received_at, meter)
            LEFT JOIN unnest(old_ids, old_timestamps, old_receipts, old_meters)
                AS old (id, ts, received_at, meter) ON old.id = item.id AND old.ts = item.ts
            WHERE old.id IS NULL OR item.received_at > old.received_at
            ORDER BY item.id COLLATE "C", item.ts, item.received_at DESC
        ) AS counted
        WHERE meter IS DISTINCT FROM old_meter;
        IF claiming IS NOT NULL THEN
            PERFORM claim_meters(claiming, claimed_at, given_up, claimed);
        END IF;
    END IF;

    -- 6. Sum days anew.
    IF late_ids IS NOT NULL
       OR (SELECT min(ts) FROM unnest(timestamps) AS ts)
          <= (SELECT max(summed_to) FROM unnest(summed) AS summed_to) THEN
        PERFORM change_vehicle_summaries(vehicle_ids, timestamps);
    END IF;

    -- 7. Tell re-sent readings from new ones.
    duplicates := 0;
    corrections := 0;
    IF distinct_new < cardinality(vehicle_ids) OR old_ids IS NOT NULL THEN
        SELECT count(*) FILTER (WHERE was = came), count(*) FILTER (WHERE was != came)
        INTO duplicates, corrections
        FROM (
            SELECT came,
                   coalesce(lag(came) OVER (PARTITION BY id COLLATE "C", ts ORDER BY received_at),
                            before) AS was
            FROM (
                SELECT item.id, item.ts, item.received_at,
                       ROW(coalesce(item.register, item.kwh)::numeric, item.battery_temp::numeric,
                           item.soc, item.meter)::text AS came,
                       CASE WHEN old.id IS NOT NULL
                           THEN ROW(coalesce(old.register, old.kwh), old.battery_temp, old.soc,
                                    old.meter)::text
                       END AS before
                FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs,
                            meter_ids, registers)
                    AS item (id, ts, received_at, kwh, battery_temp, soc, meter, register)
                LEFT JOIN unnest(old_ids, old_timestamps, old_kwhs, old_temps, old_socs, old_meters,
                                 old_registers)
                    AS old (id, ts, kwh, battery_temp, soc, meter, register)
                    ON old.id = item.id AND old.ts = item.ts
            ) AS item
        ) AS compared;
    END IF;

    -- 8. Registers after a late one.
    IF late_ids IS NOT NULL AND EXISTS (SELECT FROM devices) THEN
        PERFORM settle_vehicle_registers(late_ids, late_timestamps);
    END IF;
END
$$;

CREATE FUNCTION store_vehicle_reading(
    id           text,
    ts           timestamptz,
    received_at  timestamptz,
    kwh          double precision,
    battery_temp double precision,
    charge       double precision,
    meter        text,
    in_hour      timestamptz,
    minute       bigint
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_variable
DECLARE
    is_plain constant boolean := meter IS NULL OR (
        SELECT asked_at FROM public.erasure WHERE asked_at >= received_at
        ORDER BY asked_at DESC LIMIT 1) IS NULL;
BEGIN
    UPDATE public.vehicle_live_status
    SET last_timestamp = ts, updated_at = received_at,
        last_kwh_delivered_dc = kwh, last_battery_temp = battery_temp,
        soc = coalesce(charge, soc),
        soc_timestamp = CASE WHEN charge IS NULL THEN soc_timestamp ELSE ts END,
        soc_received_at = CASE WHEN charge IS NULL THEN soc_received_at ELSE received_at END
    WHERE vehicle_id = id AND last_timestamp < ts AND summed_to < ts AND voided_to < ts
      AND NOT reports_register AND kwh <= 10000 AND is_plain;
    IF NOT FOUND THEN
        PERFORM public.store_vehicle_readings(ARRAY[id], ARRAY[ts], ARRAY[received_at], ARRAY[kwh],
                                       ARRAY[battery_temp], ARRAY[charge],
                                       CASE WHEN meter IS NOT NULL THEN ARRAY[meter] END);
        RETURN;
    END IF;

    INSERT INTO public.vehicle_telemetry_history
        (vehicle_id, "timestamp", received_at, kwh_delivered_dc, battery_temp, soc, meter_id)
    VALUES (id, ts, received_at, kwh, battery_temp, charge, meter);

    UPDATE public.vehicle_hourly_rollup
    SET readings = readings + 1,
        minutes = minutes | minute,
        kwh_delivered_dc = kwh_delivered_dc + kwh::numeric,
        battery_temp_sum = battery_temp_sum + battery_temp::numeric
    WHERE vehicle_id = id AND hour = in_hour;
    IF NOT FOUND THEN
        INSERT INTO public.vehicle_hourly_rollup
            (vehicle_id, hour, readings, minutes, kwh_delivered_dc, battery_temp_sum)
        VALUES (id, in_hour, 1, minute, kwh, battery_temp);
    END IF;

    IF meter IS NOT NULL THEN
        PERFORM public.claim_meter(id, ts, meter);
    END IF;
END
$$;

REVOKE EXECUTE ON FUNCTION set_aside_voided_vehicle_readings, show_vehicle_readings FROM PUBLIC;
