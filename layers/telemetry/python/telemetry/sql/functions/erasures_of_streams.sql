-- What erasures take of a device of either stream: see erasures.sql.

-- Erases what was accepted of a day, (of_day, of_day + 24 h], before the erasure was asked for, up to 2,000
-- receipts at a time; survivors are the rows that the archive keeps of it. Returns null where there are more.
CREATE OR REPLACE FUNCTION erase_{stream}_day(erasing uuid, of_day timestamptz, survivors jsonb) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    day_end constant timestamptz := of_day + interval '24 hours';
    until   timestamptz;
    horizon timestamptz;
    begun   timestamptz;  -- of the earliest that is erased; no earlier than history
    asked   erasure;
    gone    timestamptz[];
    erased  bigint;
BEGIN
    SELECT * INTO asked FROM erasure
    WHERE erasure_id = erasing AND erasure.stream = '{stream}' AND device_id IS NOT NULL;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    PERFORM hold_erased('{stream}', asked.device_id);
    PERFORM FROM erasure WHERE erasure_id = erasing AND device_id IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN  -- another run was faster
        PERFORM release_{stream}(asked.device_id);
        RETURN true;
    END IF;

    until := coalesce(
        (SELECT "timestamp" FROM {history}
         WHERE {device} = asked.device_id AND "timestamp" > of_day AND "timestamp" <= day_end
           AND received_at <= asked.asked_at
         ORDER BY "timestamp" OFFSET 1999 LIMIT 1),
        day_end);
    WITH deleted AS (
        DELETE FROM {history}
        WHERE {device} = asked.device_id AND "timestamp" > of_day AND "timestamp" <= until
          AND received_at <= asked.asked_at
        RETURNING "timestamp", seconds
    )
    SELECT count(*), array_agg(DISTINCT "timestamp"),
           least(of_day, rollup_hour(min(begin_of(seconds, "timestamp"))))
    INTO erased, gone, begun FROM deleted;
    horizon := (SELECT archived_to FROM archive_horizon WHERE stream = '{stream}');
    begun := least(of_day, greatest(begun, horizon));

    -- What is left of the day, and before it of what such a reading reached into, is summed anew. A minute of
    -- which something waits to be compared with the archive counts as heard from: see
    -- admit_late_{stream}_events.
    DELETE FROM {stream}_hourly_rollup
    WHERE {device} = asked.device_id AND hour >= begun AND hour < day_end;
    INSERT INTO {stream}_hourly_rollup
    SELECT * FROM {stream}_hours(asked.device_id, begun, day_end, day_end + reach_of(
        (SELECT longest_seconds FROM {stream}_live_status WHERE {device} = asked.device_id)), survivors);
    INSERT INTO {stream}_hourly_rollup AS rollup ({device}, hour, readings, minutes, {sums})
    SELECT asked.device_id, hour, 0, bit_or(minute_bit("timestamp", hour)), {zeros}
    FROM {stream}_pending CROSS JOIN LATERAL rollup_hour("timestamp") AS hour
    WHERE {device} = asked.device_id AND "timestamp" > begun AND "timestamp" <= day_end
      AND received_at > asked.asked_at
    GROUP BY hour
    ON CONFLICT ({device}, hour) DO UPDATE SET minutes = rollup.minutes | excluded.minutes;

    PERFORM mark_{stream}_summaries(sum_{stream}_days(ARRAY(
        SELECT ROW(asked.device_id, ts)::reading_key
        FROM (SELECT generate_series(begun + interval '1 hour', day_end, interval '1 hour')
              UNION SELECT unnest(gone)
              UNION SELECT valid_from FROM links                                    -- of meters
              WHERE links.meter_id = asked.device_id                                -- of meters
                AND valid_from > begun AND valid_from < day_end                     -- of meters
             ) AS changed (ts))));
    PERFORM show_charge(asked.device_id, '[]') FROM vehicle_live_status                     -- of vehicles
    WHERE vehicle_id = asked.device_id AND soc_received_at <= asked.asked_at                -- of vehicles
      AND soc_timestamp > of_day AND soc_timestamp <= until;                                -- of vehicles

    -- The live row shows what is left, if it showed what has gone.
    UPDATE {stream}_live_status
    SET last_timestamp = '-infinity', updated_at = '-infinity', previous_timestamp = '-infinity'
    WHERE {device} = asked.device_id AND updated_at <= asked.asked_at
      AND last_timestamp > of_day AND last_timestamp <= until;
    -- That may be in the archive alone.
    UPDATE {stream}_live_status live
    SET last_timestamp = newest."timestamp", updated_at = newest.received_at, {shown}
    FROM (
        SELECT * FROM (
            (SELECT * FROM {history}
             WHERE {device} = asked.device_id ORDER BY "timestamp" DESC, received_at DESC LIMIT 1)
            UNION ALL
            SELECT * FROM jsonb_populate_recordset(NULL::{history}, survivors)
        ) AS receipt
        ORDER BY "timestamp" DESC, received_at DESC
        LIMIT 1
    ) AS newest
    WHERE live.{device} = asked.device_id AND live.last_timestamp = '-infinity';

    PERFORM claim_meters(array_agg(                                                         -- of vehicles
        ROW(vehicle_id, valid_from, meter_id, NULL)::link_claim))                           -- of vehicles
    FROM links                                                                              -- of vehicles
    WHERE vehicle_id = asked.device_id AND source = 'reading'                               -- of vehicles
      AND valid_from > of_day - longest_lead(asked.device_id) AND valid_from < until       -- of vehicles
      AND claimed_at(asked.device_id, valid_from) IS DISTINCT FROM meter_id;                -- of vehicles
    DELETE FROM register_events noted
    WHERE device_id = asked.device_id AND stream = '{stream}'
      AND noted."timestamp" > of_day AND noted."timestamp" <= until
      AND NOT EXISTS (
          SELECT FROM {history} h
          WHERE h.{device} = asked.device_id AND h."timestamp" = noted."timestamp"
            AND h."timestamp" > of_day AND h."timestamp" <= until);
    IF gone IS NOT NULL AND EXISTS (SELECT FROM devices WHERE device_id = asked.device_id) THEN
        PERFORM store_{stream}_events(restate_{stream}_registers(
            ARRAY(SELECT ROW(asked.device_id, ts)::reading_key FROM unnest(gone) AS ts)));
    END IF;
    PERFORM release_{stream}(asked.device_id);
    UPDATE erasure SET receipts = receipts + erased WHERE erasure_id = erasing;
    RETURN CASE WHEN until = day_end THEN true END;
