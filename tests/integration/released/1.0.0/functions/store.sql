-- How events become readings that count, of both streams.
--
-- Why the rollup stays equal to history under concurrency: lock_meters locks the live row of every
-- device in the call, in device order, until commit. Writers of one device run one after another, and
-- each later statement takes a new snapshot (READ COMMITTED), which sees what the writer before committed.
--
-- Generic plans: otherwise a call plans each statement over all partitions anew, which takes longer than
-- a small batch. They prune partitions as they run. No sequential scans: a plan may have been made when a
-- partition was empty, and is kept while it fills. What store_meter_events calls runs by its settings.

-- Stores events in any order and with repeats: live row, history, hourly rollup and what follows from
-- them, in the caller's one transaction. Returns how many were there already, and how many of the
-- readings had other values before. Locks the devices' declarations, their live rows, then their links.
CREATE OR REPLACE FUNCTION store_meter_events(
    events meter_event[], OUT duplicates bigint, OUT corrections bigint
) LANGUAGE plpgsql STRICT
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    locked   locked_device[];
    late     reading_key[];
    old      meter_event[];
    has_gone boolean;
    fresh    bigint;
BEGIN
    LOOP
        IF EXISTS (SELECT FROM devices) THEN
            events := convert_meter_registers(events);
        END IF;
        -- The energy of an interval has a limit, so that no device can make a sum meaningless. A register
        -- has not: it is as great as the meter is old.
        IF EXISTS (SELECT FROM unnest(events) WHERE kwh_consumed_ac > 10000 AND register_kwh IS NULL) THEN
            RAISE EXCEPTION 'more than 10000 kWh in an interval, of a device that reports no register'
                USING ERRCODE = 'numeric_value_out_of_range';
        END IF;

        -- A reading newer than what the live row showed before cannot have been in history.
        locked := lock_meters(events);
        IF EXISTS (SELECT FROM unnest(locked) WHERE shown_to = '-infinity') THEN
            locked := guard_new_meters(locked);
        END IF;
        late := (
            SELECT array_agg(DISTINCT ROW(event.meter_id, event."timestamp")::reading_key)
            FROM unnest(events) AS event
            LEFT JOIN unnest(locked) AS device ON device.device_id = event.meter_id
            WHERE event."timestamp" <= device.shown_to OR device.device_id IS NULL);
        has_gone := false;
        old := NULL;
        IF late IS NOT NULL THEN
            SELECT * INTO events, old, has_gone FROM admit_late_meter_events(events, late);
        END IF;

        events := append_meter_events(events);
        IF has_gone THEN
            PERFORM show_meters(late);
        END IF;
        fresh := count_meter_events(events, old);
        -- late holds every reading that is not the newest of its device; the newest may be of a day that
        -- is summed already, too.
        IF late IS NOT NULL
           OR (SELECT min("timestamp") FROM unnest(events))
              <= (SELECT max(summed_to) FROM unnest(locked)) THEN
            PERFORM mark_meter_summaries(sum_meter_days(
                ARRAY(SELECT ROW(meter_id, "timestamp")::reading_key FROM unnest(events))));
        END IF;
        IF duplicates IS NULL THEN  -- what registers are stored again for is nobody's correction
            SELECT * INTO duplicates, corrections FROM tell_resent_meter_events(
                CASE WHEN fresh < cardinality(events) OR old IS NOT NULL THEN events END, old);
        END IF;

        -- What a late register is less than the one after it, that one has no longer grown by.
        EXIT WHEN late IS NULL OR NOT EXISTS (SELECT FROM devices);
        events := restate_meter_registers(late);
        EXIT WHEN events IS NULL;
    END LOOP;
END
$$;

-- Of devices that are new: one may have been declared while this waited for it, may be one of which every
-- reading was voided, or that was erased. If one of the last two is among them, all readings of the call
-- are to be looked at as late ones are.
CREATE OR REPLACE FUNCTION guard_new_meters(INOUT locked locked_device[])
LANGUAGE plpgsql AS $$
DECLARE
    ids constant text[] := ARRAY(SELECT device_id FROM unnest(locked));
