-- The schema that all migrations make, without the partitions of history. Written by `make schema`
-- to be read; what is applied are the migrations.

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE TYPE public.charged_window AS (
	"position" bigint,
	vehicle_id text,
	window_start timestamp with time zone,
	window_end timestamp with time zone,
	meter_ids text[],
	valid_froms timestamp with time zone[],
	valid_tos timestamp with time zone[]
);

CREATE TYPE public.charging_window AS (
	"position" bigint,
	id text,
	window_start timestamp with time zone,
	window_end timestamp with time zone,
	until timestamp with time zone,
	first_hour timestamp with time zone,
	first_day timestamp with time zone,
	last_day timestamp with time zone,
	last_hour timestamp with time zone,
	valid_from timestamp with time zone,
	valid_to timestamp with time zone,
	source text
);

CREATE TYPE public.priced_part AS (
	"position" bigint,
	sign integer,
	id text,
	tariff_id text,
	part_start timestamp with time zone,
	part_end timestamp with time zone,
	first_hour timestamp with time zone,
	last_hour timestamp with time zone
);

CREATE FUNCTION public.acknowledge_fault(id uuid, by_whom text, why text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    UPDATE fault SET state = 'acknowledged' WHERE fault_id = id AND state = 'open';
    IF FOUND THEN
        INSERT INTO fault_change (fault_id, change, details)
        VALUES (id, 'acknowledged', jsonb_build_object('by', by_whom, 'why', why));
    END IF;
    RETURN (SELECT state FROM fault WHERE fault_id = id);
END
$$;

CREATE FUNCTION public.begin_fleet_window(until timestamp with time zone, by_name boolean, least_kwh double precision, least_coverage double precision) RETURNS void
    LANGUAGE sql
    SET search_path TO 'public', 'pg_temp'
    AS $$
    INSERT INTO fleet_window (window_end, by_name, least_kwh, least_coverage)
    VALUES (until, by_name, least_kwh, least_coverage)
    ON CONFLICT (window_end) DO UPDATE SET
        finished = false, by_name = excluded.by_name, least_kwh = excluded.least_kwh,
        least_coverage = excluded.least_coverage
    WHERE (fleet_window.by_name, fleet_window.least_kwh, fleet_window.least_coverage)
          != (excluded.by_name, excluded.least_kwh, excluded.least_coverage)
$$;

CREATE FUNCTION public.ceil_hour("timestamp" timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN date_bin('01:00:00'::interval, ("timestamp" + '00:59:59.999999'::interval), '2000-01-01 00:00:00+00'::timestamp with time zone);

CREATE FUNCTION public.change_meter_summaries(meter_ids text[], timestamps timestamp with time zone[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $_$
DECLARE
    ids   text[];
    times timestamptz[];
    days  timestamptz[];  -- null where the day is not summed yet
BEGIN
    SELECT array_agg(item.id), array_agg(item.ts),
           array_agg(CASE WHEN item.ts <= day_of(summed_to) THEN day_of(rollup_hour(item.ts)) END)
    INTO ids, times, days
    FROM unnest(meter_ids, timestamps) AS item (id, ts)
    CROSS JOIN LATERAL (  -- LIMIT: whatever the plan was made for, one look-up each
        SELECT summed_to FROM meter_live_status live
        WHERE live.meter_id = item.id AND live.summed_to >= item.ts
        LIMIT 1
    ) AS live;
    IF ids IS NULL THEN
        RETURN;
    END IF;

PERFORM sum_meter_days(ids, days);

UPDATE vehicle_summary summary
    SET stale = true
    FROM (
        SELECT link.vehicle_id, item.ts
        FROM unnest(ids, times) AS item (id, ts)
        JOIN links link ON link.meter_id = item.id
        UNION
        SELECT 'VEH' || substring(item.id FROM '^(?:METER|MTR)([._:-].+)$'), item.ts
        FROM unnest(ids, times) AS item (id, ts)
    ) AS fed
    WHERE summary.vehicle_id = fed.vehicle_id AND NOT summary.stale
      AND summary.window_end >= fed.ts AND summary.window_end - interval '24 hours' < fed.ts;
END
$_$;

CREATE FUNCTION public.change_vehicle_summaries(vehicle_ids text[], timestamps timestamp with time zone[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    ids   text[];
    times timestamptz[];
    days  timestamptz[];  -- null where the day is not summed yet
BEGIN
    SELECT array_agg(item.id), array_agg(item.ts),
           array_agg(CASE WHEN item.ts <= day_of(summed_to) THEN day_of(rollup_hour(item.ts)) END)
    INTO ids, times, days
    FROM unnest(vehicle_ids, timestamps) AS item (id, ts)
    CROSS JOIN LATERAL (  -- LIMIT: whatever the plan was made for, one look-up each
        SELECT summed_to FROM vehicle_live_status live
        WHERE live.vehicle_id = item.id AND live.summed_to >= item.ts
        LIMIT 1
    ) AS live;
    IF ids IS NULL THEN
        RETURN;
    END IF;

PERFORM sum_vehicle_days(ids, days);

UPDATE vehicle_summary summary
    SET stale = true
    FROM unnest(ids, times) AS item (id, ts)
    WHERE summary.vehicle_id = item.id AND NOT summary.stale
      AND summary.window_end >= item.ts AND summary.window_end - interval '24 hours' < item.ts;
END
$$;

CREATE FUNCTION public.charging_status(kwh_consumed_ac numeric, kwh_delivered_dc numeric, minutes_heard bigint, window_minutes numeric, meter_minutes bigint, linked_minutes bigint, least_kwh numeric, least_coverage numeric) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN ((kwh_consumed_ac IS NULL) OR (kwh_delivered_dc IS NULL) OR (kwh_consumed_ac < least_kwh) OR (kwh_consumed_ac = (0)::numeric) OR ((minutes_heard)::numeric < (least_coverage * window_minutes)) OR ((meter_minutes)::numeric < (least_coverage * (linked_minutes)::numeric))) THEN 'insufficient'::text WHEN (kwh_delivered_dc > kwh_consumed_ac) THEN 'implausible'::text WHEN (kwh_delivered_dc >= (0.88 * kwh_consumed_ac)) THEN 'healthy'::text WHEN (kwh_delivered_dc >= (0.85 * kwh_consumed_ac)) THEN 'degraded'::text ELSE 'fault'::text END;

CREATE FUNCTION public.claim_by_api(id text, since timestamp with time zone, meter text) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    concerned text[];
BEGIN
    concerned := ARRAY[
        meter,
        (SELECT meter_id FROM links WHERE vehicle_id = id AND valid_from = since),
        (SELECT meter_id FROM links WHERE vehicle_id = id AND valid_from < since
         ORDER BY valid_from DESC LIMIT 1)];
    PERFORM lock_links(concerned);
    INSERT INTO links AS link (vehicle_id, valid_from, meter_id, source)
    VALUES (id, since, meter, 'api')
    ON CONFLICT (vehicle_id, valid_from) DO UPDATE
    SET meter_id = excluded.meter_id, source = excluded.source, created_at = excluded.created_at
    WHERE (link.meter_id, link.source) IS DISTINCT FROM (excluded.meter_id, excluded.source);
    PERFORM settle_neighbours(id, since, meter, concerned);
END
$$;

CREATE FUNCTION public.claim_meter(id text, ts timestamp with time zone, meter text) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    since constant timestamptz := ts - interval '60 seconds';
BEGIN
    PERFORM
    FROM public.link_locks lock CROSS JOIN public.continues_link(id, since, meter)
    WHERE lock.device_id = meter AND continues
    FOR SHARE OF lock;
    IF FOUND AND (SELECT continues FROM public.continues_link(id, since, meter)) THEN
        RETURN;
    END IF;
    PERFORM public.claim_meters(ARRAY[id], ARRAY[ts], ARRAY[NULL::text], ARRAY[meter]);
END
$$;

CREATE FUNCTION public.claim_meters(ids text[], timestamps timestamp with time zone[], olds text[], news text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    cadence constant interval := '60 seconds';
    relied  text[];
    claimed record;
BEGIN
    SELECT array_agg(DISTINCT new) INTO relied
    FROM unnest(ids, timestamps, olds, news) AS claim (id, ts, old, new)
    CROSS JOIN LATERAL continues_link(id, ts - cadence, new)
    WHERE old IS NULL AND continues;
    IF relied IS NOT NULL THEN
        PERFORM FROM link_locks WHERE device_id = ANY (relied) ORDER BY device_id FOR SHARE;
    END IF;

SELECT array_agg(id), array_agg(ts), array_agg(old), array_agg(new)
    INTO ids, timestamps, olds, news
    FROM unnest(ids, timestamps, olds, news) AS claim (id, ts, old, new)
    CROSS JOIN LATERAL continues_link(id, ts - cadence, new)
    WHERE old IS NOT NULL OR NOT continues;
    IF ids IS NULL THEN
        RETURN;
    END IF;

PERFORM lock_links(ids);
    PERFORM lock_links(olds || news);
    FOR claimed IN
        SELECT id, ts - cadence AS since, old, new
        FROM unnest(ids, timestamps, olds, news) AS claim (id, ts, old, new)
        ORDER BY id COLLATE "C", ts
    LOOP
        -- One of a later turn may be found here as the next already: its own turn settles what follows.
        CONTINUE WHEN EXISTS (
            SELECT FROM links
            WHERE vehicle_id = claimed.id AND valid_from = claimed.since AND source = 'api');
        PERFORM settle_claim(claimed.id, claimed.since, claimed.new);
        PERFORM settle_neighbours(claimed.id, claimed.since, claimed.new, ARRAY[claimed.old]);
    END LOOP;
END
$$;

CREATE FUNCTION public.continues_link(id text, since timestamp with time zone, meter text) RETURNS TABLE(continues boolean)
    LANGUAGE sql STABLE
    AS $$
    SELECT coalesce(
        (SELECT link.meter_id FROM public.links link
         WHERE link.vehicle_id = id AND link.valid_from < since
         ORDER BY link.valid_from DESC LIMIT 1) = meter
        AND
        (SELECT link.vehicle_id FROM public.links link
         WHERE link.meter_id = meter AND (link.valid_from, link.vehicle_id) < (since, id)
         ORDER BY link.valid_from DESC, link.vehicle_id DESC LIMIT 1) = id,
        false)
$$;

COMMENT ON FUNCTION public.continues_link(id text, since timestamp with time zone, meter text) IS 'Whether a claim changes nothing that is in links before it.';

CREATE FUNCTION public.convert_meter_registers(ids text[], timestamps timestamp with time zone[], received_ats timestamp with time zone[], INOUT kwhs double precision[], OUT registers double precision[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    horizon  timestamptz;
    first_at timestamptz;
    last_at  timestamptz;
BEGIN
    PERFORM FROM devices WHERE device_id = ANY (ids) ORDER BY device_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    horizon := (SELECT archived_to FROM archive_horizon WHERE archive_horizon.stream = 'meter');

SELECT greatest(min(coalesce(heard.hour, rollup_hour(item.ts))), horizon), max(item.ts)
    INTO first_at, last_at
    FROM unnest(ids, timestamps) AS item (id, ts)
    JOIN devices ON device_id = item.id
    JOIN meter_live_status live ON live.meter_id = item.id AND live.last_timestamp >= item.ts
    CROSS JOIN LATERAL (
        SELECT max(rollup.hour) AS hour FROM meter_hourly_rollup rollup
        WHERE rollup.meter_id = item.id AND rollup.hour < rollup_hour(item.ts) AND rollup.readings > 0
    ) AS heard
    WHERE item.ts >= horizon;

WITH item AS (
        SELECT item.id, item.ts, item.received_at, item.kwh, item.position,
               CASE WHEN item.received_at <@ devices.registers THEN item.kwh END AS register,
               device_id IS NOT NULL AS declared, register_modulus, max_power_kw,
               live.last_timestamp >= item.ts IS TRUE AS late
        FROM unnest(ids, timestamps, received_ats, kwhs) WITH ORDINALITY
            AS item (id, ts, received_at, kwh, position)
        LEFT JOIN devices ON device_id = item.id
        LEFT JOIN meter_live_status live ON live.meter_id = item.id AND device_id IS NOT NULL
    ), reading AS (
        SELECT DISTINCT ON (id COLLATE "C", ts) *
        FROM item
        WHERE declared AND NOT (late AND ts < horizon)
        ORDER BY id COLLATE "C", ts, received_at DESC
    ), settled AS (
        -- Of an archived day the difference that a late register splits is counted already: it has none,
        -- or, sent again, what it has.
        SELECT item.position, counted.kwh_consumed_ac AS kwh
        FROM item
        CROSS JOIN LATERAL (
            SELECT h.kwh_consumed_ac FROM meter_telemetry_history h
            WHERE h.meter_id = item.id AND h."timestamp" = item.ts AND h."timestamp" < horizon
            ORDER BY h.received_at DESC
            LIMIT 1
        ) AS counted
        WHERE item.register IS NOT NULL AND item.late AND item.ts < horizon
    ), point AS (
        SELECT DISTINCT ON (id COLLATE "C", ts) id, ts, register
        FROM (
            SELECT id, ts, register::numeric, 1 AS choice FROM reading
            UNION ALL
            SELECT live.meter_id, live.last_timestamp, live.last_register_kwh, 2
            FROM (SELECT DISTINCT id FROM reading) AS device
            JOIN meter_live_status live ON live.meter_id = device.id
            UNION ALL
            SELECT baseline.device_id, baseline."timestamp", baseline.register_kwh, 2
            FROM (SELECT DISTINCT id FROM reading WHERE late) AS device
            JOIN register_baselines baseline
                ON baseline.device_id = device.id AND baseline.stream = 'meter'
            UNION ALL
            SELECT reading.id, before."timestamp", before.register_kwh, 2
            FROM reading
            CROSS JOIN LATERAL (
                SELECT h."timestamp", h.register_kwh FROM meter_telemetry_history h
                WHERE h.meter_id = reading.id AND h."timestamp" < reading.ts
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
        SELECT id, 'meter', ts, event, register, previous
        FROM reading JOIN followed USING (id, ts)
        CROSS JOIN LATERAL register_energy(
            previous_at, previous, ts, register::numeric, register_modulus, max_power_kw)
        WHERE NOT late AND event IS NOT NULL
        ON CONFLICT DO NOTHING
    ), kept AS (
        -- Who was silent for so long that its newest is of an archived day counts on from that.
        INSERT INTO register_baselines AS baseline (device_id, stream, "timestamp", register_kwh)
        SELECT DISTINCT ON (id COLLATE "C") id, 'meter', ts, register
        FROM reading
        WHERE NOT late AND ts < horizon
          AND NOT EXISTS (SELECT FROM meter_void void
                          WHERE void.meter_id = id AND void."timestamp" = ts
                            AND withdrawn_at IS NULL AND NOT pending)
          AND NOT EXISTS (SELECT FROM erasure
                          WHERE device_hash = hash_device('meter', id) AND asked_at >= received_at)
        ORDER BY id COLLATE "C", ts DESC
        ON CONFLICT (device_id, stream) DO UPDATE SET
            "timestamp" = excluded."timestamp", register_kwh = excluded.register_kwh
        WHERE baseline."timestamp" < excluded."timestamp"
    )
    SELECT array_agg(CASE WHEN register IS NULL THEN item.kwh
                          ELSE coalesce(settled.kwh, energy.kwh)::double precision END
                     ORDER BY position),
           array_agg(register ORDER BY position)
    INTO kwhs, registers
    FROM item
    LEFT JOIN followed USING (id, ts)
    LEFT JOIN settled USING (position)
    CROSS JOIN LATERAL register_energy(
        previous_at, previous, ts, register::numeric, register_modulus, max_power_kw) AS energy;
END
$$;

CREATE FUNCTION public.convert_vehicle_registers(ids text[], timestamps timestamp with time zone[], received_ats timestamp with time zone[], INOUT kwhs double precision[], OUT registers double precision[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    horizon  timestamptz;
    first_at timestamptz;
    last_at  timestamptz;
BEGIN
    PERFORM FROM devices WHERE device_id = ANY (ids) ORDER BY device_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    horizon := (SELECT archived_to FROM archive_horizon WHERE archive_horizon.stream = 'vehicle');

SELECT greatest(min(coalesce(heard.hour, rollup_hour(item.ts))), horizon), max(item.ts)
    INTO first_at, last_at
    FROM unnest(ids, timestamps) AS item (id, ts)
    JOIN devices ON device_id = item.id
    JOIN vehicle_live_status live ON live.vehicle_id = item.id AND live.last_timestamp >= item.ts
    CROSS JOIN LATERAL (
        SELECT max(rollup.hour) AS hour FROM vehicle_hourly_rollup rollup
        WHERE rollup.vehicle_id = item.id AND rollup.hour < rollup_hour(item.ts) AND rollup.readings > 0
    ) AS heard
    WHERE item.ts >= horizon;

WITH item AS (
        SELECT item.id, item.ts, item.received_at, item.kwh, item.position,
               CASE WHEN item.received_at <@ devices.registers THEN item.kwh END AS register,
               device_id IS NOT NULL AS declared, register_modulus, max_power_kw,
               live.last_timestamp >= item.ts IS TRUE AS late
        FROM unnest(ids, timestamps, received_ats, kwhs) WITH ORDINALITY
            AS item (id, ts, received_at, kwh, position)
        LEFT JOIN devices ON device_id = item.id
        LEFT JOIN vehicle_live_status live ON live.vehicle_id = item.id AND device_id IS NOT NULL
    ), reading AS (
        SELECT DISTINCT ON (id COLLATE "C", ts) *
        FROM item
        WHERE declared AND NOT (late AND ts < horizon)
        ORDER BY id COLLATE "C", ts, received_at DESC
    ), settled AS (
        -- Of an archived day the difference that a late register splits is counted already: it has none,
        -- or, sent again, what it has.
        SELECT item.position, counted.kwh_delivered_dc AS kwh
        FROM item
        CROSS JOIN LATERAL (
            SELECT h.kwh_delivered_dc FROM vehicle_telemetry_history h
            WHERE h.vehicle_id = item.id AND h."timestamp" = item.ts AND h."timestamp" < horizon
            ORDER BY h.received_at DESC
            LIMIT 1
        ) AS counted
        WHERE item.register IS NOT NULL AND item.late AND item.ts < horizon
    ), point AS (
        SELECT DISTINCT ON (id COLLATE "C", ts) id, ts, register
        FROM (
            SELECT id, ts, register::numeric, 1 AS choice FROM reading
            UNION ALL
            SELECT live.vehicle_id, live.last_timestamp, live.last_register_kwh, 2
            FROM (SELECT DISTINCT id FROM reading) AS device
            JOIN vehicle_live_status live ON live.vehicle_id = device.id
            UNION ALL
            SELECT baseline.device_id, baseline."timestamp", baseline.register_kwh, 2
            FROM (SELECT DISTINCT id FROM reading WHERE late) AS device
            JOIN register_baselines baseline
                ON baseline.device_id = device.id AND baseline.stream = 'vehicle'
            UNION ALL
            SELECT reading.id, before."timestamp", before.register_kwh, 2
            FROM reading
            CROSS JOIN LATERAL (
                SELECT h."timestamp", h.register_kwh FROM vehicle_telemetry_history h
                WHERE h.vehicle_id = reading.id AND h."timestamp" < reading.ts
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
        SELECT id, 'vehicle', ts, event, register, previous
        FROM reading JOIN followed USING (id, ts)
        CROSS JOIN LATERAL register_energy(
            previous_at, previous, ts, register::numeric, register_modulus, max_power_kw)
        WHERE NOT late AND event IS NOT NULL
        ON CONFLICT DO NOTHING
    ), kept AS (
        -- Who was silent for so long that its newest is of an archived day counts on from that.
        INSERT INTO register_baselines AS baseline (device_id, stream, "timestamp", register_kwh)
        SELECT DISTINCT ON (id COLLATE "C") id, 'vehicle', ts, register
        FROM reading
        WHERE NOT late AND ts < horizon
          AND NOT EXISTS (SELECT FROM vehicle_void void
                          WHERE void.vehicle_id = id AND void."timestamp" = ts
                            AND withdrawn_at IS NULL AND NOT pending)
          AND NOT EXISTS (SELECT FROM erasure
                          WHERE device_hash = hash_device('vehicle', id) AND asked_at >= received_at)
        ORDER BY id COLLATE "C", ts DESC
        ON CONFLICT (device_id, stream) DO UPDATE SET
            "timestamp" = excluded."timestamp", register_kwh = excluded.register_kwh
        WHERE baseline."timestamp" < excluded."timestamp"
    )
    SELECT array_agg(CASE WHEN register IS NULL THEN item.kwh
                          ELSE coalesce(settled.kwh, energy.kwh)::double precision END
                     ORDER BY position),
           array_agg(register ORDER BY position)
    INTO kwhs, registers
    FROM item
    LEFT JOIN followed USING (id, ts)
    LEFT JOIN settled USING (position)
    CROSS JOIN LATERAL register_energy(
        previous_at, previous, ts, register::numeric, register_modulus, max_power_kw) AS energy;
END
$$;

CREATE FUNCTION public.count_fault_changes() RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
    SELECT count(*) FROM fault_change WHERE published_at IS NULL
$$;

CREATE FUNCTION public.count_summaries(vehicle_ids text[], of_window_end timestamp with time zone, sign integer) RETURNS void
    LANGUAGE sql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
    INSERT INTO fleet_totals AS totals
        (window_end, vehicles, known, cost_known, co2_known, status, kwh_consumed_ac, kwh_delivered_dc,
         loss_cost, loss_co2_kg)
    SELECT of_window_end, sign * count(*), sign * count(*) FILTER (WHERE rank < 'Infinity'),
           sign * count(loss_cost), sign * count(loss_co2_kg), status,
           sign * coalesce(sum(kwh_consumed_ac) FILTER (WHERE rank < 'Infinity'), 0),
           sign * coalesce(sum(kwh_delivered_dc) FILTER (WHERE rank < 'Infinity'), 0),
           sign * coalesce(sum(loss_cost), 0), sign * coalesce(sum(loss_co2_kg), 0)
    FROM vehicle_summary
    WHERE vehicle_id = ANY (vehicle_ids) AND window_end = of_window_end
    GROUP BY status
    ON CONFLICT (window_end, status) DO UPDATE SET
        vehicles = totals.vehicles + excluded.vehicles, known = totals.known + excluded.known,
        cost_known = totals.cost_known + excluded.cost_known,
        co2_known = totals.co2_known + excluded.co2_known,
        kwh_consumed_ac = totals.kwh_consumed_ac + excluded.kwh_consumed_ac,
        kwh_delivered_dc = totals.kwh_delivered_dc + excluded.kwh_delivered_dc,
        loss_cost = totals.loss_cost + excluded.loss_cost,
        loss_co2_kg = totals.loss_co2_kg + excluded.loss_co2_kg
$$;

CREATE FUNCTION public.countable_from(instant timestamp with time zone, archived_to timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN (instant < archived_to) THEN public.ceil_hour(instant) ELSE instant END;

CREATE FUNCTION public.cut_window(window_start timestamp with time zone, window_end timestamp with time zone, last_timestamp timestamp with time zone, summed_to timestamp with time zone) RETURNS TABLE(until timestamp with time zone, first_hour timestamp with time zone, first_day timestamp with time zone, last_day timestamp with time zone, last_hour timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT until, first_hour,
           CASE WHEN first_day < last_day THEN first_day ELSE last_hour END,
           CASE WHEN first_day < last_day THEN last_day ELSE last_hour END,
           last_hour
    FROM (
        SELECT *,
               day_of(first_hour + interval '1 day - 1 microsecond') AS first_day,
               day_of(least(last_hour, summed_to)) AS last_day
        FROM (
            SELECT ceil_hour(window_start) AS first_hour,
                   least(window_end, ceil_hour(last_timestamp)) AS until,
                   greatest(
                       ceil_hour(window_start),
                       CASE WHEN window_end >= last_timestamp THEN ceil_hour(last_timestamp)
                            ELSE date_bin('1 hour', window_end,
                                          timestamptz '2000-01-01 00:00:00+00') END
                   ) AS last_hour
            OFFSET 0
        ) AS hours
        OFFSET 0
    ) AS days
    OFFSET 0
$$;

CREATE FUNCTION public.day_of(hour timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN date_bin('1 day'::interval, hour, '2000-01-01 00:00:00+00'::timestamp with time zone);

COMMENT ON FUNCTION public.day_of(hour timestamp with time zone) IS 'The start of the day (day, day + 24 h] that an hour belongs to.';

CREATE FUNCTION public.declare_device(id text, is_register boolean, at timestamp with time zone, modulus double precision, max_power double precision) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    since constant tstzmultirange := tstzmultirange(tstzrange(at, NULL, '(]'));
    first boolean;
BEGIN
    INSERT INTO devices AS device
        (device_id, declared_at, registers, register_modulus, max_power_kw)
    VALUES (id, at, CASE WHEN is_register THEN since ELSE '{}' END, modulus, max_power)
    ON CONFLICT (device_id) DO UPDATE SET
        declared_at = at,
        registers = CASE WHEN is_register THEN device.registers + since
                         ELSE device.registers - since END,
        -- Who tells intervals from now on says nothing of what its register was.
        register_modulus = CASE WHEN is_register THEN modulus
                                ELSE coalesce(modulus, device.register_modulus) END,
        max_power_kw = CASE WHEN is_register THEN max_power
                            ELSE coalesce(max_power, device.max_power_kw) END
    RETURNING xmax = 0 INTO first;

INSERT INTO meter_live_status AS live
        (meter_id, last_timestamp, updated_at, last_kwh_consumed_ac, last_voltage)
    VALUES (id, '-infinity', '-infinity', 0, 0)
    ON CONFLICT (meter_id) DO UPDATE SET reports_register = live.reports_register OR is_register;
    DELETE FROM meter_live_status WHERE meter_id = id AND last_timestamp = '-infinity';

INSERT INTO vehicle_live_status AS live
        (vehicle_id, last_timestamp, updated_at, last_kwh_delivered_dc, last_battery_temp)
    VALUES (id, '-infinity', '-infinity', 0, 0)
    ON CONFLICT (vehicle_id) DO UPDATE SET reports_register = live.reports_register OR is_register;
    DELETE FROM vehicle_live_status WHERE vehicle_id = id AND last_timestamp = '-infinity';

PERFORM settle_meter_registers(array_agg(device_id), array_agg("timestamp")),
            settle_vehicle_registers(array_agg(device_id), array_agg("timestamp"))
    FROM (SELECT * FROM register_events WHERE device_id = id ORDER BY "timestamp" LIMIT 2000) AS noted;
    RETURN first;
END
$$;

COMMENT ON FUNCTION public.declare_device(id text, is_register boolean, at timestamp with time zone, modulus double precision, max_power double precision) IS 'Says whether a device reports a running register, and what is known of it.';

CREATE FUNCTION public.delete_tariff(id text, since timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
BEGIN
    LOCK TABLE fleet_window IN EXCLUSIVE MODE;
    DELETE FROM tariff WHERE meter_id = id AND valid_from = since;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM mark_summaries_of_tariff(id, since);
    RETURN true;
END
$$;

CREATE FUNCTION public.drop_erased_meter_readings(INOUT ids text[], INOUT timestamps timestamp with time zone[], INOUT received_ats timestamp with time zone[], INOUT kwhs double precision[], INOUT voltages double precision[], INOUT registers double precision[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    kept integer[];
BEGIN
    SELECT coalesce(array_agg(position ORDER BY position), '{}') INTO kept
    FROM unnest(ids, timestamps, received_ats) WITH ORDINALITY
        AS item (id, ts, received_at, position)
    WHERE NOT EXISTS (
        SELECT FROM erasure
        WHERE device_hash = hash_device('meter', item.id) AND asked_at >= item.received_at
          AND (device_id IS NULL OR NOT EXISTS (
              SELECT FROM meter_telemetry_history h
              WHERE h.meter_id = item.id AND h."timestamp" = item.ts
                AND h.received_at <= erasure.asked_at)));
    SELECT (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(ids) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)), (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(timestamps) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)), (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(received_ats) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)), (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(kwhs) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)), (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(voltages) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)), (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(registers) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)) INTO ids, timestamps, received_ats, kwhs, voltages, registers;
END
$$;

CREATE FUNCTION public.drop_erased_vehicle_readings(INOUT ids text[], INOUT timestamps timestamp with time zone[], INOUT received_ats timestamp with time zone[], INOUT kwhs double precision[], INOUT battery_temps double precision[], INOUT socs double precision[], INOUT meters text[], INOUT registers double precision[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    kept integer[];
BEGIN
    SELECT coalesce(array_agg(position ORDER BY position), '{}') INTO kept
    FROM unnest(ids, timestamps, received_ats) WITH ORDINALITY
        AS item (id, ts, received_at, position)
    WHERE NOT EXISTS (
        SELECT FROM erasure
        WHERE device_hash = hash_device('vehicle', item.id) AND asked_at >= item.received_at
          AND (device_id IS NULL OR NOT EXISTS (
              SELECT FROM vehicle_telemetry_history h
              WHERE h.vehicle_id = item.id AND h."timestamp" = item.ts
                AND h.received_at <= erasure.asked_at)));
    SELECT (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(ids) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)), (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(timestamps) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)), (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(received_ats) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)), (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(kwhs) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)), (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(battery_temps) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)), (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(socs) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)), (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(meters) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)), (SELECT coalesce(array_agg(value ORDER BY position), '{}') FROM unnest(registers) WITH ORDINALITY AS item (value, position) WHERE position = ANY (kept)) INTO ids, timestamps, received_ats, kwhs, battery_temps, socs, meters, registers;
END
$$;

CREATE FUNCTION public.erase_meter_day(erasing uuid, of_day timestamp with time zone, survivors jsonb) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    cadence constant interval := '60 seconds';
    until   constant timestamptz := of_day + interval '24 hours';
    asked   erasure;
    gone    timestamptz[];
    erased  bigint;
BEGIN
    SELECT * INTO asked FROM erasure
    WHERE erasure_id = erasing AND erasure.stream = 'meter' AND device_id IS NOT NULL;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM hold_erased('meter', asked.device_id);
    PERFORM FROM erasure WHERE erasure_id = erasing AND device_id IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN  -- another run was faster
        PERFORM release_erased('meter', asked.device_id);
        RETURN 0;
    END IF;

WITH deleted AS (
        DELETE FROM meter_telemetry_history
        WHERE meter_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= until
          AND received_at <= asked.asked_at
        RETURNING "timestamp"
    )
    SELECT count(*), array_agg(DISTINCT "timestamp") INTO erased, gone FROM deleted;

-- What is left of the day is summed anew. A minute of which something waits to be compared with the
    -- archive counts as heard from: see step 2 of the store.
    DELETE FROM meter_hourly_rollup
    WHERE meter_id = asked.device_id AND hour >= of_day AND hour < until;
    INSERT INTO meter_hourly_rollup AS rollup (meter_id, hour, readings, minutes, kwh_consumed_ac)
    SELECT asked.device_id, hour, count(*), bit_or(minute_bit("timestamp", hour)), sum(kwh_consumed_ac)
    FROM (
        SELECT DISTINCT ON ("timestamp") *
        FROM (
            SELECT * FROM meter_telemetry_history
            WHERE meter_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= until
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
    WHERE meter_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= until
      AND received_at > asked.asked_at
    GROUP BY hour
    ON CONFLICT (meter_id, hour) DO UPDATE SET minutes = rollup.minutes | excluded.minutes;

PERFORM sum_meter_days(array_agg(meter_id), array_agg(day))
    FROM meter_daily_rollup WHERE meter_id = asked.device_id AND day = of_day;
    PERFORM change_meter_summaries(array_agg(asked.device_id), array_agg(ts))
    FROM generate_series(of_day + interval '1 hour', until, interval '1 hour') AS ts;
    DELETE FROM meter_daily_rollup
    WHERE meter_id = asked.device_id AND day = of_day AND NOT EXISTS (
        SELECT FROM meter_hourly_rollup
        WHERE meter_id = asked.device_id AND hour >= of_day AND hour < until);

-- The live row shows what is left, if it showed what has gone.
    UPDATE meter_live_status
    SET last_timestamp = '-infinity', updated_at = '-infinity', previous_timestamp = '-infinity'
    WHERE meter_id = asked.device_id AND updated_at <= asked.asked_at
      AND last_timestamp > of_day AND last_timestamp <= until;
    -- That may be in the archive alone.
    UPDATE meter_live_status live
    SET last_timestamp = newest."timestamp", updated_at = newest.received_at, last_kwh_consumed_ac = newest.kwh_consumed_ac, last_voltage = newest.voltage,
        last_register_kwh = newest.register_kwh
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
        PERFORM settle_meter_registers(array_agg(asked.device_id), array_agg(ts)) FROM unnest(gone) AS ts;
    END IF;
    PERFORM release_erased('meter', asked.device_id);
    UPDATE erasure SET receipts = receipts + erased WHERE erasure_id = erasing;
    RETURN erased;
END
$$;

CREATE FUNCTION public.erase_meter_name(erasing uuid, vehicle text, of_day timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    cadence constant interval := '60 seconds';
    until   constant timestamptz := of_day + interval '24 hours';
    asked   erasure;
BEGIN
    SELECT * INTO asked FROM erasure
    WHERE erasure_id = erasing AND stream = 'meter' AND device_id IS NOT NULL;
    PERFORM FROM devices WHERE device_id = vehicle FOR UPDATE;
    PERFORM FROM vehicle_live_status WHERE vehicle_id = vehicle FOR UPDATE;
    UPDATE vehicle_telemetry_history SET meter_id = NULL
    WHERE vehicle_id = vehicle AND meter_id = asked.device_id AND received_at <= asked.asked_at
      AND "timestamp" > of_day AND "timestamp" <= until;
    PERFORM claim_meters(array_agg(vehicle_id), array_agg(valid_from + cadence), array_agg(meter_id),
                         array_agg(NULL::text))
    FROM links
    WHERE vehicle_id = vehicle AND meter_id = asked.device_id AND source = 'reading'
      AND valid_from + cadence > of_day AND valid_from + cadence <= until
      AND asked.device_id IS DISTINCT FROM (
          SELECT h.meter_id FROM vehicle_telemetry_history h
          WHERE h.vehicle_id = vehicle AND h."timestamp" = valid_from + cadence
            AND h."timestamp" > of_day AND h."timestamp" <= until
          ORDER BY h.received_at DESC LIMIT 1);
END
$$;

CREATE FUNCTION public.erase_vehicle_day(erasing uuid, of_day timestamp with time zone, survivors jsonb) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    cadence constant interval := '60 seconds';
    until   constant timestamptz := of_day + interval '24 hours';
    asked   erasure;
    gone    timestamptz[];
    erased  bigint;
BEGIN
    SELECT * INTO asked FROM erasure
    WHERE erasure_id = erasing AND erasure.stream = 'vehicle' AND device_id IS NOT NULL;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM hold_erased('vehicle', asked.device_id);
    PERFORM FROM erasure WHERE erasure_id = erasing AND device_id IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN  -- another run was faster
        PERFORM release_erased('vehicle', asked.device_id);
        RETURN 0;
    END IF;

WITH deleted AS (
        DELETE FROM vehicle_telemetry_history
        WHERE vehicle_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= until
          AND received_at <= asked.asked_at
        RETURNING "timestamp"
    )
    SELECT count(*), array_agg(DISTINCT "timestamp") INTO erased, gone FROM deleted;

-- What is left of the day is summed anew. A minute of which something waits to be compared with the
    -- archive counts as heard from: see step 2 of the store.
    DELETE FROM vehicle_hourly_rollup
    WHERE vehicle_id = asked.device_id AND hour >= of_day AND hour < until;
    INSERT INTO vehicle_hourly_rollup AS rollup (vehicle_id, hour, readings, minutes, kwh_delivered_dc, battery_temp_sum)
    SELECT asked.device_id, hour, count(*), bit_or(minute_bit("timestamp", hour)), sum(kwh_delivered_dc), sum(battery_temp)
    FROM (
        SELECT DISTINCT ON ("timestamp") *
        FROM (
            SELECT * FROM vehicle_telemetry_history
            WHERE vehicle_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= until
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
    WHERE vehicle_id = asked.device_id AND "timestamp" > of_day AND "timestamp" <= until
      AND received_at > asked.asked_at
    GROUP BY hour
    ON CONFLICT (vehicle_id, hour) DO UPDATE SET minutes = rollup.minutes | excluded.minutes;

PERFORM sum_vehicle_days(array_agg(vehicle_id), array_agg(day))
    FROM vehicle_daily_rollup WHERE vehicle_id = asked.device_id AND day = of_day;
    PERFORM change_vehicle_summaries(array_agg(asked.device_id), array_agg(ts))
    FROM generate_series(of_day + interval '1 hour', until, interval '1 hour') AS ts;
    DELETE FROM vehicle_daily_rollup
    WHERE vehicle_id = asked.device_id AND day = of_day AND NOT EXISTS (
        SELECT FROM vehicle_hourly_rollup
        WHERE vehicle_id = asked.device_id AND hour >= of_day AND hour < until);

UPDATE vehicle_live_status
    SET soc = charged.soc, soc_timestamp = coalesce(charged."timestamp", '-infinity'),
        soc_received_at = coalesce(charged.received_at, '-infinity')
    FROM (VALUES (1)) AS one LEFT JOIN (
        SELECT h.soc, h."timestamp", h.received_at FROM vehicle_telemetry_history h
        WHERE h.vehicle_id = asked.device_id AND h.soc IS NOT NULL
        ORDER BY h."timestamp" DESC, h.received_at DESC
        LIMIT 1
    ) AS charged ON true
    WHERE vehicle_id = asked.device_id AND soc_received_at <= asked.asked_at
      AND soc_timestamp > of_day AND soc_timestamp <= until;
    -- The live row shows what is left, if it showed what has gone.
    UPDATE vehicle_live_status
    SET last_timestamp = '-infinity', updated_at = '-infinity', previous_timestamp = '-infinity'
    WHERE vehicle_id = asked.device_id AND updated_at <= asked.asked_at
      AND last_timestamp > of_day AND last_timestamp <= until;
    -- That may be in the archive alone.
    UPDATE vehicle_live_status live
    SET last_timestamp = newest."timestamp", updated_at = newest.received_at, last_kwh_delivered_dc = newest.kwh_delivered_dc, last_battery_temp = newest.battery_temp,
        last_register_kwh = newest.register_kwh
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

PERFORM claim_meters(array_agg(vehicle_id), array_agg(valid_from + cadence), array_agg(meter_id),
                         array_agg(NULL::text))
    FROM links
    WHERE vehicle_id = asked.device_id AND source = 'reading'
      AND valid_from + cadence > of_day AND valid_from + cadence <= until
      AND NOT EXISTS (
          SELECT FROM vehicle_telemetry_history h
          WHERE h.vehicle_id = asked.device_id AND h."timestamp" = valid_from + cadence
            AND h."timestamp" > of_day AND h."timestamp" <= until);
    DELETE FROM register_events noted
    WHERE device_id = asked.device_id AND stream = 'vehicle'
      AND noted."timestamp" > of_day AND noted."timestamp" <= until
      AND NOT EXISTS (
          SELECT FROM vehicle_telemetry_history h
          WHERE h.vehicle_id = asked.device_id AND h."timestamp" = noted."timestamp"
            AND h."timestamp" > of_day AND h."timestamp" <= until);
    IF gone IS NOT NULL AND EXISTS (SELECT FROM devices WHERE device_id = asked.device_id) THEN
        PERFORM settle_vehicle_registers(array_agg(asked.device_id), array_agg(ts)) FROM unnest(gone) AS ts;
    END IF;
    PERFORM release_erased('vehicle', asked.device_id);
    UPDATE erasure SET receipts = receipts + erased WHERE erasure_id = erasing;
    RETURN erased;
END
$$;

CREATE FUNCTION public.erased_devices(of_stream text, ids text[]) RETURNS TABLE(device_id text, guarded_to timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    IF EXISTS (SELECT FROM erasure) THEN
        RETURN QUERY
        SELECT id, max(asked_at) + interval '1 hour'
        FROM unnest(ids) AS id
        JOIN erasure ON device_hash = hash_device(of_stream, id)
        GROUP BY id;
    END IF;
END
$$;

CREATE FUNCTION public.evaluate_faults(after_id text, most integer, until timestamp with time zone, length interval, by_name boolean, least_kwh double precision, least_coverage double precision, low_voltage double precision, high_battery_temp double precision) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    again   constant timestamptz[] := ARRAY[until - interval '1 hour', until];
    ids     text[];
    found   record;
    opening uuid;
BEGIN
    SELECT array_agg(vehicle_id ORDER BY vehicle_id) INTO ids
    FROM (
        SELECT vehicle_id FROM vehicle_live_status WHERE vehicle_id > after_id
        ORDER BY vehicle_id LIMIT most
    ) AS next;
    IF ids IS NULL THEN
        RETURN NULL;
    END IF;
    LOCK TABLE charger_window IN SHARE ROW EXCLUSIVE MODE;

DELETE FROM charger_window WHERE vehicle_id = ANY (ids) AND window_end = ANY (again);
    INSERT INTO charger_window (window_end, at_fault, vehicle_id, meter_id, evidence)
    WITH part AS MATERIALIZED (  -- the time of one link in one window
        SELECT row_number() OVER () AS position, vehicle_id, link.meter_id, window_end,
               greatest(valid_from, window_start) AS opened, least(valid_to, window_end) AS closed
        FROM (
            SELECT array_agg(id) AS ids, array_agg(ended - length) AS starts, array_agg(ended) AS ends
            FROM unnest(ids) AS id CROSS JOIN unnest(again) AS ended
        ) AS wanted
        CROSS JOIN vehicle_performance(wanted.ids, starts, ends, NULL, by_name)
        CROSS JOIN unnest(meter_ids, valid_froms, valid_tos) AS link (meter_id, valid_from, valid_to)
    ), charged AS (
        SELECT part.vehicle_id, part.meter_id, part.window_end,
               sum(done.kwh_consumed_ac) AS ac, sum(done.kwh_delivered_dc) AS dc,
               sum(done.minutes_heard)::bigint AS minutes, sum(done.meter_minutes)::bigint AS meter_minutes,
               sum(done.linked_minutes)::bigint AS linked_minutes,
               sum(done.battery_temp_sum) / nullif(sum(done.readings), 0) AS battery_temp
        FROM (
            SELECT array_agg(vehicle_id ORDER BY position) AS ids,
                   array_agg(opened ORDER BY position) AS starts,
                   array_agg(closed ORDER BY position) AS ends
            FROM part
        ) AS wanted
        CROSS JOIN vehicle_performance(wanted.ids, starts, ends, NULL, by_name) AS done
        JOIN part ON part.position = done.position
        GROUP BY part.vehicle_id, part.meter_id, part.window_end
    ), judged AS (
        SELECT *, charging_status(ac, dc, minutes, linked_minutes, meter_minutes, linked_minutes,
                                  least_kwh::numeric, least_coverage::numeric) AS status
        FROM charged
    )
    SELECT window_end, status = 'fault', vehicle_id, meter_id, jsonb_build_object(
        'timeWindowStart', window_end - length, 'timeWindowEnd', window_end, 'status', status,
        'totalEnergyConsumedAc', round(ac, 3), 'totalEnergyDeliveredDc', round(dc, 3),
        'efficiencyRatio', round(100 * dc / ac, 2), 'linkedMinutes', linked_minutes,
        'vehicleCoverage', round(least(1, minutes::numeric / nullif(linked_minutes, 0)), 2),
        'meterCoverage', round(least(1, meter_minutes::numeric / nullif(linked_minutes, 0)), 2),
        'averageBatteryTemp', round(battery_temp, 2))
    FROM judged
    WHERE status IN ('healthy', 'degraded', 'fault');

-- Kept are the two that may be judged anew, and the two before, on which they may then lean.
    DELETE FROM charger_window old
    WHERE vehicle_id = ANY (ids) AND window_end < (
        SELECT window_end FROM charger_window newer
        WHERE newer.vehicle_id = old.vehicle_id AND newer.meter_id = old.meter_id
        ORDER BY window_end DESC OFFSET 3 LIMIT 1);

FOR found IN
        SELECT latest.*, fault.fault_id
        FROM (
            SELECT vehicle_id, meter_id, max(window_end) AS window_end,
                   (array_agg(at_fault ORDER BY window_end DESC))[:2] AS verdicts,
                   (array_agg(evidence ORDER BY window_end DESC))[1] AS evidence
            FROM charger_window
            WHERE vehicle_id = ANY (ids)
            GROUP BY vehicle_id, meter_id
        ) AS latest
        LEFT JOIN LATERAL (
            SELECT * FROM fault
            WHERE fault.vehicle_id = latest.vehicle_id AND fault.meter_id = latest.meter_id
            ORDER BY opened_window DESC LIMIT 1
        ) AS fault ON true
        WHERE verdicts = '{t,t}' AND (fault_id IS NULL OR cleared_window < window_end)
           OR verdicts = '{f,f}' AND state != 'cleared' AND opened_window < window_end
    LOOP
        found.evidence := explain_fault(found.meter_id, found.evidence, low_voltage, high_battery_temp);
        IF found.verdicts[1] THEN
            opening := encode(substring(sha256(convert_to(
                concat_ws('/', found.vehicle_id, found.meter_id, extract(epoch FROM found.window_end)),
                'UTF8')) FOR 16), 'hex');
            INSERT INTO fault (fault_id, opened_window, vehicle_id, meter_id)
            VALUES (opening, found.window_end, found.vehicle_id, found.meter_id);
            INSERT INTO fault_change (fault_id, change, details)
            VALUES (opening, 'opened', jsonb_build_object('evidence', found.evidence));
        ELSE
            UPDATE fault SET state = 'cleared', cleared_window = found.window_end
            WHERE fault_id = found.fault_id;
            INSERT INTO fault_change (fault_id, change, details)
            VALUES (found.fault_id, 'cleared', jsonb_build_object('evidence', found.evidence));
        END IF;
    END LOOP;
    RETURN ids[cardinality(ids)];
END
$$;

CREATE FUNCTION public.explain_fault(meter text, evidence jsonb, low_voltage double precision, high_battery_temp double precision) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    opened  constant timestamptz := evidence ->> 'timeWindowStart';
    closed  constant timestamptz := evidence ->> 'timeWindowEnd';
    voltage double precision;
BEGIN
    SELECT avg(counted.voltage) INTO voltage
    FROM (
        SELECT DISTINCT ON ("timestamp") h.voltage, h.kwh_consumed_ac
        FROM meter_telemetry_history h
        WHERE h.meter_id = meter AND "timestamp" > opened AND "timestamp" <= closed
        ORDER BY "timestamp" DESC, received_at DESC
    ) AS counted
    WHERE counted.kwh_consumed_ac > 0;
    RETURN evidence || jsonb_build_object(
        'averageVoltage', round(voltage::numeric, 2),
        'hints', to_jsonb(array_remove(ARRAY[
            CASE WHEN voltage < low_voltage THEN 'lowVoltage' END,
            CASE WHEN (evidence ->> 'averageBatteryTemp')::double precision > high_battery_temp
                 THEN 'highBatteryTemp' END], NULL)));
END
$$;

CREATE FUNCTION public.finish_erasure(erasing uuid) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    cadence constant interval := '60 seconds';
    asked   erasure;
    claimed record;
    named   text;
    fleet   record;
    since   timestamptz;
BEGIN
    IF EXISTS (SELECT FROM erasure JOIN tariff ON meter_id = device_id
               WHERE erasure_id = erasing AND stream = 'meter') THEN
        LOCK TABLE fleet_window IN EXCLUSIVE MODE;  -- as delete_tariff does below
    END IF;
    PERFORM FROM fleet_window ORDER BY window_end FOR UPDATE;  -- before vehicles: 0007
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

-- A void stays that keeps something aside which was accepted later.
    IF asked.stream = 'meter' THEN
        DELETE FROM meter_pending
        WHERE meter_id = asked.device_id AND received_at <= asked.asked_at;
        DELETE FROM meter_void_receipt
        WHERE meter_id = asked.device_id AND received_at <= asked.asked_at;
        DELETE FROM meter_void void
        WHERE meter_id = asked.device_id AND NOT (pending AND voided_at > asked.asked_at) AND NOT EXISTS (
            SELECT FROM meter_void_receipt kept
            WHERE kept.meter_id = void.meter_id AND kept."timestamp" = void."timestamp");
        UPDATE vehicle_void_receipt SET meter_id = NULL
        WHERE meter_id = asked.device_id AND received_at <= asked.asked_at;
        UPDATE vehicle_pending SET meter_id = NULL
        WHERE meter_id = asked.device_id AND received_at <= asked.asked_at;
    ELSE
        DELETE FROM vehicle_pending
        WHERE vehicle_id = asked.device_id AND received_at <= asked.asked_at;
        DELETE FROM vehicle_void_receipt
        WHERE vehicle_id = asked.device_id AND received_at <= asked.asked_at;
        DELETE FROM vehicle_void void
        WHERE vehicle_id = asked.device_id AND NOT (pending AND voided_at > asked.asked_at) AND NOT EXISTS (
            SELECT FROM vehicle_void_receipt kept
            WHERE kept.vehicle_id = void.vehicle_id AND kept."timestamp" = void."timestamp");
    END IF;

-- What was accepted later does not go on from what is erased.
    DELETE FROM register_baselines WHERE device_id = asked.device_id AND stream = asked.stream;
    IF asked.stream = 'meter' THEN
        PERFORM settle_meter_registers(ARRAY[asked.device_id], ARRAY[first_left])
        FROM (SELECT min("timestamp") FROM meter_telemetry_history
              WHERE meter_id = asked.device_id
                AND "timestamp" >= (SELECT archived_to FROM archive_horizon WHERE stream = 'meter')
             ) AS oldest (first_left);
    ELSE
        PERFORM settle_vehicle_registers(ARRAY[asked.device_id], ARRAY[first_left])
        FROM (SELECT min("timestamp") FROM vehicle_telemetry_history
              WHERE vehicle_id = asked.device_id
                AND "timestamp" >= (SELECT archived_to FROM archive_horizon WHERE stream = 'vehicle')
             ) AS oldest (first_left);
    END IF;

-- A declaration is of an id, which a device of the other stream may have as well. It stays where
    -- what is left is a register: the next one would count as the energy of an interval.
    DELETE FROM devices
    WHERE device_id = asked.device_id AND declared_at <= asked.asked_at
      AND NOT EXISTS (SELECT FROM meter_live_status
                      WHERE asked.stream = 'vehicle' AND meter_id = asked.device_id)
      AND NOT EXISTS (SELECT FROM vehicle_live_status
                      WHERE asked.stream = 'meter' AND vehicle_id = asked.device_id)
      AND NOT EXISTS (SELECT FROM meter_live_status
                      WHERE meter_id = asked.device_id AND last_register_kwh IS NOT NULL)
      AND NOT EXISTS (SELECT FROM vehicle_live_status
                      WHERE vehicle_id = asked.device_id AND last_register_kwh IS NOT NULL);
    DELETE FROM register_events
    WHERE device_id = asked.device_id AND stream = asked.stream
      AND NOT EXISTS (SELECT FROM devices WHERE device_id = asked.device_id);

-- Faults are of 24 hours up to a window's end.
    LOCK TABLE charger_window IN SHARE ROW EXCLUSIVE MODE;  -- as who judges: 0009
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
        -- What a reading says of that instant stands now, unless it names the same meter.
        PERFORM lock_links(ARRAY[claimed.vehicle_id]);
        named := (
            SELECT h.meter_id FROM vehicle_telemetry_history h
            WHERE h.vehicle_id = claimed.vehicle_id AND h."timestamp" = claimed.valid_from + cadence
            ORDER BY h.received_at DESC LIMIT 1);
        CONTINUE WHEN claimed.source = 'reading' AND named IS NOT DISTINCT FROM claimed.meter_id;
        PERFORM lock_links(ARRAY[claimed.meter_id, named]);
        DELETE FROM links WHERE vehicle_id = claimed.vehicle_id AND valid_from = claimed.valid_from;
        PERFORM settle_claim(claimed.vehicle_id, claimed.valid_from, named);
        PERFORM settle_neighbours(claimed.vehicle_id, claimed.valid_from, named,
                                  ARRAY[claimed.meter_id]);
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

CREATE FUNCTION public.finish_fleet_window(until timestamp with time zone, by_name boolean, least_kwh double precision, least_coverage double precision) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    AS $$
#variable_conflict use_variable
BEGIN
    UPDATE fleet_window fleet SET finished = true
    WHERE fleet.window_end = until
      AND (fleet.by_name, fleet.least_kwh, fleet.least_coverage)
          = (by_name, least_kwh::numeric, least_coverage::numeric);
    DELETE FROM fleet_window
    WHERE window_end < (SELECT window_end FROM fleet_window WHERE finished ORDER BY 1 DESC OFFSET 1 LIMIT 1);
    DELETE FROM fleet_totals WHERE window_end < (SELECT min(window_end) FROM fleet_window);
    -- What a writer is marking just now goes the next time.
    DELETE FROM vehicle_summary
    WHERE (vehicle_id, window_end) IN (
        SELECT vehicle_id, window_end FROM vehicle_summary
        WHERE window_end < (SELECT min(window_end) FROM fleet_window)
        FOR UPDATE SKIP LOCKED
    );
END
$$;

CREATE FUNCTION public.hash_device(of_stream text, id text) RETURNS bytea
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
    SELECT sha256(key || convert_to(of_stream || '/' || id, 'UTF8')) FROM erasure_key
$$;

CREATE FUNCTION public.hold_erased(of_stream text, id text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    guard       constant timestamptz := clock_timestamp() + interval '1 hour';
    is_register boolean;
BEGIN
    PERFORM FROM devices WHERE device_id = id FOR UPDATE;
    is_register := EXISTS (SELECT FROM devices WHERE device_id = id AND NOT isempty(registers));
    IF of_stream = 'meter' THEN
        INSERT INTO meter_live_status AS live
            (meter_id, last_timestamp, updated_at, voided_to, reports_register,
             last_kwh_consumed_ac, last_voltage)
        VALUES (id, '-infinity', '-infinity', guard, is_register, 0, 0)
        ON CONFLICT (meter_id) DO UPDATE SET voided_to = greatest(live.voided_to, guard);
    ELSE
        INSERT INTO vehicle_live_status AS live
            (vehicle_id, last_timestamp, updated_at, voided_to, reports_register,
             last_kwh_delivered_dc, last_battery_temp)
        VALUES (id, '-infinity', '-infinity', guard, is_register, 0, 0)
        ON CONFLICT (vehicle_id) DO UPDATE SET voided_to = greatest(live.voided_to, guard);
    END IF;
END
$$;

CREATE FUNCTION public.hour_prices(tariff_ids text[], starts timestamp with time zone[], ends timestamp with time zone[]) RETURNS TABLE(tariff_id text, hour timestamp with time zone, price_per_kwh numeric, kg_co2_per_kwh numeric)
    LANGUAGE sql STABLE
    AS $$
    SELECT range.tariff_id, hour,
           CASE WHEN count(coalesce(own.price_per_kwh, fleet.price_per_kwh)) = 4
                THEN sum(coalesce(own.price_per_kwh, fleet.price_per_kwh)) * 0.25 END,
           CASE WHEN count(coalesce(own.kg_co2_per_kwh, fleet.kg_co2_per_kwh)) = 4
                THEN sum(coalesce(own.kg_co2_per_kwh, fleet.kg_co2_per_kwh)) * 0.25 END
    FROM unnest(tariff_ids, starts, ends) AS range (tariff_id, range_start, range_end)
    CROSS JOIN generate_series(range_start, range_end - interval '1 hour', interval '1 hour') AS hour
    CROSS JOIN generate_series(0, 3) AS number
    CROSS JOIN LATERAL (SELECT hour + number * interval '15 minutes') AS quarter (begins)
    LEFT JOIN LATERAL tariff_at(range.tariff_id, quarter.begins) AS own ON true
    LEFT JOIN LATERAL tariff_at(
        CASE WHEN range.tariff_id != '*' AND own.price_per_kwh + own.kg_co2_per_kwh IS NULL THEN '*' END,
        quarter.begins) AS fleet ON true
    GROUP BY range.tariff_id, hour
$$;

CREATE FUNCTION public.leave_out_erased_meters(ids text[], timestamps timestamp with time zone[], received_ats timestamp with time zone[], meters text[]) RETURNS text[]
    LANGUAGE sql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $$
    SELECT array_agg(CASE WHEN erased.is_out THEN NULL ELSE item.meter END ORDER BY position)
    FROM unnest(ids, timestamps, received_ats, meters) WITH ORDINALITY
        AS item (id, ts, received_at, meter, position)
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM erasure
            WHERE item.meter IS NOT NULL AND device_hash = hash_device('meter', item.meter)
              AND asked_at >= item.received_at
              AND (device_id IS NULL OR NOT EXISTS (
                  SELECT FROM vehicle_telemetry_history h
                  WHERE h.vehicle_id = item.id AND h."timestamp" = item.ts
                    AND h.received_at = item.received_at AND h.meter_id = item.meter))
        ) AS is_out
    ) AS erased
$$;

SET default_tablespace = '';

CREATE TABLE public.meter_telemetry_history (
    "timestamp" timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    voltage double precision NOT NULL,
    meter_id text NOT NULL COLLATE pg_catalog."C",
    kwh_consumed_ac numeric NOT NULL,
    register_kwh numeric
)
PARTITION BY RANGE ("timestamp");

COMMENT ON TABLE public.meter_telemetry_history IS 'Every accepted meter event, re-sends too. A reading is (meter_id, timestamp); of its receipts the latest received_at counts.';

COMMENT ON COLUMN public.meter_telemetry_history."timestamp" IS 'Device time. The energy is that of the interval which ends here.';

COMMENT ON COLUMN public.meter_telemetry_history.received_at IS 'When the API accepted the event; assigned once and kept through the queue.';

COMMENT ON COLUMN public.meter_telemetry_history.register_kwh IS 'What the device reported, where that is a running register; the energy is then what it grew by.';

CREATE FUNCTION public.leave_out_meter_reading(id text, ts timestamp with time zone, counted public.meter_telemetry_history, archived jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    in_hour constant timestamptz := rollup_hour(ts);
    minute  constant timestamptz := date_bin('1 minute', ts - interval '1 microsecond', in_hour);
    newest  meter_telemetry_history;
    follows timestamptz;
BEGIN
    -- The minute was heard from all the same where another reading ended in it. One that waits to be
    -- compared with the archive counts as that: see step 2 of the store.
    UPDATE meter_hourly_rollup rollup
    SET readings = readings - 1, kwh_consumed_ac = rollup.kwh_consumed_ac - counted.kwh_consumed_ac,
        minutes = CASE
            WHEN EXISTS (
                SELECT FROM meter_telemetry_history h
                WHERE h.meter_id = id AND h."timestamp" > minute
                  AND h."timestamp" <= minute + interval '1 minute')
              OR EXISTS (
                SELECT FROM meter_pending late
                WHERE late.meter_id = id AND late."timestamp" > minute
                  AND late."timestamp" <= minute + interval '1 minute')
              OR EXISTS (
                SELECT FROM jsonb_populate_recordset(NULL::meter_telemetry_history, archived) AS other
                WHERE other."timestamp" > minute AND other."timestamp" <= minute + interval '1 minute')
            THEN minutes ELSE minutes & ~minute_bit(ts, in_hour)
        END
    WHERE meter_id = id AND hour = in_hour;
    DELETE FROM meter_hourly_rollup
    WHERE meter_id = id AND hour = in_hour AND readings = 0 AND minutes = 0;
    PERFORM change_meter_summaries(ARRAY[id], ARRAY[ts]);
    DELETE FROM meter_daily_rollup daily
    WHERE meter_id = id AND day = day_of(in_hour) AND NOT EXISTS (
        SELECT FROM meter_hourly_rollup hourly
        WHERE hourly.meter_id = id
          AND hourly.hour >= daily.day AND hourly.hour < daily.day + interval '24 hours');

SELECT * INTO newest
    FROM (
        (SELECT * FROM meter_telemetry_history h
         WHERE h.meter_id = id AND h."timestamp" < ts
         ORDER BY h."timestamp" DESC, h.received_at DESC LIMIT 1)
        UNION ALL
        SELECT * FROM jsonb_populate_recordset(NULL::meter_telemetry_history, archived) AS other
        WHERE other."timestamp" < ts
    ) AS known
    ORDER BY "timestamp" DESC, received_at DESC
    LIMIT 1;
    UPDATE meter_live_status SET voided_to = greatest(voided_to, ts) WHERE meter_id = id;
    IF newest.meter_id IS NOT NULL THEN
        UPDATE meter_live_status
        SET last_timestamp = newest."timestamp", updated_at = newest.received_at, last_kwh_consumed_ac = newest.kwh_consumed_ac, last_voltage = newest.voltage,
            last_register_kwh = newest.register_kwh
        WHERE meter_id = id AND last_timestamp = ts;
    ELSE
        -- A vehicle's summaries stay, marked: it may come back before they go.
        DELETE FROM meter_live_status WHERE meter_id = id AND last_timestamp = ts;
    END IF;

-- The first register in history follows the last one in the archive.
    DELETE FROM register_events WHERE device_id = id AND stream = 'meter' AND "timestamp" = ts;
    DELETE FROM register_baselines WHERE device_id = id AND stream = 'meter' AND "timestamp" = ts;
    IF FOUND THEN
        INSERT INTO register_baselines (device_id, stream, "timestamp", register_kwh)
        SELECT id, 'meter', newest."timestamp", newest.register_kwh WHERE newest.meter_id IS NOT NULL;
        follows := (
            SELECT min("timestamp") FROM meter_telemetry_history
            WHERE meter_id = id AND "timestamp" >= (
                SELECT archived_to FROM archive_horizon WHERE archive_horizon.stream = 'meter'));
    END IF;
    PERFORM settle_meter_registers(ARRAY[id], ARRAY[coalesce(follows, ts)]);
END
$$;

CREATE TABLE public.vehicle_telemetry_history (
    "timestamp" timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    soc double precision,
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    kwh_delivered_dc numeric NOT NULL,
    battery_temp numeric NOT NULL,
    meter_id text COLLATE pg_catalog."C",
    register_kwh numeric
)
PARTITION BY RANGE ("timestamp");

COMMENT ON TABLE public.vehicle_telemetry_history IS 'Every accepted vehicle event, re-sends too. A reading is (vehicle_id, timestamp); of its receipts the latest received_at counts.';

COMMENT ON COLUMN public.vehicle_telemetry_history.meter_id IS 'The meter that fed the vehicle, where the reading names one.';

COMMENT ON COLUMN public.vehicle_telemetry_history.register_kwh IS 'What the device reported, where that is a running register; the energy is then what it grew by.';

CREATE FUNCTION public.leave_out_vehicle_reading(id text, ts timestamp with time zone, counted public.vehicle_telemetry_history, archived jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    in_hour constant timestamptz := rollup_hour(ts);
    minute  constant timestamptz := date_bin('1 minute', ts - interval '1 microsecond', in_hour);
    newest  vehicle_telemetry_history;
    follows timestamptz;
BEGIN
    -- The minute was heard from all the same where another reading ended in it. One that waits to be
    -- compared with the archive counts as that: see step 2 of the store.
    UPDATE vehicle_hourly_rollup rollup
    SET readings = readings - 1, kwh_delivered_dc = rollup.kwh_delivered_dc - counted.kwh_delivered_dc,
        battery_temp_sum = battery_temp_sum - counted.battery_temp,
        minutes = CASE
            WHEN EXISTS (
                SELECT FROM vehicle_telemetry_history h
                WHERE h.vehicle_id = id AND h."timestamp" > minute
                  AND h."timestamp" <= minute + interval '1 minute')
              OR EXISTS (
                SELECT FROM vehicle_pending late
                WHERE late.vehicle_id = id AND late."timestamp" > minute
                  AND late."timestamp" <= minute + interval '1 minute')
              OR EXISTS (
                SELECT FROM jsonb_populate_recordset(NULL::vehicle_telemetry_history, archived) AS other
                WHERE other."timestamp" > minute AND other."timestamp" <= minute + interval '1 minute')
            THEN minutes ELSE minutes & ~minute_bit(ts, in_hour)
        END
    WHERE vehicle_id = id AND hour = in_hour;
    DELETE FROM vehicle_hourly_rollup
    WHERE vehicle_id = id AND hour = in_hour AND readings = 0 AND minutes = 0;
    PERFORM change_vehicle_summaries(ARRAY[id], ARRAY[ts]);
    DELETE FROM vehicle_daily_rollup daily
    WHERE vehicle_id = id AND day = day_of(in_hour) AND NOT EXISTS (
        SELECT FROM vehicle_hourly_rollup hourly
        WHERE hourly.vehicle_id = id
          AND hourly.hour >= daily.day AND hourly.hour < daily.day + interval '24 hours');

SELECT * INTO newest
    FROM (
        (SELECT * FROM vehicle_telemetry_history h
         WHERE h.vehicle_id = id AND h."timestamp" < ts
         ORDER BY h."timestamp" DESC, h.received_at DESC LIMIT 1)
        UNION ALL
        SELECT * FROM jsonb_populate_recordset(NULL::vehicle_telemetry_history, archived) AS other
        WHERE other."timestamp" < ts
    ) AS known
    ORDER BY "timestamp" DESC, received_at DESC
    LIMIT 1;
    UPDATE vehicle_live_status SET voided_to = greatest(voided_to, ts) WHERE vehicle_id = id;
    IF newest.vehicle_id IS NOT NULL THEN
        UPDATE vehicle_live_status
        SET last_timestamp = newest."timestamp", updated_at = newest.received_at, last_kwh_delivered_dc = newest.kwh_delivered_dc, last_battery_temp = newest.battery_temp,
            last_register_kwh = newest.register_kwh
        WHERE vehicle_id = id AND last_timestamp = ts;
    ELSE
        -- A vehicle's summaries stay, marked: it may come back before they go.
        DELETE FROM vehicle_live_status WHERE vehicle_id = id AND last_timestamp = ts;
    END IF;
    UPDATE vehicle_live_status
    SET soc = charged.soc, soc_timestamp = coalesce(charged."timestamp", '-infinity'),
        soc_received_at = coalesce(charged.received_at, '-infinity')
    FROM (VALUES (1)) AS one LEFT JOIN (
        SELECT * FROM (
            (SELECT h.soc, h."timestamp", h.received_at FROM vehicle_telemetry_history h
             WHERE h.vehicle_id = id AND h."timestamp" < ts AND h.soc IS NOT NULL
             ORDER BY h."timestamp" DESC, h.received_at DESC
             LIMIT 1)
            UNION ALL
            SELECT other.soc, other."timestamp", other.received_at
            FROM jsonb_populate_recordset(NULL::vehicle_telemetry_history, archived) AS other
            WHERE other."timestamp" < ts AND other.soc IS NOT NULL
        ) AS known
        ORDER BY "timestamp" DESC, received_at DESC
        LIMIT 1
    ) AS charged ON true
    WHERE vehicle_id = id AND soc_timestamp = ts;
    IF counted.meter_id IS NOT NULL THEN
        PERFORM claim_meters(ARRAY[id], ARRAY[ts], ARRAY[counted.meter_id], ARRAY[NULL::text]);
    END IF;

-- The first register in history follows the last one in the archive.
    DELETE FROM register_events WHERE device_id = id AND stream = 'vehicle' AND "timestamp" = ts;
    DELETE FROM register_baselines WHERE device_id = id AND stream = 'vehicle' AND "timestamp" = ts;
    IF FOUND THEN
        INSERT INTO register_baselines (device_id, stream, "timestamp", register_kwh)
        SELECT id, 'vehicle', newest."timestamp", newest.register_kwh WHERE newest.vehicle_id IS NOT NULL;
        follows := (
            SELECT min("timestamp") FROM vehicle_telemetry_history
            WHERE vehicle_id = id AND "timestamp" >= (
                SELECT archived_to FROM archive_horizon WHERE archive_horizon.stream = 'vehicle'));
    END IF;
    PERFORM settle_vehicle_registers(ARRAY[id], ARRAY[coalesce(follows, ts)]);
END
$$;

CREATE FUNCTION public.link_vehicle(id text, since timestamp with time zone, meter text, only_where_new boolean) RETURNS TABLE(created boolean, meter_id text, valid_from timestamp with time zone, valid_to timestamp with time zone, source text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    is_new boolean;
BEGIN
    PERFORM lock_links(ARRAY[id]);
    IF only_where_new THEN
        RETURN QUERY
        SELECT false, link.*
        FROM links_of(id, since, since + interval '1 microsecond') AS link
        WHERE link.meter_id = meter;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    is_new := NOT EXISTS (
        SELECT FROM links WHERE vehicle_id = id AND valid_from = since AND source = 'api');
    PERFORM claim_by_api(id, since, meter);
    -- Not from link_periods: it may have no time to hold at all, where another claims the meter.
    RETURN QUERY
    SELECT is_new, meter, since,
           least((SELECT valid_from FROM links WHERE vehicle_id = id AND valid_from > since
                  ORDER BY valid_from LIMIT 1),
                 (SELECT valid_from FROM links
                  WHERE meter_id = meter AND vehicle_id != id
                    AND (valid_from, vehicle_id) > (since, id)
                  ORDER BY valid_from, vehicle_id LIMIT 1)),
           'api';
END
$$;

CREATE FUNCTION public.links_of(for_vehicle_id text, window_start timestamp with time zone, window_end timestamp with time zone) RETURNS TABLE(meter_id text, valid_from timestamp with time zone, valid_to timestamp with time zone, source text)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT period.meter_id, period.valid_from, period.valid_to, period.source
    FROM link_periods period
    WHERE period.vehicle_id = for_vehicle_id
      AND period.valid_from < window_end
      AND period.valid_from >= coalesce(
          (SELECT link.valid_from FROM links link
           WHERE link.vehicle_id = for_vehicle_id AND link.valid_from <= window_start
           ORDER BY link.valid_from DESC LIMIT 1), '-infinity')
      AND period.valid_to > window_start IS NOT FALSE
    ORDER BY period.valid_from
$$;

COMMENT ON FUNCTION public.links_of(for_vehicle_id text, window_start timestamp with time zone, window_end timestamp with time zone) IS 'The links of a vehicle that overlap (window_start, window_end], whole and in order.';

CREATE FUNCTION public.list_erasures(asked uuid, after_at timestamp with time zone, after_id uuid, most integer) RETURNS TABLE(erasure_id uuid, stream text, device_id text, asked_at timestamp with time zone, asked_by text, asked_why text, asked_token text, finished_at timestamp with time zone, receipts bigint, files bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
    SELECT erasure_id, stream, device_id, asked_at, asked_by, asked_why, asked_token, finished_at,
           receipts, files
    FROM erasure
    WHERE (asked IS NULL OR erasure_id = asked)
      AND (after_at IS NULL OR asked_at < after_at OR asked_at = after_at AND erasure_id > after_id)
    ORDER BY asked_at DESC, erasure_id
    LIMIT most
$$;

CREATE FUNCTION public.list_links(id text, before timestamp with time zone, most integer) RETURNS TABLE(meter_id text, valid_from timestamp with time zone, valid_to timestamp with time zone, source text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT period.meter_id, period.valid_from, period.valid_to, period.source
    FROM link_periods period
    WHERE period.vehicle_id = id AND period.valid_from < coalesce(before, 'infinity')
    ORDER BY period.valid_from DESC
    LIMIT most;
    IF NOT FOUND AND (EXISTS (SELECT FROM links WHERE vehicle_id = id)
                      OR EXISTS (SELECT FROM vehicle_live_status WHERE vehicle_id = id)) THEN
        RETURN QUERY SELECT NULL::text, NULL::timestamptz, NULL::timestamptz, NULL::text;
    END IF;
END
$$;

CREATE FUNCTION public.list_tariff(id text) RETURNS TABLE(valid_from timestamp with time zone, valid_to timestamp with time zone, currency text, time_zone text, price_per_kwh double precision, kg_co2_per_kwh double precision, periods jsonb)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
    SELECT valid_from, valid_to, currency, time_zone, price_per_kwh, kg_co2_per_kwh, periods
    FROM tariff WHERE meter_id = id ORDER BY valid_from DESC
$$;

CREATE FUNCTION public.list_unerased(of_stream text) RETURNS TABLE(device_id text, asked_at timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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

CREATE FUNCTION public.list_voids(of_stream text, of_device text, of_time timestamp with time zone, after_at timestamp with time zone, after_stream text, after_device text, after_time timestamp with time zone, most integer) RETURNS TABLE(stream text, device_id text, "timestamp" timestamp with time zone, voided_at timestamp with time zone, voided_by text, voided_why text, voided_token text, withdrawn_at timestamp with time zone, withdrawn_by text, withdrawn_why text, withdrawn_token text, pending boolean, receipts jsonb)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
    SELECT page.*, CASE page.stream
        WHEN 'meter' THEN (
            SELECT jsonb_agg(jsonb_build_object(
                       'receivedAt', received_at, 'kwhConsumedAc', kwh_consumed_ac, 'voltage', voltage,
                       'registerKwh', register_kwh)
                   ORDER BY received_at)
            FROM meter_void_receipt kept
            WHERE kept.meter_id = page.device_id AND kept."timestamp" = page."timestamp"
              AND page.withdrawn_at IS NULL)
        ELSE (
            SELECT jsonb_agg(jsonb_build_object(
                       'receivedAt', received_at, 'kwhDeliveredDc', kwh_delivered_dc,
                       'batteryTemp', battery_temp, 'soc', soc, 'meterId', meter_id,
                       'registerKwh', register_kwh)
                   ORDER BY received_at)
            FROM vehicle_void_receipt kept
            WHERE kept.vehicle_id = page.device_id AND kept."timestamp" = page."timestamp"
              AND page.withdrawn_at IS NULL)
        END
    FROM (
        SELECT * FROM (
            SELECT 'meter' AS stream, meter_id AS device_id, "timestamp", voided_at, voided_by,
                   voided_why, voided_token, withdrawn_at, withdrawn_by, withdrawn_why,
                   withdrawn_token, pending
            FROM meter_void
            WHERE (of_stream IS NULL OR of_stream = 'meter' AND meter_id = of_device)
              AND (of_time IS NULL OR "timestamp" = of_time)
              AND (after_at IS NULL OR voided_at <= after_at)
            UNION ALL
            SELECT 'vehicle', vehicle_id, "timestamp", voided_at, voided_by, voided_why,
                   voided_token, withdrawn_at, withdrawn_by, withdrawn_why, withdrawn_token,
                   pending
            FROM vehicle_void
            WHERE (of_stream IS NULL OR of_stream = 'vehicle' AND vehicle_id = of_device)
              AND (of_time IS NULL OR "timestamp" = of_time)
              AND (after_at IS NULL OR voided_at <= after_at)
        ) AS void
        WHERE after_at IS NULL OR voided_at < after_at
           OR (void.stream, void.device_id, void."timestamp") > (after_stream, after_device, after_time)
        ORDER BY voided_at DESC, void.stream, void.device_id, void."timestamp"
        LIMIT most
    ) AS page
    ORDER BY voided_at DESC, page.stream, page.device_id, page."timestamp"
$$;

CREATE FUNCTION public.lock_links(devices text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO link_locks (device_id)
    SELECT DISTINCT device COLLATE "C" FROM unnest(devices) AS device WHERE device IS NOT NULL
    ORDER BY 1
    ON CONFLICT DO NOTHING;
    PERFORM FROM link_locks WHERE device_id = ANY (devices) ORDER BY device_id FOR UPDATE;
END
$$;

CREATE FUNCTION public.loss_costs(windows public.charged_window[]) RETURNS TABLE("position" bigint, loss_cost numeric, loss_co2_kg numeric)
    LANGUAGE plpgsql STABLE
    AS $$
#variable_conflict use_column
DECLARE
    archived_to constant timestamptz := (SELECT max(archived_to) FROM archive_horizon);
    parts       priced_part[];
    edges_after timestamptz;
    edges_until timestamptz;
BEGIN
    IF NOT EXISTS (SELECT FROM tariff) THEN
        RETURN;
    END IF;

SELECT array_agg(ROW(w.position, sign, id, tariff_id, part_start, part_end, ceil_hour(part_start),
                         date_bin('1 hour', part_end, timestamptz '2000-01-01 00:00:00+00')
                        )::priced_part),
           -- As plain values, so that partitions are pruned before the plan starts (0004).
           min(part_start), max(part_end)
    INTO parts, edges_after, edges_until
    FROM unnest(windows) AS w
    CROSS JOIN LATERAL (
        WITH link AS (
            SELECT meter_id,
                   CASE WHEN EXISTS (SELECT FROM tariff WHERE tariff.meter_id = fed.meter_id)
                        THEN meter_id ELSE '*' END AS tariff_id,
                   countable_from(greatest(valid_from, w.window_start), archived_to) AS opened,
                   countable_from(least(valid_to, w.window_end), archived_to) AS closed
            FROM unnest(w.meter_ids, w.valid_froms, w.valid_tos) AS fed (meter_id, valid_from, valid_to)
        )
        SELECT 1, meter_id, tariff_id, opened, closed FROM link
        UNION ALL
        SELECT -1, w.vehicle_id, tariff_id, opened, closed FROM link WHERE tariff_id != '*'
        UNION ALL
        SELECT -1, w.vehicle_id, '*', lower(rest), upper(rest)
        FROM unnest(
            tstzmultirange(tstzrange(w.window_start, w.window_end, '(]'))
            - coalesce((SELECT range_agg(tstzrange(opened, closed, '(]'))
                        FROM link WHERE tariff_id != '*'), '{}')
        ) AS rest
    ) AS part (sign, id, tariff_id, part_start, part_end)
    WHERE part_start < part_end;

RETURN QUERY
    WITH part AS MATERIALIZED (
        SELECT * FROM unnest(parts)
    ), edge AS MATERIALIZED (
        SELECT part.position, sign, id, tariff_id, hour, edge_start, edge_end
        FROM part
        CROSS JOIN LATERAL (
            SELECT first_hour - interval '1 hour', part_start, least(first_hour, part_end)
            WHERE part_start < first_hour
            UNION ALL
            SELECT last_hour, last_hour, part_end
            WHERE first_hour <= last_hour AND last_hour < part_end
        ) AS ragged (hour, edge_start, edge_end)
    ), energy AS MATERIALIZED (
        SELECT part.position, sign, tariff_id, hour, kwh_consumed_ac AS kwh
        FROM part
        JOIN meter_hourly_rollup ON meter_id = id AND hour >= first_hour AND hour < last_hour
        WHERE sign = 1
        UNION ALL
        SELECT part.position, sign, tariff_id, hour, kwh_delivered_dc
        FROM part
        JOIN vehicle_hourly_rollup ON vehicle_id = id AND hour >= first_hour AND hour < last_hour
        WHERE sign = -1
        UNION ALL
        SELECT edge.position, sign, tariff_id, hour, kwh_consumed_ac
        FROM edge
        CROSS JOIN LATERAL (
            SELECT DISTINCT ON (h."timestamp") h.kwh_consumed_ac
            FROM meter_telemetry_history h
            WHERE h.meter_id = id AND h."timestamp" > edge_start AND h."timestamp" <= edge_end
              AND h."timestamp" > edges_after AND h."timestamp" <= edges_until
            ORDER BY h."timestamp" DESC, h.received_at DESC
        ) AS counted
        WHERE sign = 1
        UNION ALL
        SELECT edge.position, sign, tariff_id, hour, kwh_delivered_dc
        FROM edge
        CROSS JOIN LATERAL (
            SELECT DISTINCT ON (h."timestamp") h.kwh_delivered_dc
            FROM vehicle_telemetry_history h
            WHERE h.vehicle_id = id AND h."timestamp" > edge_start AND h."timestamp" <= edge_end
              AND h."timestamp" > edges_after AND h."timestamp" <= edges_until
            ORDER BY h."timestamp" DESC, h.received_at DESC
        ) AS counted
        WHERE sign = -1
    ), price AS MATERIALIZED (  -- of hours with energy alone: where each meter has a tariff, they cost most
        SELECT prices.*
        FROM (
            SELECT array_agg(tariff_id) AS tariff_ids, array_agg(hour) AS starts,
                   array_agg(hour + interval '1 hour') AS ends
            FROM (SELECT DISTINCT tariff_id, hour FROM energy WHERE kwh != 0) AS used
        ) AS used
        CROSS JOIN LATERAL hour_prices(tariff_ids, starts, ends) AS prices
    )
    SELECT energy.position,
           CASE WHEN bool_and(kwh = 0 OR price_per_kwh IS NOT NULL)
                THEN coalesce(sum(sign * kwh * price_per_kwh), 0) END,
           CASE WHEN bool_and(kwh = 0 OR kg_co2_per_kwh IS NOT NULL)
                THEN coalesce(sum(sign * kwh * kg_co2_per_kwh), 0) END
    FROM energy
    LEFT JOIN price USING (tariff_id, hour)
    GROUP BY energy.position;
END
$$;

CREATE FUNCTION public.mark_fault_changes(fault_ids uuid[], changes text[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
    UPDATE fault_change SET published_at = clock_timestamp()
    FROM unnest(fault_ids, changes) AS published (fault_id, change)
    WHERE fault_change.fault_id = published.fault_id AND fault_change.change = published.change
$$;

CREATE FUNCTION public.mark_summaries_of_link() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $_$
DECLARE
    changed links := coalesce(NEW, OLD);
    meters  text[] := ARRAY[NEW.meter_id, OLD.meter_id];
BEGIN
    UPDATE vehicle_summary SET stale = true
    WHERE NOT stale AND vehicle_id = ANY (array(  -- one look-up each, whatever the plan was made for
        SELECT changed.vehicle_id
        UNION ALL
        SELECT vehicle_id FROM links WHERE meter_id = ANY (meters)
        UNION ALL
        SELECT 'VEH' || substring(meter_id FROM '^(?:METER|MTR)([._:-].+)$')
        FROM unnest(meters) AS meter_id
    ));
    RETURN NULL;
END
$_$;

CREATE FUNCTION public.mark_summaries_of_tariff(tariff_id text, since timestamp with time zone) RETURNS void
    LANGUAGE sql
    AS $$
    UPDATE vehicle_summary SET stale = true
    WHERE NOT stale AND window_end > since
      AND window_end - interval '24 hours' < coalesce(
          (SELECT min(valid_from) FROM tariff WHERE meter_id = tariff_id AND valid_from > since), 'infinity')
      AND (tariff_id = '*' OR tariff_id = ANY (meter_ids))
$$;

CREATE FUNCTION public.minute_bit("timestamp" timestamp with time zone, hour timestamp with time zone) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN ((1)::bigint << ((ceil((date_part('epoch'::text, ("timestamp" - hour)) / (60)::double precision)))::integer - 1));

COMMENT ON FUNCTION public.minute_bit("timestamp" timestamp with time zone, hour timestamp with time zone) IS 'The bit of the minute (of the hour that starts at the second argument) in which a timestamp falls.';

CREATE FUNCTION public.next_claim(id text, after timestamp with time zone, OUT valid_from timestamp with time zone, OUT meter_id text) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    cadence constant interval := '60 seconds';
    first constant timestamptz := after + cadence;
    last  timestamptz;
    kept  record;
BEGIN
    SELECT link.valid_from, link.meter_id, link.source INTO kept
    FROM links link
    WHERE link.vehicle_id = id AND link.valid_from > after
    ORDER BY link.valid_from
    LIMIT 1;
    SELECT least(live.last_timestamp, kept.valid_from + cadence - interval '1 microsecond') INTO last
    FROM vehicle_live_status live
    WHERE live.vehicle_id = id;

IF last > first THEN  -- mostly there is no later reading
        -- The bounds are repeated as plain values, so that partitions are pruned once.
        SELECT named."timestamp" - cadence, named.meter_id
        INTO next_claim.valid_from, next_claim.meter_id
        FROM vehicle_telemetry_history named
        WHERE named.vehicle_id = id AND named.meter_id IS NOT NULL
          AND named."timestamp" > first AND named."timestamp" <= last
          AND named.received_at = (
              SELECT counted.received_at
              FROM vehicle_telemetry_history counted
              WHERE counted.vehicle_id = id AND counted."timestamp" = named."timestamp"
                AND counted."timestamp" > first AND counted."timestamp" <= last
              ORDER BY counted.received_at DESC
              LIMIT 1)
        ORDER BY named."timestamp"
        LIMIT 1;
    END IF;
    IF next_claim.valid_from IS NULL AND kept.source = 'reading' THEN
        next_claim.valid_from := kept.valid_from;
        next_claim.meter_id := kept.meter_id;
    END IF;
END
$$;

CREATE FUNCTION public.put_tariff(id text, since timestamp with time zone, until timestamp with time zone, in_currency text, zone text, price numeric, kg_co2 numeric, its_periods jsonb, starts interval[], prices numeric[], most integer, release text, zone_starts timestamp with time zone[], utc_offsets interval[]) RETURNS TABLE(refused text, created boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    is_new boolean;
BEGIN
    LOCK TABLE fleet_window IN EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM tariff WHERE currency != in_currency AND (meter_id, valid_from) != (id, since)) THEN
        RETURN QUERY SELECT 'currency', false;
        RETURN;
    END IF;
    is_new := NOT EXISTS (SELECT FROM tariff WHERE meter_id = id AND valid_from = since);
    IF is_new AND (SELECT count(*) FROM tariff WHERE meter_id = id) >= most THEN
        RETURN QUERY SELECT 'versions', false;
        RETURN;
    END IF;
    PERFORM put_zone(zone, release, zone_starts, utc_offsets);
    INSERT INTO tariff (valid_from, valid_to, meter_id, currency, time_zone, price_per_kwh, kg_co2_per_kwh,
                        periods, week_starts, week_prices)
    VALUES (since, until, id, in_currency, zone, price, kg_co2, its_periods, starts, prices)
    ON CONFLICT (meter_id, valid_from) DO UPDATE SET
        valid_to = excluded.valid_to, currency = excluded.currency, time_zone = excluded.time_zone,
        price_per_kwh = excluded.price_per_kwh, kg_co2_per_kwh = excluded.kg_co2_per_kwh,
        periods = excluded.periods, week_starts = excluded.week_starts,
        week_prices = excluded.week_prices
    WHERE tariff IS DISTINCT FROM excluded;
    IF FOUND THEN
        PERFORM mark_summaries_of_tariff(id, since);
    END IF;
    RETURN QUERY SELECT NULL::text, is_new;
END
$$;

CREATE FUNCTION public.put_zone(zone text, in_release text, in_starts timestamp with time zone[], utc_offsets interval[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    LOCK TABLE fleet_window IN EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM zone_offset WHERE time_zone = zone AND release >= in_release) THEN
        RETURN;
    END IF;
    DELETE FROM zone_offset WHERE time_zone = zone;
    IF FOUND THEN
        UPDATE vehicle_summary SET stale = true WHERE NOT stale;
    END IF;
    INSERT INTO zone_offset (starts, utc_offset, time_zone, release)
    SELECT *, zone, in_release FROM unnest(in_starts, utc_offsets);
END
$$;

CREATE FUNCTION public.refuse_energies(kwhs double precision[], registers double precision[]) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    AS $$
BEGIN
    IF EXISTS (SELECT FROM unnest(kwhs, registers) AS item (kwh, register)
               WHERE kwh > 10000 AND register IS NULL) THEN
        RAISE EXCEPTION 'more than 10000 kWh in an interval, of a device that reports no register'
            USING ERRCODE = 'numeric_value_out_of_range';
    END IF;
END
$$;

CREATE FUNCTION public.register_energy(previous_at timestamp with time zone, previous numeric, at timestamp with time zone, register numeric, modulus numeric, max_power_kw numeric, OUT kwh numeric, OUT event text) RETURNS record
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
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

CREATE FUNCTION public.release_erased(of_stream text, id text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    DELETE FROM meter_live_status
    WHERE of_stream = 'meter' AND meter_id = id AND last_timestamp = '-infinity';
    DELETE FROM vehicle_live_status
    WHERE of_stream = 'vehicle' AND vehicle_id = id AND last_timestamp = '-infinity';
END
$$;

CREATE FUNCTION public.report_charging(vehicle_ids text[], starts timestamp with time zone[], ends timestamp with time zone[], length interval, by_name boolean, with_hours boolean, least_kwh double precision, least_coverage double precision) RETURNS json
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    horizon   timestamptz;
    priced_in text;
BEGIN
    SELECT (SELECT max(archived_to) FROM archive_horizon), (SELECT currency FROM tariff LIMIT 1)
    INTO horizon, priced_in;
    IF priced_in IS NULL THEN  -- apart: joined to no prices, it takes a twentieth longer
        RETURN json_agg(charging ORDER BY position)
        FROM (
            SELECT *, charging_status(
                kwh_consumed_ac, kwh_delivered_dc, minutes_heard,
                extract(epoch FROM window_end - window_start) / 60, meter_minutes, linked_minutes,
                least_kwh::numeric, least_coverage::numeric) AS status,
                CASE WHEN horizon > window_start THEN horizon END AS archived_to
            FROM vehicle_performance(vehicle_ids, starts, ends, length, by_name, with_hours)
        ) AS charging;
    END IF;
    RETURN (
        WITH charging AS MATERIALIZED (
            SELECT *, charging_status(
                kwh_consumed_ac, kwh_delivered_dc, minutes_heard,
                extract(epoch FROM window_end - window_start) / 60, meter_minutes, linked_minutes,
                least_kwh::numeric, least_coverage::numeric) AS status,
                CASE WHEN horizon > window_start THEN horizon END AS archived_to
            FROM vehicle_performance(vehicle_ids, starts, ends, length, by_name, with_hours)
        )
        SELECT json_agg(priced ORDER BY position)
        FROM (
            SELECT charging.*, loss_cost, loss_co2_kg, priced_in AS currency
            FROM charging
            LEFT JOIN loss_costs((
                SELECT array_agg(ROW(position, vehicle_id, window_start, window_end, meter_ids,
                                     valid_froms, valid_tos)::charged_window)
                FROM charging WHERE kwh_consumed_ac + kwh_delivered_dc IS NOT NULL)) AS cost USING (position)
        ) AS priced
    );
END
$$;

CREATE FUNCTION public.report_fleet(asked_start timestamp with time zone, asked_end timestamp with time zone, length interval, otherwise timestamp with time zone, by_name boolean, least_kwh double precision, least_coverage double precision, of_status text, asked_sort text, after_rank text, after_id text, most bigint) RETURNS json
    LANGUAGE plpgsql STABLE
    AS $$
#variable_conflict use_column
DECLARE
    kwh          constant numeric := least_kwh;
    coverage     constant numeric := least_coverage;
    last_rank    constant numeric := coalesce(after_rank, '-Infinity');
    last_id      constant text := coalesce(after_id, '');
    newest       timestamptz;
    closed       timestamptz := asked_end;
    opened       timestamptz;
    summarized   boolean;
    by_cost      boolean;
    computed_ids text[];
    priced_in    constant text := (SELECT currency FROM tariff LIMIT 1);
BEGIN
    SELECT max(window_end), bool_or(window_end = asked_end IS NOT FALSE)
    INTO newest, summarized
    FROM fleet_window fleet
    WHERE finished AND (fleet.by_name, fleet.least_kwh, fleet.least_coverage)
                       = (report_fleet.by_name, kwh, coverage);
    closed := coalesce(asked_end, newest, otherwise);
    opened := coalesce(asked_start, closed - length);
    summarized := summarized IS TRUE AND closed - opened = interval '24 hours';
    by_cost := coalesce(asked_sort = 'cost', EXISTS (
        SELECT FROM tariff
        WHERE meter_id = '*' AND valid_from < closed AND valid_to > opened IS NOT FALSE));
    computed_ids := CASE WHEN summarized
        THEN array(SELECT vehicle_id FROM vehicle_summary WHERE window_end = closed AND stale)
        ELSE array(SELECT vehicle_id FROM vehicle_live_status) END;
    RETURN (
        WITH charging AS MATERIALIZED (
            SELECT *
            FROM vehicle_performance(
                computed_ids, array_fill(opened, ARRAY[cardinality(computed_ids)]),
                array_fill(closed, ARRAY[cardinality(computed_ids)]), NULL, by_name)
            WHERE computed_ids != '{}'
        ), computed AS MATERIALIZED (
            SELECT vehicle_id, kwh_consumed_ac, kwh_delivered_dc, readings, minutes_heard,
                   meter_minutes, linked_minutes, battery_temp_sum, meter_ids, loss_cost, loss_co2_kg,
                   coalesce(kwh_delivered_dc - kwh_consumed_ac, 'Infinity') AS loss_rank,
                   CASE WHEN by_cost THEN coalesce(-loss_cost, 'Infinity')
                        ELSE coalesce(kwh_delivered_dc - kwh_consumed_ac, 'Infinity') END AS rank,
                   charging_status(kwh_consumed_ac, kwh_delivered_dc, minutes_heard,
                                   extract(epoch FROM closed - opened) / 60,
                                   meter_minutes, linked_minutes, kwh, coverage) AS status
            FROM charging
            LEFT JOIN (
                SELECT * FROM loss_costs((
                    SELECT array_agg(ROW(position, vehicle_id, window_start, window_end, meter_ids,
                                         valid_froms, valid_tos)::charged_window)
                    FROM charging WHERE kwh_consumed_ac + kwh_delivered_dc IS NOT NULL))
                WHERE priced_in IS NOT NULL
            ) AS cost USING (position)
        ), page AS (
            (SELECT vehicle_id, kwh_consumed_ac, kwh_delivered_dc, readings, minutes_heard,
                    meter_minutes, linked_minutes, battery_temp_sum, meter_ids, loss_cost, loss_co2_kg,
                    rank, status
             FROM vehicle_summary
             WHERE summarized AND NOT by_cost
               AND window_end = closed AND NOT stale AND (rank, vehicle_id) > (last_rank, last_id)
               AND (of_status IS NULL OR status = of_status)
             ORDER BY rank, vehicle_id
             LIMIT most)
            UNION ALL
            (SELECT vehicle_id, kwh_consumed_ac, kwh_delivered_dc, readings, minutes_heard,
                    meter_minutes, linked_minutes, battery_temp_sum, meter_ids, loss_cost, loss_co2_kg,
                    cost_rank, status
             FROM vehicle_summary
             WHERE summarized AND by_cost
               AND window_end = closed AND NOT stale AND (cost_rank, vehicle_id) > (last_rank, last_id)
               AND (of_status IS NULL OR status = of_status)
             ORDER BY cost_rank, vehicle_id
             LIMIT most)
            UNION ALL
            SELECT vehicle_id, kwh_consumed_ac, kwh_delivered_dc, readings, minutes_heard,
                   meter_minutes, linked_minutes, battery_temp_sum, meter_ids, loss_cost, loss_co2_kg,
                   rank, status
            FROM computed
            WHERE (rank, vehicle_id) > (last_rank, last_id)
              AND (of_status IS NULL OR status = of_status)
            ORDER BY rank, vehicle_id
            LIMIT most
        ), totals AS (
            SELECT status, vehicles, known, cost_known, co2_known, kwh_consumed_ac, kwh_delivered_dc,
                   loss_cost, loss_co2_kg
            FROM fleet_totals
            WHERE summarized AND window_end = closed
            UNION ALL
            SELECT status, sign, sign * known, sign * (loss_cost IS NOT NULL)::integer,
                   sign * (loss_co2_kg IS NOT NULL)::integer, sign * known * kwh_consumed_ac,
                   sign * known * kwh_delivered_dc, sign * loss_cost, sign * loss_co2_kg
            FROM (
                SELECT -1 AS sign, (rank < 'Infinity')::integer AS known, status, kwh_consumed_ac,
                       kwh_delivered_dc, loss_cost, loss_co2_kg
                FROM vehicle_summary
                WHERE summarized AND window_end = closed AND stale
                UNION ALL
                SELECT 1, (loss_rank < 'Infinity')::integer, status, kwh_consumed_ac, kwh_delivered_dc,
                       loss_cost, loss_co2_kg
                FROM computed
            ) AS changed
        )
        SELECT json_build_object(
            'window_start', opened,
            'window_end', closed,
            'sort', CASE WHEN by_cost THEN 'cost' ELSE 'energy' END,
            'currency', priced_in,
            'page', (SELECT json_agg(page) FROM page),
            'totals', (
                SELECT json_agg(by_status) FROM (
                    SELECT status, sum(vehicles) AS vehicles, sum(known) AS known,
                           sum(cost_known) AS cost_known, sum(co2_known) AS co2_known,
                           sum(kwh_consumed_ac) AS kwh_consumed_ac,
                           sum(kwh_delivered_dc) AS kwh_delivered_dc,
                           sum(loss_cost) AS loss_cost, sum(loss_co2_kg) AS loss_co2_kg
                    FROM totals
                    GROUP BY status
                ) AS by_status))
    );
END
$$;

CREATE FUNCTION public.request_erasure(of_stream text, id text, by_whom text, why text, token text) RETURNS TABLE(erasing uuid, is_new boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    asked uuid;
BEGIN
    PERFORM hold_erased(of_stream, id);
    INSERT INTO erasure_key DEFAULT VALUES ON CONFLICT DO NOTHING;
    INSERT INTO erasure (asked_at, stream, device_id, device_hash, asked_by, asked_why, asked_token)
    VALUES (clock_timestamp(), of_stream, id, hash_device(of_stream, id), by_whom, why, token)
    ON CONFLICT (stream, device_id) WHERE device_id IS NOT NULL DO NOTHING
    RETURNING erasure_id INTO asked;
    is_new := FOUND;
    erasing := coalesce(asked, (SELECT erasure_id FROM erasure
                                WHERE stream = of_stream AND device_id = id));
    PERFORM release_erased(of_stream, id);
    RETURN NEXT;
END
$$;

CREATE FUNCTION public.rollup_hour("timestamp" timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN date_bin('01:00:00'::interval, ("timestamp" - '00:00:00.000001'::interval), '2000-01-01 00:00:00+00'::timestamp with time zone);

COMMENT ON FUNCTION public.rollup_hour("timestamp" timestamp with time zone) IS 'The start of the rollup hour (hour, hour + 1 h] that a timestamp belongs to.';

CREATE FUNCTION public.set_aside_voided_meter_readings(INOUT meter_ids text[], INOUT timestamps timestamp with time zone[], INOUT received_ats timestamp with time zone[], INOUT kwhs double precision[], INOUT voltages double precision[], INOUT registers double precision[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    receipt record;
    others  integer[] := ARRAY(SELECT generate_subscripts(meter_ids, 1));
BEGIN
    FOR receipt IN
        SELECT item.*
        FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
            WITH ORDINALITY AS item (id, ts, received_at, kwh, voltage, register, position)
        JOIN meter_void void ON void.meter_id = item.id AND void."timestamp" = item.ts
            AND void.withdrawn_at IS NULL AND NOT void.pending
        ORDER BY item.position
        FOR SHARE OF void
    LOOP
        LOOP
            INSERT INTO meter_void_receipt
                (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage, register_kwh)
            VALUES (receipt.id, receipt.ts, receipt.received_at, receipt.kwh, receipt.voltage,
                    receipt.register)
            ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND OR EXISTS (
                SELECT FROM meter_void_receipt
                WHERE meter_id = receipt.id AND "timestamp" = receipt.ts
                  AND received_at = receipt.received_at
                  AND (coalesce(register_kwh, kwh_consumed_ac), voltage)
                      = (coalesce(receipt.register, receipt.kwh)::numeric, receipt.voltage));
            receipt.received_at := receipt.received_at + interval '1 microsecond';
        END LOOP;
        others := array_remove(others, receipt.position::integer);
    END LOOP;
    SELECT coalesce(array_agg(id), '{}'), array_agg(ts), array_agg(received_at), array_agg(kwh),
           array_agg(voltage), array_agg(register)
    INTO meter_ids, timestamps, received_ats, kwhs, voltages, registers
    FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers) WITH ORDINALITY
        AS item (id, ts, received_at, kwh, voltage, register, position)
    WHERE position = ANY (others);
END
$$;

CREATE FUNCTION public.set_aside_voided_vehicle_readings(INOUT vehicle_ids text[], INOUT timestamps timestamp with time zone[], INOUT received_ats timestamp with time zone[], INOUT kwhs double precision[], INOUT battery_temps double precision[], INOUT socs double precision[], INOUT meter_ids text[], INOUT registers double precision[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    receipt    record;
    name_meter constant boolean := meter_ids IS NOT NULL;
    others     integer[] := ARRAY(SELECT generate_subscripts(vehicle_ids, 1));
BEGIN
    FOR receipt IN
        SELECT item.*
        FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                    registers) WITH ORDINALITY
            AS item (id, ts, received_at, kwh, battery_temp, soc, meter, register, position)
        JOIN vehicle_void void ON void.vehicle_id = item.id AND void."timestamp" = item.ts
            AND void.withdrawn_at IS NULL AND NOT void.pending
        ORDER BY item.position
        FOR SHARE OF void
    LOOP
        LOOP
            INSERT INTO vehicle_void_receipt
                (vehicle_id, "timestamp", received_at, kwh_delivered_dc, battery_temp, soc, meter_id,
                 register_kwh)
            VALUES (receipt.id, receipt.ts, receipt.received_at, receipt.kwh, receipt.battery_temp,
                    receipt.soc, receipt.meter, receipt.register)
            ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND OR EXISTS (
                SELECT FROM vehicle_void_receipt
                WHERE vehicle_id = receipt.id AND "timestamp" = receipt.ts
                  AND received_at = receipt.received_at
                  AND (coalesce(register_kwh, kwh_delivered_dc), battery_temp, soc, meter_id)
                      IS NOT DISTINCT FROM
                      (coalesce(receipt.register, receipt.kwh)::numeric,
                       receipt.battery_temp::numeric, receipt.soc, receipt.meter));
            receipt.received_at := receipt.received_at + interval '1 microsecond';
        END LOOP;
        others := array_remove(others, receipt.position::integer);
    END LOOP;
    SELECT coalesce(array_agg(id), '{}'), array_agg(ts), array_agg(received_at), array_agg(kwh),
           array_agg(battery_temp), array_agg(soc), CASE WHEN name_meter THEN array_agg(meter) END,
           array_agg(register)
    INTO vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids, registers
    FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                registers) WITH ORDINALITY
        AS item (id, ts, received_at, kwh, battery_temp, soc, meter, register, position)
    WHERE position = ANY (others);
END
$$;

CREATE FUNCTION public.settle_claim(id text, since timestamp with time zone, meter text) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM lock_links(ARRAY[meter]);
    IF meter IS NULL OR (SELECT continues FROM continues_link(id, since, meter)) THEN
        DELETE FROM links
        WHERE vehicle_id = id AND valid_from = since AND source = 'reading';
    ELSE
        INSERT INTO links AS link (vehicle_id, valid_from, meter_id, source)
        VALUES (id, since, meter, 'reading')
        ON CONFLICT (vehicle_id, valid_from) DO UPDATE SET meter_id = excluded.meter_id
        WHERE link.source = 'reading' AND link.meter_id != excluded.meter_id;
    END IF;
END
$$;

CREATE FUNCTION public.settle_holder(id text, since timestamp with time zone, meter text) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    holder text;
    next   record;
BEGIN
    SELECT vehicle_id INTO holder
    FROM links
    WHERE meter_id = meter AND (valid_from, vehicle_id) < (since, id)
    ORDER BY valid_from DESC, vehicle_id DESC
    LIMIT 1;
    IF holder != id THEN
        next := next_claim(holder, CASE WHEN holder COLLATE "C" > id
                                   THEN since - interval '1 microsecond' ELSE since END);
        IF next.meter_id = meter THEN
            PERFORM settle_claim(holder, next.valid_from, meter);
        END IF;
    END IF;
END
$$;

CREATE FUNCTION public.settle_meter_registers(ids text[], timestamps timestamp with time zone[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    horizon    timestamptz;
    first_at   timestamptz;
    last_at    timestamptz;
    wrong      text[];
    times      timestamptz[];
    receipts   timestamptz[];
    registers  double precision[];
BEGIN
    horizon := (SELECT archived_to FROM archive_horizon WHERE archive_horizon.stream = 'meter');
    SELECT greatest(min(coalesce(before.hour, rollup_hour(item.ts))), horizon),
           max(coalesce(after.hour, rollup_hour(item.ts)) + interval '1 hour')
    INTO first_at, last_at
    FROM unnest(ids, timestamps) AS item (id, ts)
    JOIN devices ON device_id = item.id
    CROSS JOIN LATERAL (
        SELECT max(rollup.hour) AS hour FROM meter_hourly_rollup rollup
        WHERE rollup.meter_id = item.id AND rollup.hour < rollup_hour(item.ts) AND rollup.readings > 0
    ) AS before
    CROSS JOIN LATERAL (
        SELECT min(rollup.hour) AS hour FROM meter_hourly_rollup rollup
        WHERE rollup.meter_id = item.id AND rollup.hour > rollup_hour(item.ts) AND rollup.readings > 0
    ) AS after
    WHERE item.ts >= horizon;
    IF first_at IS NULL THEN
        RETURN;
    END IF;

WITH asked AS (
        SELECT DISTINCT item.id, item.ts, register_modulus, max_power_kw
        FROM unnest(ids, timestamps) AS item (id, ts)
        JOIN devices ON device_id = item.id
        WHERE item.ts >= horizon
    ), point AS (
        SELECT DISTINCT ON (id COLLATE "C", ts) *
        FROM (
            SELECT asked.id, found."timestamp" AS ts, found.register_kwh AS register, found.received_at,
                   found.kwh_consumed_ac AS kwh, found.place, register_modulus, max_power_kw
            FROM asked
            CROSS JOIN LATERAL (
                (SELECT *, 2 AS place FROM meter_telemetry_history h
                 WHERE h.meter_id = asked.id AND h."timestamp" < asked.ts
                   AND h."timestamp" >= first_at AND h."timestamp" <= last_at
                 ORDER BY h."timestamp" DESC, h.received_at DESC LIMIT 1)
                UNION ALL
                (SELECT *, 1 FROM meter_telemetry_history h
                 WHERE h.meter_id = asked.id AND h."timestamp" = asked.ts
                   AND h."timestamp" >= first_at AND h."timestamp" <= last_at
                 ORDER BY h.received_at DESC LIMIT 1)
                UNION ALL
                (SELECT *, 1 FROM meter_telemetry_history h
                 WHERE h.meter_id = asked.id AND h."timestamp" > asked.ts
                   AND h."timestamp" >= first_at AND h."timestamp" <= last_at
                 ORDER BY h."timestamp", h.received_at DESC LIMIT 1)
            ) AS found
            UNION ALL
            SELECT baseline.device_id, baseline."timestamp", baseline.register_kwh, NULL, NULL, 2, NULL, NULL
            FROM register_baselines baseline
            WHERE baseline.device_id = ANY (ids) AND baseline.stream = 'meter'
        ) AS point
        ORDER BY id COLLATE "C", ts, place
    ), followed AS (
        SELECT *, lag(ts) OVER device AS previous_at, lag(register) OVER device AS previous
        FROM point
        WINDOW device AS (PARTITION BY id COLLATE "C" ORDER BY ts)
    ), judged AS (
        SELECT followed.*, energy.kwh AS grown, energy.event
        FROM followed
        CROSS JOIN LATERAL register_energy(
            previous_at, previous, ts, register, register_modulus, max_power_kw) AS energy
        WHERE place = 1
    ), forgotten AS (
        DELETE FROM register_events old
        USING (SELECT id, ts FROM asked UNION SELECT id, ts FROM judged) AS place
        WHERE old.device_id = place.id AND old.stream = 'meter' AND old."timestamp" = place.ts
          AND old.device_id = ANY (ids) -- whatever the plan was made for, no other device's
          AND old."timestamp" >= first_at AND old."timestamp" <= last_at
          AND NOT EXISTS (SELECT FROM judged
                          WHERE (judged.id, judged.ts) = (place.id, place.ts) AND event IS NOT NULL)
    ), noted AS (
        INSERT INTO register_events (device_id, stream, "timestamp", event, register_kwh, previous_kwh)
        SELECT id, 'meter', ts, event, register, previous FROM judged WHERE event IS NOT NULL
        ON CONFLICT (device_id, stream, "timestamp") DO UPDATE SET
            event = excluded.event, register_kwh = excluded.register_kwh,
            previous_kwh = excluded.previous_kwh
    )
    SELECT array_agg(id), array_agg(ts), array_agg(received_at), array_agg(register)
    INTO wrong, times, receipts, registers
    FROM judged
    WHERE register IS NOT NULL AND grown != kwh;

IF wrong IS NOT NULL THEN
        PERFORM store_meter_readings(
            array_agg(id), array_agg(ts), array_agg(item.received_at + interval '1 microsecond'),
            array_agg(register), array_agg(voltage))
        FROM unnest(wrong, times, receipts, registers) AS item (id, ts, received_at, register)
        CROSS JOIN LATERAL (
            SELECT voltage FROM meter_telemetry_history h
            WHERE h.meter_id = item.id AND h."timestamp" = item.ts AND h.received_at = item.received_at
              AND h."timestamp" >= first_at AND h."timestamp" <= last_at
            LIMIT 1
        ) AS values;
    END IF;
END
$$;

CREATE FUNCTION public.settle_meter_voids(ids text[], times timestamp with time zone[], receipts jsonb[], others jsonb[]) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    outcomes text[] := '{}';
    counted  meter_telemetry_history;
BEGIN
    PERFORM FROM devices WHERE device_id = ANY (ids) ORDER BY device_id FOR UPDATE; -- as writers do
    PERFORM FROM meter_live_status WHERE meter_id = ANY (ids) ORDER BY meter_id FOR UPDATE;
    FOR i IN 1..cardinality(ids) LOOP
        PERFORM FROM meter_void
        WHERE meter_id = ids[i] AND "timestamp" = times[i] AND pending FOR UPDATE;
        IF NOT FOUND THEN
            outcomes[i] := 'withdrawn';
            CONTINUE;
        END IF;
        IF EXISTS (
            SELECT FROM meter_pending late
            LEFT JOIN meter_live_status live ON live.meter_id = ids[i] AND last_timestamp = times[i]
            WHERE late.meter_id = ids[i] AND (late."timestamp" = times[i]
                  OR last_timestamp IS NOT NULL AND late."timestamp" < times[i])) THEN
            outcomes[i] := 'waiting';
            CONTINUE;
        END IF;

WITH moved AS (
            DELETE FROM meter_telemetry_history
            WHERE meter_id = ids[i] AND "timestamp" = times[i] RETURNING *
        )
        INSERT INTO meter_void_receipt
        SELECT * FROM moved
        UNION
        SELECT * FROM jsonb_populate_recordset(NULL::meter_telemetry_history, receipts[i]);
        SELECT * INTO counted FROM meter_void_receipt
        WHERE meter_id = ids[i] AND "timestamp" = times[i] ORDER BY received_at DESC LIMIT 1;
        IF FOUND THEN
            UPDATE meter_void SET pending = false
            WHERE meter_id = ids[i] AND "timestamp" = times[i] AND pending;
            PERFORM leave_out_meter_reading(ids[i], times[i], counted, others[i]);
            outcomes[i] := 'voided';
        ELSE
            UPDATE meter_void
            SET pending = false, withdrawn_at = clock_timestamp(), withdrawn_by = 'maintenance',
                withdrawn_why = 'There is no such reading'
            WHERE meter_id = ids[i] AND "timestamp" = times[i] AND pending;
            outcomes[i] := 'missing';
        END IF;
    END LOOP;
    RETURN outcomes;
END
$$;

CREATE FUNCTION public.settle_neighbours(id text, since timestamp with time zone, meter text, olds text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    next record;
    old  text;
BEGIN
    -- 1. Who held the meter.
    PERFORM settle_holder(id, since, meter);

-- 2. The vehicle's own next claim; and who holds the meter that it names, if an earlier turn of
    --    claim_meters took that for gone.
    next := next_claim(id, since);
    IF next.valid_from IS NOT NULL THEN
        PERFORM settle_claim(id, next.valid_from, next.meter_id);
        PERFORM settle_holder(id, next.valid_from, next.meter_id);
    END IF;

-- 3. Who claims a meter next that was given up may have held it all along.
    FOR old IN SELECT DISTINCT unnest FROM unnest(olds) WHERE unnest IS NOT NULL LOOP
        SELECT vehicle_id, valid_from, source INTO next
        FROM links
        WHERE meter_id = old AND (valid_from, vehicle_id) > (since, id)
        ORDER BY valid_from, vehicle_id
        LIMIT 1;
        IF next.vehicle_id != id AND next.source = 'reading' THEN
            PERFORM settle_claim(next.vehicle_id, next.valid_from, old);
        END IF;
    END LOOP;
END
$$;

CREATE FUNCTION public.settle_vehicle_registers(ids text[], timestamps timestamp with time zone[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    horizon    timestamptz;
    first_at   timestamptz;
    last_at    timestamptz;
    wrong      text[];
    times      timestamptz[];
    receipts   timestamptz[];
    registers  double precision[];
BEGIN
    horizon := (SELECT archived_to FROM archive_horizon WHERE archive_horizon.stream = 'vehicle');
    SELECT greatest(min(coalesce(before.hour, rollup_hour(item.ts))), horizon),
           max(coalesce(after.hour, rollup_hour(item.ts)) + interval '1 hour')
    INTO first_at, last_at
    FROM unnest(ids, timestamps) AS item (id, ts)
    JOIN devices ON device_id = item.id
    CROSS JOIN LATERAL (
        SELECT max(rollup.hour) AS hour FROM vehicle_hourly_rollup rollup
        WHERE rollup.vehicle_id = item.id AND rollup.hour < rollup_hour(item.ts) AND rollup.readings > 0
    ) AS before
    CROSS JOIN LATERAL (
        SELECT min(rollup.hour) AS hour FROM vehicle_hourly_rollup rollup
        WHERE rollup.vehicle_id = item.id AND rollup.hour > rollup_hour(item.ts) AND rollup.readings > 0
    ) AS after
    WHERE item.ts >= horizon;
    IF first_at IS NULL THEN
        RETURN;
    END IF;

WITH asked AS (
        SELECT DISTINCT item.id, item.ts, register_modulus, max_power_kw
        FROM unnest(ids, timestamps) AS item (id, ts)
        JOIN devices ON device_id = item.id
        WHERE item.ts >= horizon
    ), point AS (
        SELECT DISTINCT ON (id COLLATE "C", ts) *
        FROM (
            SELECT asked.id, found."timestamp" AS ts, found.register_kwh AS register, found.received_at,
                   found.kwh_delivered_dc AS kwh, found.place, register_modulus, max_power_kw
            FROM asked
            CROSS JOIN LATERAL (
                (SELECT *, 2 AS place FROM vehicle_telemetry_history h
                 WHERE h.vehicle_id = asked.id AND h."timestamp" < asked.ts
                   AND h."timestamp" >= first_at AND h."timestamp" <= last_at
                 ORDER BY h."timestamp" DESC, h.received_at DESC LIMIT 1)
                UNION ALL
                (SELECT *, 1 FROM vehicle_telemetry_history h
                 WHERE h.vehicle_id = asked.id AND h."timestamp" = asked.ts
                   AND h."timestamp" >= first_at AND h."timestamp" <= last_at
                 ORDER BY h.received_at DESC LIMIT 1)
                UNION ALL
                (SELECT *, 1 FROM vehicle_telemetry_history h
                 WHERE h.vehicle_id = asked.id AND h."timestamp" > asked.ts
                   AND h."timestamp" >= first_at AND h."timestamp" <= last_at
                 ORDER BY h."timestamp", h.received_at DESC LIMIT 1)
            ) AS found
            UNION ALL
            SELECT baseline.device_id, baseline."timestamp", baseline.register_kwh, NULL, NULL, 2, NULL, NULL
            FROM register_baselines baseline
            WHERE baseline.device_id = ANY (ids) AND baseline.stream = 'vehicle'
        ) AS point
        ORDER BY id COLLATE "C", ts, place
    ), followed AS (
        SELECT *, lag(ts) OVER device AS previous_at, lag(register) OVER device AS previous
        FROM point
        WINDOW device AS (PARTITION BY id COLLATE "C" ORDER BY ts)
    ), judged AS (
        SELECT followed.*, energy.kwh AS grown, energy.event
        FROM followed
        CROSS JOIN LATERAL register_energy(
            previous_at, previous, ts, register, register_modulus, max_power_kw) AS energy
        WHERE place = 1
    ), forgotten AS (
        DELETE FROM register_events old
        USING (SELECT id, ts FROM asked UNION SELECT id, ts FROM judged) AS place
        WHERE old.device_id = place.id AND old.stream = 'vehicle' AND old."timestamp" = place.ts
          AND old.device_id = ANY (ids) -- whatever the plan was made for, no other device's
          AND old."timestamp" >= first_at AND old."timestamp" <= last_at
          AND NOT EXISTS (SELECT FROM judged
                          WHERE (judged.id, judged.ts) = (place.id, place.ts) AND event IS NOT NULL)
    ), noted AS (
        INSERT INTO register_events (device_id, stream, "timestamp", event, register_kwh, previous_kwh)
        SELECT id, 'vehicle', ts, event, register, previous FROM judged WHERE event IS NOT NULL
        ON CONFLICT (device_id, stream, "timestamp") DO UPDATE SET
            event = excluded.event, register_kwh = excluded.register_kwh,
            previous_kwh = excluded.previous_kwh
    )
    SELECT array_agg(id), array_agg(ts), array_agg(received_at), array_agg(register)
    INTO wrong, times, receipts, registers
    FROM judged
    WHERE register IS NOT NULL AND grown != kwh;

IF wrong IS NOT NULL THEN
        PERFORM store_vehicle_readings(
            array_agg(id), array_agg(ts), array_agg(item.received_at + interval '1 microsecond'),
            array_agg(register), array_agg(battery_temp::double precision), array_agg(soc), array_agg(meter_id))
        FROM unnest(wrong, times, receipts, registers) AS item (id, ts, received_at, register)
        CROSS JOIN LATERAL (
            SELECT battery_temp, soc, meter_id FROM vehicle_telemetry_history h
            WHERE h.vehicle_id = item.id AND h."timestamp" = item.ts AND h.received_at = item.received_at
              AND h."timestamp" >= first_at AND h."timestamp" <= last_at
            LIMIT 1
        ) AS values;
    END IF;
END
$$;

CREATE FUNCTION public.settle_vehicle_voids(ids text[], times timestamp with time zone[], receipts jsonb[], others jsonb[]) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    outcomes text[] := '{}';
    counted  vehicle_telemetry_history;
BEGIN
    PERFORM FROM devices WHERE device_id = ANY (ids) ORDER BY device_id FOR UPDATE; -- as writers do
    PERFORM FROM vehicle_live_status WHERE vehicle_id = ANY (ids) ORDER BY vehicle_id FOR UPDATE;
    FOR i IN 1..cardinality(ids) LOOP
        PERFORM FROM vehicle_void
        WHERE vehicle_id = ids[i] AND "timestamp" = times[i] AND pending FOR UPDATE;
        IF NOT FOUND THEN
            outcomes[i] := 'withdrawn';
            CONTINUE;
        END IF;
        IF EXISTS (
            SELECT FROM vehicle_pending late
            LEFT JOIN vehicle_live_status live ON live.vehicle_id = ids[i] AND last_timestamp = times[i]
            WHERE late.vehicle_id = ids[i] AND (late."timestamp" = times[i]
                  OR last_timestamp IS NOT NULL AND late."timestamp" < times[i])) THEN
            outcomes[i] := 'waiting';
            CONTINUE;
        END IF;

WITH moved AS (
            DELETE FROM vehicle_telemetry_history
            WHERE vehicle_id = ids[i] AND "timestamp" = times[i] RETURNING *
        )
        INSERT INTO vehicle_void_receipt
        SELECT * FROM moved
        UNION
        SELECT * FROM jsonb_populate_recordset(NULL::vehicle_telemetry_history, receipts[i]);
        SELECT * INTO counted FROM vehicle_void_receipt
        WHERE vehicle_id = ids[i] AND "timestamp" = times[i] ORDER BY received_at DESC LIMIT 1;
        IF FOUND THEN
            UPDATE vehicle_void SET pending = false
            WHERE vehicle_id = ids[i] AND "timestamp" = times[i] AND pending;
            PERFORM leave_out_vehicle_reading(ids[i], times[i], counted, others[i]);
            outcomes[i] := 'voided';
        ELSE
            UPDATE vehicle_void
            SET pending = false, withdrawn_at = clock_timestamp(), withdrawn_by = 'maintenance',
                withdrawn_why = 'There is no such reading'
            WHERE vehicle_id = ids[i] AND "timestamp" = times[i] AND pending;
            outcomes[i] := 'missing';
        END IF;
    END LOOP;
    RETURN outcomes;
END
$$;

CREATE FUNCTION public.show_meter_readings(ids text[], timestamps timestamp with time zone[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    UPDATE meter_live_status live
    SET last_timestamp = newest."timestamp", updated_at = newest.received_at,
        last_kwh_consumed_ac = newest.kwh_consumed_ac, last_voltage = newest.voltage,
        last_register_kwh = newest.register_kwh
    FROM (
        SELECT DISTINCT held.meter_id, held.last_timestamp
        FROM unnest(ids, timestamps) AS item (id, ts)
        JOIN meter_live_status held ON held.meter_id = item.id
            AND (held.voided_to >= item.ts OR held.last_timestamp = '-infinity')
    ) AS held
    CROSS JOIN LATERAL (
        SELECT * FROM meter_telemetry_history h
        WHERE h.meter_id = held.meter_id AND h."timestamp" >= held.last_timestamp
        ORDER BY h."timestamp" DESC, h.received_at DESC
        LIMIT 1
    ) AS newest
    WHERE live.meter_id = held.meter_id
      AND (newest."timestamp", newest.received_at) > (live.last_timestamp, live.updated_at);
    DELETE FROM meter_live_status WHERE meter_id = ANY (ids) AND last_timestamp = '-infinity';
END
$$;

CREATE FUNCTION public.show_vehicle_readings(ids text[], timestamps timestamp with time zone[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    UPDATE vehicle_live_status live
    SET soc = charged.soc, soc_timestamp = charged."timestamp",
        soc_received_at = charged.received_at
    FROM (
        SELECT DISTINCT held.vehicle_id, held.soc_timestamp
        FROM unnest(ids, timestamps) AS item (id, ts)
        JOIN vehicle_live_status held ON held.vehicle_id = item.id
            AND (held.voided_to >= item.ts OR held.last_timestamp = '-infinity')
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
        last_register_kwh = newest.register_kwh
    FROM (
        SELECT DISTINCT held.vehicle_id, held.last_timestamp
        FROM unnest(ids, timestamps) AS item (id, ts)
        JOIN vehicle_live_status held ON held.vehicle_id = item.id
            AND (held.voided_to >= item.ts OR held.last_timestamp = '-infinity')
    ) AS held
    CROSS JOIN LATERAL (
        SELECT * FROM vehicle_telemetry_history h
        WHERE h.vehicle_id = held.vehicle_id AND h."timestamp" >= held.last_timestamp
        ORDER BY h."timestamp" DESC, h.received_at DESC
        LIMIT 1
    ) AS newest
    WHERE live.vehicle_id = held.vehicle_id
      AND (newest."timestamp", newest.received_at) > (live.last_timestamp, live.updated_at);
    DELETE FROM vehicle_live_status WHERE vehicle_id = ANY (ids) AND last_timestamp = '-infinity';
END
$$;

CREATE FUNCTION public.store_meter_reading(id text, ts timestamp with time zone, received_at timestamp with time zone, kwh double precision, voltage double precision, in_hour timestamp with time zone, minute bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$
#variable_conflict use_variable
BEGIN
    UPDATE public.meter_live_status
    SET last_timestamp = ts, updated_at = received_at,
        last_kwh_consumed_ac = kwh, last_voltage = voltage
    WHERE meter_id = id AND last_timestamp < ts AND summed_to < ts AND voided_to < ts
      AND NOT reports_register AND kwh <= 10000;
    IF NOT FOUND THEN
        PERFORM public.store_meter_readings(ARRAY[id], ARRAY[ts], ARRAY[received_at], ARRAY[kwh],
                                     ARRAY[voltage]);
        RETURN;
    END IF;

INSERT INTO public.meter_telemetry_history
        (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage)
    VALUES (id, ts, received_at, kwh, voltage);

UPDATE public.meter_hourly_rollup
    SET readings = readings + 1,
        minutes = minutes | minute,
        kwh_consumed_ac = kwh_consumed_ac + kwh::numeric
    WHERE meter_id = id AND hour = in_hour;
    IF NOT FOUND THEN
        INSERT INTO public.meter_hourly_rollup (meter_id, hour, readings, minutes, kwh_consumed_ac)
        VALUES (id, in_hour, 1, minute, kwh);
    END IF;
END
$$;

CREATE FUNCTION public.store_meter_readings(meter_ids text[], timestamps timestamp with time zone[], received_ats timestamp with time zone[], kwhs double precision[], voltages double precision[], OUT duplicates bigint, OUT corrections bigint) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    inserted        bigint;
    distinct_new    bigint;
    collided        boolean;
    ids             text[];
    previous        timestamptz[];
    summed          timestamptz[];
    late_ids        text[];
    late_timestamps timestamptz[];
    first_late      timestamptz;
    last_late       timestamptz;
    old_ids         text[];
    old_timestamps  timestamptz[];
    old_receipts    timestamptz[];
    old_kwhs        numeric[];
    old_voltages    double precision[];
    old_registers   numeric[];
    registers       double precision[];
    archived_to     timestamptz;
    has_voids       boolean := false;
    was_erased      boolean := false;
BEGIN
    -- 0. Of a register that was reported counts what it has grown by (0011).
    IF EXISTS (SELECT FROM devices) THEN
        SELECT * INTO kwhs, registers
        FROM convert_meter_registers(meter_ids, timestamps, received_ats, kwhs);
    END IF;
    PERFORM refuse_energies(kwhs, registers);

-- 1. Lock the devices and update their live rows: the newest device time wins, on a tie the
    --    latest receipt. A row that is not updated is locked all the same. What is returned is the
    --    device time that was shown before, '-infinity' for a new device. What may be voided is not
    --    shown yet, and counts as shown before.
    WITH written AS (
        INSERT INTO meter_live_status AS live
            (meter_id, last_timestamp, updated_at, last_kwh_consumed_ac, last_voltage,
             last_register_kwh, summed_to)
        SELECT DISTINCT ON (id COLLATE "C") id, ts, received_at, kwh, voltage, register,
               -- A new device counts as summed up to where the others are.
               coalesce((SELECT max(window_end) FROM fleet_window), '-infinity')
        FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
            AS item (id, ts, received_at, kwh, voltage, register)
        ORDER BY id COLLATE "C", ts DESC, received_at DESC
        ON CONFLICT (meter_id) DO UPDATE SET
            previous_timestamp = live.last_timestamp,
            last_timestamp = excluded.last_timestamp,
            updated_at = excluded.updated_at,
            last_kwh_consumed_ac = excluded.last_kwh_consumed_ac,
            last_voltage = excluded.last_voltage,
            last_register_kwh = excluded.last_register_kwh
        WHERE (excluded.last_timestamp, excluded.updated_at)
            > (live.last_timestamp, live.updated_at)
          AND excluded.last_timestamp > live.voided_to
        RETURNING meter_id, greatest(previous_timestamp, voided_to) AS previous_timestamp, summed_to
    )
    SELECT array_agg(meter_id), array_agg(previous_timestamp), array_agg(summed_to)
    INTO ids, previous, summed
    FROM written;

-- A device that is new here may have been declared while this waited for it (0011), and may be one
    -- of which every reading was voided (0012), or that was erased (0013).
    IF '-infinity' = ANY (previous) THEN
        UPDATE meter_live_status SET reports_register = true
        FROM devices
        WHERE meter_id = ANY (ids) AND NOT reports_register
          AND device_id = meter_id AND NOT isempty(devices.registers);
        UPDATE meter_live_status live
        SET voided_to = void.last, last_timestamp = '-infinity', updated_at = '-infinity'
        FROM (SELECT meter_id, max(guard) AS last
              FROM (SELECT meter_id, "timestamp" AS guard FROM meter_void WHERE meter_id = ANY (ids)
                    UNION ALL SELECT * FROM erased_devices('meter', ids)) AS guard
              GROUP BY meter_id) AS void
        WHERE live.meter_id = void.meter_id AND live.voided_to = '-infinity';
        IF FOUND THEN
            previous := array_fill(timestamptz 'infinity', ARRAY[cardinality(ids)]);
        END IF;
    END IF;

-- 2. A reading newer than what the live row showed before cannot have been in history. Of any
    --    other, look up the receipt that counted so far.
    SELECT array_agg(id), array_agg(ts), min(ts), max(ts)
    INTO late_ids, late_timestamps, first_late, last_late
    FROM (
        SELECT DISTINCT item.id, item.ts
        FROM unnest(meter_ids, timestamps) AS item (id, ts)
        LEFT JOIN unnest(ids, previous) AS written (id, shown_before) USING (id)
        WHERE item.ts <= written.shown_before OR written.id IS NULL
    ) AS late;

IF late_ids IS NOT NULL THEN
        was_erased := EXISTS (SELECT FROM erased_devices('meter', late_ids));
        IF was_erased THEN
            SELECT * INTO meter_ids, timestamps, received_ats, kwhs, voltages, registers
            FROM drop_erased_meter_readings(
                meter_ids, timestamps, received_ats, kwhs, voltages, registers);
        END IF;
        has_voids := EXISTS (SELECT FROM meter_void WHERE meter_id = ANY (late_ids));
        IF has_voids THEN
            SELECT * INTO meter_ids, timestamps, received_ats, kwhs, voltages, registers
            FROM set_aside_voided_meter_readings(
                meter_ids, timestamps, received_ats, kwhs, voltages, registers);
        END IF;

-- first_late and last_late repeat the join's condition as plain values: partitions outside
        -- them are then pruned once, instead of being opened for each reading.
        SELECT array_agg(late.id), array_agg(late.ts), array_agg(counted.received_at),
               array_agg(counted.kwh_consumed_ac), array_agg(counted.voltage),
               array_agg(counted.register_kwh)
        INTO old_ids, old_timestamps, old_receipts, old_kwhs, old_voltages, old_registers
        FROM unnest(late_ids, late_timestamps) AS late (id, ts)
        CROSS JOIN LATERAL (
            SELECT h.received_at, h.kwh_consumed_ac, h.voltage, h.register_kwh
            FROM meter_telemetry_history h
            WHERE h.meter_id = late.id AND h."timestamp" = late.ts
              AND h."timestamp" >= first_late AND h."timestamp" <= last_late
            ORDER BY h.received_at DESC
            LIMIT 1
        ) AS counted;

-- Of a day that is archived the receipts are no longer here. A reading is new all the same where
        -- its device was not heard from in its minute, and where it is newer than what the live row shows,
        -- so that only voided_to made it late (of a device that was erased the archive may have newer ones).
        -- Any other waits until the maintenance has compared it with the archive. The look-up holds a
        -- lock on history until this transaction ends: no day is archived between the two.
        archived_to := (SELECT horizon.archived_to FROM archive_horizon horizon WHERE stream = 'meter');
        IF first_late < archived_to THEN
            WITH item AS (
                SELECT item.*,
                       late.id IS NOT NULL AND item.ts < archived_to AND old.id IS NULL
                       AND (item.ts <= live.last_timestamp OR was_erased)
                       AND hourly.minutes & minute_bit(item.ts, hourly.hour) != 0 IS TRUE AS unclear
                FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
                    AS item (id, ts, received_at, kwh, voltage, register)
                LEFT JOIN unnest(late_ids, late_timestamps) AS late (id, ts)
                    ON late.id = item.id AND late.ts = item.ts
                LEFT JOIN unnest(old_ids, old_timestamps) AS old (id, ts)
                    ON old.id = item.id AND old.ts = item.ts
                JOIN meter_live_status live ON live.meter_id = item.id
                LEFT JOIN meter_hourly_rollup hourly
                    ON hourly.meter_id = item.id AND hourly.hour = rollup_hour(item.ts)
            ), pending AS (
                INSERT INTO meter_pending
                    (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage, register_kwh)
                SELECT id, ts, received_at, kwh, voltage, register FROM item WHERE unclear
            )
            SELECT coalesce(array_agg(id), '{}'), array_agg(ts), array_agg(received_at),
                   array_agg(kwh), array_agg(voltage), array_agg(register)
            INTO meter_ids, timestamps, received_ats, kwhs, voltages, registers
            FROM item WHERE NOT unclear;
        END IF;
    END IF;

-- 3. Append. An event already there with the same values is the same receipt, delivered again.
    --    With other values it is another event accepted in the same microsecond: it takes the next
    --    free one. A redelivery walks the same steps, and so finds its own row.
    LOOP
        INSERT INTO meter_telemetry_history
            (meter_id, "timestamp", received_at, kwh_consumed_ac, voltage, register_kwh)
        SELECT id, ts, received_at, kwh, voltage, register
        FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
            AS item (id, ts, received_at, kwh, voltage, register)
        ORDER BY id COLLATE "C", ts, received_at
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS inserted = ROW_COUNT;
        EXIT WHEN inserted = cardinality(meter_ids);

SELECT array_agg(received_at + CASE WHEN other THEN interval '1 microsecond'
                                            ELSE interval '0' END ORDER BY position),
               bool_or(other)
        INTO received_ats, collided
        FROM (
            SELECT item.received_at, item.position,
                   (coalesce(stored.register_kwh, stored.kwh_consumed_ac), stored.voltage)
                   IS DISTINCT FROM
                   (coalesce(item.register, item.kwh)::numeric, item.voltage) AS other
            FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
                WITH ORDINALITY AS item (id, ts, received_at, kwh, voltage, register, position)
            CROSS JOIN LATERAL (
                SELECT * FROM meter_telemetry_history h
                WHERE h.meter_id = item.id AND h."timestamp" = item.ts
                  AND h.received_at = item.received_at
                LIMIT 1
            ) AS stored
        ) AS compared;
        EXIT WHEN NOT collided;

-- The live row may show one of them under the instant that it did not get.
        UPDATE meter_live_status live
        SET updated_at = newest.received_at,
            last_kwh_consumed_ac = newest.kwh,
            last_voltage = newest.voltage,
            last_register_kwh = newest.register
        FROM (
            SELECT DISTINCT ON (id COLLATE "C") *
            FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
                AS item (id, ts, received_at, kwh, voltage, register)
            ORDER BY id COLLATE "C", ts DESC, received_at DESC
        ) AS newest
        WHERE live.meter_id = newest.id
          AND live.last_timestamp = newest.ts AND live.updated_at < newest.received_at;
    END LOOP;
    IF has_voids OR was_erased THEN
        PERFORM show_meter_readings(late_ids, late_timestamps);
    END IF;

-- 4. Rollup: what each reading adds to its hour is its values less those that counted for it
    --    before. Sums are numeric, so this is exact.
    WITH counted AS (
        SELECT DISTINCT ON (item.id COLLATE "C", item.ts)
               item.id, rollup_hour(item.ts) AS hour, item.ts,
               CASE WHEN old.id IS NULL THEN 1 ELSE 0 END AS is_new,
               item.kwh::numeric - coalesce(old.kwh, 0) AS kwh
        FROM unnest(meter_ids, timestamps, received_ats, kwhs)
            AS item (id, ts, received_at, kwh)
        LEFT JOIN unnest(old_ids, old_timestamps, old_receipts, old_kwhs)
            AS old (id, ts, received_at, kwh) ON old.id = item.id AND old.ts = item.ts
        WHERE old.id IS NULL OR item.received_at > old.received_at
        ORDER BY item.id COLLATE "C", item.ts, item.received_at DESC
    ), written AS (
        INSERT INTO meter_hourly_rollup AS rollup
            (meter_id, hour, readings, minutes, kwh_consumed_ac)
        SELECT id, hour, sum(is_new), bit_or(minute_bit(ts, hour)), sum(kwh)
        FROM counted
        GROUP BY id, hour
        ORDER BY id COLLATE "C", hour
        ON CONFLICT (meter_id, hour) DO UPDATE SET
            readings = rollup.readings + excluded.readings,
            minutes = rollup.minutes | excluded.minutes,
            kwh_consumed_ac = rollup.kwh_consumed_ac + excluded.kwh_consumed_ac
    )
    SELECT count(*) INTO distinct_new FROM counted;

-- 5. Days that are summed already are summed anew: late_ids holds every reading that is not the
    --    newest of its device, and the newest may still be of such a day.
    IF late_ids IS NOT NULL
       OR (SELECT min(ts) FROM unnest(timestamps) AS ts)
          <= (SELECT max(summed_to) FROM unnest(summed) AS summed_to) THEN
        PERFORM change_meter_summaries(meter_ids, timestamps);
    END IF;

-- 6. Tell re-sent readings from new ones: by the receipt before each, of this call or the one
    --    that counted.
    duplicates := 0;
    corrections := 0;
    IF distinct_new < cardinality(meter_ids) OR old_ids IS NOT NULL THEN
        SELECT count(*) FILTER (WHERE was = came), count(*) FILTER (WHERE was != came)
        INTO duplicates, corrections
        FROM (
            SELECT ROW(coalesce(item.register, item.kwh)::numeric, item.voltage)::text AS came,
                   coalesce(
                       lag(ROW(coalesce(item.register, item.kwh)::numeric, item.voltage)::text) OVER (
                           PARTITION BY item.id COLLATE "C", item.ts ORDER BY item.received_at),
                       CASE WHEN old.id IS NOT NULL
                           THEN ROW(coalesce(old.register, old.kwh), old.voltage)::text
                       END
                   ) AS was
            FROM unnest(meter_ids, timestamps, received_ats, kwhs, voltages, registers)
                AS item (id, ts, received_at, kwh, voltage, register)
            LEFT JOIN unnest(old_ids, old_timestamps, old_kwhs, old_voltages, old_registers)
                AS old (id, ts, kwh, voltage, register) ON old.id = item.id AND old.ts = item.ts
        ) AS compared;
    END IF;

-- 7. What a late register is less than the one after it, that one has no longer grown by.
    IF late_ids IS NOT NULL AND EXISTS (SELECT FROM devices) THEN
        PERFORM settle_meter_registers(late_ids, late_timestamps);
    END IF;
END
$$;

CREATE FUNCTION public.store_vehicle_reading(id text, ts timestamp with time zone, received_at timestamp with time zone, kwh double precision, battery_temp double precision, charge double precision, meter text, in_hour timestamp with time zone, minute bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$
#variable_conflict use_variable
DECLARE
    is_plain constant boolean := meter IS NULL OR (
        SELECT asked_at FROM public.erasure WHERE asked_at >= received_at
        ORDER BY asked_at DESC LIMIT 1) IS NULL;
BEGIN
    UPDATE public.vehicle_live_status
    SET last_timestamp = ts, updated_at = received_at,
        last_kwh_delivered_dc = kwh, last_battery_temp = battery_temp,
        soc = coalesce(charge, soc),
        soc_timestamp = CASE WHEN charge IS NULL THEN soc_timestamp ELSE ts END,
        soc_received_at = CASE WHEN charge IS NULL THEN soc_received_at ELSE received_at END
    WHERE vehicle_id = id AND last_timestamp < ts AND summed_to < ts AND voided_to < ts
      AND NOT reports_register AND kwh <= 10000 AND is_plain;
    IF NOT FOUND THEN
        PERFORM public.store_vehicle_readings(ARRAY[id], ARRAY[ts], ARRAY[received_at], ARRAY[kwh],
                                       ARRAY[battery_temp], ARRAY[charge],
                                       CASE WHEN meter IS NOT NULL THEN ARRAY[meter] END);
        RETURN;
    END IF;

INSERT INTO public.vehicle_telemetry_history
        (vehicle_id, "timestamp", received_at, kwh_delivered_dc, battery_temp, soc, meter_id)
    VALUES (id, ts, received_at, kwh, battery_temp, charge, meter);

UPDATE public.vehicle_hourly_rollup
    SET readings = readings + 1,
        minutes = minutes | minute,
        kwh_delivered_dc = kwh_delivered_dc + kwh::numeric,
        battery_temp_sum = battery_temp_sum + battery_temp::numeric
    WHERE vehicle_id = id AND hour = in_hour;
    IF NOT FOUND THEN
        INSERT INTO public.vehicle_hourly_rollup
            (vehicle_id, hour, readings, minutes, kwh_delivered_dc, battery_temp_sum)
        VALUES (id, in_hour, 1, minute, kwh, battery_temp);
    END IF;

IF meter IS NOT NULL THEN
        PERFORM public.claim_meter(id, ts, meter);
    END IF;
END
$$;

CREATE FUNCTION public.store_vehicle_readings(vehicle_ids text[], timestamps timestamp with time zone[], received_ats timestamp with time zone[], kwhs double precision[], battery_temps double precision[], socs double precision[], meter_ids text[], OUT duplicates bigint, OUT corrections bigint) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    inserted        bigint;
    distinct_new    bigint;
    collided        boolean;
    ids             text[];
    previous        timestamptz[];
    summed          timestamptz[];
    late_ids        text[];
    late_timestamps timestamptz[];
    first_late      timestamptz;
    last_late       timestamptz;
    old_ids         text[];
    old_timestamps  timestamptz[];
    old_receipts    timestamptz[];
    old_kwhs        numeric[];
    old_temps       numeric[];
    old_socs        double precision[];
    old_meters      text[];
    claiming        text[];
    claimed_at      timestamptz[];
    given_up        text[];
    claimed         text[];
    old_registers   numeric[];
    registers       double precision[];
    archived_to     timestamptz;
    has_voids       boolean := false;
    was_erased      boolean := false;
BEGIN
    -- What waited while a meter was erased that it names comes without the name (0013).
    IF meter_ids IS NOT NULL AND EXISTS (
        SELECT FROM erasure
        WHERE asked_at >= (SELECT min(received_at) FROM unnest(received_ats) AS received_at)) THEN
        meter_ids := leave_out_erased_meters(vehicle_ids, timestamps, received_ats, meter_ids);
    END IF;

-- 0. Of a register that was reported counts what it has grown by.
    IF EXISTS (SELECT FROM devices) THEN
        SELECT * INTO kwhs, registers
        FROM convert_vehicle_registers(vehicle_ids, timestamps, received_ats, kwhs);
    END IF;
    PERFORM refuse_energies(kwhs, registers);

-- 1. Lock the devices and update their live rows.
    WITH newest AS (
        SELECT DISTINCT ON (id COLLATE "C") *
        FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, registers)
            AS item (id, ts, received_at, kwh, battery_temp, register)
        ORDER BY id COLLATE "C", ts DESC, received_at DESC
    ), charged AS (
        SELECT DISTINCT ON (id COLLATE "C") *
        FROM unnest(vehicle_ids, timestamps, received_ats, socs)
            AS item (id, ts, received_at, soc)
        WHERE soc IS NOT NULL
        ORDER BY id COLLATE "C", ts DESC, received_at DESC
    ), written AS (
        INSERT INTO vehicle_live_status AS live
            (vehicle_id, last_timestamp, updated_at, last_kwh_delivered_dc, last_battery_temp,
             last_register_kwh, soc, soc_timestamp, soc_received_at, summed_to)
        SELECT newest.id, newest.ts, newest.received_at, newest.kwh, newest.battery_temp,
               newest.register,
               charged.soc, coalesce(charged.ts, '-infinity'),
               coalesce(charged.received_at, '-infinity'),
               coalesce((SELECT max(window_end) FROM fleet_window), '-infinity')
        FROM newest LEFT JOIN charged USING (id)
        ORDER BY newest.id COLLATE "C"
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
        RETURNING vehicle_id, greatest(previous_timestamp, voided_to) AS previous_timestamp,
                  summed_to
    )
    SELECT array_agg(vehicle_id), array_agg(previous_timestamp), array_agg(summed_to)
    INTO ids, previous, summed
    FROM written;
    IF '-infinity' = ANY (previous) THEN
        UPDATE vehicle_live_status SET reports_register = true
        FROM devices
        WHERE vehicle_id = ANY (ids) AND NOT reports_register
          AND device_id = vehicle_id AND NOT isempty(devices.registers);
        UPDATE vehicle_live_status live
        SET voided_to = void.last, last_timestamp = '-infinity', updated_at = '-infinity',
            soc = NULL, soc_timestamp = '-infinity', soc_received_at = '-infinity'
        FROM (SELECT vehicle_id, max(guard) AS last
              FROM (SELECT vehicle_id, "timestamp" AS guard FROM vehicle_void WHERE vehicle_id = ANY (ids)
                    UNION ALL SELECT * FROM erased_devices('vehicle', ids)) AS guard
              GROUP BY vehicle_id) AS void
        WHERE live.vehicle_id = void.vehicle_id AND live.voided_to = '-infinity';
        IF FOUND THEN
            previous := array_fill(timestamptz 'infinity', ARRAY[cardinality(ids)]);
        END IF;
    END IF;

-- 2. Look up the receipts that counted so far.
    SELECT array_agg(id), array_agg(ts), min(ts), max(ts)
    INTO late_ids, late_timestamps, first_late, last_late
    FROM (
        SELECT DISTINCT item.id, item.ts
        FROM unnest(vehicle_ids, timestamps) AS item (id, ts)
        LEFT JOIN unnest(ids, previous) AS written (id, shown_before) USING (id)
        WHERE item.ts <= written.shown_before OR written.id IS NULL
    ) AS late;

IF late_ids IS NOT NULL THEN
        was_erased := EXISTS (SELECT FROM erased_devices('vehicle', late_ids));
        IF was_erased THEN
            SELECT * INTO vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids, registers
            FROM drop_erased_vehicle_readings(
                vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids, registers);
        END IF;
        has_voids := EXISTS (SELECT FROM vehicle_void WHERE vehicle_id = ANY (late_ids));
        IF has_voids THEN
            SELECT * INTO vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                          registers
            FROM set_aside_voided_vehicle_readings(
                vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                registers);
        END IF;

SELECT array_agg(late.id), array_agg(late.ts), array_agg(counted.received_at),
               array_agg(counted.kwh_delivered_dc), array_agg(counted.battery_temp),
               array_agg(counted.soc), array_agg(counted.meter_id),
               array_agg(counted.register_kwh)
        INTO old_ids, old_timestamps, old_receipts, old_kwhs, old_temps, old_socs, old_meters,
             old_registers
        FROM unnest(late_ids, late_timestamps) AS late (id, ts)
        CROSS JOIN LATERAL (
            SELECT h.received_at, h.kwh_delivered_dc, h.battery_temp, h.soc, h.meter_id,
                   h.register_kwh
            FROM vehicle_telemetry_history h
            WHERE h.vehicle_id = late.id AND h."timestamp" = late.ts
              AND h."timestamp" >= first_late AND h."timestamp" <= last_late
            ORDER BY h.received_at DESC
            LIMIT 1
        ) AS counted;

archived_to := (SELECT horizon.archived_to FROM archive_horizon horizon WHERE stream = 'vehicle');
        IF first_late < archived_to THEN
            WITH item AS (
                SELECT item.*,
                       late.id IS NOT NULL AND item.ts < archived_to AND old.id IS NULL
                       AND (item.ts <= live.last_timestamp OR was_erased)
                       AND hourly.minutes & minute_bit(item.ts, hourly.hour) != 0 IS TRUE AS unclear
                FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs,
                            meter_ids, registers)
                    AS item (id, ts, received_at, kwh, battery_temp, soc, meter, register)
                LEFT JOIN unnest(late_ids, late_timestamps) AS late (id, ts)
                    ON late.id = item.id AND late.ts = item.ts
                LEFT JOIN unnest(old_ids, old_timestamps) AS old (id, ts)
                    ON old.id = item.id AND old.ts = item.ts
                JOIN vehicle_live_status live ON live.vehicle_id = item.id
                LEFT JOIN vehicle_hourly_rollup hourly
                    ON hourly.vehicle_id = item.id AND hourly.hour = rollup_hour(item.ts)
            ), pending AS (
                INSERT INTO vehicle_pending (vehicle_id, "timestamp", received_at, kwh_delivered_dc,
                                             battery_temp, soc, meter_id, register_kwh)
                SELECT id, ts, received_at, kwh, battery_temp, soc, meter, register
                FROM item WHERE unclear
            )
            SELECT coalesce(array_agg(id), '{}'), array_agg(ts), array_agg(received_at),
                   array_agg(kwh), array_agg(battery_temp), array_agg(soc), array_agg(meter),
                   array_agg(register)
            INTO vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                 registers
            FROM item WHERE NOT unclear;
        END IF;
    END IF;

-- 3. Append.
    LOOP
        INSERT INTO vehicle_telemetry_history
            (vehicle_id, "timestamp", received_at, kwh_delivered_dc, battery_temp, soc, meter_id,
             register_kwh)
        SELECT id, ts, received_at, kwh, battery_temp, soc, meter, register
        FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                    registers)
            AS item (id, ts, received_at, kwh, battery_temp, soc, meter, register)
        ORDER BY id COLLATE "C", ts, received_at
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS inserted = ROW_COUNT;
        EXIT WHEN inserted = cardinality(vehicle_ids);

SELECT array_agg(received_at + CASE WHEN other THEN interval '1 microsecond'
                                            ELSE interval '0' END ORDER BY position),
               bool_or(other)
        INTO received_ats, collided
        FROM (
            SELECT item.received_at, item.position,
                   (coalesce(stored.register_kwh, stored.kwh_delivered_dc), stored.battery_temp,
                    stored.soc, stored.meter_id)
                   IS DISTINCT FROM
                   (coalesce(item.register, item.kwh)::numeric, item.battery_temp::numeric,
                    item.soc, item.meter) AS other
            FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs, meter_ids,
                        registers) WITH ORDINALITY
                AS item (id, ts, received_at, kwh, battery_temp, soc, meter, register, position)
            CROSS JOIN LATERAL (
                SELECT * FROM vehicle_telemetry_history h
                WHERE h.vehicle_id = item.id AND h."timestamp" = item.ts
                  AND h.received_at = item.received_at
                LIMIT 1
            ) AS stored
        ) AS compared;
        EXIT WHEN NOT collided;

UPDATE vehicle_live_status live
        SET updated_at = newest.received_at,
            last_kwh_delivered_dc = newest.kwh,
            last_battery_temp = newest.battery_temp,
            last_register_kwh = newest.register
        FROM (
            SELECT DISTINCT ON (id COLLATE "C") *
            FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, registers)
                AS item (id, ts, received_at, kwh, battery_temp, register)
            ORDER BY id COLLATE "C", ts DESC, received_at DESC
        ) AS newest
        WHERE live.vehicle_id = newest.id
          AND live.last_timestamp = newest.ts AND live.updated_at < newest.received_at;

UPDATE vehicle_live_status live
        SET soc = charged.soc, soc_received_at = charged.received_at
        FROM (
            SELECT DISTINCT ON (id COLLATE "C") *
            FROM unnest(vehicle_ids, timestamps, received_ats, socs)
                AS item (id, ts, received_at, soc)
            WHERE soc IS NOT NULL
            ORDER BY id COLLATE "C", ts DESC, received_at DESC
        ) AS charged
        WHERE live.vehicle_id = charged.id
          AND live.soc_timestamp = charged.ts AND live.soc_received_at < charged.received_at;
    END LOOP;
    IF has_voids OR was_erased THEN
        PERFORM show_vehicle_readings(late_ids, late_timestamps);
    END IF;

-- 4. Rollup.
    WITH counted AS (
        SELECT DISTINCT ON (item.id COLLATE "C", item.ts)
               item.id, rollup_hour(item.ts) AS hour, item.ts,
               CASE WHEN old.id IS NULL THEN 1 ELSE 0 END AS is_new,
               item.kwh::numeric - coalesce(old.kwh, 0) AS kwh,
               item.battery_temp::numeric - coalesce(old.battery_temp, 0) AS battery_temp
        FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps)
            AS item (id, ts, received_at, kwh, battery_temp)
        LEFT JOIN unnest(old_ids, old_timestamps, old_receipts, old_kwhs, old_temps)
            AS old (id, ts, received_at, kwh, battery_temp) ON old.id = item.id AND old.ts = item.ts
        WHERE old.id IS NULL OR item.received_at > old.received_at
        ORDER BY item.id COLLATE "C", item.ts, item.received_at DESC
    ), written AS (
        INSERT INTO vehicle_hourly_rollup AS rollup
            (vehicle_id, hour, readings, minutes, kwh_delivered_dc, battery_temp_sum)
        SELECT id, hour, sum(is_new), bit_or(minute_bit(ts, hour)), sum(kwh), sum(battery_temp)
        FROM counted
        GROUP BY id, hour
        ORDER BY id COLLATE "C", hour
        ON CONFLICT (vehicle_id, hour) DO UPDATE SET
            readings = rollup.readings + excluded.readings,
            minutes = rollup.minutes | excluded.minutes,
            kwh_delivered_dc = rollup.kwh_delivered_dc + excluded.kwh_delivered_dc,
            battery_temp_sum = rollup.battery_temp_sum + excluded.battery_temp_sum
    )
    SELECT count(*) INTO distinct_new FROM counted;

-- 5. The meters that readings name now and did not before, or no longer.
    IF meter_ids IS NOT NULL OR array_remove(old_meters, NULL) != '{}' THEN
        SELECT array_agg(id), array_agg(ts), array_agg(old_meter), array_agg(meter)
        INTO claiming, claimed_at, given_up, claimed
        FROM (
            SELECT DISTINCT ON (item.id COLLATE "C", item.ts)
                   item.id, item.ts, old.meter AS old_meter, item.meter
            FROM unnest(vehicle_ids, timestamps, received_ats, meter_ids)
                AS item (id, ts, received_at, meter)
            LEFT JOIN unnest(old_ids, old_timestamps, old_receipts, old_meters)
                AS old (id, ts, received_at, meter) ON old.id = item.id AND old.ts = item.ts
            WHERE old.id IS NULL OR item.received_at > old.received_at
            ORDER BY item.id COLLATE "C", item.ts, item.received_at DESC
        ) AS counted
        WHERE meter IS DISTINCT FROM old_meter;
        IF claiming IS NOT NULL THEN
            PERFORM claim_meters(claiming, claimed_at, given_up, claimed);
        END IF;
    END IF;

-- 6. Sum days anew.
    IF late_ids IS NOT NULL
       OR (SELECT min(ts) FROM unnest(timestamps) AS ts)
          <= (SELECT max(summed_to) FROM unnest(summed) AS summed_to) THEN
        PERFORM change_vehicle_summaries(vehicle_ids, timestamps);
    END IF;

-- 7. Tell re-sent readings from new ones.
    duplicates := 0;
    corrections := 0;
    IF distinct_new < cardinality(vehicle_ids) OR old_ids IS NOT NULL THEN
        SELECT count(*) FILTER (WHERE was = came), count(*) FILTER (WHERE was != came)
        INTO duplicates, corrections
        FROM (
            SELECT came,
                   coalesce(lag(came) OVER (PARTITION BY id COLLATE "C", ts ORDER BY received_at),
                            before) AS was
            FROM (
                SELECT item.id, item.ts, item.received_at,
                       ROW(coalesce(item.register, item.kwh)::numeric, item.battery_temp::numeric,
                           item.soc, item.meter)::text AS came,
                       CASE WHEN old.id IS NOT NULL
                           THEN ROW(coalesce(old.register, old.kwh), old.battery_temp, old.soc,
                                    old.meter)::text
                       END AS before
                FROM unnest(vehicle_ids, timestamps, received_ats, kwhs, battery_temps, socs,
                            meter_ids, registers)
                    AS item (id, ts, received_at, kwh, battery_temp, soc, meter, register)
                LEFT JOIN unnest(old_ids, old_timestamps, old_kwhs, old_temps, old_socs, old_meters,
                                 old_registers)
                    AS old (id, ts, kwh, battery_temp, soc, meter, register)
                    ON old.id = item.id AND old.ts = item.ts
            ) AS item
        ) AS compared;
    END IF;

-- 8. Registers after a late one.
    IF late_ids IS NOT NULL AND EXISTS (SELECT FROM devices) THEN
        PERFORM settle_vehicle_registers(late_ids, late_timestamps);
    END IF;
END
$$;

CREATE FUNCTION public.sum_meter_days(meter_ids text[], days timestamp with time zone[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    INSERT INTO meter_daily_rollup (meter_id, day, readings, minutes_heard, kwh_consumed_ac)
    SELECT hourly.meter_id, item.day, sum(hourly.readings),
           sum(bit_count(hourly.minutes::bit(64))), sum(hourly.kwh_consumed_ac)
    FROM (SELECT DISTINCT id, day FROM unnest(meter_ids, days) AS day (id, day)) AS item
    JOIN meter_hourly_rollup hourly ON hourly.meter_id = item.id
        AND hourly.hour >= item.day AND hourly.hour < item.day + interval '24 hours'
    GROUP BY hourly.meter_id, item.day
    ORDER BY hourly.meter_id, item.day
    ON CONFLICT (meter_id, day) DO UPDATE SET
        readings = excluded.readings, minutes_heard = excluded.minutes_heard,
        kwh_consumed_ac = excluded.kwh_consumed_ac;
END
$$;

CREATE FUNCTION public.sum_meters(meter_ids text[], until timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    PERFORM FROM meter_live_status WHERE meter_id = ANY (meter_ids) ORDER BY meter_id FOR UPDATE;

PERFORM sum_meter_days(array_agg(meter_id), array_agg(day))
    FROM (
        SELECT DISTINCT live.meter_id, day_of(hour) AS day
        FROM meter_live_status live
        JOIN meter_hourly_rollup hourly ON hourly.meter_id = live.meter_id
            AND hour >= day_of(live.summed_to) AND hour < day_of(until)
        WHERE live.meter_id = ANY (meter_ids) AND live.summed_to < until
    ) AS unsummed;

UPDATE meter_live_status SET summed_to = until
    WHERE meter_id = ANY (meter_ids) AND summed_to < until;
END
$$;

CREATE FUNCTION public.sum_vehicle_days(vehicle_ids text[], days timestamp with time zone[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    INSERT INTO vehicle_daily_rollup (vehicle_id, day, readings, minutes_heard, kwh_delivered_dc, battery_temp_sum)
    SELECT hourly.vehicle_id, item.day, sum(hourly.readings),
           sum(bit_count(hourly.minutes::bit(64))), sum(hourly.kwh_delivered_dc), sum(hourly.battery_temp_sum)
    FROM (SELECT DISTINCT id, day FROM unnest(vehicle_ids, days) AS day (id, day)) AS item
    JOIN vehicle_hourly_rollup hourly ON hourly.vehicle_id = item.id
        AND hourly.hour >= item.day AND hourly.hour < item.day + interval '24 hours'
    GROUP BY hourly.vehicle_id, item.day
    ORDER BY hourly.vehicle_id, item.day
    ON CONFLICT (vehicle_id, day) DO UPDATE SET
        readings = excluded.readings, minutes_heard = excluded.minutes_heard,
        kwh_delivered_dc = excluded.kwh_delivered_dc, battery_temp_sum = excluded.battery_temp_sum;
END
$$;

CREATE FUNCTION public.sum_vehicles(vehicle_ids text[], until timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    PERFORM FROM vehicle_live_status WHERE vehicle_id = ANY (vehicle_ids) ORDER BY vehicle_id FOR UPDATE;

PERFORM sum_vehicle_days(array_agg(vehicle_id), array_agg(day))
    FROM (
        SELECT DISTINCT live.vehicle_id, day_of(hour) AS day
        FROM vehicle_live_status live
        JOIN vehicle_hourly_rollup hourly ON hourly.vehicle_id = live.vehicle_id
            AND hour >= day_of(live.summed_to) AND hour < day_of(until)
        WHERE live.vehicle_id = ANY (vehicle_ids) AND live.summed_to < until
    ) AS unsummed;

UPDATE vehicle_live_status SET summed_to = until
    WHERE vehicle_id = ANY (vehicle_ids) AND summed_to < until;
END
$$;

CREATE FUNCTION public.summarize_vehicles(vehicle_ids text[], window_end timestamp with time zone, by_name boolean, least_kwh double precision, least_coverage double precision) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_variable
DECLARE
    starts timestamptz[] := array_fill(window_end - interval '24 hours', ARRAY[cardinality(vehicle_ids)]);
    ends   timestamptz[] := array_fill(window_end, ARRAY[cardinality(vehicle_ids)]);
BEGIN
    PERFORM FROM fleet_window fleet
    WHERE fleet.window_end = window_end
      AND (fleet.by_name, fleet.least_kwh, fleet.least_coverage)
          = (by_name, least_kwh::numeric, least_coverage::numeric)
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM sum_vehicles(vehicle_ids, window_end);
    LOCK TABLE links IN SHARE MODE;
    PERFORM sum_meters(array_agg(DISTINCT meter_id), window_end)
    FROM vehicle_performance(vehicle_ids, starts, ends, NULL, by_name) AS done,
         unnest(done.meter_ids) AS meter_id;

PERFORM count_summaries(vehicle_ids, window_end, -1);
    WITH done AS MATERIALIZED (
        SELECT * FROM vehicle_performance(vehicle_ids, starts, ends, NULL, by_name)
    )
    INSERT INTO vehicle_summary
    SELECT window_end, done.readings, done.minutes_heard, done.meter_minutes, done.linked_minutes,
           false, done.vehicle_id,
           charging_status(done.kwh_consumed_ac, done.kwh_delivered_dc, done.minutes_heard, 1440,
                           done.meter_minutes, done.linked_minutes, least_kwh::numeric,
                           least_coverage::numeric),
           coalesce(done.kwh_delivered_dc - done.kwh_consumed_ac, 'Infinity'),
           coalesce(-loss_cost, 'Infinity'), done.kwh_delivered_dc, done.battery_temp_sum,
           done.kwh_consumed_ac, loss_cost, loss_co2_kg, done.meter_ids
    FROM done
    LEFT JOIN loss_costs((
        SELECT array_agg(ROW(position, vehicle_id, window_start, done.window_end, meter_ids, valid_froms,
                             valid_tos)::charged_window)
        FROM done WHERE kwh_consumed_ac + kwh_delivered_dc IS NOT NULL)) AS cost USING (position)
    ON CONFLICT ON CONSTRAINT vehicle_summary_pkey DO UPDATE SET
        readings = excluded.readings, minutes_heard = excluded.minutes_heard,
        meter_minutes = excluded.meter_minutes, linked_minutes = excluded.linked_minutes,
        stale = false, status = excluded.status, rank = excluded.rank, cost_rank = excluded.cost_rank,
        kwh_delivered_dc = excluded.kwh_delivered_dc, battery_temp_sum = excluded.battery_temp_sum,
        kwh_consumed_ac = excluded.kwh_consumed_ac, loss_cost = excluded.loss_cost,
        loss_co2_kg = excluded.loss_co2_kg, meter_ids = excluded.meter_ids;
    PERFORM count_summaries(vehicle_ids, window_end, 1);
    RETURN true;
END
$$;

CREATE FUNCTION public.take_fault_changes(most integer) RETURNS TABLE(fault_id uuid, change text, changed_at timestamp with time zone, vehicle_id text, meter_id text, details jsonb)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
    SELECT change.fault_id, change.change, change.changed_at, fault.vehicle_id, fault.meter_id,
           change.details
    FROM fault_change change
    JOIN fault ON fault.fault_id = change.fault_id
    WHERE change.published_at IS NULL
    ORDER BY change.changed_at, change.fault_id, change.change
    LIMIT most
    FOR UPDATE OF change SKIP LOCKED
$$;

CREATE FUNCTION public.tariff_at(tariff_id text, instant timestamp with time zone) RETURNS TABLE(price_per_kwh numeric, kg_co2_per_kwh numeric)
    LANGUAGE sql STABLE
    AS $$
    SELECT week_prices[width_bucket(local_time - date_trunc('week', local_time), week_starts)],
           kg_co2_per_kwh
    FROM (
        SELECT * FROM tariff
        WHERE meter_id = tariff_id AND valid_from <= instant
        ORDER BY valid_from DESC
        LIMIT 1
    ) AS newest
    CROSS JOIN LATERAL (
        SELECT instant AT TIME ZONE 'UTC' + utc_offset
        FROM zone_offset
        WHERE zone_offset.time_zone = newest.time_zone AND starts <= instant
        ORDER BY starts DESC
        LIMIT 1
    ) AS clock (local_time)
    WHERE valid_to > instant IS NOT FALSE
$$;

CREATE FUNCTION public.unlink_vehicle(id text, until timestamp with time zone) RETURNS TABLE(meter_id text, valid_from timestamp with time zone, valid_to timestamp with time zone, source text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    ended record;
BEGIN
    PERFORM lock_links(ARRAY[id]);
    SELECT * INTO ended FROM links_of(id, until - interval '1 microsecond', until);
    IF FOUND THEN
        IF ended.valid_to IS DISTINCT FROM until THEN
            PERFORM claim_by_api(id, until, NULL);
        END IF;
        RETURN QUERY SELECT ended.meter_id, ended.valid_from, until, ended.source;
    END IF;
END
$$;

CREATE FUNCTION public.vehicle_performance(vehicle_ids text[], starts timestamp with time zone[], ends timestamp with time zone[], length interval, by_name boolean, with_hours boolean DEFAULT false) RETURNS TABLE("position" bigint, vehicle_id text, window_start timestamp with time zone, window_end timestamp with time zone, readings bigint, minutes_heard bigint, kwh_delivered_dc numeric, battery_temp_sum numeric, kwh_consumed_ac numeric, meter_minutes bigint, linked_minutes bigint, meter_ids text[], valid_froms timestamp with time zone[], valid_tos timestamp with time zone[], sources text[], kwhs numeric[], vehicle_hours json, meter_hours json)
    LANGUAGE plpgsql STABLE
    AS $$
#variable_conflict use_column
DECLARE
    archived_to     constant timestamptz := (SELECT max(archived_to) FROM archive_horizon);
    windows         charging_window[];
    head_after    timestamptz;
    head_until    timestamptz;
    tail_after    timestamptz;
    tail_until    timestamptz;
    parts           charging_window[];  -- of the meters
    part_head_after   timestamptz;
    part_head_until   timestamptz;
    part_tail_after   timestamptz;
    part_tail_until   timestamptz;
BEGIN
    SELECT array_agg(ROW(w.position, w.id, opened, closed, until, first_hour, first_day, last_day,
                         last_hour, NULL, NULL, NULL)::charging_window),
           min(opened), max(least(first_hour, until)),
           min(last_hour) FILTER (WHERE last_hour < until),
           max(until) FILTER (WHERE last_hour < until)
    INTO windows, head_after, head_until, tail_after, tail_until
    FROM unnest(vehicle_ids, starts, ends) WITH ORDINALITY
        AS w (id, window_start, window_end, position)
    -- LIMIT: whatever the plan was made for, one look-up each.
    CROSS JOIN LATERAL (
        SELECT last_timestamp, summed_to FROM vehicle_live_status
        WHERE vehicle_id = w.id LIMIT 1
    ) AS live
    CROSS JOIN LATERAL (
        SELECT countable_from(coalesce(w.window_start, coalesce(w.window_end, last_timestamp) - length),
                              archived_to),
               countable_from(coalesce(w.window_end, last_timestamp), archived_to)
    ) AS bounds (opened, closed)
    CROSS JOIN LATERAL cut_window(opened, closed, last_timestamp, summed_to);

SELECT array_agg(ROW(period.position, period.meter_id, opened, closed, until, first_hour,
                         first_day, last_day, last_hour, valid_from, valid_to, source
                        )::charging_window),
           min(opened), max(least(first_hour, until)),
           min(last_hour) FILTER (WHERE last_hour < until),
           max(until) FILTER (WHERE last_hour < until)
    INTO parts, part_head_after, part_head_until, part_tail_after, part_tail_until
    FROM (
        SELECT w.position, w.window_start, w.window_end,
               link.meter_id, link.valid_from, link.valid_to, link.source
        FROM unnest(windows) AS w
        CROSS JOIN LATERAL links_of(w.id, w.window_start, w.window_end) AS link
        UNION ALL
        SELECT w.position, w.window_start, w.window_end, named.meter_id, NULL, NULL, 'name'
        FROM unnest(windows) AS w
        CROSS JOIN LATERAL (
            SELECT min(meter.meter_id) AS meter_id
            FROM unnest(ARRAY['METER', 'MTR']) AS prefix
            CROSS JOIN LATERAL (
                SELECT meter_id FROM meter_live_status
                WHERE meter_id = prefix || substr(w.id, 4) LIMIT 1
            ) AS meter
            HAVING count(*) = 1
        ) AS named
        WHERE by_name AND w.id ~ '^VEH[._:-].'
          AND NOT EXISTS (SELECT FROM links WHERE links.vehicle_id = w.id)
          AND NOT EXISTS (SELECT FROM links WHERE links.meter_id = named.meter_id)
        ORDER BY position, valid_from
    ) AS period
    CROSS JOIN LATERAL (
        SELECT countable_from(greatest(valid_from, window_start), archived_to),
               countable_from(least(valid_to, window_end), archived_to)
    ) AS bounds (opened, closed)
    LEFT JOIN LATERAL (
        SELECT last_timestamp, summed_to FROM meter_live_status
        WHERE meter_id = period.meter_id LIMIT 1
    ) AS live ON true
    CROSS JOIN LATERAL cut_window(opened, closed, last_timestamp, summed_to);

RETURN QUERY
    SELECT w.position, w.id, w.window_start, w.window_end,
           coalesce(dc.readings, 0), coalesce(dc.minutes_heard, 0),
           dc.kwh_delivered_dc, dc.battery_temp_sum,
           ac.kwh_consumed_ac, coalesce(ac.minutes_heard, 0), coalesce(ac.linked_minutes, 0),
           ac.meter_ids, ac.valid_froms, ac.valid_tos, ac.sources, ac.kwhs,
           CASE WHEN with_hours THEN (
               SELECT json_agg(json_build_array(extract(epoch FROM hour)::bigint, minutes))
               FROM vehicle_hourly_rollup
               WHERE vehicle_id = w.id
                 AND hour > w.window_start - interval '1 hour' AND hour < w.window_end
           ) END,
           ac.hours
    FROM unnest(windows) AS w
    CROSS JOIN LATERAL (
        SELECT sum(part.readings)::bigint, sum(part.minutes_heard)::bigint,
               sum(part.kwh_delivered_dc), sum(part.battery_temp_sum)
        FROM (
            SELECT readings, bit_count(minutes::bit(64)) AS minutes_heard, kwh_delivered_dc, battery_temp_sum
            FROM vehicle_hourly_rollup
            WHERE vehicle_id = w.id AND hour >= w.first_hour AND hour < w.first_day
        UNION ALL
            SELECT readings, minutes_heard, kwh_delivered_dc, battery_temp_sum
            FROM vehicle_daily_rollup
            WHERE vehicle_id = w.id AND day >= w.first_day AND day < w.last_day
        UNION ALL
            SELECT readings, bit_count(minutes::bit(64)), kwh_delivered_dc, battery_temp_sum
            FROM vehicle_hourly_rollup
            WHERE vehicle_id = w.id AND hour >= w.last_day AND hour < w.last_hour
        UNION ALL
            SELECT count(*), count(DISTINCT ceil_minute), sum(kwh_delivered_dc), sum(battery_temp)
            FROM (
                SELECT DISTINCT ON (h."timestamp") h.kwh_delivered_dc, h.battery_temp,
                       date_bin('1 minute', h."timestamp" - interval '1 microsecond',
                                timestamptz '2000-01-01 00:00:00+00') AS ceil_minute
                FROM vehicle_telemetry_history h
                WHERE h.vehicle_id = w.id AND h."timestamp" > w.window_start AND h."timestamp" <= least(w.first_hour, w.until)
                  AND h."timestamp" > head_after AND h."timestamp" <= head_until
                ORDER BY h."timestamp" DESC, h.received_at DESC
            ) AS counted
        UNION ALL
            SELECT count(*), count(DISTINCT ceil_minute), sum(kwh_delivered_dc), sum(battery_temp)
            FROM (
                SELECT DISTINCT ON (h."timestamp") h.kwh_delivered_dc, h.battery_temp,
                       date_bin('1 minute', h."timestamp" - interval '1 microsecond',
                                timestamptz '2000-01-01 00:00:00+00') AS ceil_minute
                FROM vehicle_telemetry_history h
                WHERE h.vehicle_id = w.id AND h."timestamp" > w.last_hour AND h."timestamp" <= w.until
                  AND h."timestamp" > tail_after AND h."timestamp" <= tail_until
                ORDER BY h."timestamp" DESC, h.received_at DESC
            ) AS counted
        ) AS part
    ) AS dc (readings, minutes_heard, kwh_delivered_dc, battery_temp_sum)
    LEFT JOIN (
        SELECT w.position,
               sum(energy.kwh) AS kwh_consumed_ac,
               sum(energy.minutes_heard)::bigint AS minutes_heard,
               floor(sum(extract(epoch FROM w.window_end - w.window_start)) / 60)::bigint
                   AS linked_minutes,
               array_agg(w.id) AS meter_ids,
               array_agg(nullif(w.valid_from, '-infinity')) AS valid_froms,
               array_agg(nullif(w.valid_to, 'infinity')) AS valid_tos,
               array_agg(w.source) AS sources, array_agg(energy.kwh) AS kwhs,
               json_agg(energy.hours) AS hours
        FROM unnest(parts) AS w
        CROSS JOIN LATERAL (
            SELECT sum(part.minutes_heard)::bigint, sum(part.kwh_consumed_ac),
                   CASE WHEN with_hours THEN (
                       SELECT json_agg(json_build_array(extract(epoch FROM hour)::bigint, minutes))
                       FROM meter_hourly_rollup
                       WHERE meter_id = w.id
                         AND hour > w.window_start - interval '1 hour' AND hour < w.window_end
                   ) END
            FROM (
                SELECT readings, bit_count(minutes::bit(64)) AS minutes_heard, kwh_consumed_ac
                FROM meter_hourly_rollup
                WHERE meter_id = w.id AND hour >= w.first_hour AND hour < w.first_day
            UNION ALL
                SELECT readings, minutes_heard, kwh_consumed_ac
                FROM meter_daily_rollup
                WHERE meter_id = w.id AND day >= w.first_day AND day < w.last_day
            UNION ALL
                SELECT readings, bit_count(minutes::bit(64)), kwh_consumed_ac
                FROM meter_hourly_rollup
                WHERE meter_id = w.id AND hour >= w.last_day AND hour < w.last_hour
            UNION ALL
                SELECT count(*), count(DISTINCT ceil_minute), sum(kwh_consumed_ac)
                FROM (
                    SELECT DISTINCT ON (h."timestamp") h.kwh_consumed_ac,
                           date_bin('1 minute', h."timestamp" - interval '1 microsecond',
                                    timestamptz '2000-01-01 00:00:00+00') AS ceil_minute
                    FROM meter_telemetry_history h
                    WHERE h.meter_id = w.id AND h."timestamp" > w.window_start AND h."timestamp" <= least(w.first_hour, w.until)
                      AND h."timestamp" > part_head_after AND h."timestamp" <= part_head_until
                    ORDER BY h."timestamp" DESC, h.received_at DESC
                ) AS counted
            UNION ALL
                SELECT count(*), count(DISTINCT ceil_minute), sum(kwh_consumed_ac)
                FROM (
                    SELECT DISTINCT ON (h."timestamp") h.kwh_consumed_ac,
                           date_bin('1 minute', h."timestamp" - interval '1 microsecond',
                                    timestamptz '2000-01-01 00:00:00+00') AS ceil_minute
                    FROM meter_telemetry_history h
                    WHERE h.meter_id = w.id AND h."timestamp" > w.last_hour AND h."timestamp" <= w.until
                      AND h."timestamp" > part_tail_after AND h."timestamp" <= part_tail_until
                    ORDER BY h."timestamp" DESC, h.received_at DESC
                ) AS counted
            ) AS part
        ) AS energy (minutes_heard, kwh, hours)
        GROUP BY w.position
    ) AS ac ON ac.position = w.position;
END
$$;

CREATE FUNCTION public.void_meter_reading(id text, ts timestamp with time zone, by_whom text, why text, token text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    in_hour  constant timestamptz := rollup_hour(ts);
    shown_at timestamptz;
    counted  meter_telemetry_history;
    horizon  timestamptz;
    waits    boolean;
BEGIN
    PERFORM FROM devices WHERE device_id = id FOR UPDATE; -- as writers do, before the live row
    shown_at := (SELECT last_timestamp FROM meter_live_status WHERE meter_id = id FOR UPDATE);
    IF EXISTS (SELECT FROM meter_void
               WHERE meter_id = id AND "timestamp" = ts AND withdrawn_at IS NULL) THEN
        RETURN 'standing';
    END IF;

-- Look first: this holds history as it is until commit, so that no day is archived meanwhile.
    SELECT * INTO counted FROM meter_telemetry_history
    WHERE meter_id = id AND "timestamp" = ts ORDER BY received_at DESC LIMIT 1;
    horizon := (SELECT archived_to FROM archive_horizon WHERE stream = 'meter');
    waits := horizon > date_bin('1 minute', ts - interval '1 microsecond', in_hour);
    IF counted.meter_id IS NULL THEN
        waits := waits AND EXISTS (
            SELECT FROM meter_hourly_rollup
            WHERE meter_id = id AND hour = in_hour AND minutes & minute_bit(ts, in_hour) != 0);
        IF NOT waits THEN
            RETURN NULL;
        END IF;
    END IF;
    waits := waits OR shown_at = ts AND horizon > '-infinity'
        AND NOT EXISTS (
            SELECT FROM meter_telemetry_history
            WHERE meter_id = id AND "timestamp" < ts AND "timestamp" >= horizon)
        AND EXISTS (
            SELECT FROM meter_hourly_rollup
            WHERE meter_id = id AND (hour != in_hour OR readings > 1));
    INSERT INTO meter_void ("timestamp", voided_at, meter_id, voided_by, voided_why, voided_token, pending)
    VALUES (ts, clock_timestamp(), id, by_whom, why, token, waits);
    IF waits THEN
        RETURN 'pending';
    END IF;

WITH moved AS (
        DELETE FROM meter_telemetry_history WHERE meter_id = id AND "timestamp" = ts RETURNING *
    )
    INSERT INTO meter_void_receipt SELECT * FROM moved;
    PERFORM leave_out_meter_reading(id, ts, counted, '[]');
    RETURN 'voided';
END
$$;

CREATE FUNCTION public.void_vehicle_reading(id text, ts timestamp with time zone, by_whom text, why text, token text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    in_hour  constant timestamptz := rollup_hour(ts);
    shown_at timestamptz;
    counted  vehicle_telemetry_history;
    horizon  timestamptz;
    waits    boolean;
BEGIN
    PERFORM FROM devices WHERE device_id = id FOR UPDATE; -- as writers do, before the live row
    shown_at := (SELECT last_timestamp FROM vehicle_live_status WHERE vehicle_id = id FOR UPDATE);
    IF EXISTS (SELECT FROM vehicle_void
               WHERE vehicle_id = id AND "timestamp" = ts AND withdrawn_at IS NULL) THEN
        RETURN 'standing';
    END IF;

-- Look first: this holds history as it is until commit, so that no day is archived meanwhile.
    SELECT * INTO counted FROM vehicle_telemetry_history
    WHERE vehicle_id = id AND "timestamp" = ts ORDER BY received_at DESC LIMIT 1;
    horizon := (SELECT archived_to FROM archive_horizon WHERE stream = 'vehicle');
    waits := horizon > date_bin('1 minute', ts - interval '1 microsecond', in_hour);
    IF counted.vehicle_id IS NULL THEN
        waits := waits AND EXISTS (
            SELECT FROM vehicle_hourly_rollup
            WHERE vehicle_id = id AND hour = in_hour AND minutes & minute_bit(ts, in_hour) != 0);
        IF NOT waits THEN
            RETURN NULL;
        END IF;
    END IF;
    waits := waits OR shown_at = ts AND horizon > '-infinity'
        AND NOT EXISTS (
            SELECT FROM vehicle_telemetry_history
            WHERE vehicle_id = id AND "timestamp" < ts AND "timestamp" >= horizon)
        AND EXISTS (
            SELECT FROM vehicle_hourly_rollup
            WHERE vehicle_id = id AND (hour != in_hour OR readings > 1));
    INSERT INTO vehicle_void ("timestamp", voided_at, vehicle_id, voided_by, voided_why, voided_token, pending)
    VALUES (ts, clock_timestamp(), id, by_whom, why, token, waits);
    IF waits THEN
        RETURN 'pending';
    END IF;

WITH moved AS (
        DELETE FROM vehicle_telemetry_history WHERE vehicle_id = id AND "timestamp" = ts RETURNING *
    )
    INSERT INTO vehicle_void_receipt SELECT * FROM moved;
    PERFORM leave_out_vehicle_reading(id, ts, counted, '[]');
    RETURN 'voided';
END
$$;

CREATE FUNCTION public.withdraw_meter_void(id text, ts timestamp with time zone, by_whom text, why text, token text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    back record;
BEGIN
    -- As writers do: the declaration, the live row, then the void.
    PERFORM FROM devices WHERE device_id = id FOR UPDATE;
    PERFORM FROM meter_live_status WHERE meter_id = id FOR UPDATE;
    UPDATE meter_void
    SET pending = false, withdrawn_at = clock_timestamp(), withdrawn_by = by_whom, withdrawn_why = why,
        withdrawn_token = token
    WHERE meter_id = id AND "timestamp" = ts AND withdrawn_at IS NULL;
    IF NOT FOUND THEN
        RETURN EXISTS (SELECT FROM meter_void WHERE meter_id = id AND "timestamp" = ts);
    END IF;
    WITH moved AS (
        DELETE FROM meter_void_receipt WHERE meter_id = id AND "timestamp" = ts RETURNING *
    )
    SELECT array_agg(meter_id) AS ids, array_agg("timestamp") AS times,
           array_agg(received_at) AS receipts,
           array_agg(coalesce(register_kwh, kwh_consumed_ac)::double precision) AS kwhs,
           array_agg(voltage) AS voltages
    INTO back FROM moved;
    IF back.ids IS NOT NULL THEN
        PERFORM store_meter_readings(back.ids, back.times, back.receipts, back.kwhs, back.voltages);
    END IF;
    RETURN true;
END
$$;

CREATE FUNCTION public.withdraw_vehicle_void(id text, ts timestamp with time zone, by_whom text, why text, token text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    back record;
BEGIN
    -- As writers do: the declaration, the live row, then the void.
    PERFORM FROM devices WHERE device_id = id FOR UPDATE;
    PERFORM FROM vehicle_live_status WHERE vehicle_id = id FOR UPDATE;
    UPDATE vehicle_void
    SET pending = false, withdrawn_at = clock_timestamp(), withdrawn_by = by_whom, withdrawn_why = why,
        withdrawn_token = token
    WHERE vehicle_id = id AND "timestamp" = ts AND withdrawn_at IS NULL;
    IF NOT FOUND THEN
        RETURN EXISTS (SELECT FROM vehicle_void WHERE vehicle_id = id AND "timestamp" = ts);
    END IF;
    WITH moved AS (
        DELETE FROM vehicle_void_receipt WHERE vehicle_id = id AND "timestamp" = ts RETURNING *
    )
    SELECT array_agg(vehicle_id) AS ids, array_agg("timestamp") AS times,
           array_agg(received_at) AS receipts,
           array_agg(coalesce(register_kwh, kwh_delivered_dc)::double precision) AS kwhs,
           array_agg(battery_temp::double precision) AS battery_temps, array_agg(soc) AS socs,
           CASE WHEN count(meter_id) > 0 THEN array_agg(meter_id) END AS meters
    INTO back FROM moved;
    IF back.ids IS NOT NULL THEN
        PERFORM store_vehicle_readings(back.ids, back.times, back.receipts, back.kwhs, back.battery_temps, back.socs, back.meters);
    END IF;
    RETURN true;
END
$$;

SET default_table_access_method = heap;

CREATE TABLE public.archive_closed (
    name text NOT NULL,
    stream text NOT NULL,
    range_start timestamp with time zone NOT NULL,
    range_end timestamp with time zone NOT NULL
);

CREATE TABLE public.archive_files (
    stream text NOT NULL,
    day date NOT NULL,
    number integer NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    bytes bigint NOT NULL,
    readings bigint NOT NULL,
    key text NOT NULL,
    sha256 text NOT NULL,
    kwh numeric NOT NULL,
    checksum numeric NOT NULL
);

COMMENT ON COLUMN public.archive_files.readings IS 'Receipts in the file.';

COMMENT ON COLUMN public.archive_files.checksum IS 'Sum of a hash of each row, the same whatever computes it: docs/archive.md.';

CREATE TABLE public.archive_horizon (
    stream text NOT NULL,
    archived_to timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    CONSTRAINT archive_horizon_stream_check CHECK ((stream = ANY (ARRAY['meter'::text, 'vehicle'::text])))
);

CREATE TABLE public.archive_leftover (
    key text NOT NULL
);

CREATE TABLE public.charger_window (
    window_end timestamp with time zone NOT NULL,
    at_fault boolean NOT NULL,
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    meter_id text NOT NULL COLLATE pg_catalog."C",
    evidence jsonb NOT NULL
);

CREATE TABLE public.devices (
    declared_at timestamp with time zone NOT NULL,
    device_id text NOT NULL COLLATE pg_catalog."C",
    registers tstzmultirange NOT NULL,
    register_modulus numeric,
    max_power_kw numeric,
    CONSTRAINT devices_max_power_kw_check CHECK ((max_power_kw > (0)::numeric)),
    CONSTRAINT devices_register_modulus_check CHECK ((register_modulus > (0)::numeric))
);

COMMENT ON COLUMN public.devices.registers IS 'What was accepted in these times, each (from, to], is of a register; the last may have no end.';

COMMENT ON COLUMN public.devices.register_modulus IS 'Where the register begins anew at 0 (kWh); null where it never does, or nobody knows.';

COMMENT ON COLUMN public.devices.max_power_kw IS 'A register that grows faster has jumped; null: 1000 kW.';

CREATE TABLE public.erasure (
    asked_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    receipts bigint DEFAULT 0 NOT NULL,
    files bigint DEFAULT 0 NOT NULL,
    erasure_id uuid DEFAULT gen_random_uuid() NOT NULL,
    stream text NOT NULL,
    device_id text COLLATE pg_catalog."C",
    device_hash bytea NOT NULL,
    asked_by text NOT NULL,
    asked_why text NOT NULL,
    asked_token text,
    CONSTRAINT erasure_check CHECK (((device_id IS NULL) = (finished_at IS NOT NULL))),
    CONSTRAINT erasure_stream_check CHECK ((stream = ANY (ARRAY['meter'::text, 'vehicle'::text])))
);

COMMENT ON COLUMN public.erasure.receipts IS 'Receipts that were erased, of history and of the archive.';

COMMENT ON COLUMN public.erasure.files IS 'Files of the archive that were rewritten.';

COMMENT ON COLUMN public.erasure.device_id IS 'Null when it is done: then only device_hash tells whose it was.';

CREATE TABLE public.erasure_key (
    only_one boolean DEFAULT true NOT NULL,
    key bytea DEFAULT (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) NOT NULL,
    CONSTRAINT erasure_key_only_one_check CHECK (only_one)
);

CREATE TABLE public.fault (
    fault_id uuid NOT NULL,
    opened_window timestamp with time zone NOT NULL,
    cleared_window timestamp with time zone,
    state text DEFAULT 'open'::text NOT NULL,
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    meter_id text NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT fault_check CHECK (((state = 'cleared'::text) = (cleared_window IS NOT NULL))),
    CONSTRAINT fault_check1 CHECK ((cleared_window > opened_window)),
    CONSTRAINT fault_state_check CHECK ((state = ANY (ARRAY['open'::text, 'acknowledged'::text, 'cleared'::text])))
);

COMMENT ON COLUMN public.fault.opened_window IS 'The end of the window that opened it.';

CREATE TABLE public.fault_change (
    changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    published_at timestamp with time zone,
    fault_id uuid NOT NULL,
    change text NOT NULL,
    details jsonb NOT NULL,
    CONSTRAINT fault_change_change_check CHECK ((change = ANY (ARRAY['opened'::text, 'acknowledged'::text, 'cleared'::text])))
);

COMMENT ON COLUMN public.fault_change.details IS 'evidence; or by and why, where it was acknowledged.';

CREATE TABLE public.fleet_totals (
    window_end timestamp with time zone NOT NULL,
    vehicles bigint NOT NULL,
    known bigint NOT NULL,
    cost_known bigint NOT NULL,
    co2_known bigint NOT NULL,
    status text NOT NULL,
    kwh_consumed_ac numeric NOT NULL,
    kwh_delivered_dc numeric NOT NULL,
    loss_cost numeric NOT NULL,
    loss_co2_kg numeric NOT NULL
);

CREATE TABLE public.fleet_window (
    window_end timestamp with time zone NOT NULL,
    finished boolean DEFAULT false NOT NULL,
    by_name boolean NOT NULL,
    least_kwh numeric NOT NULL,
    least_coverage numeric NOT NULL
);

CREATE TABLE public.link_locks (
    device_id text NOT NULL COLLATE pg_catalog."C"
);

COMMENT ON TABLE public.link_locks IS 'A row for each vehicle and meter that was ever linked, to be locked.';

CREATE TABLE public.links (
    valid_from timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    meter_id text COLLATE pg_catalog."C",
    source text NOT NULL,
    CONSTRAINT links_check CHECK (((meter_id IS NOT NULL) OR (source = 'api'::text))),
    CONSTRAINT links_source_check CHECK ((source = ANY (ARRAY['api'::text, 'reading'::text])))
);

COMMENT ON TABLE public.links IS 'From valid_from on, meter_id feeds vehicle_id, until the next row of either: see link_periods.';

COMMENT ON COLUMN public.links.meter_id IS 'Null: from here on no meter feeds the vehicle.';

COMMENT ON COLUMN public.links.source IS 'Who says so: the links API, or readings of the vehicle.';

CREATE VIEW public.link_periods AS
 SELECT link.vehicle_id,
    link.meter_id,
    link.valid_from,
    LEAST(own.valid_from, other.valid_from) AS valid_to,
    link.source
   FROM ((public.links link
     LEFT JOIN LATERAL ( SELECT later.valid_from
           FROM public.links later
          WHERE ((later.vehicle_id = link.vehicle_id) AND (later.valid_from > link.valid_from))
          ORDER BY later.valid_from
         LIMIT 1) own ON (true))
     LEFT JOIN LATERAL ( SELECT later.valid_from
           FROM public.links later
          WHERE ((later.meter_id = link.meter_id) AND (later.vehicle_id <> link.vehicle_id) AND (ROW(later.valid_from, later.vehicle_id) > ROW(link.valid_from, link.vehicle_id)) AND (later.valid_from <= COALESCE(own.valid_from, 'infinity'::timestamp with time zone)))
          ORDER BY later.valid_from, later.vehicle_id
         LIMIT 1) other ON (true))
  WHERE ((link.meter_id IS NOT NULL) AND ((LEAST(own.valid_from, other.valid_from) > link.valid_from) IS NOT FALSE));

COMMENT ON VIEW public.link_periods IS 'Which meter feeds which vehicle over (valid_from, valid_to]; valid_to is null while it goes on.';

CREATE TABLE public.meter_daily_rollup (
    day timestamp with time zone NOT NULL,
    minutes_heard integer NOT NULL,
    readings integer NOT NULL,
    meter_id text NOT NULL COLLATE pg_catalog."C",
    kwh_consumed_ac numeric NOT NULL
);

COMMENT ON COLUMN public.meter_daily_rollup.minutes_heard IS 'Minutes of the day in which a reading ended, of 1440.';

CREATE VIEW public.meter_history AS
 SELECT meter_id,
    kwh_consumed_ac,
    voltage,
    "timestamp"
   FROM public.meter_telemetry_history;

CREATE TABLE public.meter_hourly_rollup (
    hour timestamp with time zone NOT NULL,
    minutes bigint NOT NULL,
    readings integer NOT NULL,
    meter_id text NOT NULL COLLATE pg_catalog."C",
    kwh_consumed_ac numeric NOT NULL
)
WITH (fillfactor='80');

COMMENT ON COLUMN public.meter_hourly_rollup.minutes IS 'Bit n (0 to 59) is set when a reading ended within minute n of the hour.';

COMMENT ON COLUMN public.meter_hourly_rollup.readings IS 'Distinct device timestamps in the hour.';

CREATE TABLE public.meter_live_status (
    last_timestamp timestamp with time zone NOT NULL,
    previous_timestamp timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    summed_to timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    voided_to timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    last_voltage double precision NOT NULL,
    reports_register boolean DEFAULT false NOT NULL,
    meter_id text NOT NULL COLLATE pg_catalog."C",
    last_kwh_consumed_ac numeric NOT NULL,
    last_register_kwh numeric
)
WITH (fillfactor='50');

COMMENT ON TABLE public.meter_live_status IS 'The newest reading of each meter by device time; of its receipts the latest.';

COMMENT ON COLUMN public.meter_live_status.last_timestamp IS 'Device time of the reading shown.';

COMMENT ON COLUMN public.meter_live_status.previous_timestamp IS 'What last_timestamp was before the last batch: a writer tells by it which of its readings are newer.';

COMMENT ON COLUMN public.meter_live_status.summed_to IS 'Up to here daily rollups are made of this device. Who stores an earlier reading makes its day anew.';

COMMENT ON COLUMN public.meter_live_status.voided_to IS 'Up to here readings may be voided. Who stores an earlier one looks whether it is.';

COMMENT ON COLUMN public.meter_live_status.updated_at IS 'received_at of the receipt shown.';

COMMENT ON COLUMN public.meter_live_status.reports_register IS 'Whether the device is, or was, declared to report a running register: see devices.';

CREATE VIEW public.meter_live_state AS
 SELECT meter_id,
    last_kwh_consumed_ac AS kwh_consumed_ac,
    last_voltage AS voltage,
    updated_at AS last_updated_at
   FROM public.meter_live_status;

CREATE TABLE public.meter_pending (
    number bigint NOT NULL,
    "timestamp" timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    voltage double precision NOT NULL,
    meter_id text NOT NULL COLLATE pg_catalog."C",
    kwh_consumed_ac numeric NOT NULL,
    register_kwh numeric
);

ALTER TABLE public.meter_pending ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.meter_pending_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.meter_void (
    "timestamp" timestamp with time zone NOT NULL,
    voided_at timestamp with time zone NOT NULL,
    withdrawn_at timestamp with time zone,
    meter_id text NOT NULL COLLATE pg_catalog."C",
    voided_by text NOT NULL,
    voided_why text NOT NULL,
    voided_token text,
    withdrawn_by text,
    withdrawn_why text,
    withdrawn_token text,
    pending boolean DEFAULT false NOT NULL,
    CONSTRAINT meter_void_check CHECK (((NOT pending) OR (withdrawn_at IS NULL)))
);

COMMENT ON COLUMN public.meter_void.voided_by IS 'Who, as it was said; voided_token is the token it was said with.';

COMMENT ON COLUMN public.meter_void.pending IS 'It takes effect with the next maintenance, which looks into the archive for it.';

CREATE TABLE public.meter_void_receipt (
    "timestamp" timestamp with time zone CONSTRAINT meter_telemetry_history_timestamp_not_null NOT NULL,
    received_at timestamp with time zone CONSTRAINT meter_telemetry_history_received_at_not_null NOT NULL,
    voltage double precision CONSTRAINT meter_telemetry_history_voltage_not_null NOT NULL,
    meter_id text CONSTRAINT meter_telemetry_history_meter_id_not_null NOT NULL COLLATE pg_catalog."C",
    kwh_consumed_ac numeric CONSTRAINT meter_telemetry_history_kwh_consumed_ac_not_null NOT NULL,
    register_kwh numeric
);

COMMENT ON COLUMN public.meter_void_receipt."timestamp" IS 'Device time. The energy is that of the interval which ends here.';

COMMENT ON COLUMN public.meter_void_receipt.received_at IS 'When the API accepted the event; assigned once and kept through the queue.';

COMMENT ON COLUMN public.meter_void_receipt.register_kwh IS 'What the device reported, where that is a running register; the energy is then what it grew by.';

CREATE TABLE public.register_baselines (
    "timestamp" timestamp with time zone NOT NULL,
    device_id text NOT NULL COLLATE pg_catalog."C",
    stream text NOT NULL,
    register_kwh numeric,
    CONSTRAINT register_baselines_stream_check CHECK ((stream = ANY (ARRAY['meter'::text, 'vehicle'::text])))
);

CREATE TABLE public.register_events (
    "timestamp" timestamp with time zone NOT NULL,
    device_id text NOT NULL COLLATE pg_catalog."C",
    stream text NOT NULL,
    event text NOT NULL,
    register_kwh numeric NOT NULL,
    previous_kwh numeric NOT NULL,
    CONSTRAINT register_events_event_check CHECK ((event = ANY (ARRAY['jump'::text, 'reset'::text, 'rollover'::text]))),
    CONSTRAINT register_events_stream_check CHECK ((stream = ANY (ARRAY['meter'::text, 'vehicle'::text])))
);

CREATE TABLE public.schema_migrations (
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.tariff (
    valid_from timestamp with time zone NOT NULL,
    valid_to timestamp with time zone,
    meter_id text NOT NULL COLLATE pg_catalog."C",
    currency text NOT NULL,
    time_zone text NOT NULL,
    price_per_kwh numeric NOT NULL,
    kg_co2_per_kwh numeric,
    periods jsonb NOT NULL,
    week_starts interval[] NOT NULL,
    week_prices numeric[] NOT NULL
);

COMMENT ON COLUMN public.tariff.meter_id IS 'Or * for the fleet.';

COMMENT ON COLUMN public.tariff.periods IS 'As they were sent; outside of them the price is price_per_kwh.';

COMMENT ON COLUMN public.tariff.week_starts IS 'The same for a local week, from Monday 00:00 on: where a price begins that holds until the next.';

CREATE TABLE public.vehicle_daily_rollup (
    day timestamp with time zone NOT NULL,
    minutes_heard integer NOT NULL,
    readings integer NOT NULL,
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    kwh_delivered_dc numeric NOT NULL,
    battery_temp_sum numeric NOT NULL
);

CREATE VIEW public.vehicle_history AS
 SELECT vehicle_id,
    soc,
    kwh_delivered_dc,
    battery_temp,
    "timestamp"
   FROM public.vehicle_telemetry_history;

CREATE TABLE public.vehicle_hourly_rollup (
    hour timestamp with time zone NOT NULL,
    minutes bigint NOT NULL,
    readings integer NOT NULL,
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    kwh_delivered_dc numeric NOT NULL,
    battery_temp_sum numeric NOT NULL
)
WITH (fillfactor='80');

CREATE TABLE public.vehicle_live_status (
    last_timestamp timestamp with time zone NOT NULL,
    previous_timestamp timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    summed_to timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    voided_to timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    soc double precision,
    soc_timestamp timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    soc_received_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    reports_register boolean DEFAULT false NOT NULL,
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    last_kwh_delivered_dc numeric NOT NULL,
    last_battery_temp numeric NOT NULL,
    last_register_kwh numeric,
    avg_battery_temp numeric GENERATED ALWAYS AS (last_battery_temp) STORED
)
WITH (fillfactor='50');

COMMENT ON COLUMN public.vehicle_live_status.soc IS 'State of charge (percent) of the newest receipt that carried one.';

COMMENT ON COLUMN public.vehicle_live_status.avg_battery_temp IS 'The last battery temperature under the name that clients of an earlier system read.';

CREATE VIEW public.vehicle_live_state AS
 SELECT vehicle_id,
    soc,
    last_kwh_delivered_dc AS kwh_delivered_dc,
    last_battery_temp AS battery_temp,
    updated_at AS last_updated_at
   FROM public.vehicle_live_status;

CREATE TABLE public.vehicle_pending (
    number bigint NOT NULL,
    "timestamp" timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    soc double precision,
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    kwh_delivered_dc numeric NOT NULL,
    battery_temp numeric NOT NULL,
    meter_id text COLLATE pg_catalog."C",
    register_kwh numeric
);

ALTER TABLE public.vehicle_pending ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.vehicle_pending_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.vehicle_summary (
    window_end timestamp with time zone NOT NULL,
    readings bigint NOT NULL,
    minutes_heard bigint NOT NULL,
    meter_minutes bigint NOT NULL,
    linked_minutes bigint NOT NULL,
    stale boolean DEFAULT false NOT NULL,
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    status text NOT NULL,
    rank numeric NOT NULL,
    cost_rank numeric NOT NULL,
    kwh_delivered_dc numeric,
    battery_temp_sum numeric,
    kwh_consumed_ac numeric,
    loss_cost numeric,
    loss_co2_kg numeric,
    meter_ids text[]
);

COMMENT ON COLUMN public.vehicle_summary.linked_minutes IS 'Minutes of the window in which a meter fed the vehicle; meter_minutes of them it was heard from.';

COMMENT ON COLUMN public.vehicle_summary.stale IS 'A reading, link or tariff of the window came later: to be computed when asked for.';

COMMENT ON COLUMN public.vehicle_summary.rank IS 'DC - AC (kWh): the lower, the more was lost; Infinity where it is not known.';

COMMENT ON COLUMN public.vehicle_summary.cost_rank IS '-loss_cost (0010), likewise: Infinity where it is not known, as without a tariff.';

CREATE TABLE public.vehicle_void (
    "timestamp" timestamp with time zone NOT NULL,
    voided_at timestamp with time zone NOT NULL,
    withdrawn_at timestamp with time zone,
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    voided_by text NOT NULL,
    voided_why text NOT NULL,
    voided_token text,
    withdrawn_by text,
    withdrawn_why text,
    withdrawn_token text,
    pending boolean DEFAULT false NOT NULL,
    CONSTRAINT vehicle_void_check CHECK (((NOT pending) OR (withdrawn_at IS NULL)))
);

CREATE TABLE public.vehicle_void_receipt (
    "timestamp" timestamp with time zone CONSTRAINT vehicle_telemetry_history_timestamp_not_null NOT NULL,
    received_at timestamp with time zone CONSTRAINT vehicle_telemetry_history_received_at_not_null NOT NULL,
    soc double precision,
    vehicle_id text CONSTRAINT vehicle_telemetry_history_vehicle_id_not_null NOT NULL COLLATE pg_catalog."C",
    kwh_delivered_dc numeric CONSTRAINT vehicle_telemetry_history_kwh_delivered_dc_not_null NOT NULL,
    battery_temp numeric CONSTRAINT vehicle_telemetry_history_battery_temp_not_null NOT NULL,
    meter_id text COLLATE pg_catalog."C",
    register_kwh numeric
);

COMMENT ON COLUMN public.vehicle_void_receipt.meter_id IS 'The meter that fed the vehicle, where the reading names one.';

COMMENT ON COLUMN public.vehicle_void_receipt.register_kwh IS 'What the device reported, where that is a running register; the energy is then what it grew by.';

CREATE TABLE public.zone_offset (
    starts timestamp with time zone NOT NULL,
    utc_offset interval NOT NULL,
    time_zone text NOT NULL COLLATE pg_catalog."C",
    release text NOT NULL COLLATE pg_catalog."C"
);

ALTER TABLE ONLY public.archive_closed
    ADD CONSTRAINT archive_closed_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.archive_files
    ADD CONSTRAINT archive_files_pkey PRIMARY KEY (stream, day, number);

ALTER TABLE ONLY public.archive_horizon
    ADD CONSTRAINT archive_horizon_pkey PRIMARY KEY (stream);

ALTER TABLE ONLY public.archive_leftover
    ADD CONSTRAINT archive_leftover_pkey PRIMARY KEY (key);

ALTER TABLE ONLY public.charger_window
    ADD CONSTRAINT charger_window_pkey PRIMARY KEY (vehicle_id, meter_id, window_end);

ALTER TABLE ONLY public.devices
    ADD CONSTRAINT devices_pkey PRIMARY KEY (device_id);

ALTER TABLE ONLY public.erasure_key
    ADD CONSTRAINT erasure_key_pkey PRIMARY KEY (only_one);

ALTER TABLE ONLY public.erasure
    ADD CONSTRAINT erasure_pkey PRIMARY KEY (erasure_id);

ALTER TABLE ONLY public.fault_change
    ADD CONSTRAINT fault_change_pkey PRIMARY KEY (fault_id, change);

ALTER TABLE ONLY public.fault
    ADD CONSTRAINT fault_pkey PRIMARY KEY (fault_id);

ALTER TABLE ONLY public.fleet_totals
    ADD CONSTRAINT fleet_totals_pkey PRIMARY KEY (window_end, status);

ALTER TABLE ONLY public.fleet_window
    ADD CONSTRAINT fleet_window_pkey PRIMARY KEY (window_end);

ALTER TABLE ONLY public.link_locks
    ADD CONSTRAINT link_locks_pkey PRIMARY KEY (device_id);

ALTER TABLE ONLY public.links
    ADD CONSTRAINT links_pkey PRIMARY KEY (vehicle_id, valid_from);

ALTER TABLE ONLY public.meter_daily_rollup
    ADD CONSTRAINT meter_daily_rollup_pkey PRIMARY KEY (meter_id, day);

ALTER TABLE ONLY public.meter_hourly_rollup
    ADD CONSTRAINT meter_hourly_rollup_pkey PRIMARY KEY (meter_id, hour);

ALTER TABLE ONLY public.meter_live_status
    ADD CONSTRAINT meter_live_status_pkey PRIMARY KEY (meter_id);

ALTER TABLE ONLY public.meter_pending
    ADD CONSTRAINT meter_pending_pkey PRIMARY KEY (number);

ALTER TABLE ONLY public.meter_telemetry_history
    ADD CONSTRAINT meter_telemetry_history_pkey PRIMARY KEY (meter_id, "timestamp", received_at);

ALTER TABLE ONLY public.meter_void
    ADD CONSTRAINT meter_void_pkey PRIMARY KEY (meter_id, "timestamp", voided_at);

ALTER TABLE ONLY public.meter_void_receipt
    ADD CONSTRAINT meter_void_receipt_pkey PRIMARY KEY (meter_id, "timestamp", received_at);

ALTER TABLE ONLY public.register_baselines
    ADD CONSTRAINT register_baselines_pkey PRIMARY KEY (device_id, stream);

ALTER TABLE ONLY public.register_events
    ADD CONSTRAINT register_events_pkey PRIMARY KEY (device_id, stream, "timestamp");

ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.tariff
    ADD CONSTRAINT tariff_pkey PRIMARY KEY (meter_id, valid_from);

ALTER TABLE ONLY public.vehicle_daily_rollup
    ADD CONSTRAINT vehicle_daily_rollup_pkey PRIMARY KEY (vehicle_id, day);

ALTER TABLE ONLY public.vehicle_hourly_rollup
    ADD CONSTRAINT vehicle_hourly_rollup_pkey PRIMARY KEY (vehicle_id, hour);

ALTER TABLE ONLY public.vehicle_live_status
    ADD CONSTRAINT vehicle_live_status_pkey PRIMARY KEY (vehicle_id);

ALTER TABLE ONLY public.vehicle_pending
    ADD CONSTRAINT vehicle_pending_pkey PRIMARY KEY (number);

ALTER TABLE ONLY public.vehicle_summary
    ADD CONSTRAINT vehicle_summary_pkey PRIMARY KEY (vehicle_id, window_end);

ALTER TABLE ONLY public.vehicle_telemetry_history
    ADD CONSTRAINT vehicle_telemetry_history_pkey PRIMARY KEY (vehicle_id, "timestamp", received_at);

ALTER TABLE ONLY public.vehicle_void
    ADD CONSTRAINT vehicle_void_pkey PRIMARY KEY (vehicle_id, "timestamp", voided_at);

ALTER TABLE ONLY public.vehicle_void_receipt
    ADD CONSTRAINT vehicle_void_receipt_pkey PRIMARY KEY (vehicle_id, "timestamp", received_at);

ALTER TABLE ONLY public.zone_offset
    ADD CONSTRAINT zone_offset_pkey PRIMARY KEY (time_zone, starts);

CREATE INDEX erasure_newest ON public.erasure USING btree (asked_at DESC, erasure_id);

CREATE INDEX erasure_of_device ON public.erasure USING btree (device_hash, asked_at);

CREATE UNIQUE INDEX erasure_pending ON public.erasure USING btree (stream, device_id) WHERE (device_id IS NOT NULL);

CREATE INDEX fault_change_unpublished ON public.fault_change USING btree (changed_at) WHERE (published_at IS NULL);

CREATE UNIQUE INDEX fault_current ON public.fault USING btree (vehicle_id, meter_id) WHERE (state <> 'cleared'::text);

CREATE INDEX fault_newest ON public.fault USING btree (opened_window DESC, fault_id);

CREATE INDEX fault_of_charger ON public.fault USING btree (vehicle_id, meter_id, opened_window);

CREATE INDEX links_meter ON public.links USING btree (meter_id, valid_from, vehicle_id);

CREATE INDEX meter_void_pending ON public.meter_void USING btree (meter_id, "timestamp") WHERE pending;

CREATE UNIQUE INDEX meter_void_standing ON public.meter_void USING btree (meter_id, "timestamp") WHERE (withdrawn_at IS NULL);

CREATE INDEX vehicle_summary_cost_rank ON public.vehicle_summary USING btree (window_end, cost_rank, vehicle_id);

CREATE INDEX vehicle_summary_rank ON public.vehicle_summary USING btree (window_end, rank, vehicle_id);

CREATE INDEX vehicle_summary_stale ON public.vehicle_summary USING btree (window_end) WHERE stale;

CREATE INDEX vehicle_telemetry_history_meter ON ONLY public.vehicle_telemetry_history USING btree (vehicle_id, "timestamp") WHERE (meter_id IS NOT NULL);

CREATE INDEX vehicle_void_pending ON public.vehicle_void USING btree (vehicle_id, "timestamp") WHERE pending;

CREATE INDEX vehicle_void_receipt_vehicle_id_timestamp_idx ON public.vehicle_void_receipt USING btree (vehicle_id, "timestamp") WHERE (meter_id IS NOT NULL);

CREATE UNIQUE INDEX vehicle_void_standing ON public.vehicle_void USING btree (vehicle_id, "timestamp") WHERE (withdrawn_at IS NULL);

CREATE TRIGGER links_change_summaries AFTER INSERT OR DELETE OR UPDATE ON public.links FOR EACH ROW EXECUTE FUNCTION public.mark_summaries_of_link();

ALTER TABLE ONLY public.archive_closed
    ADD CONSTRAINT archive_closed_stream_fkey FOREIGN KEY (stream) REFERENCES public.archive_horizon(stream);

ALTER TABLE ONLY public.archive_files
    ADD CONSTRAINT archive_files_stream_fkey FOREIGN KEY (stream) REFERENCES public.archive_horizon(stream);

ALTER TABLE ONLY public.fault_change
    ADD CONSTRAINT fault_change_fault_id_fkey FOREIGN KEY (fault_id) REFERENCES public.fault(fault_id) ON DELETE CASCADE;

GRANT CREATE ON SCHEMA public TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.acknowledge_fault(id uuid, by_whom text, why text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.acknowledge_fault(id uuid, by_whom text, why text) TO telemetry_alerts;

REVOKE ALL ON FUNCTION public.begin_fleet_window(until timestamp with time zone, by_name boolean, least_kwh double precision, least_coverage double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION public.begin_fleet_window(until timestamp with time zone, by_name boolean, least_kwh double precision, least_coverage double precision) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.change_meter_summaries(meter_ids text[], timestamps timestamp with time zone[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.change_meter_summaries(meter_ids text[], timestamps timestamp with time zone[]) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.change_vehicle_summaries(vehicle_ids text[], timestamps timestamp with time zone[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.change_vehicle_summaries(vehicle_ids text[], timestamps timestamp with time zone[]) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.charging_status(kwh_consumed_ac numeric, kwh_delivered_dc numeric, minutes_heard bigint, window_minutes numeric, meter_minutes bigint, linked_minutes bigint, least_kwh numeric, least_coverage numeric) FROM PUBLIC;
GRANT ALL ON FUNCTION public.charging_status(kwh_consumed_ac numeric, kwh_delivered_dc numeric, minutes_heard bigint, window_minutes numeric, meter_minutes bigint, linked_minutes bigint, least_kwh numeric, least_coverage numeric) TO telemetry_read;
GRANT ALL ON FUNCTION public.charging_status(kwh_consumed_ac numeric, kwh_delivered_dc numeric, minutes_heard bigint, window_minutes numeric, meter_minutes bigint, linked_minutes bigint, least_kwh numeric, least_coverage numeric) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.claim_by_api(id text, since timestamp with time zone, meter text) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.claim_meter(id text, ts timestamp with time zone, meter text) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.claim_meters(ids text[], timestamps timestamp with time zone[], olds text[], news text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.claim_meters(ids text[], timestamps timestamp with time zone[], olds text[], news text[]) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.continues_link(id text, since timestamp with time zone, meter text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.continues_link(id text, since timestamp with time zone, meter text) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.convert_meter_registers(ids text[], timestamps timestamp with time zone[], received_ats timestamp with time zone[], INOUT kwhs double precision[], OUT registers double precision[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.convert_vehicle_registers(ids text[], timestamps timestamp with time zone[], received_ats timestamp with time zone[], INOUT kwhs double precision[], OUT registers double precision[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.count_fault_changes() FROM PUBLIC;
GRANT ALL ON FUNCTION public.count_fault_changes() TO telemetry_alerts;

REVOKE ALL ON FUNCTION public.count_summaries(vehicle_ids text[], of_window_end timestamp with time zone, sign integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.count_summaries(vehicle_ids text[], of_window_end timestamp with time zone, sign integer) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.declare_device(id text, is_register boolean, at timestamp with time zone, modulus double precision, max_power double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION public.declare_device(id text, is_register boolean, at timestamp with time zone, modulus double precision, max_power double precision) TO telemetry_ingest;

REVOKE ALL ON FUNCTION public.delete_tariff(id text, since timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.delete_tariff(id text, since timestamp with time zone) TO telemetry_ingest;

REVOKE ALL ON FUNCTION public.drop_erased_meter_readings(INOUT ids text[], INOUT timestamps timestamp with time zone[], INOUT received_ats timestamp with time zone[], INOUT kwhs double precision[], INOUT voltages double precision[], INOUT registers double precision[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.drop_erased_vehicle_readings(INOUT ids text[], INOUT timestamps timestamp with time zone[], INOUT received_ats timestamp with time zone[], INOUT kwhs double precision[], INOUT battery_temps double precision[], INOUT socs double precision[], INOUT meters text[], INOUT registers double precision[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.erase_meter_day(erasing uuid, of_day timestamp with time zone, survivors jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.erase_meter_day(erasing uuid, of_day timestamp with time zone, survivors jsonb) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.erase_meter_name(erasing uuid, vehicle text, of_day timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.erase_meter_name(erasing uuid, vehicle text, of_day timestamp with time zone) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.erase_vehicle_day(erasing uuid, of_day timestamp with time zone, survivors jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.erase_vehicle_day(erasing uuid, of_day timestamp with time zone, survivors jsonb) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.erased_devices(of_stream text, ids text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.evaluate_faults(after_id text, most integer, until timestamp with time zone, length interval, by_name boolean, least_kwh double precision, least_coverage double precision, low_voltage double precision, high_battery_temp double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION public.evaluate_faults(after_id text, most integer, until timestamp with time zone, length interval, by_name boolean, least_kwh double precision, least_coverage double precision, low_voltage double precision, high_battery_temp double precision) TO telemetry_alerts;

REVOKE ALL ON FUNCTION public.explain_fault(meter text, evidence jsonb, low_voltage double precision, high_battery_temp double precision) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.finish_erasure(erasing uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.finish_erasure(erasing uuid) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.finish_fleet_window(until timestamp with time zone, by_name boolean, least_kwh double precision, least_coverage double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION public.finish_fleet_window(until timestamp with time zone, by_name boolean, least_kwh double precision, least_coverage double precision) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.hash_device(of_stream text, id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.hold_erased(of_stream text, id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.hour_prices(tariff_ids text[], starts timestamp with time zone[], ends timestamp with time zone[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.hour_prices(tariff_ids text[], starts timestamp with time zone[], ends timestamp with time zone[]) TO telemetry_read;
GRANT ALL ON FUNCTION public.hour_prices(tariff_ids text[], starts timestamp with time zone[], ends timestamp with time zone[]) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.leave_out_erased_meters(ids text[], timestamps timestamp with time zone[], received_ats timestamp with time zone[], meters text[]) FROM PUBLIC;

GRANT SELECT ON TABLE public.meter_telemetry_history TO telemetry_read;

REVOKE ALL ON FUNCTION public.leave_out_meter_reading(id text, ts timestamp with time zone, counted public.meter_telemetry_history, archived jsonb) FROM PUBLIC;

GRANT SELECT ON TABLE public.vehicle_telemetry_history TO telemetry_read;

REVOKE ALL ON FUNCTION public.leave_out_vehicle_reading(id text, ts timestamp with time zone, counted public.vehicle_telemetry_history, archived jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.link_vehicle(id text, since timestamp with time zone, meter text, only_where_new boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION public.link_vehicle(id text, since timestamp with time zone, meter text, only_where_new boolean) TO telemetry_ingest;

REVOKE ALL ON FUNCTION public.links_of(for_vehicle_id text, window_start timestamp with time zone, window_end timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.links_of(for_vehicle_id text, window_start timestamp with time zone, window_end timestamp with time zone) TO telemetry_read;
GRANT ALL ON FUNCTION public.links_of(for_vehicle_id text, window_start timestamp with time zone, window_end timestamp with time zone) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.list_erasures(asked uuid, after_at timestamp with time zone, after_id uuid, most integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.list_erasures(asked uuid, after_at timestamp with time zone, after_id uuid, most integer) TO telemetry_correct;

REVOKE ALL ON FUNCTION public.list_links(id text, before timestamp with time zone, most integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.list_links(id text, before timestamp with time zone, most integer) TO telemetry_ingest;

REVOKE ALL ON FUNCTION public.list_tariff(id text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.list_tariff(id text) TO telemetry_ingest;

REVOKE ALL ON FUNCTION public.list_unerased(of_stream text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.list_unerased(of_stream text) TO telemetry_read;
GRANT ALL ON FUNCTION public.list_unerased(of_stream text) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.list_voids(of_stream text, of_device text, of_time timestamp with time zone, after_at timestamp with time zone, after_stream text, after_device text, after_time timestamp with time zone, most integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.list_voids(of_stream text, of_device text, of_time timestamp with time zone, after_at timestamp with time zone, after_stream text, after_device text, after_time timestamp with time zone, most integer) TO telemetry_correct;

REVOKE ALL ON FUNCTION public.lock_links(devices text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.lock_links(devices text[]) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.loss_costs(windows public.charged_window[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.loss_costs(windows public.charged_window[]) TO telemetry_read;
GRANT ALL ON FUNCTION public.loss_costs(windows public.charged_window[]) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.mark_fault_changes(fault_ids uuid[], changes text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.mark_fault_changes(fault_ids uuid[], changes text[]) TO telemetry_alerts;

REVOKE ALL ON FUNCTION public.mark_summaries_of_link() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.mark_summaries_of_tariff(tariff_id text, since timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.next_claim(id text, after timestamp with time zone, OUT valid_from timestamp with time zone, OUT meter_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.next_claim(id text, after timestamp with time zone, OUT valid_from timestamp with time zone, OUT meter_id text) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.put_tariff(id text, since timestamp with time zone, until timestamp with time zone, in_currency text, zone text, price numeric, kg_co2 numeric, its_periods jsonb, starts interval[], prices numeric[], most integer, release text, zone_starts timestamp with time zone[], utc_offsets interval[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.put_tariff(id text, since timestamp with time zone, until timestamp with time zone, in_currency text, zone text, price numeric, kg_co2 numeric, its_periods jsonb, starts interval[], prices numeric[], most integer, release text, zone_starts timestamp with time zone[], utc_offsets interval[]) TO telemetry_ingest;

REVOKE ALL ON FUNCTION public.put_zone(zone text, in_release text, in_starts timestamp with time zone[], utc_offsets interval[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.release_erased(of_stream text, id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.report_charging(vehicle_ids text[], starts timestamp with time zone[], ends timestamp with time zone[], length interval, by_name boolean, with_hours boolean, least_kwh double precision, least_coverage double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION public.report_charging(vehicle_ids text[], starts timestamp with time zone[], ends timestamp with time zone[], length interval, by_name boolean, with_hours boolean, least_kwh double precision, least_coverage double precision) TO telemetry_read;

REVOKE ALL ON FUNCTION public.report_fleet(asked_start timestamp with time zone, asked_end timestamp with time zone, length interval, otherwise timestamp with time zone, by_name boolean, least_kwh double precision, least_coverage double precision, of_status text, asked_sort text, after_rank text, after_id text, most bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.report_fleet(asked_start timestamp with time zone, asked_end timestamp with time zone, length interval, otherwise timestamp with time zone, by_name boolean, least_kwh double precision, least_coverage double precision, of_status text, asked_sort text, after_rank text, after_id text, most bigint) TO telemetry_read;

REVOKE ALL ON FUNCTION public.request_erasure(of_stream text, id text, by_whom text, why text, token text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.request_erasure(of_stream text, id text, by_whom text, why text, token text) TO telemetry_correct;

REVOKE ALL ON FUNCTION public.set_aside_voided_meter_readings(INOUT meter_ids text[], INOUT timestamps timestamp with time zone[], INOUT received_ats timestamp with time zone[], INOUT kwhs double precision[], INOUT voltages double precision[], INOUT registers double precision[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.set_aside_voided_vehicle_readings(INOUT vehicle_ids text[], INOUT timestamps timestamp with time zone[], INOUT received_ats timestamp with time zone[], INOUT kwhs double precision[], INOUT battery_temps double precision[], INOUT socs double precision[], INOUT meter_ids text[], INOUT registers double precision[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.settle_claim(id text, since timestamp with time zone, meter text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.settle_claim(id text, since timestamp with time zone, meter text) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.settle_holder(id text, since timestamp with time zone, meter text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.settle_holder(id text, since timestamp with time zone, meter text) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.settle_meter_registers(ids text[], timestamps timestamp with time zone[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.settle_meter_voids(ids text[], times timestamp with time zone[], receipts jsonb[], others jsonb[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.settle_meter_voids(ids text[], times timestamp with time zone[], receipts jsonb[], others jsonb[]) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.settle_neighbours(id text, since timestamp with time zone, meter text, olds text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.settle_neighbours(id text, since timestamp with time zone, meter text, olds text[]) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.settle_vehicle_registers(ids text[], timestamps timestamp with time zone[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.settle_vehicle_voids(ids text[], times timestamp with time zone[], receipts jsonb[], others jsonb[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.settle_vehicle_voids(ids text[], times timestamp with time zone[], receipts jsonb[], others jsonb[]) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.show_meter_readings(ids text[], timestamps timestamp with time zone[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.show_vehicle_readings(ids text[], timestamps timestamp with time zone[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.store_meter_reading(id text, ts timestamp with time zone, received_at timestamp with time zone, kwh double precision, voltage double precision, in_hour timestamp with time zone, minute bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.store_meter_reading(id text, ts timestamp with time zone, received_at timestamp with time zone, kwh double precision, voltage double precision, in_hour timestamp with time zone, minute bigint) TO telemetry_ingest;

REVOKE ALL ON FUNCTION public.store_meter_readings(meter_ids text[], timestamps timestamp with time zone[], received_ats timestamp with time zone[], kwhs double precision[], voltages double precision[], OUT duplicates bigint, OUT corrections bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.store_meter_readings(meter_ids text[], timestamps timestamp with time zone[], received_ats timestamp with time zone[], kwhs double precision[], voltages double precision[], OUT duplicates bigint, OUT corrections bigint) TO telemetry_ingest;

REVOKE ALL ON FUNCTION public.store_vehicle_reading(id text, ts timestamp with time zone, received_at timestamp with time zone, kwh double precision, battery_temp double precision, charge double precision, meter text, in_hour timestamp with time zone, minute bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.store_vehicle_reading(id text, ts timestamp with time zone, received_at timestamp with time zone, kwh double precision, battery_temp double precision, charge double precision, meter text, in_hour timestamp with time zone, minute bigint) TO telemetry_ingest;

REVOKE ALL ON FUNCTION public.store_vehicle_readings(vehicle_ids text[], timestamps timestamp with time zone[], received_ats timestamp with time zone[], kwhs double precision[], battery_temps double precision[], socs double precision[], meter_ids text[], OUT duplicates bigint, OUT corrections bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.store_vehicle_readings(vehicle_ids text[], timestamps timestamp with time zone[], received_ats timestamp with time zone[], kwhs double precision[], battery_temps double precision[], socs double precision[], meter_ids text[], OUT duplicates bigint, OUT corrections bigint) TO telemetry_ingest;

REVOKE ALL ON FUNCTION public.sum_meter_days(meter_ids text[], days timestamp with time zone[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.sum_meter_days(meter_ids text[], days timestamp with time zone[]) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.sum_meters(meter_ids text[], until timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.sum_meters(meter_ids text[], until timestamp with time zone) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.sum_vehicle_days(vehicle_ids text[], days timestamp with time zone[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.sum_vehicle_days(vehicle_ids text[], days timestamp with time zone[]) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.sum_vehicles(vehicle_ids text[], until timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.sum_vehicles(vehicle_ids text[], until timestamp with time zone) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.summarize_vehicles(vehicle_ids text[], window_end timestamp with time zone, by_name boolean, least_kwh double precision, least_coverage double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION public.summarize_vehicles(vehicle_ids text[], window_end timestamp with time zone, by_name boolean, least_kwh double precision, least_coverage double precision) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.take_fault_changes(most integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.take_fault_changes(most integer) TO telemetry_alerts;

REVOKE ALL ON FUNCTION public.tariff_at(tariff_id text, instant timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.tariff_at(tariff_id text, instant timestamp with time zone) TO telemetry_read;
GRANT ALL ON FUNCTION public.tariff_at(tariff_id text, instant timestamp with time zone) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.unlink_vehicle(id text, until timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.unlink_vehicle(id text, until timestamp with time zone) TO telemetry_ingest;

REVOKE ALL ON FUNCTION public.vehicle_performance(vehicle_ids text[], starts timestamp with time zone[], ends timestamp with time zone[], length interval, by_name boolean, with_hours boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION public.vehicle_performance(vehicle_ids text[], starts timestamp with time zone[], ends timestamp with time zone[], length interval, by_name boolean, with_hours boolean) TO telemetry_read;
GRANT ALL ON FUNCTION public.vehicle_performance(vehicle_ids text[], starts timestamp with time zone[], ends timestamp with time zone[], length interval, by_name boolean, with_hours boolean) TO telemetry_maintain;

REVOKE ALL ON FUNCTION public.void_meter_reading(id text, ts timestamp with time zone, by_whom text, why text, token text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.void_meter_reading(id text, ts timestamp with time zone, by_whom text, why text, token text) TO telemetry_correct;

REVOKE ALL ON FUNCTION public.void_vehicle_reading(id text, ts timestamp with time zone, by_whom text, why text, token text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.void_vehicle_reading(id text, ts timestamp with time zone, by_whom text, why text, token text) TO telemetry_correct;

REVOKE ALL ON FUNCTION public.withdraw_meter_void(id text, ts timestamp with time zone, by_whom text, why text, token text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.withdraw_meter_void(id text, ts timestamp with time zone, by_whom text, why text, token text) TO telemetry_correct;

REVOKE ALL ON FUNCTION public.withdraw_vehicle_void(id text, ts timestamp with time zone, by_whom text, why text, token text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.withdraw_vehicle_void(id text, ts timestamp with time zone, by_whom text, why text, token text) TO telemetry_correct;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.archive_closed TO telemetry_maintain;

GRANT SELECT ON TABLE public.archive_files TO telemetry_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.archive_files TO telemetry_maintain;

GRANT SELECT ON TABLE public.archive_horizon TO telemetry_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.archive_horizon TO telemetry_maintain;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.archive_leftover TO telemetry_maintain;

GRANT SELECT ON TABLE public.devices TO telemetry_read;
GRANT SELECT ON TABLE public.devices TO telemetry_ingest;
GRANT SELECT ON TABLE public.devices TO telemetry_maintain;

GRANT SELECT ON TABLE public.erasure TO telemetry_maintain;

GRANT UPDATE(receipts) ON TABLE public.erasure TO telemetry_maintain;

GRANT UPDATE(files) ON TABLE public.erasure TO telemetry_maintain;

GRANT SELECT ON TABLE public.fault TO telemetry_read;

GRANT SELECT ON TABLE public.fault_change TO telemetry_read;

GRANT SELECT ON TABLE public.fleet_totals TO telemetry_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.fleet_totals TO telemetry_maintain;

GRANT SELECT ON TABLE public.fleet_window TO telemetry_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.fleet_window TO telemetry_maintain;

GRANT SELECT,INSERT,UPDATE ON TABLE public.link_locks TO telemetry_maintain;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.links TO telemetry_maintain;
GRANT SELECT ON TABLE public.links TO telemetry_read;

GRANT SELECT ON TABLE public.link_periods TO telemetry_read;
GRANT SELECT ON TABLE public.link_periods TO telemetry_maintain;

GRANT SELECT ON TABLE public.meter_daily_rollup TO telemetry_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.meter_daily_rollup TO telemetry_maintain;

GRANT SELECT ON TABLE public.meter_history TO telemetry_read;

GRANT SELECT ON TABLE public.meter_hourly_rollup TO telemetry_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.meter_hourly_rollup TO telemetry_maintain;

GRANT SELECT ON TABLE public.meter_live_status TO telemetry_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.meter_live_status TO telemetry_maintain;

GRANT SELECT ON TABLE public.meter_live_state TO telemetry_read;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.meter_pending TO telemetry_maintain;
GRANT SELECT ON TABLE public.meter_pending TO telemetry_read;

GRANT SELECT ON TABLE public.meter_void TO telemetry_read;
GRANT SELECT ON TABLE public.meter_void TO telemetry_maintain;

GRANT SELECT ON TABLE public.meter_void_receipt TO telemetry_read;
GRANT SELECT ON TABLE public.meter_void_receipt TO telemetry_maintain;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.register_baselines TO telemetry_maintain;

GRANT SELECT ON TABLE public.register_events TO telemetry_read;
GRANT SELECT ON TABLE public.register_events TO telemetry_ingest;
GRANT SELECT ON TABLE public.register_events TO telemetry_maintain;

GRANT SELECT ON TABLE public.schema_migrations TO telemetry_read;

GRANT SELECT ON TABLE public.tariff TO telemetry_read;
GRANT SELECT ON TABLE public.tariff TO telemetry_maintain;

GRANT SELECT ON TABLE public.vehicle_daily_rollup TO telemetry_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.vehicle_daily_rollup TO telemetry_maintain;

GRANT SELECT ON TABLE public.vehicle_history TO telemetry_read;

GRANT SELECT ON TABLE public.vehicle_hourly_rollup TO telemetry_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.vehicle_hourly_rollup TO telemetry_maintain;

GRANT SELECT ON TABLE public.vehicle_live_status TO telemetry_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.vehicle_live_status TO telemetry_maintain;

GRANT SELECT ON TABLE public.vehicle_live_state TO telemetry_read;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.vehicle_pending TO telemetry_maintain;
GRANT SELECT ON TABLE public.vehicle_pending TO telemetry_read;

GRANT SELECT ON TABLE public.vehicle_summary TO telemetry_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.vehicle_summary TO telemetry_maintain;

GRANT SELECT ON TABLE public.vehicle_void TO telemetry_read;
GRANT SELECT ON TABLE public.vehicle_void TO telemetry_maintain;

GRANT SELECT ON TABLE public.vehicle_void_receipt TO telemetry_read;
GRANT SELECT ON TABLE public.vehicle_void_receipt TO telemetry_maintain;

GRANT SELECT ON TABLE public.zone_offset TO telemetry_read;
GRANT SELECT ON TABLE public.zone_offset TO telemetry_maintain;
