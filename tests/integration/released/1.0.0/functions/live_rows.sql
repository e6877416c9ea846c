-- The live row of a device, for what is done to the device by other than a reading of it.

-- Locks a device's live row as writers of its readings do. Where there is none it makes one that shows
-- nothing: whoever stores the first reading of the device in this moment waits, and then sees what was
-- done. What was accepted up to the guard counts as late.
CREATE OR REPLACE FUNCTION hold_meter(id text, guard timestamptz, is_register boolean) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO meter_live_status AS live
        (meter_id, last_timestamp, updated_at, voided_to, reports_register, last_kwh_consumed_ac, last_voltage)
    VALUES (id, '-infinity', '-infinity', guard, is_register, 0, 0)
    ON CONFLICT (meter_id) DO UPDATE SET
        voided_to = greatest(live.voided_to, guard),
        reports_register = live.reports_register OR is_register
$$;

-- Takes away a live row that shows nothing.
CREATE OR REPLACE FUNCTION release_meter(id text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM meter_live_status WHERE meter_id = id AND last_timestamp = '-infinity'
$$;
-- The live row of a device, for what is done to the device by other than a reading of it.

-- Locks a device's live row as writers of its readings do. Where there is none it makes one that shows
-- nothing: whoever stores the first reading of the device in this moment waits, and then sees what was
-- done. What was accepted up to the guard counts as late.
CREATE OR REPLACE FUNCTION hold_vehicle(id text, guard timestamptz, is_register boolean) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO vehicle_live_status AS live
        (vehicle_id, last_timestamp, updated_at, voided_to, reports_register, last_kwh_delivered_dc, last_battery_temp)
    VALUES (id, '-infinity', '-infinity', guard, is_register, 0, 0)
    ON CONFLICT (vehicle_id) DO UPDATE SET
        voided_to = greatest(live.voided_to, guard),
        reports_register = live.reports_register OR is_register
$$;

-- Takes away a live row that shows nothing.
CREATE OR REPLACE FUNCTION release_vehicle(id text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM vehicle_live_status WHERE vehicle_id = id AND last_timestamp = '-infinity'
$$;
