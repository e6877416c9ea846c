-- As lock_meters. What differs is the state of charge, which a reading may leave out: the live row shows
-- that of the newest receipt that has one, also where that receipt is not the newest of all.
CREATE OR REPLACE FUNCTION lock_vehicles(events vehicle_event[]) RETURNS locked_device[]
LANGUAGE plpgsql AS $$
DECLARE
    locked locked_device[];
BEGIN
    WITH newest AS (
        SELECT DISTINCT ON (vehicle_id) * FROM unnest(events)
        ORDER BY vehicle_id, "timestamp" DESC, received_at DESC
    ), charged AS (
        SELECT DISTINCT ON (vehicle_id) * FROM unnest(events)
        WHERE soc IS NOT NULL
        ORDER BY vehicle_id, "timestamp" DESC, received_at DESC
    ), written AS (
        INSERT INTO vehicle_live_status AS live
            (vehicle_id, last_timestamp, updated_at, last_kwh_delivered_dc, last_battery_temp,
             last_register_kwh, last_seconds, soc, soc_timestamp, soc_received_at, summed_to)
        SELECT newest.vehicle_id, newest."timestamp", newest.received_at, newest.kwh_delivered_dc,
               newest.battery_temp, newest.register_kwh, newest.seconds,
               charged.soc, coalesce(charged."timestamp", '-infinity'),
               coalesce(charged.received_at, '-infinity'),
               coalesce((SELECT max(window_end) FROM fleet_window), '-infinity')
        FROM newest LEFT JOIN charged ON charged.vehicle_id = newest.vehicle_id
        ORDER BY newest.vehicle_id
        ON CONFLICT (vehicle_id) DO UPDATE SET
            previous_timestamp = live.last_timestamp,
            last_timestamp = greatest(excluded.last_timestamp, live.last_timestamp),
            updated_at =
                CASE WHEN (excluded.last_timestamp, excluded.updated_at)
                          > (live.last_timestamp, live.updated_at)
                     THEN excluded.updated_at ELSE live.updated_at END,
            last_kwh_delivered_dc =
                CASE WHEN (excluded.last_timestamp, excluded.updated_at)
                          > (live.last_timestamp, live.updated_at)
                     THEN excluded.last_kwh_delivered_dc ELSE live.last_kwh_delivered_dc END,
            last_battery_temp =
                CASE WHEN (excluded.last_timestamp, excluded.updated_at)
                          > (live.last_timestamp, live.updated_at)
                     THEN excluded.last_battery_temp ELSE live.last_battery_temp END,
            last_register_kwh =
                CASE WHEN (excluded.last_timestamp, excluded.updated_at)
                          > (live.last_timestamp, live.updated_at)
                     THEN excluded.last_register_kwh ELSE live.last_register_kwh END,
            last_seconds =
                CASE WHEN (excluded.last_timestamp, excluded.updated_at)
                          > (live.last_timestamp, live.updated_at)
                     THEN excluded.last_seconds ELSE live.last_seconds END,
            soc =
                CASE WHEN (excluded.soc_timestamp, excluded.soc_received_at)
                          > (live.soc_timestamp, live.soc_received_at)
                     THEN excluded.soc ELSE live.soc END,
            soc_received_at =
                CASE WHEN (excluded.soc_timestamp, excluded.soc_received_at)
                          > (live.soc_timestamp, live.soc_received_at)
                     THEN excluded.soc_received_at ELSE live.soc_received_at END,
            soc_timestamp = greatest(excluded.soc_timestamp, live.soc_timestamp)
        WHERE ((excluded.last_timestamp, excluded.updated_at)
               > (live.last_timestamp, live.updated_at)
            OR (excluded.soc_timestamp, excluded.soc_received_at)
               > (live.soc_timestamp, live.soc_received_at))
          AND least(excluded.last_timestamp, nullif(excluded.soc_timestamp, '-infinity'))
            > live.voided_to
        RETURNING vehicle_id, greatest(previous_timestamp, voided_to) AS shown_to, summed_to
    )
    SELECT array_agg(ROW(vehicle_id, shown_to, summed_to)::locked_device) INTO locked FROM written;
    RETURN locked;
END
$$;

