-- How events become readings that count, of both streams.
--
-- Why the rollup stays equal to history under concurrency: lock_{stream}s locks the live row of every
-- device in the call, in device order, until commit. Writers of one device run one after another, and
-- each later statement takes a new snapshot (READ COMMITTED), which sees what the writer before committed.
--
-- Generic plans: otherwise a call plans each statement over all partitions anew, which takes longer than
-- a small batch. They prune partitions as they run. No sequential scans: a plan may have been made when a
-- partition was empty, and is kept while it fills. What store_{stream}_events calls runs by its settings.

-- Stores events in any order and with repeats: live row, history, hourly rollup and what follows from
-- them, in the caller's one transaction. Returns how many were there already, and how many of the
-- readings had other values before. Locks the devices' declarations, their live rows, then their links.
CREATE OR REPLACE FUNCTION store_{stream}_events(
    events {stream}_event[], OUT duplicates bigint, OUT corrections bigint
) LANGUAGE plpgsql STRICT
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    locked   locked_device[];
    late     reading_key[];
    old      {stream}_event[];
    has_gone boolean;
    fresh    bigint;
BEGIN
    LOOP
        events := leave_out_erased_meters(events);  -- of vehicles
        IF EXISTS (SELECT FROM devices) THEN
            events := convert_{stream}_registers(events);
        END IF;
        -- A reading newer than what the live row showed before cannot have been in history.
        locked := lock_{stream}s(events);
        IF EXISTS (SELECT FROM unnest(locked) WHERE shown_to = '-infinity') THEN
            locked := guard_new_{stream}s(locked);
        END IF;
        late := (
            SELECT array_agg(DISTINCT ROW(event.{device}, event."timestamp")::reading_key)
            FROM unnest(events) AS event
            LEFT JOIN unnest(locked) AS device ON device.device_id = event.{device}
            WHERE event."timestamp" <= device.shown_to OR device.device_id IS NULL);
        has_gone := false;
        old := NULL;
        IF late IS NOT NULL THEN
            SELECT * INTO events, old, has_gone FROM admit_late_{stream}_events(events, late);
        END IF;
        -- The energy of an interval has a limit, so that no device can make a sum meaningless. A register
        -- has not: it is as great as the meter is old, and what an erased one told before is left out by now.
        IF EXISTS (SELECT FROM unnest(events) WHERE {energy} > 10000 AND register_kwh IS NULL) THEN
            RAISE EXCEPTION 'more than 10000 kWh in an interval, of a device that reports no register'
                USING ERRCODE = 'numeric_value_out_of_range';
        END IF;

        events := append_{stream}_events(events);
        IF has_gone THEN
            PERFORM show_{stream}s(late);
        END IF;
        fresh := count_{stream}_events(events, old);
        IF old IS NOT NULL THEN  -- of another length, one is in other hours and covers other minutes
            PERFORM mend_{stream}_hours(event.{device},
                min(begin_of(greatest(event.seconds, was.seconds), event."timestamp")), max(event."timestamp"))
            FROM unnest(events) AS event
            JOIN unnest(old) AS was
                ON was.{device} = event.{device} AND was."timestamp" = event."timestamp"
            WHERE event.seconds IS DISTINCT FROM was.seconds
            GROUP BY event.{device}, day_of(event."timestamp");
        END IF;
        PERFORM claim_meters(changed_claims(events, old));  -- of vehicles
        -- late holds every reading that is not the newest of its device; the newest may be of a day that
        -- is summed already, too.
        IF late IS NOT NULL
           OR (SELECT min(begin_of(seconds, "timestamp")) FROM unnest(events))
              <= (SELECT max(summed_to) FROM unnest(locked)) THEN
            PERFORM mark_{stream}_summaries(sum_{stream}_days(reach_of_{stream}s(events || ARRAY(
                SELECT ROW({columns was})::{stream}_event FROM unnest(old) AS was WHERE was.seconds > 60))));
        END IF;
        IF duplicates IS NULL THEN  -- what registers are stored again for is nobody's correction
            SELECT * INTO duplicates, corrections FROM tell_resent_{stream}_events(
                CASE WHEN fresh < cardinality(events) OR old IS NOT NULL THEN events END, old);
        END IF;

        -- What a late register is less than the one after it, that one has no longer grown by.
        EXIT WHEN late IS NULL OR NOT EXISTS (SELECT FROM devices);
        events := restate_{stream}_registers(late);
        EXIT WHEN events IS NULL;
    END LOOP;
