-- Registers: a device may report what its meter shows, which only grows, instead of the energy of each
-- interval. history keeps the register as it was reported, and as energy what it has grown by since the
-- reading before it by device time. So everything that adds up energy needs not know of registers.
--
-- What a reading has grown by depends on its neighbour. Where a late, corrected or voided reading changes
-- that, the reading after it is stored once more, a microsecond after its last receipt, with the same
-- register and other energy: the store then corrects every sum, as for any correction.

-- What a register has grown by. It never counts less than nothing nor more than max_power_kw (1000 where
-- that is null) can deliver in the time, and 1 kWh beside: the step of a register that counts whole kWh.
-- A register that is less than before began anew: where its modulus says, or at 0. The first one counts
-- nothing. It has the 15 digits with which energies are stored: one that differed from what was stored of
-- it would be stored again and again.
CREATE FUNCTION register_energy(
    previous_at timestamptz, previous numeric, at timestamptz, register numeric,
    modulus numeric, max_power_kw numeric,
    OUT kwh numeric, OUT event text
) LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    most constant numeric :=
        coalesce(max_power_kw, 1000) * extract(epoch FROM at - previous_at) / 3600 + 1;
BEGIN
    kwh := 0;
    IF previous IS NULL OR register IS NULL THEN
        RETURN;
    ELSIF register >= previous THEN
        IF register - previous <= most THEN
            kwh := register - previous;
        ELSE
            event := 'jump';
        END IF;
    ELSIF register + modulus - previous BETWEEN 0 AND most THEN
        kwh := register + modulus - previous;
        event := 'rollover';
    ELSIF register <= most THEN
        kwh := register;
        event := 'reset';
    ELSE
        event := 'jump';
    END IF;
    kwh := kwh::double precision;
END
$$;

-- The functions of both streams differ in names alone.
DO $migration$
DECLARE
    stream   text;
    energy   text;
    columns  text;
    brought  text;
