-- Energies are compared over the time in which a vehicle and its meter were both heard: see common_ground.sql.

-- What a vehicle and a meter have in common in an hour that is over, where one of them was not heard all the
-- time: a fact about two devices, whichever link holds. Made by the summaries, so that it outlives the history
-- of the hour. Who changes a reading takes away the hours that it touches.
CREATE TABLE common_hour (
    hour       timestamptz NOT NULL,
    seconds    numeric     NOT NULL,
    vehicle_id text        COLLATE "C" NOT NULL,
    meter_id   text        COLLATE "C" NOT NULL,
    kwh_ac     numeric     NOT NULL,
    kwh_dc     numeric     NOT NULL,
    kwh_unsure numeric     NOT NULL,
    PRIMARY KEY (vehicle_id, meter_id, hour)
);

CREATE INDEX common_hour_meter ON common_hour (meter_id, hour);

COMMENT ON COLUMN common_hour.kwh_ac IS
    'Of the energy that the meter measured in the hour, that of the time in which the vehicle was heard, too.';
COMMENT ON COLUMN common_hour.kwh_unsure IS
    'Energy of intervals of more than two minutes of which a part only is common.';

GRANT SELECT ON common_hour TO telemetry_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON common_hour TO telemetry_maintain;

-- An interval of up to an hour of either side.
CREATE TYPE measured_interval AS (
    begins timestamptz, ends timestamptz, length interval, kwh numeric, of_meter boolean, span tstzrange
);

-- A vehicle and a meter that fed it at some time.
CREATE TYPE device_pair AS (vehicle_id text COLLATE "C", meter_id text COLLATE "C");

-- Energy of an hour of which nothing says what the other side had meanwhile.
CREATE TYPE unmatched_hour AS (
    hour timestamptz, meter_id text COLLATE "C", kwh_ac numeric, kwh_dc numeric
);

ALTER TYPE charging_window ADD ATTRIBUTE reach interval;
ALTER TYPE charged_window ADD ATTRIBUTE unmatched unmatched_hour[];

ALTER TABLE vehicle_summary
    ADD COLUMN compared_minutes bigint, ADD COLUMN kwh_ac_compared numeric, ADD COLUMN kwh_dc_compared numeric,
    ADD COLUMN kwh_dc_linked numeric, ADD COLUMN kwh_unsure numeric;
COMMENT ON COLUMN vehicle_summary.kwh_dc_linked IS 'Of kwh_dc, that of the time in which a meter fed the vehicle.';
COMMENT ON COLUMN vehicle_summary.rank IS
    'DC - AC (kWh) of what was compared: the lower, the more was lost; Infinity where it is not known.';

ALTER TABLE fleet_totals
    ADD COLUMN kwh_ac_compared numeric NOT NULL DEFAULT 0, ADD COLUMN kwh_dc_compared numeric NOT NULL DEFAULT 0;

-- Windows that were summarized by other rules are made anew.
DELETE FROM vehicle_summary;
DELETE FROM fleet_totals;
DELETE FROM fleet_window;

ALTER TABLE charger_window ADD COLUMN status text;
UPDATE charger_window SET status = evidence ->> 'status';
ALTER TABLE charger_window ALTER COLUMN status SET NOT NULL, DROP COLUMN at_fault;

ALTER TABLE fault ADD COLUMN kind text NOT NULL DEFAULT 'efficiency'
    CHECK (kind IN ('efficiency', 'implausible'));
COMMENT ON COLUMN fault.kind IS
    'efficiency: too little of what the meter measured reached the battery; implausible: more did.';
DROP INDEX fault_current, fault_of_charger;
CREATE UNIQUE INDEX fault_current ON fault (vehicle_id, meter_id, kind) WHERE state != 'cleared';
CREATE INDEX fault_of_charger ON fault (vehicle_id, meter_id, kind, opened_window);

-- What these return or take has changed; nothing but functions calls them.
DROP FUNCTION IF EXISTS vehicle_performance, charging_status;
