-- Readings that ops void, because they are wrong and nobody will correct them. A void is of a reading, and
-- stands until it is withdrawn. While it stands, the receipts of the reading are in …_void_receipt
-- instead of history, also those that come later (the store sets them aside), so that all that
-- is computed of history leaves them out. What was computed already is changed here, in one transaction,
-- under the lock of the live row that every writer of the device takes.
--
-- Where it takes the archive to do that, the void is pending: the reading counts, and is treated as any
-- other, until the maintenance has looked there (telemetry.archived_voids).
--
-- Faults that were raised stay: what was told stays told. The two windows that are judged anew
-- follow.

-- Takes a reading, whose receipts are set aside already, out of all that was computed of it. archived is
-- what the archive has of the device, as far as that matters: of the minute of the reading, and what was
-- the newest before it.
CREATE OR REPLACE FUNCTION leave_out_{stream}_reading(
    id text, ts timestamptz, counted {history}, archived jsonb
) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    in_hour constant timestamptz := rollup_hour(ts);
    minute  constant timestamptz := date_bin('1 minute', ts - interval '1 microsecond', in_hour);
    begun   constant timestamptz := begin_of(counted.seconds, ts);
    newest  {history};
    follows timestamptz;
BEGIN
    UPDATE {stream}_hourly_rollup rollup
    SET readings = readings - ended, {subtracted},
        battery_temps = battery_temps - CASE WHEN counted.battery_temp IS NULL THEN 0 ELSE ended END, -- of vehicles
        seconds = rollup.seconds - seconds_there,
        kwh_estimated = kwh_estimated - CASE WHEN counted.seconds > 3600 THEN kwh_there ELSE 0 END
    FROM (SELECT *, (hour = in_hour)::integer AS ended
          FROM hours_of(counted.{energy}, counted.seconds, ts)) AS there
    WHERE rollup.{device} = id AND rollup.hour = there.hour;
    -- The minute was heard from all the same where another reading ended in it. One that waits to be
    -- compared with the archive counts as that: see admit_late_{stream}_events.
    UPDATE {stream}_hourly_rollup rollup
    SET minutes = minutes & ~minute_bit(ts, in_hour)
    WHERE {device} = id AND hour = in_hour
      AND NOT EXISTS (
        SELECT FROM {history} h
        WHERE h.{device} = id AND h."timestamp" > minute AND h."timestamp" <= minute + interval '1 minute')
      AND NOT EXISTS (
        SELECT FROM {stream}_pending late
        WHERE late.{device} = id AND late."timestamp" > minute
          AND late."timestamp" <= minute + interval '1 minute')
      AND NOT EXISTS (
        SELECT FROM jsonb_populate_recordset(NULL::{history}, archived) AS other
        WHERE other."timestamp" > minute AND other."timestamp" <= minute + interval '1 minute');
    PERFORM mend_{stream}_hours(id, begun, ts);
    DELETE FROM {stream}_hourly_rollup
    WHERE {device} = id AND hour >= rollup_hour(begun) AND hour <= in_hour AND hour < (
          SELECT archived_to FROM archive_horizon WHERE archive_horizon.stream = '{stream}')
      AND (readings, minutes, {energy_sum}) = (0, 0, 0) AND coalesce(seconds, 0) = 0;
    PERFORM mark_{stream}_summaries(sum_{stream}_days(
        reach_of_{stream}s(ARRAY[ROW({columns counted})::{stream}_event])));

    SELECT * INTO newest
    FROM (
        (SELECT * FROM {history} h
         WHERE h.{device} = id AND h."timestamp" < ts
         ORDER BY h."timestamp" DESC, h.received_at DESC LIMIT 1)
        UNION ALL
        SELECT * FROM jsonb_populate_recordset(NULL::{history}, archived) AS other
        WHERE other."timestamp" < ts
    ) AS known
    ORDER BY "timestamp" DESC, received_at DESC
    LIMIT 1;
    UPDATE {stream}_live_status SET voided_to = greatest(voided_to, ts) WHERE {device} = id;
    IF newest.{device} IS NOT NULL THEN
        UPDATE {stream}_live_status
        SET last_timestamp = newest."timestamp", updated_at = newest.received_at, {shown}
        WHERE {device} = id AND last_timestamp = ts;
    ELSE
        -- A vehicle's summaries stay, marked: it may come back before they go.
        DELETE FROM {stream}_live_status WHERE {device} = id AND last_timestamp = ts;
    END IF;
    PERFORM show_charge(id, archived) FROM vehicle_live_status           -- of vehicles
    WHERE vehicle_id = id AND soc_timestamp = ts;                        -- of vehicles
    PERFORM claim_meters(ARRAY[ROW(                                      -- of vehicles
        id, ts - claim_lead(counted.seconds, counted.told_seconds, counted.register_kwh), -- of vehicles
        counted.meter_id, NULL)::link_claim])                            -- of vehicles
    WHERE counted.meter_id IS NOT NULL;                                  -- of vehicles

    -- The first register in history follows the last one in the archive.
    DELETE FROM register_events WHERE device_id = id AND stream = '{stream}' AND "timestamp" = ts;
    DELETE FROM register_baselines WHERE device_id = id AND stream = '{stream}' AND "timestamp" = ts;
    IF FOUND THEN
        INSERT INTO register_baselines (device_id, stream, "timestamp", register_kwh)
        SELECT id, '{stream}', newest."timestamp", newest.register_kwh WHERE newest.{device} IS NOT NULL;
        follows := (
            SELECT min("timestamp") FROM {history}
            WHERE {device} = id AND "timestamp" >= (
                SELECT archived_to FROM archive_horizon WHERE archive_horizon.stream = '{stream}'));
    END IF;
    PERFORM store_{stream}_events(
        restate_{stream}_registers(ARRAY[ROW(id, coalesce(follows, ts))::reading_key]));
