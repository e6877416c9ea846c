-- What the readings of the window say of the reason: the voltage while energy was drawn, and hints.
CREATE OR REPLACE FUNCTION explain_fault(
    meter text, evidence jsonb, low_voltage double precision, high_battery_temp double precision
) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
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

-- Judges the chargers of at most so many vehicles after an id, and changes their faults. Returns the
-- last of these vehicles, and null where there is none. Whoever runs this runs alone, until commit.
CREATE OR REPLACE FUNCTION evaluate_faults(
    after_id text, most integer, until timestamptz, length interval, by_name boolean,
    least_kwh double precision, least_coverage double precision,
    low_voltage double precision, high_battery_temp double precision
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off AS $$
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
    INSERT INTO charger_window (window_end, status, vehicle_id, meter_id, evidence)
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
               sum(done.kwh_ac) AS ac, sum(done.kwh_dc) AS dc, sum(done.kwh_dc_linked) AS dc_linked,
               sum(done.kwh_ac_compared) AS ac_compared, sum(done.kwh_dc_compared) AS dc_compared,
               sum(done.kwh_unsure) AS unsure, sum(done.compared_minutes)::bigint AS compared_minutes,
               sum(done.minutes_heard)::bigint AS minutes, sum(done.meter_minutes)::bigint AS meter_minutes,
               sum(done.linked_minutes)::bigint AS linked_minutes,
               sum(done.battery_temp_sum) / nullif(sum(done.battery_temps), 0) AS battery_temp
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
        SELECT *, charging_status(ac_compared, dc_compared, ac, dc_linked, unsure, minutes, linked_minutes,
                                  meter_minutes, linked_minutes, least_kwh::numeric, least_coverage::numeric) AS status
        FROM charged
    )
    SELECT window_end, status, vehicle_id, meter_id, jsonb_build_object(
        'timeWindowStart', window_end - length, 'timeWindowEnd', window_end, 'status', status,
        'totalEnergyConsumedAc', round(ac, 3), 'totalEnergyDeliveredDc', round(dc, 3),
        'comparedKwhAc', round(ac_compared, 3), 'comparedKwhDc', round(dc_compared, 3),
        'comparedMinutes', compared_minutes,
        'efficiencyRatio', round(100 * dc_compared / ac_compared, 2), 'linkedMinutes', linked_minutes,
        'vehicleCoverage', round(least(1, minutes::numeric / nullif(linked_minutes, 0)), 2),
        'meterCoverage', round(least(1, meter_minutes::numeric / nullif(linked_minutes, 0)), 2),
        'averageBatteryTemp', round(battery_temp, 2))
    FROM judged
    WHERE status != 'insufficient';

    -- Kept are the two that may be judged anew, and the two before, on which they may then lean; of implausible
    -- ones and of the others.
    DELETE FROM charger_window old
    WHERE vehicle_id = ANY (ids) AND window_end < (
        SELECT window_end FROM charger_window newer
        WHERE newer.vehicle_id = old.vehicle_id AND newer.meter_id = old.meter_id
          AND (newer.status = 'implausible') = (old.status = 'implausible')
        ORDER BY window_end DESC OFFSET 3 LIMIT 1);

    FOR found IN
        SELECT latest.*, fault.fault_id
        FROM (
            SELECT kind, vehicle_id, meter_id, max(window_end) AS window_end,
                   (array_agg(status = bad ORDER BY window_end DESC))[:2] AS verdicts,
                   (array_agg(evidence ORDER BY window_end DESC))[1] AS evidence
            FROM charger_window
            -- Too much energy says nothing of whether too little arrives.
            JOIN (VALUES ('efficiency', 'fault'), ('implausible', 'implausible')) AS alert (kind, bad)
                ON kind = 'implausible' OR status != 'implausible'
            WHERE vehicle_id = ANY (ids)
            GROUP BY kind, vehicle_id, meter_id
        ) AS latest
        LEFT JOIN LATERAL (
            SELECT * FROM fault
            WHERE fault.vehicle_id = latest.vehicle_id AND fault.meter_id = latest.meter_id
              AND fault.kind = latest.kind
            ORDER BY opened_window DESC LIMIT 1
        ) AS fault ON true
        WHERE verdicts = '{t,t}' AND (fault_id IS NULL OR cleared_window < window_end)
           OR verdicts = '{f,f}' AND state != 'cleared' AND opened_window < window_end
    LOOP
        found.evidence := explain_fault(found.meter_id, found.evidence, low_voltage, high_battery_temp);
        IF found.verdicts[1] THEN
            opening := encode(substring(sha256(convert_to(
                concat_ws('/', found.vehicle_id, found.meter_id, extract(epoch FROM found.window_end),
                          nullif(found.kind, 'efficiency')),
                'UTF8')) FOR 16), 'hex');
            INSERT INTO fault (fault_id, opened_window, vehicle_id, meter_id, kind)
            VALUES (opening, found.window_end, found.vehicle_id, found.meter_id, found.kind);
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