BEGIN
    UPDATE meter_live_status SET reports_register = true
    FROM devices
    WHERE meter_id = ANY (ids) AND NOT reports_register
      AND device_id = meter_id
      AND EXISTS (SELECT FROM device_declarations declared
                  WHERE declared.device_id = meter_id AND is_register);
    UPDATE meter_live_status live
    SET voided_to = guarded."to", last_timestamp = '-infinity', updated_at = '-infinity'
    FROM (SELECT meter_id, max(guard) AS "to"
          FROM (SELECT meter_id, "timestamp" AS guard FROM meter_void WHERE meter_id = ANY (ids)
                UNION ALL SELECT * FROM erased_devices('meter', ids)) AS guard
          GROUP BY meter_id) AS guarded
    WHERE live.meter_id = guarded.meter_id AND live.voided_to = '-infinity';
    IF FOUND THEN
        locked := ARRAY(SELECT ROW(device_id, 'infinity', summed_to)::locked_device FROM unnest(locked));
    END IF;
END
$$;

-- Takes what is not to be counted out of events, of which these are late: what erased devices told before,
-- what is voided, and what waits to be compared with the archive. Returns the others, the receipts that
-- counted so far, and whether a device that has something voided or erased is among them.
CREATE OR REPLACE FUNCTION admit_late_meter_events(
    INOUT events meter_event[], late reading_key[], OUT old meter_event[], OUT has_gone boolean
) LANGUAGE plpgsql AS $$
DECLARE
    ids        constant text[] := ARRAY(SELECT DISTINCT device_id FROM unnest(late));
    -- As plain values they prune partitions once, instead of opening them for each reading.
    first_late constant timestamptz := (SELECT min("timestamp") FROM unnest(late));
    last_late  constant timestamptz := (SELECT max("timestamp") FROM unnest(late));
    was_erased constant boolean := EXISTS (SELECT FROM erased_devices('meter', ids));
    aside      meter_event;
    horizon    timestamptz;
BEGIN
    -- While an erasure is pending, a reading that history has from before may still come again: it will go
    -- with that. A register has to, whose energy changes.
    has_gone := was_erased;
    IF was_erased THEN
        events := ARRAY(
            SELECT ROW(event."meter_id", event."timestamp", event."received_at", event."kwh_consumed_ac", event."voltage", event."register_kwh")::meter_event FROM unnest(events) AS event
            WHERE NOT EXISTS (
                SELECT FROM erasure
                WHERE device_hash = hash_device('meter', event.meter_id)
                  AND asked_at >= event.received_at
                  AND (device_id IS NULL OR NOT EXISTS (
                      SELECT FROM meter_telemetry_history h
                      WHERE h.meter_id = event.meter_id AND h."timestamp" = event."timestamp"
                        AND h.received_at <= erasure.asked_at))));
    END IF;

    -- Receipts of voided readings are set aside, as append_meter_events would take them. The locks keep
    -- a void from being withdrawn before the receipts are there.
    IF EXISTS (SELECT FROM meter_void WHERE meter_id = ANY (ids)) THEN
        has_gone := true;
        FOR aside IN
            SELECT event."meter_id", event."timestamp", event."received_at", event."kwh_consumed_ac", event."voltage", event."register_kwh"
            FROM unnest(events) WITH ORDINALITY AS event
            JOIN meter_void void ON void.meter_id = event.meter_id
                AND void."timestamp" = event."timestamp"
                AND void.withdrawn_at IS NULL AND NOT void.pending
            ORDER BY event.ordinality
            FOR SHARE OF void
        LOOP
            LOOP
                INSERT INTO meter_void_receipt ("meter_id", "timestamp", "received_at", "kwh_consumed_ac", "voltage", "register_kwh") SELECT aside."meter_id", aside."timestamp", aside."received_at", aside."kwh_consumed_ac", aside."voltage", aside."register_kwh" ON CONFLICT DO NOTHING;
                EXIT WHEN FOUND OR EXISTS (
                    SELECT FROM meter_void_receipt kept
                    WHERE kept.meter_id = aside.meter_id AND kept."timestamp" = aside."timestamp"
                      AND kept.received_at = aside.received_at
                      AND (coalesce(kept."register_kwh", kept."kwh_consumed_ac"), kept."voltage") IS NOT DISTINCT FROM (coalesce(aside."register_kwh", aside."kwh_consumed_ac"), aside."voltage"));
                aside.received_at := aside.received_at + interval '1 microsecond';
            END LOOP;
        END LOOP;
        events := ARRAY(
            SELECT ROW(event."meter_id", event."timestamp", event."received_at", event."kwh_consumed_ac", event."voltage", event."register_kwh")::meter_event FROM unnest(events) AS event
            WHERE NOT EXISTS (
                SELECT FROM meter_void void
                WHERE void.meter_id = event.meter_id AND void."timestamp" = event."timestamp"
                  AND void.withdrawn_at IS NULL AND NOT void.pending));
    END IF;

    old := (
        SELECT array_agg(ROW(counted."meter_id", counted."timestamp", counted."received_at", counted."kwh_consumed_ac", counted."voltage", counted."register_kwh")::meter_event)
        FROM unnest(late) AS late
        CROSS JOIN LATERAL (
            SELECT * FROM meter_telemetry_history h
            WHERE h.meter_id = late.device_id AND h."timestamp" = late."timestamp"
              AND h."timestamp" >= first_late AND h."timestamp" <= last_late
            ORDER BY h.received_at DESC
            LIMIT 1
        ) AS counted);

    -- Of a day that is archived the receipts are no longer here. A reading is new all the same where its
    -- device was not heard from in its minute, and where it is newer than what the live row shows, so that
    -- only voided_to made it late (of a device that was erased the archive may have newer ones). Any other
    -- waits until the maintenance has compared it with the archive. The look-up holds a lock on history
    -- until this transaction ends: no day is archived between the two.
    horizon := (SELECT archived_to FROM archive_horizon WHERE stream = 'meter');
    IF first_late < horizon THEN
        WITH item AS (
            SELECT event.*,
                   late.device_id IS NOT NULL AND event."timestamp" < horizon AND old.meter_id IS NULL
                   AND (event."timestamp" <= live.last_timestamp OR was_erased)
                   AND hourly.minutes & minute_bit(event."timestamp", hourly.hour) != 0 IS TRUE AS unclear
            FROM unnest(events) AS event
            LEFT JOIN unnest(late) AS late
                ON late.device_id = event.meter_id AND late."timestamp" = event."timestamp"
            LEFT JOIN unnest(old) AS old
                ON old.meter_id = event.meter_id AND old."timestamp" = event."timestamp"
            JOIN meter_live_status live ON live.meter_id = event.meter_id
            LEFT JOIN meter_hourly_rollup hourly
                ON hourly.meter_id = event.meter_id AND hourly.hour = rollup_hour(event."timestamp")
        ), pending AS (
            INSERT INTO meter_pending ("meter_id", "timestamp", "received_at", "kwh_consumed_ac", "voltage", "register_kwh") SELECT "meter_id", "timestamp", "received_at", "kwh_consumed_ac", "voltage", "register_kwh" FROM item WHERE unclear
        )
        SELECT coalesce(array_agg(ROW(item."meter_id", item."timestamp", item."received_at", item."kwh_consumed_ac", item."voltage", item."register_kwh")::meter_event), '{}') INTO events
        FROM item WHERE NOT unclear;
    END IF;
