-- Devices that are erased, with every number that is made of them. An erasure takes whatever was accepted
-- of a device up to the instant in which it was asked for (asked_at); what is accepted later begins
-- another life of the same id, and stays.
--
-- Asking (request_erasure) changes no number: it sets a guard. voided_to of the live row is raised to an
-- hour after asked_at, so that whatever was accepted before, and was never stored, counts as late to the
-- store, wherever it waited: the store drops it then (store.sql). A device without a live row gets the
-- guard when it comes back.
--
-- The maintenance (telemetry.eraser) does the work: day by day of the device, each a transaction that
-- leaves everything as history says, then what is small, and then the id itself.

CREATE OR REPLACE FUNCTION hash_device(of_stream text, id text) RETURNS bytea LANGUAGE sql STABLE
SET search_path = public, pg_temp AS $$
    SELECT sha256(key || convert_to(of_stream || '/' || id, 'UTF8')) FROM erasure_key
$$;

-- Of these devices those that were erased, each with up to when what was accepted before can be of.
-- Inlined; no id is hashed where nothing was ever erased.
CREATE OR REPLACE FUNCTION erased_devices(of_stream text, ids text[])
RETURNS TABLE (device_id text, guarded_to timestamptz) LANGUAGE sql STABLE AS $$
    SELECT id, max(asked_at) + interval '1 hour'
    FROM unnest(ids) AS id
    JOIN erasure ON device_hash = hash_device(of_stream, id)
    WHERE EXISTS (SELECT FROM erasure)
    GROUP BY id
$$;