-- The first vehicle after an id; null where there is none.
CREATE OR REPLACE FUNCTION find_next_vehicle(after_id text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, pg_temp AS $$
    SELECT min(vehicle_id) FROM vehicle_live_status WHERE vehicle_id > after_id
$$;

-- The oldest changes that nobody has taken yet, and nobody is just now publishing: they are locked until
-- the transaction ends, which is to publish and mark them.
CREATE OR REPLACE FUNCTION take_notices(most integer) RETURNS TABLE (
    fault_id uuid, change text, changed_at timestamptz, vehicle_id text, meter_id text, kind text, details jsonb
) LANGUAGE sql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
    SELECT change.fault_id, change.change, change.changed_at, fault.vehicle_id, fault.meter_id,
           fault.kind, change.details
    FROM fault_change change
    JOIN fault ON fault.fault_id = change.fault_id
    WHERE change.published_at IS NULL
    ORDER BY change.changed_at, change.fault_id, change.change
    LIMIT most
    FOR UPDATE OF change SKIP LOCKED
$$;

-- The same for code of before there were kinds.
CREATE OR REPLACE FUNCTION take_fault_changes(most integer) RETURNS TABLE (
    fault_id uuid, change text, changed_at timestamptz, vehicle_id text, meter_id text, details jsonb
) LANGUAGE sql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
    SELECT fault_id, change, changed_at, vehicle_id, meter_id, details FROM take_notices(most)
$$;

CREATE OR REPLACE FUNCTION mark_fault_changes(fault_ids uuid[], changes text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
    UPDATE fault_change SET published_at = clock_timestamp()
    FROM unnest(fault_ids, changes) AS published (fault_id, change)
    WHERE fault_change.fault_id = published.fault_id AND fault_change.change = published.change
$$;

CREATE OR REPLACE FUNCTION count_fault_changes() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, pg_temp AS $$
    SELECT count(*) FROM fault_change WHERE published_at IS NULL
$$;

-- Says who looks after a fault and why; who said so first stands. Returns the fault's state: null
-- where there is none, cleared where it is too late.
CREATE OR REPLACE FUNCTION acknowledge_fault(id uuid, by_whom text, why text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE fault SET state = 'acknowledged' WHERE fault_id = id AND state = 'open';
    IF FOUND THEN
        INSERT INTO fault_change (fault_id, change, details)
        VALUES (id, 'acknowledged', jsonb_build_object('by', by_whom, 'why', why));
    END IF;
    RETURN (SELECT state FROM fault WHERE fault_id = id);
END
$$;

GRANT EXECUTE ON FUNCTION
    evaluate_faults, find_next_vehicle, take_notices, take_fault_changes, mark_fault_changes, count_fault_changes,
    acknowledge_fault
TO telemetry_alerts;
