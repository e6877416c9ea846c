-- Readings have a length: a reading is of the interval (timestamp - seconds, timestamp]. Null stands for
-- 60 seconds, so what is here already needs no rewriting. Voltage and temperature may be unknown.

ALTER TABLE meter_telemetry_history ALTER COLUMN voltage DROP NOT NULL,
    ADD COLUMN told_seconds numeric, ADD COLUMN seconds numeric;
ALTER TABLE vehicle_telemetry_history ALTER COLUMN battery_temp DROP NOT NULL,
    ADD COLUMN told_seconds numeric, ADD COLUMN seconds numeric;
ALTER TABLE meter_pending ALTER COLUMN voltage DROP NOT NULL,
    ADD COLUMN told_seconds numeric, ADD COLUMN seconds numeric;
ALTER TABLE vehicle_pending ALTER COLUMN battery_temp DROP NOT NULL,
    ADD COLUMN told_seconds numeric, ADD COLUMN seconds numeric;
ALTER TABLE meter_void_receipt ALTER COLUMN voltage DROP NOT NULL,
    ADD COLUMN told_seconds numeric, ADD COLUMN seconds numeric;
ALTER TABLE vehicle_void_receipt ALTER COLUMN battery_temp DROP NOT NULL,
    ADD COLUMN told_seconds numeric, ADD COLUMN seconds numeric;

DO $$
DECLARE
    closed record;
BEGIN
    FOR closed IN SELECT name, stream FROM archive_closed LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I DROP NOT NULL,
                        ADD COLUMN told_seconds numeric, ADD COLUMN seconds numeric', closed.name,
                       CASE closed.stream WHEN 'meter' THEN 'voltage' ELSE 'battery_temp' END);
    END LOOP;
END
$$;

COMMENT ON COLUMN meter_telemetry_history.seconds IS
    'Length of the interval that ends at the timestamp (s); null: 60.';
COMMENT ON COLUMN vehicle_telemetry_history.seconds IS
    'Length of the interval that ends at the timestamp (s); null: 60.';
COMMENT ON COLUMN meter_telemetry_history.told_seconds IS
    'The length that the reading told itself; else seconds is what its device was declared to have.';
COMMENT ON COLUMN vehicle_telemetry_history.told_seconds IS
    'The length that the reading told itself; else seconds is what its device was declared to have.';

-- Finds the readings that reach from before an instant beyond it. One of up to a minute reaches nowhere.
CREATE INDEX meter_telemetry_history_long
    ON meter_telemetry_history (meter_id, "timestamp") WHERE seconds > 60;
CREATE INDEX vehicle_telemetry_history_long
    ON vehicle_telemetry_history (vehicle_id, "timestamp") WHERE seconds > 60;

ALTER TABLE meter_live_status ALTER COLUMN last_voltage DROP NOT NULL,
    ADD COLUMN last_seconds numeric, ADD COLUMN longest_seconds numeric;
ALTER TABLE vehicle_live_status ALTER COLUMN last_battery_temp DROP NOT NULL,
    ADD COLUMN last_seconds numeric, ADD COLUMN longest_seconds numeric;

COMMENT ON COLUMN meter_live_status.longest_seconds IS
    'No reading of the device is longer (s); null: 60. An edge of a window looks so far beyond.';
COMMENT ON COLUMN meter_live_status.reports_register IS
    'Whether the device is, or was, declared to report a running register, or a cadence: see devices.';

-- minutes stays what it was: a reading ended there. Null stands for what it is if every reading of the
-- hour is one of 60 seconds: covered for minutes, seconds for 60 times readings.
ALTER TABLE meter_hourly_rollup
    ADD COLUMN covered bigint, ADD COLUMN seconds numeric, ADD COLUMN kwh_estimated numeric;
ALTER TABLE vehicle_hourly_rollup
    ADD COLUMN covered bigint, ADD COLUMN seconds numeric, ADD COLUMN kwh_estimated numeric,
    ADD COLUMN battery_temps integer;

COMMENT ON COLUMN meter_hourly_rollup.covered IS
    'Bit n (0 to 59) is set when an interval of up to an hour covers minute n; null: minutes.';
COMMENT ON COLUMN meter_hourly_rollup.seconds IS
    'Seconds of intervals of up to an hour that fall in the hour; null: 60 × readings.';
COMMENT ON COLUMN meter_hourly_rollup.kwh_estimated IS
    'Of the energy, that of intervals of more than an hour: they say how much, and not when.';
COMMENT ON COLUMN vehicle_hourly_rollup.battery_temps IS
    'Readings with a temperature; null: all.';

ALTER TABLE meter_daily_rollup ADD COLUMN seconds_heard numeric, ADD COLUMN kwh_estimated numeric;
ALTER TABLE vehicle_daily_rollup ADD COLUMN seconds_heard numeric, ADD COLUMN kwh_estimated numeric,
    ADD COLUMN battery_temps integer;

COMMENT ON COLUMN meter_daily_rollup.minutes_heard IS
    'Whole minutes of the day that were heard, of 1440.';
COMMENT ON COLUMN meter_daily_rollup.seconds_heard IS
    'Seconds of the day that were heard; null: 60 × minutes_heard.';

ALTER TABLE vehicle_summary ADD COLUMN kwh_ac_estimated numeric, ADD COLUMN kwh_dc_estimated numeric,
    ADD COLUMN battery_temps bigint;

ALTER TABLE device_declarations
    ADD COLUMN cadence_seconds integer CHECK (cadence_seconds BETWEEN 1 AND 86400);

COMMENT ON COLUMN device_declarations.cadence_seconds IS
    'How often it reports, which is the length of its intervals (s); null: 60.';

ALTER TYPE meter_event ADD ATTRIBUTE told_seconds numeric, ADD ATTRIBUTE seconds numeric;
ALTER TYPE vehicle_event ADD ATTRIBUTE told_seconds numeric, ADD ATTRIBUTE seconds numeric;

-- What these return has changed; nothing but functions calls them.
DROP FUNCTION IF EXISTS meter_whole_hours, vehicle_whole_hours, meter_edge, vehicle_edge,
    vehicle_performance, declaration_of;