END
$$;

-- Where these readings count: when each ends, and the end of every hour before that it reaches into. A meter's
-- may reach over the end of a link, too.
CREATE OR REPLACE FUNCTION reach_of_{stream}s(events {stream}_event[]) RETURNS reading_key[]
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM unnest(events) WHERE seconds > 60) THEN
        RETURN ARRAY(SELECT ROW({device}, "timestamp")::reading_key FROM unnest(events));
    END IF;
    RETURN (
        SELECT array_agg(ROW(event.{device}, reached)::reading_key)
        FROM unnest(events) AS event
        CROSS JOIN LATERAL (
            SELECT event."timestamp"
            UNION ALL
            SELECT hour FROM generate_series(
                ceil_hour(begin_of(seconds, event."timestamp") + interval '1 microsecond'),
                event."timestamp" - interval '1 microsecond', interval '1 hour') AS hour
            WHERE seconds > 60
            UNION ALL                                                         -- of meters
            SELECT valid_from FROM links                                      -- of meters
            WHERE links.meter_id = event.meter_id AND seconds > 60            -- of meters
              AND valid_from > begin_of(seconds, event."timestamp")           -- of meters
              AND valid_from < event."timestamp"                              -- of meters
        ) AS places (reached));
END
$$;

-- Of devices that are new: one may have been declared while this waited for it, may be one of which every
-- reading was voided, or that was erased. If one of the last two is among them, all readings of the call
-- are to be looked at as late ones are.
CREATE OR REPLACE FUNCTION guard_new_{stream}s(INOUT locked locked_device[])
LANGUAGE plpgsql AS $$
DECLARE
    ids constant text[] := ARRAY(SELECT device_id FROM unnest(locked));
BEGIN
    UPDATE {stream}_live_status SET reports_register = true
    FROM devices
    WHERE {device} = ANY (ids) AND NOT reports_register
      AND device_id = {device} AND is_declared(device_id);
    UPDATE {stream}_live_status live
    SET voided_to = guarded."to", last_timestamp = '-infinity', updated_at = '-infinity'
        , soc = NULL, soc_timestamp = '-infinity', soc_received_at = '-infinity'  -- of vehicles
    FROM (SELECT {device}, max(guard) AS "to"
          FROM (SELECT {device}, "timestamp" AS guard FROM {stream}_void WHERE {device} = ANY (ids)
                UNION ALL SELECT * FROM erased_devices('{stream}', ids)) AS guard
          GROUP BY {device}) AS guarded
    WHERE live.{device} = guarded.{device} AND live.voided_to = '-infinity';
    IF FOUND THEN
        locked := ARRAY(SELECT ROW(device_id, 'infinity', summed_to)::locked_device FROM unnest(locked));
    END IF;
END
$$;

-- Takes what is not to be counted out of events, of which these are late: what erased devices told before,
-- what is voided, and what waits to be compared with the archive. Returns the others, the receipts that
-- counted so far, and whether a device that has something voided or erased is among them.
CREATE OR REPLACE FUNCTION admit_late_{stream}_events(
    INOUT events {stream}_event[], late reading_key[], OUT old {stream}_event[], OUT has_gone boolean
) LANGUAGE plpgsql AS $$
DECLARE
    ids        constant text[] := ARRAY(SELECT DISTINCT device_id FROM unnest(late));
    -- As plain values they prune partitions once, instead of opening them for each reading.
    first_late constant timestamptz := (SELECT min("timestamp") FROM unnest(late));
    last_late  constant timestamptz := (SELECT max("timestamp") FROM unnest(late));
    was_erased constant boolean := EXISTS (SELECT FROM erased_devices('{stream}', ids));
    aside      {stream}_event;
    horizon    timestamptz;