END
$$;

-- Appends events to history. One that is there already with the same values is the same receipt,
-- delivered again. With other values it is another event accepted in the same microsecond: it takes the
-- next free one. A redelivery walks the same steps, and so finds its own row. Returns the events as they
-- are stored.
CREATE OR REPLACE FUNCTION append_meter_events(INOUT events meter_event[])
LANGUAGE plpgsql AS $$
DECLARE
    inserted bigint;
    others   bigint[];
    place    bigint;
BEGIN
    LOOP
        INSERT INTO meter_telemetry_history ("meter_id", "timestamp", "received_at", "kwh_consumed_ac", "voltage", "register_kwh")
        SELECT "meter_id", "timestamp", "received_at", "kwh_consumed_ac", "voltage", "register_kwh" FROM unnest(events) ORDER BY meter_id, "timestamp", received_at
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS inserted = ROW_COUNT;
        EXIT WHEN inserted = cardinality(events);

        others := ARRAY(
            SELECT event.ordinality
            FROM unnest(events) WITH ORDINALITY AS event
            CROSS JOIN LATERAL (
                SELECT * FROM meter_telemetry_history h
                WHERE h.meter_id = event.meter_id AND h."timestamp" = event."timestamp"
                  AND h.received_at = event.received_at
                LIMIT 1
            ) AS stored
            WHERE (coalesce(stored."register_kwh", stored."kwh_consumed_ac"), stored."voltage") IS DISTINCT FROM (coalesce(event."register_kwh", event."kwh_consumed_ac"), event."voltage"));
        EXIT WHEN others = '{}';
        FOREACH place IN ARRAY others LOOP
            events[place].received_at := events[place].received_at + interval '1 microsecond';
        END LOOP;

        -- The live row may show one of them under the instant that it did not get.
        UPDATE meter_live_status live
        SET updated_at = newest.received_at, last_kwh_consumed_ac = newest.kwh_consumed_ac, last_voltage = newest.voltage, last_register_kwh = newest.register_kwh
        FROM (
            SELECT DISTINCT ON (meter_id) * FROM unnest(events)
            ORDER BY meter_id, "timestamp" DESC, received_at DESC
        ) AS newest
        WHERE live.meter_id = newest.meter_id
          AND live.last_timestamp = newest."timestamp" AND live.updated_at < newest.received_at;
    END LOOP;