END
$$;

-- Erases what is beside history of what was accepted of a device until then; finish_erasure has its locks.
CREATE OR REPLACE FUNCTION erase_{stream}_rest(id text, until timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM {stream}_pending WHERE {device} = id AND received_at <= until;
    DELETE FROM {stream}_void_receipt WHERE {device} = id AND received_at <= until;
    -- A void stays that keeps something aside which was accepted later.
    DELETE FROM {stream}_void void
    WHERE {device} = id AND NOT (pending AND voided_at > until) AND NOT EXISTS (
        SELECT FROM {stream}_void_receipt kept
        WHERE kept.{device} = void.{device} AND kept."timestamp" = void."timestamp");
    UPDATE vehicle_void_receipt SET meter_id = NULL   -- of meters
    WHERE meter_id = id AND received_at <= until;     -- of meters
    UPDATE vehicle_pending SET meter_id = NULL        -- of meters
    WHERE meter_id = id AND received_at <= until;     -- of meters

    -- What was accepted later does not go on from what is erased.
    DELETE FROM register_baselines WHERE device_id = id AND stream = '{stream}';
    PERFORM store_{stream}_events(restate_{stream}_registers(ARRAY[ROW(id, first_left)::reading_key]))
    FROM (SELECT min("timestamp") FROM {history}
          WHERE {device} = id
            AND "timestamp" >= (SELECT archived_to FROM archive_horizon WHERE stream = '{stream}')
         ) AS oldest (first_left);
END
$$;

GRANT EXECUTE ON FUNCTION erase_{stream}_day TO telemetry_maintain;
