-- Locks the devices of events and has their live rows show the newest reading: the newest device time
-- wins, on a tie the latest receipt. A row that is not updated is locked all the same. shown_to is the
-- device time that was shown before, '-infinity' for a new device. What may be voided is not shown yet,
-- and counts as shown before.
CREATE OR REPLACE FUNCTION lock_meters(events meter_event[]) RETURNS locked_device[]
LANGUAGE plpgsql AS $$
DECLARE
    locked locked_device[];
BEGIN
    WITH written AS (
        INSERT INTO meter_live_status AS live
            (meter_id, last_timestamp, updated_at, last_kwh_consumed_ac, last_voltage,
             last_register_kwh, last_seconds, summed_to)
        SELECT DISTINCT ON (meter_id) meter_id, "timestamp", received_at, kwh_consumed_ac, voltage,
               register_kwh, seconds,
               -- A new device counts as summed up to where the others are.
               coalesce((SELECT max(window_end) FROM fleet_window), '-infinity')
        FROM unnest(events)
        ORDER BY meter_id, "timestamp" DESC, received_at DESC
        ON CONFLICT (meter_id) DO UPDATE SET
            previous_timestamp = live.last_timestamp,
            last_timestamp = excluded.last_timestamp,
            updated_at = excluded.updated_at,
            last_kwh_consumed_ac = excluded.last_kwh_consumed_ac,
            last_voltage = excluded.last_voltage,
            last_register_kwh = excluded.last_register_kwh,
            last_seconds = excluded.last_seconds
        WHERE (excluded.last_timestamp, excluded.updated_at)
            > (live.last_timestamp, live.updated_at)
          AND excluded.last_timestamp > live.voided_to
        RETURNING meter_id, greatest(previous_timestamp, voided_to) AS shown_to, summed_to
    )
    SELECT array_agg(ROW(meter_id, shown_to, summed_to)::locked_device) INTO locked FROM written;
    RETURN locked;
END
$$;

-- Has the live rows show what was stored up to voided_to, which lock_meters leaves to this: by then it is
-- known what of it is voided. A device that has nothing else gets no live row.
CREATE OR REPLACE FUNCTION show_meters(late reading_key[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE meter_live_status live
    SET last_timestamp = newest."timestamp", updated_at = newest.received_at,
        last_kwh_consumed_ac = newest.kwh_consumed_ac, last_voltage = newest.voltage,
        last_register_kwh = newest.register_kwh, last_seconds = newest.seconds
    FROM (
        SELECT DISTINCT held.meter_id, held.last_timestamp
        FROM unnest(late) AS late
        JOIN meter_live_status held ON held.meter_id = late.device_id
            AND (held.voided_to >= late."timestamp" OR held.last_timestamp = '-infinity')
    ) AS held
    CROSS JOIN LATERAL (
        SELECT * FROM meter_telemetry_history h
        WHERE h.meter_id = held.meter_id AND h."timestamp" >= held.last_timestamp
        ORDER BY h."timestamp" DESC, h.received_at DESC
        LIMIT 1
    ) AS newest
    WHERE live.meter_id = held.meter_id
      AND (newest."timestamp", newest.received_at) > (live.last_timestamp, live.updated_at);
    DELETE FROM meter_live_status
    WHERE meter_id IN (SELECT device_id FROM unnest(late)) AND last_timestamp = '-infinity';
END
$$;

-- Stores meter events, as store_meter_events does; the arrays run in parallel, one element an event. Lengths
-- are those that readings tell (s).
CREATE OR REPLACE FUNCTION store_meter_intervals(
    meter_ids text[], timestamps timestamptz[], received_ats timestamptz[],
    kwhs double precision[], voltages double precision[], lengths double precision[],
    OUT duplicates bigint, OUT corrections bigint
) LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    SELECT stored.* INTO duplicates, corrections
    FROM public.store_meter_events(ARRAY(
        SELECT ROW(id, ts, received_at, kwh, voltage, NULL, length, nullif(length, 60))::public.meter_event
        FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, lengths)
            AS item (id, ts, received_at, kwh, voltage, length))) AS stored;
END
$$;

-- The same where no reading tells its length.
CREATE OR REPLACE FUNCTION store_meter_readings(
    meter_ids text[], timestamps timestamptz[], received_ats timestamptz[],
    kwhs double precision[], voltages double precision[],
    OUT duplicates bigint, OUT corrections bigint
) LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    SELECT stored.* INTO duplicates, corrections
    FROM public.store_meter_events(ARRAY(
        SELECT ROW(id, ts, received_at, kwh, voltage, NULL, NULL, NULL)::public.meter_event
        FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages)
            AS item (id, ts, received_at, kwh, voltage))) AS stored;
END
$$;

-- One meter event, as store_meter_events stores it, by three plain statements where the reading is newer
-- than the live row: that it is, the update itself proves, and then history cannot hold it yet. The
-- first reading of a meter, and any that is late, re-sent or corrected, takes the long way.
--
-- Names with their schema instead of a search_path of its own: setting one takes a quarter of the time.
-- Who may call this can make no objects that would be found before pg_catalog's. For the same reason the
-- caller brings rollup_hour and minute_bit: working them out here takes an eighth.
CREATE OR REPLACE FUNCTION store_meter_reading(
    id          text,
    ts          timestamptz,
    received_at timestamptz,
    kwh         double precision,
    voltage     double precision,
    in_hour     timestamptz,
    minute      bigint
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_variable
BEGIN
    UPDATE public.meter_live_status
    SET last_timestamp = ts, updated_at = received_at,
        last_kwh_consumed_ac = kwh, last_voltage = voltage, last_seconds = NULL
    WHERE meter_id = id AND last_timestamp < ts AND summed_to < ts AND voided_to < ts
      AND NOT reports_register AND kwh <= 10000;
    IF NOT FOUND THEN
        PERFORM public.store_meter_events(
            ARRAY[ROW(id, ts, received_at, kwh, voltage, NULL, NULL, NULL)::public.meter_event]);
        RETURN;
    END IF;

    INSERT INTO public.meter_telemetry_history
        (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage)
    VALUES (id, ts, received_at, kwh, voltage);

    UPDATE public.meter_hourly_rollup
    SET readings = readings + 1,
        minutes = minutes | minute, covered = covered | minute, seconds = seconds + 60,
        kwh_consumed_ac = kwh_consumed_ac + kwh::numeric
    WHERE meter_id = id AND hour = in_hour;
    IF NOT FOUND THEN
        INSERT INTO public.meter_hourly_rollup (meter_id, hour, readings, minutes, kwh_consumed_ac)
        VALUES (id, in_hour, 1, minute, kwh);
    END IF;
END
$$;

GRANT EXECUTE ON FUNCTION store_meter_intervals, store_meter_readings, store_meter_reading
TO telemetry_ingest;
