-- What erasures take of a device of either stream: see erasures.sql.

-- Erases what was accepted of a day, (of_day, of_day + 24 h], before the erasure was asked for, up to 2,000
-- receipts at a time; survivors are the rows that the archive keeps of it. Returns null where there are more.
CREATE OR REPLACE FUNCTION erase_meter_day(erasing uuid, of_day timestamptz, survivors jsonb) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    day_end constant timestamptz := of_day + interval '24 hours';
    until   timestamptz;
    asked   erasure;
    gone    timestamptz[];
    erased  bigint;
BEGIN
    SELECT * INTO asked FROM erasure
    WHERE erasure_id = erasing AND erasure.stream = 'meter' AND device_id IS NOT NULL;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    PERFORM hold_erased('meter', asked.device_id);
    PERFORM FROM erasure WHERE erasure_id = erasing AND device_id IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN  -- another run was faster
        PERFORM release_meter(asked.device_id);
        RETURN true;
    END IF;

    until := coalesce(
        (SELECT "timestamp" FROM meter_telemetry_history
         WHERE meter_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= day_end
           AND received_at <= asked.asked_at
         ORDER BY "timestamp" OFFSET 1999 LIMIT 1),
        day_end);
    WITH deleted AS (
        DELETE FROM meter_telemetry_history
        WHERE meter_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= until
          AND received_at <= asked.asked_at
        RETURNING "timestamp"
    )
    SELECT count(*), array_agg(DISTINCT "timestamp") INTO erased, gone FROM deleted;

    -- What is left of the day is summed anew. A minute of which something waits to be compared with the
    -- archive counts as heard from: see admit_late_meter_events.
    DELETE FROM meter_hourly_rollup
    WHERE meter_id = asked.device_id AND hour >= of_day AND hour < day_end;
    INSERT INTO meter_hourly_rollup AS rollup (meter_id, hour, readings, minutes, kwh_consumed_ac)
    SELECT asked.device_id, hour, count(*), bit_or(minute_bit("timestamp", hour)), coalesce(sum(counted."kwh_consumed_ac"), 0)
    FROM (
        SELECT DISTINCT ON ("timestamp") *
        FROM (
            SELECT * FROM meter_telemetry_history
            WHERE meter_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= day_end
            UNION ALL
            SELECT * FROM jsonb_populate_recordset(NULL::meter_telemetry_history, survivors)
        ) AS receipt
        ORDER BY "timestamp", received_at DESC
    ) AS counted
    CROSS JOIN LATERAL rollup_hour("timestamp") AS hour
    GROUP BY hour;
    INSERT INTO meter_hourly_rollup AS rollup (meter_id, hour, readings, minutes, kwh_consumed_ac)
    SELECT asked.device_id, hour, 0, bit_or(minute_bit("timestamp", hour)), 0
    FROM meter_pending CROSS JOIN LATERAL rollup_hour("timestamp") AS hour
    WHERE meter_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= day_end
      AND received_at > asked.asked_at
    GROUP BY hour
    ON CONFLICT (meter_id, hour) DO UPDATE SET minutes = rollup.minutes | excluded.minutes;

    PERFORM mark_meter_summaries(sum_meter_days(ARRAY(
        SELECT ROW(asked.device_id, ts)::reading_key
        FROM (SELECT generate_series(of_day + interval '1 hour', day_end, interval '1 hour')
              UNION SELECT unnest(gone)) AS changed (ts))));
    DELETE FROM meter_daily_rollup
    WHERE meter_id = asked.device_id AND day = of_day AND NOT EXISTS (
        SELECT FROM meter_hourly_rollup
        WHERE meter_id = asked.device_id AND hour >= of_day AND hour < day_end);

    -- The live row shows what is left, if it showed what has gone.
    UPDATE meter_live_status
    SET last_timestamp = '-infinity', updated_at = '-infinity', previous_timestamp = '-infinity'
    WHERE meter_id = asked.device_id AND updated_at <= asked.asked_at
      AND last_timestamp > of_day AND last_timestamp <= until;
    -- That may be in the archive alone.
    UPDATE meter_live_status live
    SET last_timestamp = newest."timestamp", updated_at = newest.received_at, last_kwh_consumed_ac = newest.kwh_consumed_ac, last_voltage = newest.voltage, last_register_kwh = newest.register_kwh
    FROM (
        SELECT * FROM (
            (SELECT * FROM meter_telemetry_history
             WHERE meter_id = asked.device_id ORDER BY "timestamp" DESC, received_at DESC LIMIT 1)
            UNION ALL
            SELECT * FROM jsonb_populate_recordset(NULL::meter_telemetry_history, survivors)
        ) AS receipt
        ORDER BY "timestamp" DESC, received_at DESC
        LIMIT 1
    ) AS newest
    WHERE live.meter_id = asked.device_id AND live.last_timestamp = '-infinity';

    DELETE FROM register_events noted
    WHERE device_id = asked.device_id AND stream = 'meter'
      AND noted."timestamp" > of_day AND noted."timestamp" <= until
      AND NOT EXISTS (
          SELECT FROM meter_telemetry_history h
          WHERE h.meter_id = asked.device_id AND h."timestamp" = noted."timestamp"
            AND h."timestamp" > of_day AND h."timestamp" <= until);
    IF gone IS NOT NULL AND EXISTS (SELECT FROM devices WHERE device_id = asked.device_id) THEN
        PERFORM store_meter_events(restate_meter_registers(
            ARRAY(SELECT ROW(asked.device_id, ts)::reading_key FROM unnest(gone) AS ts)));
    END IF;
    PERFORM release_meter(asked.device_id);
    UPDATE erasure SET receipts = receipts + erased WHERE erasure_id = erasing;
    RETURN CASE WHEN until = day_end THEN true END;