END
$$;

-- Adds to hourly rollups what each reading adds to its hour: its values less those that counted for it
-- before. Sums are numeric, so this is exact. Returns how many events count now.
CREATE OR REPLACE FUNCTION count_meter_events(events meter_event[], old meter_event[])
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    fresh bigint;
BEGIN
    WITH counted AS (
        SELECT DISTINCT ON (event.meter_id, event."timestamp")
               event.meter_id, rollup_hour(event."timestamp") AS hour, event."timestamp",
               CASE WHEN old.meter_id IS NULL THEN 1 ELSE 0 END AS is_new, coalesce(event.kwh_consumed_ac, 0) - coalesce(old.kwh_consumed_ac, 0) AS kwh_consumed_ac
        FROM unnest(events) AS event
        LEFT JOIN unnest(old) AS old
            ON old.meter_id = event.meter_id AND old."timestamp" = event."timestamp"
        WHERE old.meter_id IS NULL OR event.received_at > old.received_at
        ORDER BY event.meter_id, event."timestamp", event.received_at DESC
    ), written AS (
        INSERT INTO meter_hourly_rollup AS rollup (meter_id, hour, readings, minutes, kwh_consumed_ac)
        SELECT meter_id, hour, sum(is_new), bit_or(minute_bit("timestamp", hour)), sum("kwh_consumed_ac")
        FROM counted
        GROUP BY meter_id, hour
        ORDER BY meter_id, hour
        ON CONFLICT (meter_id, hour) DO UPDATE SET
            readings = rollup.readings + excluded.readings,
            minutes = rollup.minutes | excluded.minutes, kwh_consumed_ac = rollup.kwh_consumed_ac + excluded.kwh_consumed_ac
    )
    SELECT count(*) INTO fresh FROM counted;
    RETURN fresh;
END
$$;