BEGIN
    -- While an erasure is pending, a reading that history has from before may still come again: it will go
    -- with that. A register has to, whose energy changes.
    has_gone := was_erased;
    IF was_erased THEN
        events := ARRAY(
            SELECT ROW({columns event})::{stream}_event FROM unnest(events) AS event
            WHERE NOT EXISTS (
                SELECT FROM erasure
                WHERE device_hash = hash_device('{stream}', event.{device})
                  AND asked_at >= event.received_at
                  AND (device_id IS NULL OR NOT EXISTS (
                      SELECT FROM {history} h
                      WHERE h.{device} = event.{device} AND h."timestamp" = event."timestamp"
                        AND h.received_at <= erasure.asked_at))));
    END IF;

    -- Receipts of voided readings are set aside, as append_{stream}_events would take them. The locks keep
    -- a void from being withdrawn before the receipts are there.
    IF EXISTS (SELECT FROM {stream}_void WHERE {device} = ANY (ids)) THEN
        has_gone := true;
        FOR aside IN
            SELECT {columns event}
            FROM unnest(events) WITH ORDINALITY AS event
            JOIN {stream}_void void ON void.{device} = event.{device}
                AND void."timestamp" = event."timestamp"
                AND void.withdrawn_at IS NULL AND NOT void.pending
            ORDER BY event.ordinality
            FOR SHARE OF void
        LOOP
            LOOP
                INSERT INTO {stream}_void_receipt ({columns}) SELECT {columns aside} ON CONFLICT DO NOTHING;
                EXIT WHEN FOUND OR EXISTS (
                    SELECT FROM {stream}_void_receipt kept
                    WHERE kept.{device} = aside.{device} AND kept."timestamp" = aside."timestamp"
                      AND kept.received_at = aside.received_at
                      AND ({told kept}) IS NOT DISTINCT FROM ({told aside}));
                aside.received_at := aside.received_at + interval '1 microsecond';
            END LOOP;
        END LOOP;
        events := ARRAY(
            SELECT ROW({columns event})::{stream}_event FROM unnest(events) AS event
            WHERE NOT EXISTS (
                SELECT FROM {stream}_void void
                WHERE void.{device} = event.{device} AND void."timestamp" = event."timestamp"
                  AND void.withdrawn_at IS NULL AND NOT void.pending));
    END IF;

    old := (
        SELECT array_agg(ROW({columns counted})::{stream}_event)
        FROM unnest(late) AS late
        CROSS JOIN LATERAL (
            SELECT * FROM {history} h
            WHERE h.{device} = late.device_id AND h."timestamp" = late."timestamp"
              AND h."timestamp" >= first_late AND h."timestamp" <= last_late
            ORDER BY h.received_at DESC
            LIMIT 1
        ) AS counted);

    -- Of a day that is archived the receipts are no longer here. A reading is new all the same where its
    -- device was not heard from in its minute, and where it is newer than what the live row shows, so that
    -- only voided_to made it late (of a device that was erased the archive may have newer ones). Any other
    -- waits until the maintenance has compared it with the archive. The look-up holds a lock on history
    -- until this transaction ends: no day is archived between the two.
    horizon := (SELECT archived_to FROM archive_horizon WHERE stream = '{stream}');
    IF first_late < horizon THEN
        WITH item AS (
            SELECT event.*,
                   late.device_id IS NOT NULL AND event."timestamp" < horizon AND old.{device} IS NULL
                   AND (event."timestamp" <= live.last_timestamp OR was_erased)
                   AND hourly.minutes & minute_bit(event."timestamp", hourly.hour) != 0 IS TRUE AS unclear
            FROM unnest(events) AS event
            LEFT JOIN unnest(late) AS late
                ON late.device_id = event.{device} AND late."timestamp" = event."timestamp"
            LEFT JOIN unnest(old) AS old
                ON old.{device} = event.{device} AND old."timestamp" = event."timestamp"
            JOIN {stream}_live_status live ON live.{device} = event.{device}
            LEFT JOIN {stream}_hourly_rollup hourly
                ON hourly.{device} = event.{device} AND hourly.hour = rollup_hour(event."timestamp")
        ), pending AS (
            INSERT INTO {stream}_pending ({columns}) SELECT {columns} FROM item WHERE unclear
        )
        SELECT coalesce(array_agg(ROW({columns item})::{stream}_event), '{}') INTO events
        FROM item WHERE NOT unclear;
    END IF;
END
$$;

-- Appends events to history. One that is there already with the same values is the same receipt,
-- delivered again. With other values it is another event accepted in the same microsecond: it takes the
-- next free one, and what came of its reading with it stays after it. A redelivery walks the same steps, and
-- so finds its own row. Returns the events as they are stored.
CREATE OR REPLACE FUNCTION append_{stream}_events(INOUT events {stream}_event[])
LANGUAGE plpgsql AS $$
DECLARE
    inserted bigint;
    taken    reading_key[];
    place    bigint;
