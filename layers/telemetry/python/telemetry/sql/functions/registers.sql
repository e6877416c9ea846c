-- Registers and lengths of both streams: see devices.sql.

-- Tells registers from energies among events about to be stored, and gives the energy and the length of each.
-- An event's register, or else its energy, is what was reported. Writers of a device that was declared wait here for
-- each other, before any of them locks a live row.
CREATE OR REPLACE FUNCTION convert_{stream}_registers(INOUT events {stream}_event[])
LANGUAGE plpgsql AS $$
DECLARE
    ids      constant text[] := ARRAY(SELECT DISTINCT {device} FROM unnest(events));
    horizon  timestamptz;
    -- Early enough for the readings before: the hour in which each device was heard from last. A plain
    -- value, so that partitions are pruned by it.
    first_at timestamptz;
    last_at  timestamptz;
    grown    record;
BEGIN
    PERFORM FROM devices WHERE device_id = ANY (ids) ORDER BY device_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    horizon := (SELECT archived_to FROM archive_horizon WHERE stream = '{stream}');

    SELECT greatest(min(coalesce(heard.hour, rollup_hour(event."timestamp"))), horizon),
           max(event."timestamp")
    INTO first_at, last_at
    FROM unnest(events) AS event
    JOIN devices ON device_id = event.{device}
    JOIN {stream}_live_status live
        ON live.{device} = event.{device} AND live.last_timestamp >= event."timestamp"
    CROSS JOIN LATERAL (
        SELECT max(rollup.hour) AS hour FROM {stream}_hourly_rollup rollup
        WHERE rollup.{device} = event.{device} AND rollup.hour < rollup_hour(event."timestamp")
          AND rollup.readings > 0
    ) AS heard
    WHERE event."timestamp" >= horizon;

    FOR grown IN
        WITH item AS (
            SELECT event.{device} AS id, event."timestamp" AS ts, event.received_at,
                   coalesce(event.register_kwh, event.{energy}) AS reported,
                   -- What was a register stays one where it is more than an interval can have.
                   coalesce(declared.is_register, false) OR coalesce(event.register_kwh > 10000, false)
                       AS is_register,
                   event.ordinality AS place,
                   device_id IS NOT NULL AS declared, register_modulus, max_power_kw,
                   event.told_seconds, cadence_seconds,
                   live.last_timestamp >= event."timestamp" IS TRUE AS late,
                   live.last_timestamp < horizon IS TRUE AS was_silent
            FROM unnest(events) WITH ORDINALITY AS event
            LEFT JOIN devices ON device_id = event.{device}
            LEFT JOIN LATERAL declaration_of(device_id, event.received_at) AS declared ON true
            LEFT JOIN {stream}_live_status live
                ON live.{device} = event.{device} AND device_id IS NOT NULL
        ), reading AS (
            SELECT DISTINCT ON (id, ts) *, CASE WHEN is_register THEN reported END AS register
            FROM item
            WHERE declared AND NOT (late AND ts < horizon)
            ORDER BY id, ts, received_at DESC
        ), settled AS (
            -- Of an archived day the difference that a late register splits is counted already: it has
            -- none, or, sent again, what it has.
            SELECT item.place, counted.{energy} AS kwh, counted.seconds
            FROM item
            CROSS JOIN LATERAL (
                SELECT h.{energy}, h.seconds FROM {history} h
                WHERE h.{device} = item.id AND h."timestamp" = item.ts AND h."timestamp" < horizon
                ORDER BY h.received_at DESC
                LIMIT 1
            ) AS counted
            WHERE item.is_register AND item.late AND item.ts < horizon
        ), point AS (
            SELECT DISTINCT ON (id COLLATE "C", ts) id, ts, register
            FROM (
                SELECT id, ts, register, 1 AS choice FROM reading
                UNION ALL
                SELECT live.{device}, live.last_timestamp, live.last_register_kwh, 3
                FROM (SELECT DISTINCT id FROM reading) AS device
                JOIN {stream}_live_status live ON live.{device} = device.id
                UNION ALL
                -- A correction that came after the day was archived shows in the live row, and counts nothing.
                SELECT baseline.device_id, baseline."timestamp", baseline.register_kwh, 2
                FROM (SELECT DISTINCT id FROM reading WHERE late OR was_silent) AS device
                JOIN register_baselines baseline
                    ON baseline.device_id = device.id AND baseline.stream = '{stream}'
                UNION ALL
                SELECT reading.id, before."timestamp", before.register_kwh, 2
                FROM reading
                CROSS JOIN LATERAL (
                    SELECT h."timestamp", h.register_kwh FROM {history} h
                    WHERE h.{device} = reading.id AND h."timestamp" < reading.ts
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
            SELECT id, '{stream}', ts, event, register, previous
            FROM reading JOIN followed USING (id, ts)
            CROSS JOIN LATERAL register_energy(
                previous_at, previous, ts, register, register_modulus, max_power_kw)
            WHERE NOT late AND event IS NOT NULL
            ON CONFLICT DO NOTHING
        ), kept AS (
            -- Who was silent for so long that its newest is of an archived day counts on from that.
            INSERT INTO register_baselines AS baseline (device_id, stream, "timestamp", register_kwh)
            SELECT DISTINCT ON (id) id, '{stream}', ts, register
            FROM reading
            WHERE NOT late AND ts < horizon
              AND NOT EXISTS (SELECT FROM {stream}_void void
                              WHERE void.{device} = id AND void."timestamp" = ts
                                AND withdrawn_at IS NULL AND NOT pending)
              AND NOT EXISTS (SELECT FROM erasure
                              WHERE device_hash = hash_device('{stream}', id) AND asked_at >= received_at)
            ORDER BY id, ts DESC
            ON CONFLICT (device_id, stream) DO UPDATE SET
                "timestamp" = excluded."timestamp", register_kwh = excluded.register_kwh
            WHERE baseline."timestamp" < excluded."timestamp"
        )
        SELECT item.place, CASE WHEN is_register THEN reported END AS register,
               CASE WHEN is_register THEN coalesce(settled.kwh, energy.kwh) ELSE reported END AS kwh,
               CASE WHEN settled.place IS NOT NULL THEN settled.seconds
                    ELSE reading_seconds(previous_at, previous, ts, CASE WHEN is_register THEN reported END,
                                         energy.event, told_seconds, cadence_seconds) END AS seconds
        FROM item
        LEFT JOIN followed USING (id, ts)
        LEFT JOIN settled USING (place)
        CROSS JOIN LATERAL register_energy(
            previous_at, previous, ts, CASE WHEN is_register THEN reported END,
            register_modulus, max_power_kw) AS energy
    LOOP
        events[grown.place].{energy} := grown.kwh;
        events[grown.place].register_kwh := grown.register;
        events[grown.place].seconds := grown.seconds;
    END LOOP;
END
$$;

-- After a change of these readings: notes what is odd about them and about those that follow them, and
-- returns the events of those which have grown by something else now, to be stored again; null where
-- there is none.
CREATE OR REPLACE FUNCTION restate_{stream}_registers(changed reading_key[]) RETURNS {stream}_event[]
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    ids      constant text[] := ARRAY(SELECT DISTINCT device_id FROM unnest(changed));
    horizon  timestamptz;
    first_at timestamptz;
    last_at  timestamptz;
    again    {stream}_event[];
BEGIN
    horizon := (SELECT archived_to FROM archive_horizon WHERE stream = '{stream}');
    SELECT greatest(min(coalesce(before.hour, rollup_hour(item."timestamp"))), horizon),
           max(coalesce(after.hour, rollup_hour(item."timestamp")) + interval '1 hour')
    INTO first_at, last_at
    FROM unnest(changed) AS item
    JOIN devices ON devices.device_id = item.device_id
    CROSS JOIN LATERAL (
        SELECT max(rollup.hour) AS hour FROM {stream}_hourly_rollup rollup
        WHERE rollup.{device} = item.device_id AND rollup.hour < rollup_hour(item."timestamp")
          AND rollup.readings > 0
    ) AS before
    CROSS JOIN LATERAL (
        SELECT min(rollup.hour) AS hour FROM {stream}_hourly_rollup rollup
        WHERE rollup.{device} = item.device_id AND rollup.hour > rollup_hour(item."timestamp")
          AND rollup.readings > 0
    ) AS after
    WHERE item."timestamp" >= horizon;
    IF first_at IS NULL THEN
        RETURN NULL;
    END IF;

    WITH asked AS (
        SELECT DISTINCT item.device_id AS id, item."timestamp" AS ts
        FROM unnest(changed) AS item
        JOIN devices ON devices.device_id = item.device_id
        WHERE item."timestamp" >= horizon
    ), point AS (
        SELECT DISTINCT ON (id COLLATE "C", ts) *
        FROM (
            SELECT asked.id, found."timestamp" AS ts, found.register_kwh AS register,
                   found.{energy} AS kwh, found.place, register_modulus, max_power_kw,
                   found.told_seconds, found.seconds, cadence_seconds,
                   ROW({columns found})::{stream}_event AS event
            FROM asked
            CROSS JOIN LATERAL (
                (SELECT *, 2 AS place FROM {history} h
                 WHERE h.{device} = asked.id AND h."timestamp" < asked.ts
                   AND h."timestamp" >= first_at AND h."timestamp" <= last_at
                 ORDER BY h."timestamp" DESC, h.received_at DESC LIMIT 1)
                UNION ALL
                (SELECT *, 1 FROM {history} h
                 WHERE h.{device} = asked.id AND h."timestamp" = asked.ts
                   AND h."timestamp" >= first_at AND h."timestamp" <= last_at
                 ORDER BY h.received_at DESC LIMIT 1)
                UNION ALL
                (SELECT *, 1 FROM {history} h
                 WHERE h.{device} = asked.id AND h."timestamp" > asked.ts
                   AND h."timestamp" >= first_at AND h."timestamp" <= last_at
                 ORDER BY h."timestamp", h.received_at DESC LIMIT 1)
            ) AS found
            LEFT JOIN LATERAL declaration_of(asked.id, found.received_at) AS declared ON true
            UNION ALL
            SELECT baseline.device_id, baseline."timestamp", baseline.register_kwh, NULL, 2, NULL, NULL,
                   NULL, NULL, NULL, NULL
            FROM register_baselines baseline
            WHERE baseline.device_id = ANY (ids) AND baseline.stream = '{stream}'
        ) AS point
        ORDER BY id COLLATE "C", ts, place
    ), followed AS (
        SELECT *, lag(ts) OVER device AS previous_at, lag(register) OVER device AS previous
        FROM point
        WINDOW device AS (PARTITION BY id COLLATE "C" ORDER BY ts)
    ), judged AS (
        SELECT followed.*, energy.kwh AS grown, energy.event AS oddity,
               reading_seconds(previous_at, previous, ts, register, energy.event, told_seconds, cadence_seconds)
                   AS length
        FROM followed
        CROSS JOIN LATERAL register_energy(
            previous_at, previous, ts, register, register_modulus, max_power_kw) AS energy
        WHERE place = 1
    ), forgotten AS (
        DELETE FROM register_events old
        USING (SELECT id, ts FROM asked UNION SELECT id, ts FROM judged) AS place
        WHERE old.device_id = place.id AND old.stream = '{stream}' AND old."timestamp" = place.ts
          AND old.device_id = ANY (ids) -- whatever the plan was made for, no other device's
          AND old."timestamp" >= first_at AND old."timestamp" <= last_at
          AND NOT EXISTS (SELECT FROM judged
                          WHERE (judged.id, judged.ts) = (place.id, place.ts) AND oddity IS NOT NULL)
    ), noted AS (
        INSERT INTO register_events (device_id, stream, "timestamp", event, register_kwh, previous_kwh)
        SELECT id, '{stream}', ts, oddity, register, previous FROM judged WHERE oddity IS NOT NULL
        ON CONFLICT (device_id, stream, "timestamp") DO UPDATE SET
            event = excluded.event, register_kwh = excluded.register_kwh,
            previous_kwh = excluded.previous_kwh
    )
    SELECT array_agg(event) INTO again FROM judged
    WHERE register IS NOT NULL AND (grown != kwh OR length IS DISTINCT FROM seconds);

    FOR place IN 1..coalesce(cardinality(again), 0) LOOP
        again[place].received_at := again[place].received_at + interval '1 microsecond';
    END LOOP;
    RETURN again;
END
$$;

-- Stores readings of a device once more, by what is declared now: those accepted after an instant, at most so
-- many after another of them. Returns the last; null where there are no more. What is more than an interval
-- can have stays a register. Archived days stay as they are.
CREATE OR REPLACE FUNCTION store_{stream}_again(
    id text, accepted_after timestamptz, after timestamptz, most integer
) RETURNS timestamptz LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    horizon constant timestamptz := (SELECT archived_to FROM archive_horizon WHERE stream = '{stream}');
    again   {stream}_event[];
    judged  reading_key[];
    last    timestamptz;
BEGIN
    PERFORM FROM devices WHERE device_id = id FOR UPDATE;
    SELECT max("timestamp"),
           array_agg(ROW({columns counted})::{stream}_event)
           FILTER (WHERE received_at > accepted_after AND (
               CASE WHEN coalesce(is_register, false) = (register_kwh IS NOT NULL)
                    THEN register_kwh IS NULL
                         AND seconds IS DISTINCT FROM nullif(coalesce(told_seconds, cadence_seconds), 60)
                    ELSE is_register OR register_kwh <= 10000 END)),
           array_agg(ROW(id, "timestamp")::reading_key) FILTER (WHERE received_at > accepted_after)
    INTO last, again, judged
    FROM (
        SELECT DISTINCT ON ("timestamp") * FROM {history}
        WHERE {device} = id AND "timestamp" > after AND "timestamp" >= horizon
        ORDER BY "timestamp", received_at DESC
        LIMIT most
    ) AS counted
    LEFT JOIN LATERAL declaration_of(id, received_at) AS declared ON true;
    FOR place IN 1..coalesce(cardinality(again), 0) LOOP
        again[place].received_at := again[place].received_at + interval '1 microsecond';
    END LOOP;
    PERFORM store_{stream}_events(again);
    PERFORM store_{stream}_events(restate_{stream}_registers(judged));
    RETURN last;
END
$$;

-- How often what a device told after an instant was more, and less, than before.
CREATE OR REPLACE FUNCTION count_{stream}_steps(id text, since timestamptz)
RETURNS TABLE (steps bigint, rises bigint, falls bigint) LANGUAGE sql STABLE AS $$
    SELECT count(step), count(*) FILTER (WHERE step > 0), count(*) FILTER (WHERE step < 0)
    FROM (
        SELECT reported - lag(reported) OVER (ORDER BY "timestamp") AS step
        FROM (
            SELECT DISTINCT ON ("timestamp") "timestamp", coalesce(register_kwh, {energy}) AS reported
            FROM {history}
            WHERE {device} = id AND "timestamp" > since
            ORDER BY "timestamp", received_at DESC
        ) AS counted
    ) AS followed
$$;

GRANT EXECUTE ON FUNCTION store_{stream}_again TO telemetry_maintain;