-- Tells re-sent readings from new ones: by the receipt before each, of this call or the one that counted.
CREATE OR REPLACE FUNCTION tell_resent_meter_events(
    events meter_event[], old meter_event[], OUT duplicates bigint, OUT corrections bigint
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT count(*) FILTER (WHERE was = came), count(*) FILTER (WHERE was != came)
    INTO duplicates, corrections
    FROM (
        SELECT came,
               coalesce(lag(came) OVER (PARTITION BY meter_id, "timestamp" ORDER BY received_at),
                        before) AS was
        FROM (
            SELECT event.meter_id, event."timestamp", event.received_at, ROW(coalesce(event."register_kwh", event."kwh_consumed_ac"), event."voltage")::text AS came,
                   CASE WHEN old.meter_id IS NOT NULL THEN ROW(coalesce(old."register_kwh", old."kwh_consumed_ac"), old."voltage")::text END AS before
            FROM unnest(events) AS event
            LEFT JOIN unnest(old) AS old
                ON old.meter_id = event.meter_id AND old."timestamp" = event."timestamp"
        ) AS event
    ) AS compared;
END
$$;
-- How events become readings that count, of both streams.
--
-- Why the rollup stays equal to history under concurrency: lock_vehicles locks the live row of every
-- device in the call, in device order, until commit. Writers of one device run one after another, and
-- each later statement takes a new snapshot (READ COMMITTED), which sees what the writer before committed.
--
-- Generic plans: otherwise a call plans each statement over all partitions anew, which takes longer than
-- a small batch. They prune partitions as they run. No sequential scans: a plan may have been made when a
-- partition was empty, and is kept while it fills. What store_vehicle_events calls runs by its settings.

-- Stores events in any order and with repeats: live row, history, hourly rollup and what follows from
-- them, in the caller's one transaction. Returns how many were there already, and how many of the
-- readings had other values before. Locks the devices' declarations, their live rows, then their links.
CREATE OR REPLACE FUNCTION store_vehicle_events(
    events vehicle_event[], OUT duplicates bigint, OUT corrections bigint
) LANGUAGE plpgsql STRICT
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    locked   locked_device[];
    late     reading_key[];
    old      vehicle_event[];
    has_gone boolean;
    fresh    bigint;
BEGIN
    LOOP
        events := leave_out_erased_meters(events);  -- of vehicles
        IF EXISTS (SELECT FROM devices) THEN
            events := convert_vehicle_registers(events);
        END IF;
        -- The energy of an interval has a limit, so that no device can make a sum meaningless. A register
        -- has not: it is as great as the meter is old.
        IF EXISTS (SELECT FROM unnest(events) WHERE kwh_delivered_dc > 10000 AND register_kwh IS NULL) THEN
            RAISE EXCEPTION 'more than 10000 kWh in an interval, of a device that reports no register'
                USING ERRCODE = 'numeric_value_out_of_range';
        END IF;

        -- A reading newer than what the live row showed before cannot have been in history.
        locked := lock_vehicles(events);
        IF EXISTS (SELECT FROM unnest(locked) WHERE shown_to = '-infinity') THEN
            locked := guard_new_vehicles(locked);
        END IF;
        late := (
            SELECT array_agg(DISTINCT ROW(event.vehicle_id, event."timestamp")::reading_key)
            FROM unnest(events) AS event
            LEFT JOIN unnest(locked) AS device ON device.device_id = event.vehicle_id
            WHERE event."timestamp" <= device.shown_to OR device.device_id IS NULL);
        has_gone := false;
        old := NULL;
        IF late IS NOT NULL THEN
            SELECT * INTO events, old, has_gone FROM admit_late_vehicle_events(events, late);
        END IF;

        events := append_vehicle_events(events);
        IF has_gone THEN
            PERFORM show_vehicles(late);
        END IF;
        fresh := count_vehicle_events(events, old);
        PERFORM claim_meters(changed_claims(events, old));  -- of vehicles
        -- late holds every reading that is not the newest of its device; the newest may be of a day that
        -- is summed already, too.
        IF late IS NOT NULL
           OR (SELECT min("timestamp") FROM unnest(events))
              <= (SELECT max(summed_to) FROM unnest(locked)) THEN
            PERFORM mark_vehicle_summaries(sum_vehicle_days(
                ARRAY(SELECT ROW(vehicle_id, "timestamp")::reading_key FROM unnest(events))));
        END IF;
        IF duplicates IS NULL THEN  -- what registers are stored again for is nobody's correction
            SELECT * INTO duplicates, corrections FROM tell_resent_vehicle_events(
                CASE WHEN fresh < cardinality(events) OR old IS NOT NULL THEN events END, old);
        END IF;

        -- What a late register is less than the one after it, that one has no longer grown by.
        EXIT WHEN late IS NULL OR NOT EXISTS (SELECT FROM devices);
        events := restate_vehicle_registers(late);
        EXIT WHEN events IS NULL;
    END LOOP;
END
$$;

-- Of devices that are new: one may have been declared while this waited for it, may be one of which every
-- reading was voided, or that was erased. If one of the last two is among them, all readings of the call
-- are to be looked at as late ones are.
CREATE OR REPLACE FUNCTION guard_new_vehicles(INOUT locked locked_device[])
LANGUAGE plpgsql AS $$
DECLARE
    ids constant text[] := ARRAY(SELECT device_id FROM unnest(locked));
BEGIN
    UPDATE vehicle_live_status SET reports_register = true
    FROM devices
    WHERE vehicle_id = ANY (ids) AND NOT reports_register
      AND device_id = vehicle_id
      AND EXISTS (SELECT FROM device_declarations declared
                  WHERE declared.device_id = vehicle_id AND is_register);
    UPDATE vehicle_live_status live
    SET voided_to = guarded."to", last_timestamp = '-infinity', updated_at = '-infinity'
        , soc = NULL, soc_timestamp = '-infinity', soc_received_at = '-infinity'  -- of vehicles
    FROM (SELECT vehicle_id, max(guard) AS "to"
          FROM (SELECT vehicle_id, "timestamp" AS guard FROM vehicle_void WHERE vehicle_id = ANY (ids)
                UNION ALL SELECT * FROM erased_devices('vehicle', ids)) AS guard
          GROUP BY vehicle_id) AS guarded
    WHERE live.vehicle_id = guarded.vehicle_id AND live.voided_to = '-infinity';
    IF FOUND THEN
        locked := ARRAY(SELECT ROW(device_id, 'infinity', summed_to)::locked_device FROM unnest(locked));
    END IF;
END
$$;

-- Takes what is not to be counted out of events, of which these are late: what erased devices told before,
-- what is voided, and what waits to be compared with the archive. Returns the others, the receipts that
-- counted so far, and whether a device that has something voided or erased is among them.
CREATE OR REPLACE FUNCTION admit_late_vehicle_events(
    INOUT events vehicle_event[], late reading_key[], OUT old vehicle_event[], OUT has_gone boolean
) LANGUAGE plpgsql AS $$
DECLARE
    ids        constant text[] := ARRAY(SELECT DISTINCT device_id FROM unnest(late));
    -- As plain values they prune partitions once, instead of opening them for each reading.
    first_late constant timestamptz := (SELECT min("timestamp") FROM unnest(late));
    last_late  constant timestamptz := (SELECT max("timestamp") FROM unnest(late));
    was_erased constant boolean := EXISTS (SELECT FROM erased_devices('vehicle', ids));
    aside      vehicle_event;
    horizon    timestamptz;
BEGIN
    -- While an erasure is pending, a reading that history has from before may still come again: it will go
    -- with that. A register has to, whose energy changes.
    has_gone := was_erased;
    IF was_erased THEN
        events := ARRAY(
            SELECT ROW(event."vehicle_id", event."timestamp", event."received_at", event."kwh_delivered_dc", event."battery_temp", event."soc", event."register_kwh", event."meter_id")::vehicle_event FROM unnest(events) AS event
            WHERE NOT EXISTS (
                SELECT FROM erasure
                WHERE device_hash = hash_device('vehicle', event.vehicle_id)
                  AND asked_at >= event.received_at
                  AND (device_id IS NULL OR NOT EXISTS (
                      SELECT FROM vehicle_telemetry_history h
                      WHERE h.vehicle_id = event.vehicle_id AND h."timestamp" = event."timestamp"
                        AND h.received_at <= erasure.asked_at))));
    END IF;

    -- Receipts of voided readings are set aside, as append_vehicle_events would take them. The locks keep
    -- a void from being withdrawn before the receipts are there.
    IF EXISTS (SELECT FROM vehicle_void WHERE vehicle_id = ANY (ids)) THEN
        has_gone := true;
        FOR aside IN
            SELECT event."vehicle_id", event."timestamp", event."received_at", event."kwh_delivered_dc", event."battery_temp", event."soc", event."register_kwh", event."meter_id"
            FROM unnest(events) WITH ORDINALITY AS event
            JOIN vehicle_void void ON void.vehicle_id = event.vehicle_id
                AND void."timestamp" = event."timestamp"
                AND void.withdrawn_at IS NULL AND NOT void.pending
            ORDER BY event.ordinality
            FOR SHARE OF void
        LOOP
            LOOP
                INSERT INTO vehicle_void_receipt ("vehicle_id", "timestamp", "received_at", "kwh_delivered_dc", "battery_temp", "soc", "register_kwh", "meter_id") SELECT aside."vehicle_id", aside."timestamp", aside."received_at", aside."kwh_delivered_dc", aside."battery_temp", aside."soc", aside."register_kwh", aside."meter_id" ON CONFLICT DO NOTHING;
                EXIT WHEN FOUND OR EXISTS (
                    SELECT FROM vehicle_void_receipt kept
                    WHERE kept.vehicle_id = aside.vehicle_id AND kept."timestamp" = aside."timestamp"
                      AND kept.received_at = aside.received_at
                      AND (coalesce(kept."register_kwh", kept."kwh_delivered_dc"), kept."battery_temp", kept."soc", kept."meter_id") IS NOT DISTINCT FROM (coalesce(aside."register_kwh", aside."kwh_delivered_dc"), aside."battery_temp", aside."soc", aside."meter_id"));
                aside.received_at := aside.received_at + interval '1 microsecond';
            END LOOP;
        END LOOP;
        events := ARRAY(
            SELECT ROW(event."vehicle_id", event."timestamp", event."received_at", event."kwh_delivered_dc", event."battery_temp", event."soc", event."register_kwh", event."meter_id")::vehicle_event FROM unnest(events) AS event
            WHERE NOT EXISTS (
                SELECT FROM vehicle_void void
                WHERE void.vehicle_id = event.vehicle_id AND void."timestamp" = event."timestamp"
                  AND void.withdrawn_at IS NULL AND NOT void.pending));
    END IF;

    old := (
        SELECT array_agg(ROW(counted."vehicle_id", counted."timestamp", counted."received_at", counted."kwh_delivered_dc", counted."battery_temp", counted."soc", counted."register_kwh", counted."meter_id")::vehicle_event)
        FROM unnest(late) AS late
        CROSS JOIN LATERAL (
            SELECT * FROM vehicle_telemetry_history h
            WHERE h.vehicle_id = late.device_id AND h."timestamp" = late."timestamp"
              AND h."timestamp" >= first_late AND h."timestamp" <= last_late
            ORDER BY h.received_at DESC
            LIMIT 1
        ) AS counted);

    -- Of a day that is archived the receipts are no longer here. A reading is new all the same where its
    -- device was not heard from in its minute, and where it is newer than what the live row shows, so that
    -- only voided_to made it late (of a device that was erased the archive may have newer ones). Any other
    -- waits until the maintenance has compared it with the archive. The look-up holds a lock on history
    -- until this transaction ends: no day is archived between the two.
    horizon := (SELECT archived_to FROM archive_horizon WHERE stream = 'vehicle');
    IF first_late < horizon THEN
        WITH item AS (
            SELECT event.*,
                   late.device_id IS NOT NULL AND event."timestamp" < horizon AND old.vehicle_id IS NULL
                   AND (event."timestamp" <= live.last_timestamp OR was_erased)
                   AND hourly.minutes & minute_bit(event."timestamp", hourly.hour) != 0 IS TRUE AS unclear
            FROM unnest(events) AS event
            LEFT JOIN unnest(late) AS late
                ON late.device_id = event.vehicle_id AND late."timestamp" = event."timestamp"
            LEFT JOIN unnest(old) AS old
                ON old.vehicle_id = event.vehicle_id AND old."timestamp" = event."timestamp"
            JOIN vehicle_live_status live ON live.vehicle_id = event.vehicle_id
            LEFT JOIN vehicle_hourly_rollup hourly
                ON hourly.vehicle_id = event.vehicle_id AND hourly.hour = rollup_hour(event."timestamp")
        ), pending AS (
            INSERT INTO vehicle_pending ("vehicle_id", "timestamp", "received_at", "kwh_delivered_dc", "battery_temp", "soc", "register_kwh", "meter_id") SELECT "vehicle_id", "timestamp", "received_at", "kwh_delivered_dc", "battery_temp", "soc", "register_kwh", "meter_id" FROM item WHERE unclear
        )
        SELECT coalesce(array_agg(ROW(item."vehicle_id", item."timestamp", item."received_at", item."kwh_delivered_dc", item."battery_temp", item."soc", item."register_kwh", item."meter_id")::vehicle_event), '{}') INTO events
        FROM item WHERE NOT unclear;
    END IF;
END
$$;

-- Appends events to history. One that is there already with the same values is the same receipt,
-- delivered again. With other values it is another event accepted in the same microsecond: it takes the
-- next free one. A redelivery walks the same steps, and so finds its own row. Returns the events as they
-- are stored.
CREATE OR REPLACE FUNCTION append_vehicle_events(INOUT events vehicle_event[])
LANGUAGE plpgsql AS $$
DECLARE
    inserted bigint;
    others   bigint[];
    place    bigint;
BEGIN
    LOOP
        INSERT INTO vehicle_telemetry_history ("vehicle_id", "timestamp", "received_at", "kwh_delivered_dc", "battery_temp", "soc", "register_kwh", "meter_id")
        SELECT "vehicle_id", "timestamp", "received_at", "kwh_delivered_dc", "battery_temp", "soc", "register_kwh", "meter_id" FROM unnest(events) ORDER BY vehicle_id, "timestamp", received_at
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS inserted = ROW_COUNT;
        EXIT WHEN inserted = cardinality(events);

        others := ARRAY(
            SELECT event.ordinality
            FROM unnest(events) WITH ORDINALITY AS event
            CROSS JOIN LATERAL (
                SELECT * FROM vehicle_telemetry_history h
                WHERE h.vehicle_id = event.vehicle_id AND h."timestamp" = event."timestamp"
                  AND h.received_at = event.received_at
                LIMIT 1
            ) AS stored
            WHERE (coalesce(stored."register_kwh", stored."kwh_delivered_dc"), stored."battery_temp", stored."soc", stored."meter_id") IS DISTINCT FROM (coalesce(event."register_kwh", event."kwh_delivered_dc"), event."battery_temp", event."soc", event."meter_id"));
        EXIT WHEN others = '{}';
        FOREACH place IN ARRAY others LOOP
            events[place].received_at := events[place].received_at + interval '1 microsecond';
        END LOOP;

        -- The live row may show one of them under the instant that it did not get.
        UPDATE vehicle_live_status live
        SET updated_at = newest.received_at, last_kwh_delivered_dc = newest.kwh_delivered_dc, last_battery_temp = newest.battery_temp, last_register_kwh = newest.register_kwh
        FROM (
            SELECT DISTINCT ON (vehicle_id) * FROM unnest(events)
            ORDER BY vehicle_id, "timestamp" DESC, received_at DESC
        ) AS newest
        WHERE live.vehicle_id = newest.vehicle_id
          AND live.last_timestamp = newest."timestamp" AND live.updated_at < newest.received_at;
        UPDATE vehicle_live_status live                                           -- of vehicles
        SET soc = charged.soc, soc_received_at = charged.received_at              -- of vehicles
        FROM (SELECT DISTINCT ON (vehicle_id) * FROM unnest(events)               -- of vehicles
              WHERE soc IS NOT NULL                                               -- of vehicles
              ORDER BY vehicle_id, "timestamp" DESC, received_at DESC) AS charged -- of vehicles
        WHERE live.vehicle_id = charged.vehicle_id                                -- of vehicles
          AND live.soc_timestamp = charged."timestamp"                            -- of vehicles
          AND live.soc_received_at < charged.received_at;                         -- of vehicles
    END LOOP;
END
$$;

-- Adds to hourly rollups what each reading adds to its hour: its values less those that counted for it
-- before. Sums are numeric, so this is exact. Returns how many events count now.
CREATE OR REPLACE FUNCTION count_vehicle_events(events vehicle_event[], old vehicle_event[])
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    fresh bigint;
BEGIN
    WITH counted AS (
        SELECT DISTINCT ON (event.vehicle_id, event."timestamp")
               event.vehicle_id, rollup_hour(event."timestamp") AS hour, event."timestamp",
               CASE WHEN old.vehicle_id IS NULL THEN 1 ELSE 0 END AS is_new, coalesce(event.kwh_delivered_dc, 0) - coalesce(old.kwh_delivered_dc, 0) AS kwh_delivered_dc, coalesce(event.battery_temp, 0) - coalesce(old.battery_temp, 0) AS battery_temp_sum
        FROM unnest(events) AS event
        LEFT JOIN unnest(old) AS old
            ON old.vehicle_id = event.vehicle_id AND old."timestamp" = event."timestamp"
        WHERE old.vehicle_id IS NULL OR event.received_at > old.received_at
        ORDER BY event.vehicle_id, event."timestamp", event.received_at DESC
    ), written AS (
        INSERT INTO vehicle_hourly_rollup AS rollup (vehicle_id, hour, readings, minutes, kwh_delivered_dc, battery_temp_sum)
        SELECT vehicle_id, hour, sum(is_new), bit_or(minute_bit("timestamp", hour)), sum("kwh_delivered_dc"), sum("battery_temp_sum")
        FROM counted
        GROUP BY vehicle_id, hour
        ORDER BY vehicle_id, hour
        ON CONFLICT (vehicle_id, hour) DO UPDATE SET
            readings = rollup.readings + excluded.readings,
            minutes = rollup.minutes | excluded.minutes, kwh_delivered_dc = rollup.kwh_delivered_dc + excluded.kwh_delivered_dc, battery_temp_sum = rollup.battery_temp_sum + excluded.battery_temp_sum
    )
    SELECT count(*) INTO fresh FROM counted;
    RETURN fresh;
END
$$;

-- Tells re-sent readings from new ones: by the receipt before each, of this call or the one that counted.
CREATE OR REPLACE FUNCTION tell_resent_vehicle_events(
    events vehicle_event[], old vehicle_event[], OUT duplicates bigint, OUT corrections bigint
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT count(*) FILTER (WHERE was = came), count(*) FILTER (WHERE was != came)
    INTO duplicates, corrections
    FROM (
        SELECT came,
               coalesce(lag(came) OVER (PARTITION BY vehicle_id, "timestamp" ORDER BY received_at),
                        before) AS was
        FROM (
            SELECT event.vehicle_id, event."timestamp", event.received_at, ROW(coalesce(event."register_kwh", event."kwh_delivered_dc"), event."battery_temp", event."soc", event."meter_id")::text AS came,
                   CASE WHEN old.vehicle_id IS NOT NULL THEN ROW(coalesce(old."register_kwh", old."kwh_delivered_dc"), old."battery_temp", old."soc", old."meter_id")::text END AS before
            FROM unnest(events) AS event
            LEFT JOIN unnest(old) AS old
                ON old.vehicle_id = event.vehicle_id AND old."timestamp" = event."timestamp"
        ) AS event
    ) AS compared;
END
$$;
