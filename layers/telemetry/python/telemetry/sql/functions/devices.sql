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
CREATE OR REPLACE FUNCTION register_energy(
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

-- What a device was declared to report, and what was odd about its register, the newest first; no row
-- where it was not declared.
CREATE OR REPLACE FUNCTION find_device(id text, most_events integer) RETURNS TABLE (
    device_id text, is_register boolean, register_modulus numeric, max_power_kw numeric,
    declared_at timestamptz, events jsonb
) LANGUAGE sql STABLE
SET search_path = public, pg_temp
SET timezone = 'UTC' AS $$
    SELECT device_id, upper_inf(registers), register_modulus, max_power_kw, declared_at, (
               SELECT jsonb_agg(to_jsonb(noted) - 'device_id' ORDER BY "timestamp" DESC)
               FROM (SELECT * FROM register_events WHERE register_events.device_id = id
                     ORDER BY "timestamp" DESC LIMIT most_events) AS noted)
    FROM devices
    WHERE device_id = id
$$;

-- Declares what a device reports in what is accepted from declared_at on; returns whether it is the first
-- declaration of the device, and what find_device does. Events of its register are judged anew, the
-- oldest first.
-- Who stores the first reading of the device in this moment waits for this transaction: see live_rows.sql.
CREATE OR REPLACE FUNCTION declare_device(
    id text, registers_from_now boolean, at timestamptz, modulus double precision,
    max_power double precision, most_events integer
) RETURNS TABLE (
    is_first boolean, device_id text, is_register boolean, register_modulus numeric,
    max_power_kw numeric, declared_at timestamptz, events jsonb
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    since constant tstzmultirange := tstzmultirange(tstzrange(at, NULL, '(]'));
    first boolean;
    odd   reading_key[];
BEGIN
    INSERT INTO devices AS device
        (device_id, declared_at, registers, register_modulus, max_power_kw)
    VALUES (id, at, CASE WHEN registers_from_now THEN since ELSE '{}' END, modulus, max_power)
    ON CONFLICT (device_id) DO UPDATE SET
        declared_at = at,
        registers = CASE WHEN registers_from_now THEN device.registers + since
                         ELSE device.registers - since END,
        -- Who tells intervals from now on says nothing of what its register was.
        register_modulus = CASE WHEN registers_from_now THEN modulus
                                ELSE coalesce(modulus, device.register_modulus) END,
        max_power_kw = CASE WHEN registers_from_now THEN max_power
                            ELSE coalesce(max_power, device.max_power_kw) END
    RETURNING xmax = 0 INTO first;

    PERFORM hold_meter(id, '-infinity', registers_from_now);
    PERFORM hold_vehicle(id, '-infinity', registers_from_now);
    PERFORM release_meter(id);
    PERFORM release_vehicle(id);

    odd := ARRAY(SELECT ROW(device_id, "timestamp")::reading_key FROM register_events
                 WHERE device_id = id ORDER BY "timestamp" LIMIT 2000);
    PERFORM store_meter_events(restate_meter_registers(odd));
    PERFORM store_vehicle_events(restate_vehicle_registers(odd));
    RETURN QUERY SELECT first, found.* FROM find_device(id, most_events) AS found;
END
$$;

COMMENT ON FUNCTION declare_device IS
    'Says whether a device reports a running register, and what is known of it.';

GRANT EXECUTE ON FUNCTION find_device, declare_device TO telemetry_ingest;