BEGIN
    FOR stream, energy, columns, brought IN VALUES
        ('meter', 'kwh_consumed_ac', 'voltage', 'array_agg(voltage)'),
        ('vehicle', 'kwh_delivered_dc', 'battery_temp, soc, meter_id',
         'array_agg(battery_temp::double precision), array_agg(soc), array_agg(meter_id)')
    LOOP
        EXECUTE format($function$
-- Tells registers from energies among events about to be stored, and gives the energy of each. Writers of
-- a device that was declared wait here for each other, before any of them locks a live row.
--
-- first_at is early enough for the readings before: the hour in which each device was heard from last.
-- It is a plain value so that partitions are pruned by it.
CREATE FUNCTION convert_%1$s_registers(
    ids text[], timestamps timestamptz[], received_ats timestamptz[],
    INOUT kwhs double precision[], OUT registers double precision[]
) LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    horizon  timestamptz;
    first_at timestamptz;
    last_at  timestamptz;
BEGIN
    PERFORM FROM devices WHERE device_id = ANY (ids) ORDER BY device_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    horizon := (SELECT archived_to FROM archive_horizon WHERE archive_horizon.stream = '%1$s');

    SELECT greatest(min(coalesce(heard.hour, rollup_hour(item.ts))), horizon), max(item.ts)
    INTO first_at, last_at
    FROM unnest(ids, timestamps) AS item (id, ts)
    JOIN devices ON device_id = item.id
    JOIN %1$s_live_status live ON live.%1$s_id = item.id AND live.last_timestamp >= item.ts
    CROSS JOIN LATERAL (
        SELECT max(rollup.hour) AS hour FROM %1$s_hourly_rollup rollup
        WHERE rollup.%1$s_id = item.id AND rollup.hour < rollup_hour(item.ts) AND rollup.readings > 0
    ) AS heard
    WHERE item.ts >= horizon;

    WITH item AS (
        SELECT item.id, item.ts, item.received_at, item.kwh, item.position,
               CASE WHEN item.received_at <@ devices.registers THEN item.kwh END AS register,
               device_id IS NOT NULL AS declared, register_modulus, max_power_kw,
               live.last_timestamp >= item.ts IS TRUE AS late
        FROM unnest(ids, timestamps, received_ats, kwhs) WITH ORDINALITY
            AS item (id, ts, received_at, kwh, position)
        LEFT JOIN devices ON device_id = item.id
        LEFT JOIN %1$s_live_status live ON live.%1$s_id = item.id AND device_id IS NOT NULL
    ), reading AS (
        SELECT DISTINCT ON (id COLLATE "C", ts) *
        FROM item
        WHERE declared AND NOT (late AND ts < horizon)
        ORDER BY id COLLATE "C", ts, received_at DESC
    ), settled AS (
        -- Of an archived day the difference that a late register splits is counted already: it has none,
        -- or, sent again, what it has.
        SELECT item.position, counted.%2$s AS kwh
        FROM item
        CROSS JOIN LATERAL (
            SELECT h.%2$s FROM %1$s_telemetry_history h
            WHERE h.%1$s_id = item.id AND h."timestamp" = item.ts AND h."timestamp" < horizon
            ORDER BY h.received_at DESC
            LIMIT 1
        ) AS counted
        WHERE item.register IS NOT NULL AND item.late AND item.ts < horizon
    ), point AS (
        SELECT DISTINCT ON (id COLLATE "C", ts) id, ts, register
        FROM (
            SELECT id, ts, register::numeric, 1 AS choice FROM reading
            UNION ALL
            SELECT live.%1$s_id, live.last_timestamp, live.last_register_kwh, 2
            FROM (SELECT DISTINCT id FROM reading) AS device
            JOIN %1$s_live_status live ON live.%1$s_id = device.id
            UNION ALL
            SELECT baseline.device_id, baseline."timestamp", baseline.register_kwh, 2
            FROM (SELECT DISTINCT id FROM reading WHERE late) AS device
            JOIN register_baselines baseline
                ON baseline.device_id = device.id AND baseline.stream = '%1$s'
            UNION ALL
            SELECT reading.id, before."timestamp", before.register_kwh, 2
            FROM reading
            CROSS JOIN LATERAL (
                SELECT h."timestamp", h.register_kwh FROM %1$s_telemetry_history h
                WHERE h.%1$s_id = reading.id AND h."timestamp" < reading.ts
                  AND h."timestamp" >= first_at AND h."timestamp" < last_at
                ORDER BY h."timestamp" DESC, h.received_at DESC
                LIMIT 1
            ) AS before
            WHERE reading.late
        ) AS point
        ORDER BY id COLLATE "C", ts, choice
    ), followed AS (
        SELECT id, ts, lag(ts) OVER device AS previous_at, lag(register) OVER device AS previous
        FROM point
        WINDOW device AS (PARTITION BY id COLLATE "C" ORDER BY ts)
    ), noted AS (
        INSERT INTO register_events (device_id, stream, "timestamp", event, register_kwh, previous_kwh)
        SELECT id, '%1$s', ts, event, register, previous
        FROM reading JOIN followed USING (id, ts)
        CROSS JOIN LATERAL register_energy(
            previous_at, previous, ts, register::numeric, register_modulus, max_power_kw)
        WHERE NOT late AND event IS NOT NULL
        ON CONFLICT DO NOTHING
    ), kept AS (
        -- Who was silent for so long that its newest is of an archived day counts on from that.
        INSERT INTO register_baselines AS baseline (device_id, stream, "timestamp", register_kwh)
        SELECT DISTINCT ON (id COLLATE "C") id, '%1$s', ts, register
        FROM reading
        WHERE NOT late AND ts < horizon
          AND NOT EXISTS (SELECT FROM %1$s_void void
                          WHERE void.%1$s_id = id AND void."timestamp" = ts
                            AND withdrawn_at IS NULL AND NOT pending)
          AND NOT EXISTS (SELECT FROM erasure
                          WHERE device_hash = hash_device('%1$s', id) AND asked_at >= received_at)
        ORDER BY id COLLATE "C", ts DESC
        ON CONFLICT (device_id, stream) DO UPDATE SET
            "timestamp" = excluded."timestamp", register_kwh = excluded.register_kwh
        WHERE baseline."timestamp" < excluded."timestamp"
    )
    SELECT array_agg(CASE WHEN register IS NULL THEN item.kwh
                          ELSE coalesce(settled.kwh, energy.kwh)::double precision END
                     ORDER BY position),
           array_agg(register ORDER BY position)
    INTO kwhs, registers
    FROM item
    LEFT JOIN followed USING (id, ts)
    LEFT JOIN settled USING (position)
    CROSS JOIN LATERAL register_energy(
        previous_at, previous, ts, register::numeric, register_modulus, max_power_kw) AS energy;
END
$$;

-- After a change at these instants: gives the readings there, and those that follow them, the energy
-- that they have grown by now, and notes what is odd about them.
CREATE FUNCTION settle_%1$s_registers(ids text[], timestamps timestamptz[]) RETURNS void
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    horizon    timestamptz;
    first_at   timestamptz;
    last_at    timestamptz;
    wrong      text[];
    times      timestamptz[];
    receipts   timestamptz[];
    registers  double precision[];
BEGIN
    horizon := (SELECT archived_to FROM archive_horizon WHERE archive_horizon.stream = '%1$s');
    SELECT greatest(min(coalesce(before.hour, rollup_hour(item.ts))), horizon),
           max(coalesce(after.hour, rollup_hour(item.ts)) + interval '1 hour')
    INTO first_at, last_at
    FROM unnest(ids, timestamps) AS item (id, ts)
    JOIN devices ON device_id = item.id
    CROSS JOIN LATERAL (
        SELECT max(rollup.hour) AS hour FROM %1$s_hourly_rollup rollup
        WHERE rollup.%1$s_id = item.id AND rollup.hour < rollup_hour(item.ts) AND rollup.readings > 0
    ) AS before
    CROSS JOIN LATERAL (
        SELECT min(rollup.hour) AS hour FROM %1$s_hourly_rollup rollup
        WHERE rollup.%1$s_id = item.id AND rollup.hour > rollup_hour(item.ts) AND rollup.readings > 0
    ) AS after
    WHERE item.ts >= horizon;
    IF first_at IS NULL THEN
        RETURN;
    END IF;

    WITH asked AS (
        SELECT DISTINCT item.id, item.ts, register_modulus, max_power_kw
        FROM unnest(ids, timestamps) AS item (id, ts)
        JOIN devices ON device_id = item.id
        WHERE item.ts >= horizon
    ), point AS (
        SELECT DISTINCT ON (id COLLATE "C", ts) *
        FROM (
            SELECT asked.id, found."timestamp" AS ts, found.register_kwh AS register, found.received_at,
                   found.%2$s AS kwh, found.place, register_modulus, max_power_kw
            FROM asked
            CROSS JOIN LATERAL (
                (SELECT *, 2 AS place FROM %1$s_telemetry_history h
                 WHERE h.%1$s_id = asked.id AND h."timestamp" < asked.ts
                   AND h."timestamp" >= first_at AND h."timestamp" <= last_at
                 ORDER BY h."timestamp" DESC, h.received_at DESC LIMIT 1)
                UNION ALL
                (SELECT *, 1 FROM %1$s_telemetry_history h
                 WHERE h.%1$s_id = asked.id AND h."timestamp" = asked.ts
                   AND h."timestamp" >= first_at AND h."timestamp" <= last_at
                 ORDER BY h.received_at DESC LIMIT 1)
                UNION ALL
                (SELECT *, 1 FROM %1$s_telemetry_history h
                 WHERE h.%1$s_id = asked.id AND h."timestamp" > asked.ts
                   AND h."timestamp" >= first_at AND h."timestamp" <= last_at
                 ORDER BY h."timestamp", h.received_at DESC LIMIT 1)
            ) AS found
            UNION ALL
            SELECT baseline.device_id, baseline."timestamp", baseline.register_kwh, NULL, NULL, 2, NULL, NULL
            FROM register_baselines baseline
            WHERE baseline.device_id = ANY (ids) AND baseline.stream = '%1$s'
        ) AS point
        ORDER BY id COLLATE "C", ts, place
    ), followed AS (
        SELECT *, lag(ts) OVER device AS previous_at, lag(register) OVER device AS previous
        FROM point
        WINDOW device AS (PARTITION BY id COLLATE "C" ORDER BY ts)
    ), judged AS (
        SELECT followed.*, energy.kwh AS grown, energy.event
        FROM followed
        CROSS JOIN LATERAL register_energy(
            previous_at, previous, ts, register, register_modulus, max_power_kw) AS energy
        WHERE place = 1
    ), forgotten AS (
        DELETE FROM register_events old
        USING (SELECT id, ts FROM asked UNION SELECT id, ts FROM judged) AS place
        WHERE old.device_id = place.id AND old.stream = '%1$s' AND old."timestamp" = place.ts
          AND old.device_id = ANY (ids) -- whatever the plan was made for, no other device's
          AND old."timestamp" >= first_at AND old."timestamp" <= last_at
          AND NOT EXISTS (SELECT FROM judged
                          WHERE (judged.id, judged.ts) = (place.id, place.ts) AND event IS NOT NULL)
    ), noted AS (
        INSERT INTO register_events (device_id, stream, "timestamp", event, register_kwh, previous_kwh)
        SELECT id, '%1$s', ts, event, register, previous FROM judged WHERE event IS NOT NULL
        ON CONFLICT (device_id, stream, "timestamp") DO UPDATE SET
            event = excluded.event, register_kwh = excluded.register_kwh,
            previous_kwh = excluded.previous_kwh
    )
    SELECT array_agg(id), array_agg(ts), array_agg(received_at), array_agg(register)
    INTO wrong, times, receipts, registers
    FROM judged
    WHERE register IS NOT NULL AND grown != kwh;

    IF wrong IS NOT NULL THEN
        PERFORM store_%1$s_readings(
            array_agg(id), array_agg(ts), array_agg(item.received_at + interval '1 microsecond'),
            array_agg(register), %4$s)
        FROM unnest(wrong, times, receipts, registers) AS item (id, ts, received_at, register)
        CROSS JOIN LATERAL (
            SELECT %3$s FROM %1$s_telemetry_history h
            WHERE h.%1$s_id = item.id AND h."timestamp" = item.ts AND h.received_at = item.received_at
              AND h."timestamp" >= first_at AND h."timestamp" <= last_at
            LIMIT 1
        ) AS values;
    END IF;
END
$$;
        $function$, stream, energy, columns, brought);
    END LOOP;