BEGIN
    INSERT INTO {history} ({columns})
    SELECT {columns} FROM unnest(events) ORDER BY {device}, "timestamp", received_at
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS inserted = ROW_COUNT;
    IF inserted = cardinality(events) THEN
        RETURN;
    END IF;
    taken := ARRAY(
        SELECT DISTINCT ROW(event.{device}, event."timestamp")::reading_key
        FROM unnest(events) AS event
        CROSS JOIN LATERAL (
            SELECT * FROM {history} h
            WHERE h.{device} = event.{device} AND h."timestamp" = event."timestamp"
              AND h.received_at = event.received_at
            LIMIT 1
        ) AS stored
        WHERE ({told stored}) IS DISTINCT FROM ({told event}));
    IF taken = '{}' THEN
        RETURN;
    END IF;

    -- One by one, as they came; what was stored of them just now makes way.
    DELETE FROM {history} h
    USING unnest(events) AS event
    JOIN unnest(taken) AS reading
        ON reading.device_id = event.{device} AND reading."timestamp" = event."timestamp"
    WHERE h.{device} = event.{device} AND h."timestamp" = event."timestamp"
      AND h.received_at = event.received_at AND h.xmin = pg_current_xact_id()::xid;
    FOR place IN
        SELECT ordinality FROM unnest(events) WITH ORDINALITY AS event
        JOIN unnest(taken) AS reading
            ON reading.device_id = event.{device} AND reading."timestamp" = event."timestamp"
        ORDER BY received_at, ordinality
    LOOP
        LOOP
            INSERT INTO {history} ({columns}) SELECT {columns} FROM unnest(events[place:place])
            ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND OR EXISTS (
                SELECT FROM {history} stored
                CROSS JOIN unnest(events[place:place]) AS event
                WHERE stored.{device} = event.{device} AND stored."timestamp" = event."timestamp"
                  AND stored.received_at = event.received_at
                  AND ({told stored}) IS NOT DISTINCT FROM ({told event}));
            events[place].received_at := events[place].received_at + interval '1 microsecond';
        END LOOP;
    END LOOP;

    -- The live row may show one of them under the instant that it did not get.
    UPDATE {stream}_live_status live
    SET updated_at = newest.received_at, {shown}
    FROM (
        SELECT DISTINCT ON ({device}) * FROM unnest(events)
        ORDER BY {device}, "timestamp" DESC, received_at DESC
    ) AS newest
    WHERE live.{device} = newest.{device}
      AND live.last_timestamp = newest."timestamp" AND live.updated_at < newest.received_at;
    UPDATE vehicle_live_status live                                           -- of vehicles
    SET soc = charged.soc, soc_received_at = charged.received_at              -- of vehicles
    FROM (SELECT DISTINCT ON (vehicle_id) * FROM unnest(events)               -- of vehicles
          WHERE soc IS NOT NULL                                               -- of vehicles
          ORDER BY vehicle_id, "timestamp" DESC, received_at DESC) AS charged -- of vehicles
    WHERE live.vehicle_id = charged.vehicle_id                                -- of vehicles
      AND live.soc_timestamp = charged."timestamp"                            -- of vehicles
      AND live.soc_received_at < charged.received_at;                         -- of vehicles
END
$$;

-- Tells re-sent readings from new ones: by the receipt before each, of this call or the one that counted.
CREATE OR REPLACE FUNCTION tell_resent_{stream}_events(
    events {stream}_event[], old {stream}_event[], OUT duplicates bigint, OUT corrections bigint
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT count(*) FILTER (WHERE was = came), count(*) FILTER (WHERE was != came)
    INTO duplicates, corrections
    FROM (
        SELECT came,
               coalesce(lag(came) OVER (PARTITION BY {device}, "timestamp" ORDER BY received_at),
                        before) AS was
        FROM (
            SELECT event.{device}, event."timestamp", event.received_at, ROW({told event})::text AS came,
                   CASE WHEN old.{device} IS NOT NULL THEN ROW({told old})::text END AS before
            FROM unnest(events) AS event
            LEFT JOIN unnest(old) AS old
                ON old.{device} = event.{device} AND old."timestamp" = event."timestamp"
        ) AS event
    ) AS compared;
END
$$;

GRANT EXECUTE ON FUNCTION reach_of_{stream}s TO telemetry_maintain;