END
$$;

-- Voids a reading, and says what came of it: 'voided'; 'standing', where it is voided already;
-- 'pending', where the reading, or another of its minute, or what its live row would have to show instead,
-- may be in the archive: then only the void is noted; null where there is no such reading.
CREATE OR REPLACE FUNCTION set_aside_{stream}_reading(
    id text, ts timestamptz, by_whom text, why text, token text
) RETURNS text LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    in_hour  constant timestamptz := rollup_hour(ts);
    shown_at timestamptz;
    counted  {history};
    horizon  timestamptz;
    waits    boolean;
BEGIN
    PERFORM FROM devices WHERE device_id = id FOR UPDATE; -- as writers do, before the live row
    shown_at := (SELECT last_timestamp FROM {stream}_live_status WHERE {device} = id FOR UPDATE);
    IF EXISTS (SELECT FROM {stream}_void
               WHERE {device} = id AND "timestamp" = ts AND withdrawn_at IS NULL) THEN
        RETURN 'standing';
    END IF;

    -- Look first: this holds history as it is until commit, so that no day is archived meanwhile.
    SELECT * INTO counted FROM {history}
    WHERE {device} = id AND "timestamp" = ts ORDER BY received_at DESC LIMIT 1;
    horizon := (SELECT archived_to FROM archive_horizon WHERE stream = '{stream}');
    waits := horizon > date_bin('1 minute', ts - interval '1 microsecond', in_hour);
    IF counted.{device} IS NULL THEN
        waits := waits AND EXISTS (
            SELECT FROM {stream}_hourly_rollup
            WHERE {device} = id AND hour = in_hour AND minutes & minute_bit(ts, in_hour) != 0);
        IF NOT waits THEN
            RETURN NULL;
        END IF;
    END IF;
    waits := waits OR shown_at = ts AND horizon > '-infinity'
        AND NOT EXISTS (
            SELECT FROM {history}
            WHERE {device} = id AND "timestamp" < ts AND "timestamp" >= horizon)
        AND EXISTS (SELECT FROM {stream}_hourly_rollup WHERE {device} = id AND hour != in_hour AND readings > 0);
    INSERT INTO {stream}_void ("timestamp", voided_at, {device}, voided_by, voided_why, voided_token, pending)
    VALUES (ts, clock_timestamp(), id, by_whom, why, token, waits);
    IF waits THEN
        RETURN 'pending';
    END IF;

    WITH moved AS (
        DELETE FROM {history} WHERE {device} = id AND "timestamp" = ts RETURNING *
    )
    INSERT INTO {stream}_void_receipt ({columns}) SELECT {columns} FROM moved;
    PERFORM leave_out_{stream}_reading(id, ts, counted, '[]');
    RETURN 'voided';
END
$$;