-- Asks that a device be erased; who asked first stands. Returns whether the erasure is new, and the erasure.
CREATE OR REPLACE FUNCTION request_erasure(of_stream text, id text, by_whom text, why text, token text)
RETURNS TABLE (
    is_new boolean, erasure_id uuid, stream text, device_id text, asked_at timestamptz, asked_by text,
    asked_why text, asked_token text, finished_at timestamptz, receipts bigint, files bigint
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    asked uuid;
    fresh boolean;
BEGIN
    PERFORM hold_erased(of_stream, id);
    INSERT INTO erasure_key DEFAULT VALUES ON CONFLICT DO NOTHING;
    INSERT INTO erasure (asked_at, stream, device_id, device_hash, asked_by, asked_why, asked_token)
    VALUES (clock_timestamp(), of_stream, id, hash_device(of_stream, id), by_whom, why, token)
    ON CONFLICT (stream, device_id) WHERE device_id IS NOT NULL DO NOTHING
    RETURNING erasure_id INTO asked;
    fresh := FOUND;
    asked := coalesce(asked, (SELECT erasure_id FROM erasure
                              WHERE stream = of_stream AND device_id = id));
    PERFORM release_erased(of_stream, id);
    RETURN QUERY SELECT fresh, listed.* FROM list_erasures(asked, NULL, NULL, 1) AS listed;
END
$$;

-- Erasures, the newest first; after_… are of the last row before.
CREATE OR REPLACE FUNCTION list_erasures(asked uuid, after_at timestamptz, after_id uuid, most integer)
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
CREATE OR REPLACE FUNCTION hold_erased(of_stream text, id text) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    guard    constant timestamptz := clock_timestamp() + interval '1 hour';
    declared boolean;
BEGIN
    PERFORM FROM devices WHERE device_id = id FOR UPDATE;
    declared := is_declared(id);
    IF of_stream = 'meter' THEN
        PERFORM hold_meter(id, guard, declared);
    ELSE
        PERFORM hold_vehicle(id, guard, declared);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION release_erased(of_stream text, id text) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
BEGIN
    IF of_stream = 'meter' THEN
        PERFORM release_meter(id);
    ELSE
        PERFORM release_vehicle(id);
    END IF;
END
$$;

-- Leaves out the names of meters that were erased after vehicles told of them: what waited meanwhile
-- comes without the name. While an erasure is pending, a receipt that history has may still come again as
-- it was: the name will go from both.
CREATE OR REPLACE FUNCTION leave_out_erased_meters(INOUT events vehicle_event[]) LANGUAGE plpgsql AS $$
DECLARE
    first_named constant timestamptz := (
        SELECT min(received_at) FROM unnest(events) WHERE meter_id IS NOT NULL);
    place       integer;
BEGIN
    IF first_named IS NULL OR NOT EXISTS (SELECT FROM erasure WHERE asked_at >= first_named) THEN
        RETURN;
    END IF;
    FOR place IN
        SELECT event.ordinality
        FROM unnest(events) WITH ORDINALITY AS event
        JOIN erasure ON device_hash = hash_device('meter', event.meter_id)
            AND asked_at >= event.received_at
        WHERE device_id IS NULL OR NOT EXISTS (
            SELECT FROM vehicle_telemetry_history h
            WHERE h.vehicle_id = event.vehicle_id AND h."timestamp" = event."timestamp"
              AND h.received_at = event.received_at AND h.meter_id = event.meter_id)
    LOOP
        events[place].meter_id := NULL;
    END LOOP;
END
$$;

-- Takes the name of an erased meter out of what a vehicle has told in a day, (of_day, of_day + 24 h], up to
-- 2,000 receipts at a time. Returns null where there are more.
CREATE OR REPLACE FUNCTION erase_meter_name(erasing uuid, vehicle text, of_day timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    day_end constant timestamptz := of_day + interval '24 hours';
    until   timestamptz;
    asked   erasure;
BEGIN
    SELECT * INTO asked FROM erasure
    WHERE erasure_id = erasing AND stream = 'meter' AND device_id IS NOT NULL;
    PERFORM FROM devices WHERE device_id = vehicle FOR UPDATE;
    PERFORM FROM vehicle_live_status WHERE vehicle_id = vehicle FOR UPDATE;
    until := coalesce(
        (SELECT "timestamp" FROM vehicle_telemetry_history
         WHERE vehicle_id = vehicle AND meter_id = asked.device_id AND received_at <= asked.asked_at
           AND "timestamp" > of_day AND "timestamp" <= day_end
         ORDER BY "timestamp" OFFSET 1999 LIMIT 1),
        day_end);
    UPDATE vehicle_telemetry_history SET meter_id = NULL
    WHERE vehicle_id = vehicle AND meter_id = asked.device_id AND received_at <= asked.asked_at
      AND "timestamp" > of_day AND "timestamp" <= until;
    PERFORM claim_meters(array_agg(
        ROW(vehicle_id, valid_from, meter_id, NULL)::link_claim))
    FROM links
    WHERE vehicle_id = vehicle AND meter_id = asked.device_id AND source = 'reading'
      AND valid_from > of_day - longest_lead(vehicle) AND valid_from < until
      AND claimed_at(vehicle, valid_from) IS DISTINCT FROM asked.device_id;
    RETURN CASE WHEN until = day_end THEN true END;
END
$$;

-- Erases what is small, links up to 1,000 at a time, and at last the id itself, when history has nothing left
-- that was accepted before. Returns whether that is done; null where there are more links.
CREATE OR REPLACE FUNCTION finish_erasure(erasing uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    asked   erasure;
    claimed record;
    named   text;
    settled integer := 0;
    fleet   record;
    since   timestamptz;
BEGIN
    IF EXISTS (SELECT FROM erasure JOIN tariff ON meter_id = device_id
               WHERE erasure_id = erasing AND stream = 'meter') THEN
        LOCK TABLE fleet_window IN EXCLUSIVE MODE;  -- as delete_tariff does below
    END IF;
    PERFORM FROM fleet_window ORDER BY window_end FOR UPDATE;  -- before vehicles: fleet.sql
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

    IF asked.stream = 'meter' THEN
        PERFORM erase_meter_rest(asked.device_id, asked.asked_at);
    ELSE
        PERFORM erase_vehicle_rest(asked.device_id, asked.asked_at);
    END IF;

    -- A declaration is of an id, which a device of the other stream may have as well. It stays where
    -- what is left is a register: the next one would count as the energy of an interval.
    DELETE FROM device_declarations
    WHERE device_id = asked.device_id
      AND NOT EXISTS (SELECT FROM device_declarations
                      WHERE device_id = asked.device_id AND declared_at > asked.asked_at)
      AND NOT EXISTS (SELECT FROM meter_live_status
                      WHERE asked.stream = 'vehicle' AND meter_id = asked.device_id)
      AND NOT EXISTS (SELECT FROM vehicle_live_status
                      WHERE asked.stream = 'meter' AND vehicle_id = asked.device_id)
      AND NOT EXISTS (SELECT FROM meter_live_status
                      WHERE meter_id = asked.device_id AND last_register_kwh IS NOT NULL)
      AND NOT EXISTS (SELECT FROM vehicle_live_status
                      WHERE vehicle_id = asked.device_id AND last_register_kwh IS NOT NULL);
    DELETE FROM devices
    WHERE device_id = asked.device_id
      AND NOT EXISTS (SELECT FROM device_declarations WHERE device_id = asked.device_id)
      AND NOT EXISTS (SELECT FROM meter_live_status
                      WHERE changed_after IS NOT NULL AND meter_id = asked.device_id
                        AND last_timestamp > '-infinity')
      AND NOT EXISTS (SELECT FROM vehicle_live_status
                      WHERE changed_after IS NOT NULL AND vehicle_id = asked.device_id
                        AND last_timestamp > '-infinity');
    DELETE FROM register_events
    WHERE device_id = asked.device_id AND stream = asked.stream
      AND NOT EXISTS (SELECT FROM devices WHERE device_id = asked.device_id);

    DELETE FROM common_hour
    WHERE asked.device_id = CASE asked.stream WHEN 'meter' THEN meter_id ELSE vehicle_id END
      AND hour < asked.asked_at;

    -- Faults are of 24 hours up to a window's end.
    LOCK TABLE charger_window IN SHARE ROW EXCLUSIVE MODE;  -- as who judges
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
        IF settled = 1000 THEN
            PERFORM release_erased(asked.stream, asked.device_id);
            RETURN NULL;
        END IF;
        -- What a reading says of that instant stands now, unless it names the same meter.
        PERFORM lock_links(ARRAY[claimed.vehicle_id]);
        named := claimed_at(claimed.vehicle_id, claimed.valid_from);
        CONTINUE WHEN claimed.source = 'reading' AND named IS NOT DISTINCT FROM claimed.meter_id;
        PERFORM lock_links(ARRAY[claimed.meter_id, named]);
        DELETE FROM links WHERE vehicle_id = claimed.vehicle_id AND valid_from = claimed.valid_from;
        PERFORM claim_meters(ARRAY[ROW(
            claimed.vehicle_id, claimed.valid_from, claimed.meter_id, named)::link_claim]);
        settled := settled + 1;
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
CREATE OR REPLACE FUNCTION list_unerased(of_stream text) RETURNS TABLE (device_id text, asked_at timestamptz)
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

GRANT EXECUTE ON FUNCTION request_erasure, list_erasures TO telemetry_correct;
GRANT EXECUTE ON FUNCTION erase_meter_name, finish_erasure, list_unerased TO telemetry_maintain;
GRANT EXECUTE ON FUNCTION list_unerased TO telemetry_read;