-- As show_meters, and the newest state of charge likewise.
CREATE OR REPLACE FUNCTION show_vehicles(late reading_key[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE vehicle_live_status live
    SET soc = charged.soc, soc_timestamp = charged."timestamp",
        soc_received_at = charged.received_at
    FROM (
        SELECT DISTINCT held.vehicle_id, held.soc_timestamp
        FROM unnest(late) AS late
        JOIN vehicle_live_status held ON held.vehicle_id = late.device_id
            AND (held.voided_to >= late."timestamp" OR held.last_timestamp = '-infinity')
    ) AS held
    CROSS JOIN LATERAL (
        SELECT * FROM vehicle_telemetry_history h
        WHERE h.vehicle_id = held.vehicle_id AND h."timestamp" >= held.soc_timestamp
          AND h.soc IS NOT NULL
        ORDER BY h."timestamp" DESC, h.received_at DESC
        LIMIT 1
    ) AS charged
    WHERE live.vehicle_id = held.vehicle_id
      AND (charged."timestamp", charged.received_at) > (live.soc_timestamp, live.soc_received_at);

    UPDATE vehicle_live_status live
    SET last_timestamp = newest."timestamp", updated_at = newest.received_at,
        last_kwh_delivered_dc = newest.kwh_delivered_dc, last_battery_temp = newest.battery_temp,
        last_register_kwh = newest.register_kwh, last_seconds = newest.seconds
    FROM (
        SELECT DISTINCT held.vehicle_id, held.last_timestamp
        FROM unnest(late) AS late
        JOIN vehicle_live_status held ON held.vehicle_id = late.device_id
            AND (held.voided_to >= late."timestamp" OR held.last_timestamp = '-infinity')
    ) AS held
    CROSS JOIN LATERAL (
        SELECT * FROM vehicle_telemetry_history h
        WHERE h.vehicle_id = held.vehicle_id AND h."timestamp" >= held.last_timestamp
        ORDER BY h."timestamp" DESC, h.received_at DESC
        LIMIT 1
    ) AS newest
    WHERE live.vehicle_id = held.vehicle_id
      AND (newest."timestamp", newest.received_at) > (live.last_timestamp, live.updated_at);
    DELETE FROM vehicle_live_status
    WHERE vehicle_id IN (SELECT device_id FROM unnest(late)) AND last_timestamp = '-infinity';
END
$$;

-- Has the live row show the newest state of charge that history has, or one of these receipts.
CREATE OR REPLACE FUNCTION show_charge(id text, archived jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE vehicle_live_status
    SET soc = charged.soc, soc_timestamp = coalesce(charged."timestamp", '-infinity'),
        soc_received_at = coalesce(charged.received_at, '-infinity')
    FROM (VALUES (1)) AS one LEFT JOIN (
        SELECT * FROM (
            (SELECT h.soc, h."timestamp", h.received_at FROM vehicle_telemetry_history h
             WHERE h.vehicle_id = id AND h.soc IS NOT NULL
             ORDER BY h."timestamp" DESC, h.received_at DESC
             LIMIT 1)
            UNION ALL
            SELECT other.soc, other."timestamp", other.received_at
            FROM jsonb_populate_recordset(NULL::vehicle_telemetry_history, archived) AS other
            WHERE other.soc IS NOT NULL
        ) AS known
        ORDER BY "timestamp" DESC, received_at DESC
        LIMIT 1
    ) AS charged ON true
    WHERE vehicle_id = id;
END
$$;

-- The claims that events make, change and give up, beside the receipts that counted before: the meters that
-- readings name now and did not, or no longer. Left out are those that change nothing, for the vehicle has
-- its meter already, by what was claimed up to that instant and at it; that stays so until commit. Null where
-- there is none.
CREATE OR REPLACE FUNCTION changed_claims(events vehicle_event[], old vehicle_event[])
RETURNS link_claim[] LANGUAGE plpgsql AS $$
DECLARE
    claims  link_claim[];
    relied  text[];
BEGIN
    IF NOT EXISTS (SELECT FROM unnest(events) WHERE meter_id IS NOT NULL)
       AND NOT EXISTS (SELECT FROM unnest(old) WHERE meter_id IS NOT NULL) THEN
        RETURN NULL;
    END IF;
    claims := ARRAY(
        SELECT ROW(vehicle_id, place, was_named, named)::link_claim
        FROM (
            SELECT DISTINCT ON (event.vehicle_id, event."timestamp")
                   event.vehicle_id, old.meter_id AS old_meter_id, event.meter_id,
                   event."timestamp" - claim_lead(event.seconds, event.told_seconds, event.register_kwh)
                       AS begins,
                   event."timestamp" - claim_lead(old.seconds, old.told_seconds, old.register_kwh)
                       AS old_begins
            FROM unnest(events) AS event
            LEFT JOIN unnest(old) AS old
                ON old.vehicle_id = event.vehicle_id AND old."timestamp" = event."timestamp"
            WHERE old.vehicle_id IS NULL OR event.received_at > old.received_at
            ORDER BY event.vehicle_id, event."timestamp", event.received_at DESC
        ) AS counted
        CROSS JOIN LATERAL (
            SELECT begins, CASE WHEN begins = old_begins THEN old_meter_id END, meter_id
            UNION ALL
            SELECT old_begins, old_meter_id, NULL WHERE begins != old_begins
        ) AS changed (place, was_named, named)
        WHERE named IS DISTINCT FROM was_named);
    relied := ARRAY(
        SELECT DISTINCT meter_id
        FROM unnest(claims)
        CROSS JOIN LATERAL continues_link(vehicle_id, "timestamp" + interval '1 microsecond', meter_id)
        WHERE old_meter_id IS NULL AND continues);
    IF relied != '{}' THEN
        PERFORM FROM link_locks WHERE device_id = ANY (relied) ORDER BY device_id FOR SHARE;
    END IF;
    RETURN (
        SELECT array_agg(claim)
        FROM unnest(claims) AS claim
        CROSS JOIN LATERAL continues_link(vehicle_id, "timestamp" + interval '1 microsecond', meter_id)
        WHERE old_meter_id IS NOT NULL OR NOT continues);
END
$$;

-- Stores vehicle events, as store_meter_intervals does those of meters. meter_ids and lengths are null where
-- no event has one.
CREATE OR REPLACE FUNCTION store_vehicle_intervals(
    vehicle_ids text[], timestamps timestamptz[], received_ats timestamptz[],
    kwhs double precision[], battery_temps double precision[], socs double precision[],
    meter_ids text[], lengths double precision[],
    OUT duplicates bigint, OUT corrections bigint
) LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    SELECT stored.* INTO duplicates, corrections
    FROM public.store_vehicle_events(ARRAY(
        SELECT ROW(id, ts, received_at, kwh, battery_temp, soc, NULL, meter, length,
                   nullif(length, 60))::public.vehicle_event
        FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids, lengths)
            AS item (id, ts, received_at, kwh, battery_temp, soc, meter, length))) AS stored;
END
$$;

CREATE OR REPLACE FUNCTION store_vehicle_readings(
    vehicle_ids text[], timestamps timestamptz[], received_ats timestamptz[],
    kwhs double precision[], battery_temps double precision[], socs double precision[],
    meter_ids text[],
    OUT duplicates bigint, OUT corrections bigint
) LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    SELECT stored.* INTO duplicates, corrections
    FROM public.store_vehicle_events(ARRAY(
        SELECT ROW(id, ts, received_at, kwh, battery_temp, soc, NULL, meter, NULL, NULL)::public.vehicle_event
        FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids)
            AS item (id, ts, received_at, kwh, battery_temp, soc, meter))) AS stored;
END
$$;

-- One vehicle event, as store_meter_reading stores a meter's.
CREATE OR REPLACE FUNCTION store_vehicle_reading(
    id           text,
    ts           timestamptz,
    received_at  timestamptz,
    kwh          double precision,
    battery_temp double precision,
    charge       double precision,
    meter        text,
    in_hour      timestamptz,
    minute       bigint
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_variable
DECLARE
    since    constant timestamptz := ts - interval '60 seconds';
    after    constant timestamptz := since + interval '1 microsecond';
    is_plain constant boolean := meter IS NULL OR (
        SELECT asked_at FROM public.erasure WHERE asked_at >= received_at
        ORDER BY asked_at DESC LIMIT 1) IS NULL;
BEGIN
    UPDATE public.vehicle_live_status
    SET last_timestamp = ts, updated_at = received_at,
        last_kwh_delivered_dc = kwh, last_battery_temp = battery_temp, last_seconds = NULL,
        soc = coalesce(charge, soc),
        soc_timestamp = CASE WHEN charge IS NULL THEN soc_timestamp ELSE ts END,
        soc_received_at = CASE WHEN charge IS NULL THEN soc_received_at ELSE received_at END
    WHERE vehicle_id = id AND last_timestamp < ts AND summed_to < ts AND voided_to < ts
      AND NOT reports_register AND kwh <= 10000 AND battery_temp IS NOT NULL AND is_plain;
    IF NOT FOUND THEN
        PERFORM public.store_vehicle_events(ARRAY[ROW(
            id, ts, received_at, kwh, battery_temp, charge, NULL, meter, NULL, NULL)::public.vehicle_event]);
        RETURN;
    END IF;

    INSERT INTO public.vehicle_telemetry_history
        (vehicle_id, "timestamp", received_at, kwh_delivered_dc, battery_temp, soc, meter_id)
    VALUES (id, ts, received_at, kwh, battery_temp, charge, meter);

    UPDATE public.vehicle_hourly_rollup
    SET readings = readings + 1,
        minutes = minutes | minute, covered = covered | minute, seconds = seconds + 60,
        kwh_delivered_dc = kwh_delivered_dc + kwh::numeric,
        battery_temp_sum = battery_temp_sum + battery_temp::numeric, battery_temps = battery_temps + 1
    WHERE vehicle_id = id AND hour = in_hour;
    IF NOT FOUND THEN
        INSERT INTO public.vehicle_hourly_rollup
            (vehicle_id, hour, readings, minutes, kwh_delivered_dc, battery_temp_sum)
        VALUES (id, in_hour, 1, minute, kwh, battery_temp);
    END IF;

    IF meter IS NULL THEN
        RETURN;
    END IF;
    -- Mostly it has the meter already, and nobody may change that before this commits.
    PERFORM
    FROM public.link_locks lock CROSS JOIN public.continues_link(id, after, meter)
    WHERE lock.device_id = meter AND continues
    FOR SHARE OF lock;
    IF NOT FOUND OR NOT (SELECT continues FROM public.continues_link(id, after, meter)) THEN
        PERFORM public.claim_meters(ARRAY[ROW(id, since, NULL, meter)::public.link_claim]);
    END IF;
END
$$;

GRANT EXECUTE ON FUNCTION store_vehicle_intervals, store_vehicle_readings, store_vehicle_reading
TO telemetry_ingest;