-- The same for its callers, who also get the reading's void.
CREATE OR REPLACE FUNCTION void_{stream}_reading(
    id text, ts timestamptz, by_whom text, why text, token text, OUT outcome text, OUT void listed_void
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    outcome := set_aside_{stream}_reading(id, ts, by_whom, why, token);
    SELECT * INTO void FROM list_voids('{stream}', id, ts, NULL, NULL, NULL, NULL, 1);
END
$$;

-- Does what pending voids say, with what the archive has: of each its receipts, which the caller takes
-- out of the archive in the same transaction, and others, as leave_out_{stream}_reading wants them. Returns of
-- each 'voided'; 'missing', where there is no such reading, and the void is withdrawn; 'withdrawn', where
-- that was done meanwhile; 'waiting', where something is to be compared with the archive first. Where one of
-- the last two is returned, the caller has to roll back.
CREATE OR REPLACE FUNCTION settle_{stream}_voids(ids text[], times timestamptz[], receipts jsonb[], others jsonb[])
RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    outcomes text[] := '{}';
    counted  {history};
BEGIN
    PERFORM FROM devices WHERE device_id = ANY (ids) ORDER BY device_id FOR UPDATE; -- as writers do
    PERFORM FROM {stream}_live_status WHERE {device} = ANY (ids) ORDER BY {device} FOR UPDATE;
    FOR i IN 1..cardinality(ids) LOOP
        PERFORM FROM {stream}_void
        WHERE {device} = ids[i] AND "timestamp" = times[i] AND pending FOR UPDATE;
        IF NOT FOUND THEN
            outcomes[i] := 'withdrawn';
            CONTINUE;
        END IF;
        IF EXISTS (
            SELECT FROM {stream}_pending late
            LEFT JOIN {stream}_live_status live ON live.{device} = ids[i] AND last_timestamp = times[i]
            WHERE late.{device} = ids[i] AND (late."timestamp" = times[i]
                  OR last_timestamp IS NOT NULL AND late."timestamp" < times[i])) THEN
            outcomes[i] := 'waiting';
            CONTINUE;
        END IF;

        WITH moved AS (
            DELETE FROM {history}
            WHERE {device} = ids[i] AND "timestamp" = times[i] RETURNING *
        )
        INSERT INTO {stream}_void_receipt ({columns})
        SELECT {columns} FROM moved
        UNION
        SELECT {columns} FROM jsonb_populate_recordset(NULL::{history}, receipts[i]);
        SELECT * INTO counted FROM {stream}_void_receipt
        WHERE {device} = ids[i] AND "timestamp" = times[i] ORDER BY received_at DESC LIMIT 1;
        IF FOUND THEN
            UPDATE {stream}_void SET pending = false
            WHERE {device} = ids[i] AND "timestamp" = times[i] AND pending;
            PERFORM leave_out_{stream}_reading(ids[i], times[i], counted, others[i]);
            outcomes[i] := 'voided';
        ELSE
            UPDATE {stream}_void
            SET pending = false, withdrawn_at = clock_timestamp(), withdrawn_by = 'maintenance',
                withdrawn_why = 'There is no such reading'
            WHERE {device} = ids[i] AND "timestamp" = times[i] AND pending;
            outcomes[i] := 'missing';
        END IF;
    END LOOP;
    RETURN outcomes;
END
$$;

-- Takes a void back: the receipts are delivered again, as from a queue. Who did so first stands. Returns
-- the void, and null where there never was one.
CREATE OR REPLACE FUNCTION withdraw_{stream}_void(
    id text, ts timestamptz, by_whom text, why text, token text, OUT void listed_void
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    back {stream}_event[];
BEGIN
    -- As writers do: the declaration, the live row, then the void.
    PERFORM FROM devices WHERE device_id = id FOR UPDATE;
    PERFORM FROM {stream}_live_status WHERE {device} = id FOR UPDATE;
    UPDATE {stream}_void
    SET pending = false, withdrawn_at = clock_timestamp(), withdrawn_by = by_whom, withdrawn_why = why,
        withdrawn_token = token
    WHERE {device} = id AND "timestamp" = ts AND withdrawn_at IS NULL;
    IF FOUND THEN
        WITH moved AS (
            DELETE FROM {stream}_void_receipt WHERE {device} = id AND "timestamp" = ts RETURNING *
        )
        SELECT array_agg(ROW({columns moved})::{stream}_event) INTO back FROM moved;
        PERFORM store_{stream}_events(back);
    END IF;
    SELECT * INTO void FROM list_voids('{stream}', id, ts, NULL, NULL, NULL, NULL, 1);
END
$$;

GRANT EXECUTE ON FUNCTION void_{stream}_reading, withdraw_{stream}_void TO telemetry_correct;
GRANT EXECUTE ON FUNCTION settle_{stream}_voids TO telemetry_maintain;
