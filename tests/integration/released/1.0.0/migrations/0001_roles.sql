-- Who may do what. The role that applies the migrations owns everything but history; it needs CREATEROLE,
-- as the master user of a managed server has. The others may log in once they are given a password (or
-- another way in), and do just this:
--   telemetry_ingest  calls the store's functions, which run with their owner's rights
--   telemetry_read    reads
--   telemetry_alerts  calls the functions that raise faults, likewise
--   telemetry_correct  calls those that void readings and erase devices, likewise
--   telemetry_maintain  owns history, whose partitions only an owner can make, detach and drop, and
--                       writes what is derived from it
-- Each migration grants what they may do with its tables, each file of functions with its functions.
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
        -- Who has given up a statement is noticed: not behind a proxy, which keeps its connections.
        EXECUTE format('ALTER ROLE %I SET client_connection_check_interval = ''1s''', name);
        -- Without sequential scans, and over all partitions, a plan may seem dear enough to be
        -- compiled: seconds, for milliseconds of work.
        EXECUTE format('ALTER ROLE %I SET jit = off', name);
        IF name = 'telemetry_read' THEN
            -- For the functions that it calls; a function's own SET costs more than its
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

-- A function is its owner's alone until a role is granted it.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- The files of functions that were ever applied (telemetry.stored_functions), so that older code can tell
-- a newer database from one that is behind. Those applied last are in force.
CREATE TABLE schema_functions (
    applied_at timestamptz NOT NULL,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    signatures text[]      NOT NULL,
    PRIMARY KEY (name, checksum)
);
GRANT SELECT ON schema_migrations, schema_functions TO telemetry_read;
