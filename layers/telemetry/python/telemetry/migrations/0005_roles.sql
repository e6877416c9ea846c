-- Who may do what. The role that applies the migrations owns everything but history; it needs CREATEROLE,
-- as the master user of a managed server has. The others may log in once they are given a password (or
-- another way in), and do just this:
--   telemetry_ingest  calls the store's functions, which run with their owner's rights
--   telemetry_read    reads
--   telemetry_alerts  calls the functions that raise faults (0009), likewise
--   telemetry_correct  calls those that void readings (0012), likewise
--   telemetry_maintain  owns history, whose partitions only an owner can make, detach and drop, and
--                       writes what is derived from it (0006 to 0008 grant that of their tables)
--
-- Roles belong to the server, not to the database: another database may have made them already. Their
-- settings hold what a session may not SET, because a proxy would then pin its connection: a limit
-- for each statement, below that of the client; the isolation that the store's proof needs; and the
-- forms of dates that the client reads.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'telemetry_ingest', 'telemetry_read', 'telemetry_alerts', 'telemetry_correct',
        'telemetry_maintain'
    ] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = name);
        BEGIN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            CONTINUE;  -- in this instant
        END;
        EXECUTE format('ALTER ROLE %I SET statement_timeout = ''5s''', name);
        EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = ''10s''', name);
        EXECUTE format('ALTER ROLE %I SET default_transaction_isolation = ''read committed''', name);
        EXECUTE format('ALTER ROLE %I SET datestyle = ''ISO, MDY''', name);
        EXECUTE format('ALTER ROLE %I SET timezone = ''UTC''', name);
        -- Without sequential scans, and over all partitions, a plan may seem dear enough to be
        -- compiled: seconds, for milliseconds of work.
        EXECUTE format('ALTER ROLE %I SET jit = off', name);
        IF name = 'telemetry_read' THEN
            -- For the functions that it calls (0004); a function's own SET costs more than its
            -- statements.
            ALTER ROLE telemetry_read SET plan_cache_mode = 'force_generic_plan';
            ALTER ROLE telemetry_read SET enable_seqscan = 'off';
        ELSIF name = 'telemetry_maintain' THEN
            -- It reads and writes days as a whole; each lock that it takes has a limit of its own.
            ALTER ROLE telemetry_maintain SET statement_timeout = 0;
        END IF;
    END LOOP;
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION
    store_meter_readings, store_meter_reading, store_vehicle_readings, store_vehicle_reading,
    vehicle_performance, charging_status, report_charging
FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
    store_meter_readings, store_meter_reading, store_vehicle_readings, store_vehicle_reading
TO telemetry_ingest;

GRANT EXECUTE ON FUNCTION vehicle_performance, charging_status, report_charging TO telemetry_read;
GRANT SELECT ON
    meter_telemetry_history, meter_live_status, meter_hourly_rollup, meter_daily_rollup,
    vehicle_telemetry_history, vehicle_live_status, vehicle_hourly_rollup, vehicle_daily_rollup,
    meter_history, meter_live_state, vehicle_history, vehicle_live_state,
    schema_migrations, archive_horizon, archive_files
TO telemetry_read;

-- The owner keeps all rights to history as a member of the role that has it.
DO $$
DECLARE
    history regclass;
BEGIN
    -- From PostgreSQL 16 on only who made a role may grant it: where that was another, the other.
    IF NOT pg_has_role('telemetry_maintain', 'USAGE') THEN
        EXECUTE format('GRANT telemetry_maintain TO %I', current_user);
    END IF;
    GRANT CREATE ON SCHEMA public TO telemetry_maintain;
    FOR history IN
        SELECT relid FROM pg_partition_tree('meter_telemetry_history')
        UNION ALL
        SELECT relid FROM pg_partition_tree('vehicle_telemetry_history')
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO telemetry_maintain', history);
    END LOOP;
END
$$;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    archive_horizon, archive_closed, archive_files, meter_pending, vehicle_pending,
    meter_live_status, meter_hourly_rollup, meter_daily_rollup,
    vehicle_live_status, vehicle_hourly_rollup, vehicle_daily_rollup
TO telemetry_maintain;
GRANT EXECUTE ON FUNCTION vehicle_performance, charging_status TO telemetry_maintain;