END
$$;

-- Erases what is beside history of what was accepted of a device until then; finish_erasure has its locks.
CREATE OR REPLACE FUNCTION erase_meter_rest(id text, until timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM meter_pending WHERE meter_id = id AND received_at <= until;
    DELETE FROM meter_void_receipt WHERE meter_id = id AND received_at <= until;
    -- A void stays that keeps something aside which was accepted later.
    DELETE FROM meter_void void
    WHERE meter_id = id AND NOT (pending AND voided_at > until) AND NOT EXISTS (
        SELECT FROM meter_void_receipt kept
        WHERE kept.meter_id = void.meter_id AND kept."timestamp" = void."timestamp");
    UPDATE vehicle_void_receipt SET meter_id = NULL   -- of meters
    WHERE meter_id = id AND received_at <= until;     -- of meters
    UPDATE vehicle_pending SET meter_id = NULL        -- of meters
    WHERE meter_id = id AND received_at <= until;     -- of meters

    -- What was accepted later does not go on from what is erased.
    DELETE FROM register_baselines WHERE device_id = id AND stream = 'meter';
    PERFORM store_meter_events(restate_meter_registers(ARRAY[ROW(id, first_left)::reading_key]))
    FROM (SELECT min("timestamp") FROM meter_telemetry_history
          WHERE meter_id = id
            AND "timestamp" >= (SELECT archived_to FROM archive_horizon WHERE stream = 'meter')
         ) AS oldest (first_left);
END
$$;

GRANT EXECUTE ON FUNCTION erase_meter_day TO telemetry_maintain;
-- What erasures take of a device of either stream: see erasures.sql.

-- Erases what was accepted of a day, (of_day, of_day + 24 h], before the erasure was asked for, up to 2,000
-- receipts at a time; survivors are the rows that the archive keeps of it. Returns null where there are more.
CREATE OR REPLACE FUNCTION erase_vehicle_day(erasing uuid, of_day timestamptz, survivors jsonb) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    cadence constant interval := '60 seconds';  -- of vehicles
    day_end constant timestamptz := of_day + interval '24 hours';
    until   timestamptz;
    asked   erasure;
    gone    timestamptz[];
    erased  bigint;
BEGIN
    SELECT * INTO asked FROM erasure
    WHERE erasure_id = erasing AND erasure.stream = 'vehicle' AND device_id IS NOT NULL;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    PERFORM hold_erased('vehicle', asked.device_id);
    PERFORM FROM erasure WHERE erasure_id = erasing AND device_id IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN  -- another run was faster
        PERFORM release_vehicle(asked.device_id);
        RETURN true;
    END IF;

    until := coalesce(
        (SELECT "timestamp" FROM vehicle_telemetry_history
         WHERE vehicle_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= day_end
           AND received_at <= asked.asked_at
         ORDER BY "timestamp" OFFSET 1999 LIMIT 1),
        day_end);
    WITH deleted AS (
        DELETE FROM vehicle_telemetry_history
        WHERE vehicle_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= until
          AND received_at <= asked.asked_at
        RETURNING "timestamp"
    )
    SELECT count(*), array_agg(DISTINCT "timestamp") INTO erased, gone FROM deleted;

    -- What is left of the day is summed anew. A minute of which something waits to be compared with the
    -- archive counts as heard from: see admit_late_vehicle_events.
    DELETE FROM vehicle_hourly_rollup
    WHERE vehicle_id = asked.device_id AND hour >= of_day AND hour < day_end;
    INSERT INTO vehicle_hourly_rollup AS rollup (vehicle_id, hour, readings, minutes, kwh_delivered_dc, battery_temp_sum)
    SELECT asked.device_id, hour, count(*), bit_or(minute_bit("timestamp", hour)), coalesce(sum(counted."kwh_delivered_dc"), 0), coalesce(sum(counted."battery_temp"), 0)
    FROM (
        SELECT DISTINCT ON ("timestamp") *
        FROM (
            SELECT * FROM vehicle_telemetry_history
            WHERE vehicle_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= day_end
            UNION ALL
            SELECT * FROM jsonb_populate_recordset(NULL::vehicle_telemetry_history, survivors)
        ) AS receipt
        ORDER BY "timestamp", received_at DESC
    ) AS counted
    CROSS JOIN LATERAL rollup_hour("timestamp") AS hour
    GROUP BY hour;
    INSERT INTO vehicle_hourly_rollup AS rollup (vehicle_id, hour, readings, minutes, kwh_delivered_dc, battery_temp_sum)
    SELECT asked.device_id, hour, 0, bit_or(minute_bit("timestamp", hour)), 0, 0
    FROM vehicle_pending CROSS JOIN LATERAL rollup_hour("timestamp") AS hour
    WHERE vehicle_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= day_end
      AND received_at > asked.asked_at
    GROUP BY hour
    ON CONFLICT (vehicle_id, hour) DO UPDATE SET minutes = rollup.minutes | excluded.minutes;

    PERFORM mark_vehicle_summaries(sum_vehicle_days(ARRAY(
        SELECT ROW(asked.device_id, ts)::reading_key
        FROM (SELECT generate_series(of_day + interval '1 hour', day_end, interval '1 hour')
              UNION SELECT unnest(gone)) AS changed (ts))));
    DELETE FROM vehicle_daily_rollup
    WHERE vehicle_id = asked.device_id AND day = of_day AND NOT EXISTS (
        SELECT FROM vehicle_hourly_rollup
        WHERE vehicle_id = asked.device_id AND hour >= of_day AND hour < day_end);
    PERFORM show_charge(asked.device_id, '[]') FROM vehicle_live_status                     -- of vehicles
    WHERE vehicle_id = asked.device_id AND soc_received_at <= asked.asked_at                -- of vehicles
      AND soc_timestamp > of_day AND soc_timestamp <= until;                                -- of vehicles

    -- The live row shows what is left, if it showed what has gone.
    UPDATE vehicle_live_status
    SET last_timestamp = '-infinity', updated_at = '-infinity', previous_timestamp = '-infinity'
    WHERE vehicle_id = asked.device_id AND updated_at <= asked.asked_at
      AND last_timestamp > of_day AND last_timestamp <= until;
    -- That may be in the archive alone.
    UPDATE vehicle_live_status live
    SET last_timestamp = newest."timestamp", updated_at = newest.received_at, last_kwh_delivered_dc = newest.kwh_delivered_dc, last_battery_temp = newest.battery_temp, last_register_kwh = newest.register_kwh
    FROM (
        SELECT * FROM (
            (SELECT * FROM vehicle_telemetry_history
             WHERE vehicle_id = asked.device_id ORDER BY "timestamp" DESC, received_at DESC LIMIT 1)
            UNION ALL
            SELECT * FROM jsonb_populate_recordset(NULL::vehicle_telemetry_history, survivors)
        ) AS receipt
        ORDER BY "timestamp" DESC, received_at DESC
        LIMIT 1
    ) AS newest
    WHERE live.vehicle_id = asked.device_id AND live.last_timestamp = '-infinity';

    PERFORM claim_meters(array_agg(                                                         -- of vehicles
        ROW(vehicle_id, valid_from + cadence, meter_id, NULL)::link_claim))                 -- of vehicles
    FROM links                                                                              -- of vehicles
    WHERE vehicle_id = asked.device_id AND source = 'reading'                               -- of vehicles
      AND valid_from + cadence > of_day AND valid_from + cadence <= until                   -- of vehicles
      AND NOT EXISTS (                                                                      -- of vehicles
          SELECT FROM vehicle_telemetry_history h                                           -- of vehicles
          WHERE h.vehicle_id = asked.device_id AND h."timestamp" = valid_from + cadence     -- of vehicles
            AND h."timestamp" > of_day AND h."timestamp" <= until);                         -- of vehicles
    DELETE FROM register_events noted
    WHERE device_id = asked.device_id AND stream = 'vehicle'
      AND noted."timestamp" > of_day AND noted."timestamp" <= until
      AND NOT EXISTS (
          SELECT FROM vehicle_telemetry_history h
          WHERE h.vehicle_id = asked.device_id AND h."timestamp" = noted."timestamp"
            AND h."timestamp" > of_day AND h."timestamp" <= until);
    IF gone IS NOT NULL AND EXISTS (SELECT FROM devices WHERE device_id = asked.device_id) THEN
        PERFORM store_vehicle_events(restate_vehicle_registers(
            ARRAY(SELECT ROW(asked.device_id, ts)::reading_key FROM unnest(gone) AS ts)));
    END IF;
    PERFORM release_vehicle(asked.device_id);
    UPDATE erasure SET receipts = receipts + erased WHERE erasure_id = erasing;
    RETURN CASE WHEN until = day_end THEN true END;
END
$$;

-- Erases what is beside history of what was accepted of a device until then; finish_erasure has its locks.
CREATE OR REPLACE FUNCTION erase_vehicle_rest(id text, until timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM vehicle_pending WHERE vehicle_id = id AND received_at <= until;
    DELETE FROM vehicle_void_receipt WHERE vehicle_id = id AND received_at <= until;
    -- A void stays that keeps something aside which was accepted later.
    DELETE FROM vehicle_void void
    WHERE vehicle_id = id AND NOT (pending AND voided_at > until) AND NOT EXISTS (
        SELECT FROM vehicle_void_receipt kept
        WHERE kept.vehicle_id = void.vehicle_id AND kept."timestamp" = void."timestamp");

    -- What was accepted later does not go on from what is erased.
    DELETE FROM register_baselines WHERE device_id = id AND stream = 'vehicle';
    PERFORM store_vehicle_events(restate_vehicle_registers(ARRAY[ROW(id, first_left)::reading_key]))
    FROM (SELECT min("timestamp") FROM vehicle_telemetry_history
          WHERE vehicle_id = id
            AND "timestamp" >= (SELECT archived_to FROM archive_horizon WHERE stream = 'vehicle')
         ) AS oldest (first_left);
END
$$;

GRANT EXECUTE ON FUNCTION erase_vehicle_day TO telemetry_maintain;
