-- Which claims stand in links. A claim is "from valid_from on, this meter feeds this vehicle":
--   the API makes one with a meter, and one without where it ends a link;
--   a reading that names a meter makes one (the receipt that counts, as for its values), where the
--   interval of its energy began: claim_lead says how long before its timestamp.
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

-- Inlined into the query that calls it: no setting of its own, not SECURITY DEFINER.
CREATE OR REPLACE FUNCTION links_of(
    for_vehicle_id text, window_start timestamptz, window_end timestamptz
) RETURNS TABLE (meter_id text, valid_from timestamptz, valid_to timestamptz, source text)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
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

COMMENT ON FUNCTION links_of IS
    'The links of a vehicle that overlap (window_start, window_end], whole and in order.';

-- The vehicle that claimed the meter last before an instant, or at it by a lesser id: one look-up, however
-- many links the meter had. Inlined.
CREATE OR REPLACE FUNCTION holder_of(meter text, instant timestamptz, id text)
RETURNS TABLE (vehicle_id text) LANGUAGE sql STABLE AS $$
    SELECT vehicle_id FROM links
    WHERE meter_id = meter AND (valid_from, vehicle_id) < (instant, id)
    ORDER BY valid_from DESC, vehicle_id DESC
    LIMIT 1
$$;

-- How many links of a vehicle count in a window: the minutes of a day, and 100 for each further day.
CREATE OR REPLACE FUNCTION most_links(window_start timestamptz, window_end timestamptz) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN isfinite($1) AND isfinite($2)
                THEN 1340 + 100 * greatest(1, ceil(date_part('epoch', $2 - $1) / 86400)::bigint)
                ELSE 1440 END;

-- The links of a vehicle in a window that it is judged by: none where there are more than count, so that no
-- vehicle costs an answer about others. Inlined.
CREATE OR REPLACE FUNCTION judged_links_of(
    for_vehicle_id text, window_start timestamptz, window_end timestamptz
) RETURNS TABLE (meter_id text, valid_from timestamptz, valid_to timestamptz, source text)
LANGUAGE sql STABLE AS $$
    SELECT meter_id, valid_from, valid_to, source
    FROM (
        SELECT *, count(*) OVER () AS number
        FROM (SELECT * FROM links_of(for_vehicle_id, window_start, window_end)
              LIMIT most_links(window_start, window_end) + 1) AS link
    ) AS counted
    WHERE number <= most_links(window_start, window_end)
    ORDER BY valid_from
$$;

-- Names with their schema, as in store_vehicle_reading, which calls this. Inlined.
CREATE OR REPLACE FUNCTION continues_link(id text, since timestamptz, meter text)
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

