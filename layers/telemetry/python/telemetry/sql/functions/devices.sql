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

-- How long an interval is (s); null: 60. A register has grown since the one before, if it says by how much: but
-- for no more than 31 days, which is what an interval may have. Any other is as long as it tells itself, or else
-- as its device is declared to report.
CREATE OR REPLACE FUNCTION reading_seconds(
    previous_at timestamptz, previous numeric, at timestamptz, register numeric, event text,
    told_seconds numeric, cadence_seconds integer
) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN nullif(
    CASE WHEN register IS NOT NULL AND previous IS NOT NULL AND event IS DISTINCT FROM 'jump'
         THEN least(extract(epoch FROM at - previous_at), 2678400)
         ELSE coalesce(told_seconds, cadence_seconds) END, 60);

-- What a device is declared to report in what was accepted at an instant; no row where nothing is. Inlined.
CREATE OR REPLACE FUNCTION declaration_of(id text, accepted timestamptz)
RETURNS TABLE (
    is_register boolean, register_modulus numeric, max_power_kw numeric, cadence_seconds integer
) LANGUAGE sql STABLE AS $$
    SELECT is_register, register_modulus, max_power_kw, cadence_seconds FROM device_declarations
    WHERE device_id = id AND valid_from < accepted
    ORDER BY valid_from DESC LIMIT 1
$$;

-- Whether a device ever was declared to report anything but the energy of a minute: its readings take the long way.
CREATE OR REPLACE FUNCTION is_declared(id text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM device_declarations
                   WHERE device_id = id AND (is_register OR cadence_seconds IS NOT NULL))
$$;

-- Whether it is now.
CREATE OR REPLACE FUNCTION is_declared_now(id text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM declaration_of(id, now()) WHERE is_register OR cadence_seconds IS NOT NULL)
$$;

-- How often a device reports (s): as it is declared, or else as long as its newest interval is, if that is an hour
-- at most; or else 60. A declaration is looked for only if it ever had one.
CREATE OR REPLACE FUNCTION cadence_now(id text, is_declared boolean, last_seconds numeric) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        CASE WHEN is_declared THEN (SELECT cadence_seconds FROM declaration_of(id, now())) END,
        CASE WHEN last_seconds <= 3600 THEN last_seconds END, 60)
$$;

-- Whether a device still reports, by the age of its newest reading; all in seconds.
CREATE OR REPLACE FUNCTION device_status(age numeric, cadence numeric, online_for numeric, stale_for numeric)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN age <= greatest(online_for, 1.5 * cadence) THEN 'online'
            WHEN age <= greatest(stale_for, 3 * cadence) THEN 'stale'
            ELSE 'offline' END;

-- The versions of a device's declaration, and what was odd about its register, the newest first; no row where
-- nothing is declared, nor to be stored again.
CREATE OR REPLACE FUNCTION find_device(id text, most_events integer) RETURNS TABLE (
    device_id text, versions jsonb, pending boolean, events jsonb
) LANGUAGE sql STABLE
SET search_path = public, pg_temp
SET timezone = 'UTC' AS $$
    SELECT id, coalesce(versions, '[]'), changed_after IS NOT NULL, (
               SELECT jsonb_agg(to_jsonb(noted) - 'device_id' ORDER BY "timestamp" DESC)
               FROM (SELECT * FROM register_events WHERE register_events.device_id = id
                     ORDER BY "timestamp" DESC LIMIT most_events) AS noted)
    FROM devices
    CROSS JOIN LATERAL (
        SELECT jsonb_agg(to_jsonb(version) - 'device_id' ORDER BY valid_from DESC) AS versions
        FROM device_declarations version WHERE version.device_id = id
    ) AS declared
    WHERE devices.device_id = id AND (versions IS NOT NULL OR changed_after IS NOT NULL)
$$;

