-- The price and the CO2 of a kWh by one tariff at an instant; no row where none is in force. Inlined.
CREATE OR REPLACE FUNCTION tariff_at(tariff_id text, instant timestamptz)
RETURNS TABLE (price_per_kwh numeric, kg_co2_per_kwh numeric) LANGUAGE sql STABLE AS $$
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

-- The price and the CO2 of a kWh in each hour (hour, hour + 1 h] of these ranges of whole hours.
CREATE OR REPLACE FUNCTION hour_prices(tariff_ids text[], starts timestamptz[], ends timestamptz[])
RETURNS TABLE (tariff_id text, hour timestamptz, price_per_kwh numeric, kg_co2_per_kwh numeric)
LANGUAGE sql STABLE AS $$
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

-- What the energy lost in these windows (AC - DC of what was compared) cost, and its CO2 (kg); null where energy
-- was compared in an hour without a price. No rows at all where there is no tariff.
--
-- Both AC and DC have the prices of the meter that fed the vehicle then. The signs stay: an hour in which more arrived than was measured takes away, because
-- what one hour has too much of the next has too little.
CREATE OR REPLACE FUNCTION loss_costs(windows charged_window[])
RETURNS TABLE ("position" bigint, loss_cost numeric, loss_co2_kg numeric)
LANGUAGE plpgsql STABLE AS $$
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
           -- As plain values, so that partitions are pruned before the plan starts.
           min(part_start), max(part_end + reach_of(CASE sign
               WHEN 1 THEN (SELECT longest_seconds FROM meter_live_status WHERE meter_id = id)
               ELSE (SELECT longest_seconds FROM vehicle_live_status WHERE vehicle_id = id) END))
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
        SELECT -1, w.vehicle_id, tariff_id, opened, closed FROM link
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
    ), counted AS (
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
        SELECT edge.position, sign, tariff_id, hour, counted.kwh_consumed_ac
        FROM edge
        CROSS JOIN LATERAL meter_edge(id, edge_start, edge_end, edges_after, edges_until) AS counted
        WHERE sign = 1 AND counted.kwh_consumed_ac IS NOT NULL
        UNION ALL
        SELECT edge.position, sign, tariff_id, hour, counted.kwh_delivered_dc
        FROM edge
        CROSS JOIN LATERAL vehicle_edge(id, edge_start, edge_end, edges_after, edges_until) AS counted
        WHERE sign = -1 AND counted.kwh_delivered_dc IS NOT NULL
        UNION ALL
        SELECT w.position, sign, CASE WHEN EXISTS (SELECT FROM tariff WHERE tariff.meter_id = out.meter_id)
                                      THEN out.meter_id ELSE '*' END, hour, -kwh
        FROM unnest(windows) AS w
        CROSS JOIN LATERAL unnest(w.unmatched) AS out
        CROSS JOIN LATERAL (VALUES (1, out.kwh_ac), (-1, out.kwh_dc)) AS side (sign, kwh)
    ), energy AS MATERIALIZED (
        SELECT counted.position, sign, tariff_id, hour, sum(kwh) AS kwh
        FROM counted
        GROUP BY 1, 2, 3, 4
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

-- Marks the summaries of windows that a version counts in, or did, until the one after it.
CREATE OR REPLACE FUNCTION mark_summaries_of_tariff(tariff_id text, since timestamptz) RETURNS void
LANGUAGE sql AS $$
    UPDATE vehicle_summary SET stale = true
    WHERE NOT stale AND window_end > since
      AND window_end - interval '24 hours' < coalesce(
          (SELECT min(valid_from) FROM tariff WHERE meter_id = tariff_id AND valid_from > since), 'infinity')
      AND (tariff_id = '*' OR tariff_id = ANY (meter_ids))
$$;

-- Keeps a zone's offsets, unless they are known by this release or a newer one: old code that runs on
-- for a while after a deployment takes nothing back. Where they replace others, every summary is made
-- anew; the lock lets none be written by those.
CREATE OR REPLACE FUNCTION put_zone(zone text, in_release text, in_starts timestamptz[], utc_offsets interval[])
RETURNS void LANGUAGE plpgsql AS $$
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

-- Keeps a version; one that begins at the same instant is replaced. Returns what was refused, and
-- whether the version is new. The lock lets no summary be written by prices that are about to change,
-- and no two tariffs of different currencies in.
CREATE OR REPLACE FUNCTION put_tariff(
    id text, since timestamptz, until timestamptz, in_currency text, zone text, price numeric,
    kg_co2 numeric, its_periods jsonb, starts interval[], prices numeric[], most integer,
    release text, zone_starts timestamptz[], utc_offsets interval[]
) RETURNS TABLE (refused text, created boolean) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
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

-- Takes a version away, so that the one before holds again; returns whether there was one.
CREATE OR REPLACE FUNCTION delete_tariff(id text, since timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
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

-- The versions of a tariff, the newest first.
CREATE OR REPLACE FUNCTION list_tariff(id text)
RETURNS TABLE (
    valid_from timestamptz, valid_to timestamptz, currency text, time_zone text,
    price_per_kwh double precision, kg_co2_per_kwh double precision, periods jsonb
) LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, pg_temp AS $$
    SELECT valid_from, valid_to, currency, time_zone, price_per_kwh, kg_co2_per_kwh, periods
    FROM tariff WHERE meter_id = id ORDER BY valid_from DESC
$$;

GRANT EXECUTE ON FUNCTION tariff_at, hour_prices, loss_costs TO telemetry_maintain;
GRANT EXECUTE ON FUNCTION tariff_at, hour_prices, loss_costs TO telemetry_read;
GRANT EXECUTE ON FUNCTION put_tariff, delete_tariff, list_tariff TO telemetry_ingest;