CREATE OR REPLACE FUNCTION lock_links(devices text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO link_locks (device_id)
    SELECT DISTINCT device COLLATE "C" FROM unnest(devices) AS device WHERE device IS NOT NULL
    ORDER BY 1
    ON CONFLICT DO NOTHING;
    PERFORM FROM link_locks WHERE device_id = ANY (devices) ORDER BY device_id FOR UPDATE;
END
$$;

-- How long before its timestamp a reading claims its meter: as long as its device is declared to report, or else
-- a minute, but never before its interval began. One that tells a length of its own, and a register's, may be of a
-- long silence: they claim a minute.
CREATE OR REPLACE FUNCTION claim_lead(seconds numeric, told_seconds numeric, register_kwh numeric)
RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '1 second' * least(
    coalesce(seconds, 60),
    CASE WHEN coalesce(told_seconds, register_kwh) IS NULL THEN 86400 ELSE 60 END)::double precision;

-- No reading of a vehicle claims longer before its timestamp.
CREATE OR REPLACE FUNCTION longest_lead(id text) RETURNS interval LANGUAGE sql STABLE AS $$
    SELECT interval '1 second' * least(max(coalesce(longest_seconds, 60)), 86400)::double precision
    FROM vehicle_live_status WHERE vehicle_id = id
$$;

-- The meter that readings in history claim for a vehicle from an instant on: the last of them. No row where none
-- does.
CREATE OR REPLACE FUNCTION claimed_at(id text, since timestamptz) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT named.meter_id FROM vehicle_telemetry_history named
    WHERE named.vehicle_id = id AND named.meter_id IS NOT NULL
      AND named."timestamp" > since AND named."timestamp" <= since + (SELECT longest_lead(id))
      AND named."timestamp" - claim_lead(named.seconds, named.told_seconds, named.register_kwh) = since
      AND named.received_at = (
          SELECT counted.received_at FROM vehicle_telemetry_history counted
          WHERE counted.vehicle_id = id AND counted."timestamp" = named."timestamp"
            AND counted."timestamp" > since AND counted."timestamp" <= since + (SELECT longest_lead(id))
          ORDER BY counted.received_at DESC LIMIT 1)
    ORDER BY named."timestamp" DESC LIMIT 1
$$;

-- The first claim that a reading of a vehicle makes beyond an instant and before another (null: whenever), of
-- readings up to `until`. By time first, which an index has; another that begins earlier ends within the longest
-- lead of it.
CREATE OR REPLACE FUNCTION next_claimed(
    id text, beyond timestamptz, before timestamptz, until timestamptz
) RETURNS TABLE (begins timestamptz, meter_id text) LANGUAGE sql STABLE AS $$
    WITH first AS MATERIALIZED (
        SELECT named."timestamp" AS ts FROM vehicle_telemetry_history named
        WHERE named.vehicle_id = id AND named.meter_id IS NOT NULL
          AND named."timestamp" > beyond AND named."timestamp" <= until
          AND named."timestamp" - claim_lead(named.seconds, named.told_seconds, named.register_kwh) > beyond
          AND named.received_at = (
              SELECT counted.received_at FROM vehicle_telemetry_history counted
              WHERE counted.vehicle_id = id AND counted."timestamp" = named."timestamp"
                AND counted."timestamp" > beyond AND counted."timestamp" <= until
              ORDER BY counted.received_at DESC LIMIT 1)
        ORDER BY named."timestamp" LIMIT 1
    )
    SELECT claim.begins, claim.meter_id
    FROM (
        SELECT named."timestamp" AS ts, named.meter_id,
               named."timestamp" - claim_lead(named.seconds, named.told_seconds, named.register_kwh) AS begins
        FROM vehicle_telemetry_history named
        WHERE named.vehicle_id = id AND named.meter_id IS NOT NULL
          AND named."timestamp" >= (SELECT ts FROM first) AND named."timestamp" <= until
          AND named."timestamp" <= (SELECT ts + longest_lead(id) FROM first)
          AND named.received_at = (
              SELECT counted.received_at FROM vehicle_telemetry_history counted
              WHERE counted.vehicle_id = id AND counted."timestamp" = named."timestamp"
                AND counted."timestamp" > beyond AND counted."timestamp" <= until
              ORDER BY counted.received_at DESC LIMIT 1)
    ) AS claim
    WHERE claim.begins > beyond AND (before IS NULL OR claim.begins < before)
    ORDER BY claim.begins, ts DESC LIMIT 1
$$;

-- Settles claims that readings make, change and give up, each with when it begins and the meter that was named
-- before: the readings are in history already, and their vehicles' live rows locked. With by_api the claims are the
-- API's, which is in links already: what they concern beside that is settled.
CREATE OR REPLACE FUNCTION claim_meters(claims link_claim[], by_api boolean DEFAULT false)
RETURNS void LANGUAGE plpgsql STRICT
SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
DECLARE
    claim   link_claim;   -- whose turn it is, and
    since   timestamptz;  -- from when on it would hold
    next    link_claim;   -- the same vehicle's next claim
    place   link_claim;   -- a reading's claim to be kept or left out; its "timestamp" is where it begins
    holder  text;         -- of this vehicle the first claim
    beyond  timestamptz;  -- after this instant is looked for
    until   timestamptz;
    kept    record;
BEGIN
    INSERT INTO link_locks SELECT DISTINCT vehicle_id FROM unnest(claims) ORDER BY 1 ON CONFLICT DO NOTHING;
    PERFORM FROM link_locks WHERE device_id = ANY (ARRAY(SELECT vehicle_id FROM unnest(claims)))
    ORDER BY device_id FOR UPDATE;
    INSERT INTO link_locks
    SELECT DISTINCT named FROM unnest(claims) CROSS JOIN unnest(ARRAY[old_meter_id, meter_id]) AS named
    WHERE named IS NOT NULL ORDER BY 1
    ON CONFLICT DO NOTHING;
    PERFORM FROM link_locks
    WHERE device_id = ANY (ARRAY(SELECT unnest(ARRAY[old_meter_id, meter_id]) FROM unnest(claims)))
    ORDER BY device_id FOR UPDATE;

    FOR claim IN SELECT * FROM unnest(claims) ORDER BY vehicle_id, "timestamp" LOOP
        since := claim."timestamp";
        -- One of a later turn may be found here as the next already: its own turn settles what follows.
        CONTINUE WHEN NOT by_api AND EXISTS (
            SELECT FROM links
            WHERE vehicle_id = claim.vehicle_id AND valid_from = since AND source = 'api');
        FOR step IN 0..4 LOOP  -- each relies on the ones before
            place := NULL;
            holder := NULL;
            IF step = 0 AND NOT by_api THEN  -- the claim itself
                place := ROW(claim.vehicle_id, since, NULL,
                             coalesce(claimed_at(claim.vehicle_id, since), claim.meter_id));
            ELSIF step = 2 THEN  -- the vehicle's next claim
                holder := claim.vehicle_id;
                beyond := since;
            ELSIF step IN (1, 3) THEN
                -- Who held the meter before has it again by its next claim on it, if that is its next at
                -- all: of the claim's meter, and of the next one's, if an earlier turn took that for gone.
                IF step = 1 THEN
                    next := ROW(claim.vehicle_id, since, NULL, CASE WHEN by_api THEN claim.meter_id
                                ELSE coalesce(claimed_at(claim.vehicle_id, since), claim.meter_id) END);
                END IF;
                holder := (SELECT nullif(vehicle_id, claim.vehicle_id)
                           FROM holder_of(next.meter_id, next."timestamp", claim.vehicle_id));
                beyond := CASE WHEN holder COLLATE "C" > claim.vehicle_id
                               THEN next."timestamp" - interval '1 microsecond' ELSE next."timestamp" END;
            ELSIF step = 4 THEN  -- who claims the meter next that was given up may have held it all along
                SELECT vehicle_id, valid_from, NULL, meter_id INTO place
                FROM (SELECT * FROM links
                      WHERE meter_id = claim.old_meter_id
                        AND (valid_from, vehicle_id) > (since, claim.vehicle_id)
                      ORDER BY valid_from, vehicle_id LIMIT 1) AS following
                WHERE vehicle_id != claim.vehicle_id AND source = 'reading';
            END IF;

            IF holder IS NOT NULL THEN
                -- The first claim that a reading of the vehicle makes beyond the instant and before the
                -- next kept one; where there is none and the kept one is a reading's, that one.
                SELECT valid_from, meter_id, source INTO kept FROM links
                WHERE vehicle_id = holder AND valid_from > beyond ORDER BY valid_from LIMIT 1;
                until := (
                    SELECT least(last_timestamp, kept.valid_from + longest_lead(holder) - interval '1 microsecond')
                    FROM vehicle_live_status WHERE vehicle_id = holder);
                IF until > beyond THEN  -- mostly there is no later reading
                    SELECT holder, found.begins, NULL, found.meter_id INTO place
                    FROM next_claimed(holder, beyond, kept.valid_from, until) AS found;
                END IF;
                IF place.vehicle_id IS NULL AND kept.source = 'reading' THEN
                    place := ROW(holder, kept.valid_from, NULL, kept.meter_id);
                END IF;
                IF step = 2 THEN
                    next := place;
                ELSIF place.meter_id IS DISTINCT FROM next.meter_id THEN
                    place := NULL;
                END IF;
            END IF;

            CONTINUE WHEN place.vehicle_id IS NULL;
            INSERT INTO link_locks
            SELECT place.meter_id WHERE place.meter_id IS NOT NULL ON CONFLICT DO NOTHING;
            PERFORM FROM link_locks WHERE device_id = place.meter_id FOR UPDATE;
            IF place.meter_id IS NULL
               OR (SELECT continues
                   FROM continues_link(place.vehicle_id, place."timestamp", place.meter_id)) THEN
                DELETE FROM links
                WHERE vehicle_id = place.vehicle_id AND valid_from = place."timestamp"
                  AND source = 'reading';
            ELSE
                INSERT INTO links AS link (vehicle_id, valid_from, meter_id, source)
                VALUES (place.vehicle_id, place."timestamp", place.meter_id, 'reading')
                ON CONFLICT (vehicle_id, valid_from) DO UPDATE SET meter_id = excluded.meter_id
                WHERE link.source = 'reading' AND link.meter_id != excluded.meter_id;
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- Takes a claim of the API. Beside its own meters those who change claims lock the one that fed the
-- vehicle until then: a reading being written may rely on that it still does.
CREATE OR REPLACE FUNCTION claim_by_api(id text, since timestamptz, meter text) RETURNS void
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
    PERFORM claim_meters(
        array_agg(DISTINCT ROW(id, since, old, meter)::link_claim), true)
    FROM unnest(concerned) AS old;
END
$$;

-- Links a vehicle to a meter from an instant on; returns the link as it holds now, and whether the
-- API had said nothing of that instant before. only_where_new: where this meter feeds the vehicle
-- from then on already, that link is returned and nothing written.
CREATE OR REPLACE FUNCTION link_vehicle(id text, since timestamptz, meter text, only_where_new boolean)
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
                  WHERE meter_id = meter AND (valid_from, vehicle_id) > (since, id)
                  ORDER BY valid_from, vehicle_id LIMIT 1)),
           'api';
END
$$;

-- Ends the link that holds at an instant there; returns it, and nothing where none holds.
CREATE OR REPLACE FUNCTION unlink_vehicle(id text, until timestamptz)
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
CREATE OR REPLACE FUNCTION list_links(id text, before timestamptz, most integer)
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

GRANT EXECUTE ON FUNCTION
    links_of, most_links, judged_links_of, holder_of, continues_link, claim_lead, longest_lead, claimed_at,
    next_claimed, claim_meters
TO telemetry_maintain;
GRANT EXECUTE ON FUNCTION links_of, most_links, judged_links_of TO telemetry_read;
GRANT EXECUTE ON FUNCTION link_vehicle, unlink_vehicle, list_links TO telemetry_ingest;