-- Keeps a version of what a device reports; one that begins at the same instant is replaced, and of one that
-- says what holds then already it is kept that it was said. What was accepted since, in this moment too, is
-- to be stored again. Returns whether there are too many, whether it is new, how often what was sent since
-- an instant rose and fell, and what find_device does.
CREATE OR REPLACE FUNCTION declare_cadence(
    id text, registers boolean, cadence integer, since timestamptz, at timestamptz, modulus double precision,
    max_power double precision, most_versions integer, most_events integer, sent_since timestamptz
) RETURNS TABLE (
    refused boolean, created boolean, steps bigint, rises bigint, falls bigint,
    device_id text, versions jsonb, pending boolean, events jsonb
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    said    constant device_declarations := ROW(since, at, id, registers, modulus, max_power, cadence);
    holds   record;
    created boolean := false;
BEGIN
    LOOP  -- an erasure may have deleted it meanwhile
        INSERT INTO devices VALUES (id) ON CONFLICT DO NOTHING;
        PERFORM FROM devices WHERE device_id = id FOR UPDATE;
        EXIT WHEN FOUND;
    END LOOP;
    SELECT * INTO holds FROM declaration_of(id, since + interval '1 microsecond');
    IF NOT FOUND OR (holds.is_register, holds.register_modulus, holds.max_power_kw, holds.cadence_seconds)
                    IS DISTINCT FROM (said.is_register, said.register_modulus, said.max_power_kw,
                                      said.cadence_seconds) THEN
        created := NOT EXISTS (SELECT FROM device_declarations
                               WHERE device_id = id AND valid_from = since);
        IF created AND (SELECT count(*) FROM device_declarations WHERE device_id = id) >= most_versions THEN
            RETURN QUERY SELECT true, false, 0::bigint, 0::bigint, 0::bigint, found.*
                         FROM find_device(id, most_events) AS found;
            RETURN;
        END IF;
        DELETE FROM device_declarations WHERE device_id = id AND valid_from = since;
        INSERT INTO device_declarations VALUES (said.*);
        UPDATE devices SET changed_after = least(changed_after, since) WHERE device_id = id AND since <= at;
        PERFORM hold_meter(id, '-infinity', registers OR cadence IS NOT NULL);
        PERFORM hold_vehicle(id, '-infinity', registers OR cadence IS NOT NULL);
        PERFORM release_meter(id);
        PERFORM release_vehicle(id);
    ELSE
        UPDATE device_declarations SET declared_at = at
        WHERE device_id = id
          AND valid_from = (SELECT max(valid_from) FROM device_declarations
                            WHERE device_id = id AND valid_from <= since);
    END IF;
    RETURN QUERY
    SELECT false, created, sum(sent.steps)::bigint, sum(sent.rises)::bigint, sum(sent.falls)::bigint, found.*
    FROM (SELECT * FROM count_meter_steps(id, sent_since)
          UNION ALL SELECT * FROM count_vehicle_steps(id, sent_since)) AS sent
    CROSS JOIN find_device(id, most_events) AS found
    GROUP BY found.device_id, found.versions, found.pending, found.events;
END
$$;

COMMENT ON FUNCTION declare_cadence IS
    'Says what a device reports, and how often, and returns what is known of it.';

-- As code calls it that knows no cadence.
CREATE OR REPLACE FUNCTION declare_device(
    id text, registers boolean, since timestamptz, at timestamptz, modulus double precision,
    max_power double precision, most_versions integer, most_events integer, sent_since timestamptz
) RETURNS TABLE (
    refused boolean, created boolean, steps bigint, rises bigint, falls bigint,
    device_id text, versions jsonb, pending boolean, events jsonb
) LANGUAGE sql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
    SELECT * FROM declare_cadence(
        id, registers, NULL, since, at, modulus, max_power, most_versions, most_events, sent_since)
$$;

-- Takes a version back, as if it had never been; returns what find_device does, and nothing where there is no
-- such version.
CREATE OR REPLACE FUNCTION take_declaration_back(
    id text, since timestamptz, at timestamptz, most_events integer
) RETURNS TABLE (device_id text, versions jsonb, pending boolean, events jsonb)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM devices WHERE device_id = id FOR UPDATE;
    DELETE FROM device_declarations WHERE device_id = id AND valid_from = since;
    IF FOUND THEN
        UPDATE devices SET changed_after = least(changed_after, since) WHERE device_id = id AND since <= at;
        RETURN QUERY
        SELECT id, coalesce(found.versions, '[]'), coalesce(found.pending, false), found.events
        FROM (SELECT) AS always LEFT JOIN find_device(id, most_events) AS found ON true;
    END IF;
END
$$;

-- Notes that what a device told has been stored again, if its row is still as it was read before: nothing
-- else was declared meanwhile.
CREATE OR REPLACE FUNCTION finish_declaration(id text, as_read xid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
BEGIN
    UPDATE devices SET changed_after = NULL WHERE device_id = id AND xmin = as_read;
END
$$;

-- Of both streams, those that undeclared_{meter,vehicle}s have.
CREATE OR REPLACE FUNCTION list_undeclared(after_id text, most integer)
RETURNS TABLE (device_id text, cadence_seen integer) LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
    SELECT DISTINCT ON (found.device_id COLLATE "C") *
    FROM (SELECT * FROM undeclared_meters(after_id, most)
          UNION ALL SELECT * FROM undeclared_vehicles(after_id, most)) AS found
    ORDER BY found.device_id COLLATE "C"
    LIMIT most
$$;

GRANT EXECUTE ON FUNCTION list_undeclared TO telemetry_ingest;
GRANT EXECUTE ON FUNCTION find_device, declare_cadence, declare_device, take_declaration_back
TO telemetry_ingest;
GRANT EXECUTE ON FUNCTION declaration_of, is_declared, cadence_now, finish_declaration TO telemetry_maintain;
GRANT EXECUTE ON FUNCTION declaration_of, is_declared_now, cadence_now, device_status TO telemetry_read;
