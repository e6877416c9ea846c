-- Which claims stand in links. A claim is "from valid_from on, this meter feeds this vehicle":
--   the API makes one with a meter, and one without where it ends a link;
--   a reading that names a meter makes one (the receipt that counts, as for its values), 60 s before
--   its timestamp, where the interval of its energy began: 60 s is the declared cadence.
-- At one instant the API's claim for a vehicle stands instead of the reading's.
--
-- Kept are all claims of the API, and of the readings' those that change something: one is left out
-- where the vehicle's claim before it names the same meter and no other vehicle has claimed that
-- meter in between. So a vehicle that names its meter every minute writes nothing here. Whether a
-- claim can be left out is the same whether all claims are looked at or just those that are kept:
-- what is left out in between stands behind a kept claim of the same vehicle on the same meter.
--
-- Where a claim comes, changes or goes, at most these others may have to be kept, or not, instead:
-- the vehicle's next claim; on the meter, the next claim of whoever held it; and the next one kept.
--
-- Concurrency: who finds that a claim can be left out holds the meter's row of link_locks FOR SHARE,
-- who changes claims holds those of the vehicle and of the meters FOR UPDATE, both until commit, and
-- looks (again) once they are held. Vehicles are locked before meters, each in the order of ids; what
-- deadlocks all the same, because a third meter turns out to be concerned, is run again by the client.
-- The live row that a reading's writer has locked serves its own vehicle only.

CREATE TABLE link_locks (
    device_id text COLLATE "C" PRIMARY KEY
);
COMMENT ON TABLE link_locks IS 'A row for each vehicle and meter that was ever linked, to be locked.';

-- Names with their schema, as in store_vehicle_reading, which calls this. Inlined.
CREATE FUNCTION continues_link(id text, since timestamptz, meter text)
RETURNS TABLE (continues boolean) LANGUAGE sql STABLE AS $$
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
COMMENT ON FUNCTION continues_link IS 'Whether a claim changes nothing that is in links before it.';

CREATE FUNCTION lock_links(devices text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO link_locks (device_id)
    SELECT DISTINCT device COLLATE "C" FROM unnest(devices) AS device WHERE device IS NOT NULL
    ORDER BY 1
    ON CONFLICT DO NOTHING;
    PERFORM FROM link_locks WHERE device_id = ANY (devices) ORDER BY device_id FOR UPDATE;
END
$$;

-- Keeps a reading's claim or leaves it out; meter null: there is none (any more).
CREATE FUNCTION settle_claim(id text, since timestamptz, meter text) RETURNS void
LANGUAGE plpgsql AS $$
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

-- Finds the first claim that a reading of the vehicle makes after an instant and before the vehicle's
-- next kept one; where there is none and the kept one is a reading's, that one.
CREATE FUNCTION next_claim(
    id text, after timestamptz, OUT valid_from timestamptz, OUT meter_id text
) LANGUAGE plpgsql AS $$
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

-- Who held a meter before this claim has it again by the next claim on it, if that is the next at all.
CREATE FUNCTION settle_holder(id text, since timestamptz, meter text) RETURNS void
LANGUAGE plpgsql AS $$
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

-- Settles what a claim concerns beside itself that came, changed or went: meter is the one it names,
-- if any, and olds are those it may have named. In this order: each step relies on the ones before.
CREATE FUNCTION settle_neighbours(id text, since timestamptz, meter text, olds text[])
RETURNS void LANGUAGE plpgsql AS $$
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

-- Takes the claims that readings make, change and give up: the arrays run in parallel, one element a
-- reading, olds and news being the meters named by the receipts that counted before and count now,
-- and differ. The readings are in history already, and their vehicles' live rows locked.
CREATE FUNCTION claim_meters(ids text[], timestamps timestamptz[], olds text[], news text[])
RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
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

-- The claim of one reading that is the vehicle's newest: so there is none to change.
CREATE FUNCTION claim_meter(id text, ts timestamptz, meter text) RETURNS void
LANGUAGE plpgsql AS $$
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

-- Takes a claim of the API. Beside its own meters those who change claims lock the one that fed the
-- vehicle until then: a reading being written may rely on that it still does.
CREATE FUNCTION claim_by_api(id text, since timestamptz, meter text) RETURNS void
LANGUAGE plpgsql AS $$
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

-- Links a vehicle to a meter from an instant on; returns the link as it holds now, and whether the
-- API had said nothing of that instant before. only_where_new: where this meter feeds the vehicle
-- from then on already, that link is returned and nothing written.
CREATE FUNCTION link_vehicle(id text, since timestamptz, meter text, only_where_new boolean)
RETURNS TABLE (
    created boolean, meter_id text, valid_from timestamptz, valid_to timestamptz, source text
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
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

-- Ends the link that holds at an instant there; returns it, and nothing where none holds.
CREATE FUNCTION unlink_vehicle(id text, until timestamptz)
RETURNS TABLE (meter_id text, valid_from timestamptz, valid_to timestamptz, source text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
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

-- A vehicle's links that began before an instant (null: all), the newest first; one row without a
-- meter where there is none but the vehicle has reported.
CREATE FUNCTION list_links(id text, before timestamptz, most integer)
RETURNS TABLE (meter_id text, valid_from timestamptz, valid_to timestamptz, source text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
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

REVOKE EXECUTE ON FUNCTION
    links_of, continues_link, lock_links, settle_claim, next_claim, settle_holder,
    settle_neighbours, claim_meters, claim_meter, claim_by_api, link_vehicle, unlink_vehicle, list_links
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION link_vehicle, unlink_vehicle, list_links TO telemetry_ingest;
GRANT EXECUTE ON FUNCTION links_of TO telemetry_read;
GRANT SELECT ON links, link_periods TO telemetry_read;
GRANT EXECUTE ON FUNCTION
    links_of, continues_link, lock_links, settle_claim, next_claim, settle_holder,
    settle_neighbours, claim_meters
TO telemetry_maintain;
GRANT SELECT, INSERT, UPDATE ON link_locks TO telemetry_maintain;
GRANT SELECT ON link_periods TO telemetry_maintain;