END
$migration$;

-- Declares what a device reports in what is accepted from declared_at on; returns whether it is the first
-- declaration of the device. Events of its register are judged anew, the oldest first.
--
-- A live row is made and deleted again where there is none: whoever stores the first reading of the device
-- in this moment waits for this transaction, and then sees what it declared.
CREATE FUNCTION declare_device(
    id text, is_register boolean, at timestamptz, modulus double precision, max_power double precision
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    since constant tstzmultirange := tstzmultirange(tstzrange(at, NULL, '(]'));
    first boolean;
BEGIN
    INSERT INTO devices AS device
        (device_id, declared_at, registers, register_modulus, max_power_kw)
    VALUES (id, at, CASE WHEN is_register THEN since ELSE '{}' END, modulus, max_power)
    ON CONFLICT (device_id) DO UPDATE SET
        declared_at = at,
        registers = CASE WHEN is_register THEN device.registers + since
                         ELSE device.registers - since END,
        -- Who tells intervals from now on says nothing of what its register was.
        register_modulus = CASE WHEN is_register THEN modulus
                                ELSE coalesce(modulus, device.register_modulus) END,
        max_power_kw = CASE WHEN is_register THEN max_power
                            ELSE coalesce(max_power, device.max_power_kw) END
    RETURNING xmax = 0 INTO first;

    INSERT INTO meter_live_status AS live
        (meter_id, last_timestamp, updated_at, last_kwh_consumed_ac, last_voltage)
    VALUES (id, '-infinity', '-infinity', 0, 0)
    ON CONFLICT (meter_id) DO UPDATE SET reports_register = live.reports_register OR is_register;
    DELETE FROM meter_live_status WHERE meter_id = id AND last_timestamp = '-infinity';

    INSERT INTO vehicle_live_status AS live
        (vehicle_id, last_timestamp, updated_at, last_kwh_delivered_dc, last_battery_temp)
    VALUES (id, '-infinity', '-infinity', 0, 0)
    ON CONFLICT (vehicle_id) DO UPDATE SET reports_register = live.reports_register OR is_register;
    DELETE FROM vehicle_live_status WHERE vehicle_id = id AND last_timestamp = '-infinity';

    PERFORM settle_meter_registers(array_agg(device_id), array_agg("timestamp")),
            settle_vehicle_registers(array_agg(device_id), array_agg("timestamp"))
    FROM (SELECT * FROM register_events WHERE device_id = id ORDER BY "timestamp" LIMIT 2000) AS noted;
    RETURN first;
END
$$;
COMMENT ON FUNCTION declare_device IS
    'Says whether a device reports a running register, and what is known of it.';

REVOKE EXECUTE ON FUNCTION
    convert_meter_registers, convert_vehicle_registers, settle_meter_registers,
    settle_vehicle_registers, declare_device
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION declare_device TO telemetry_ingest;
GRANT SELECT ON devices, register_events TO telemetry_read, telemetry_ingest, telemetry_maintain;
GRANT SELECT, INSERT, UPDATE, DELETE ON register_baselines TO telemetry_maintain;
