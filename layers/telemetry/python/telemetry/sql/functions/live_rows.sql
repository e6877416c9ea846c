-- The live row of a device, for what is done to the device by other than a reading of it.

-- Locks a device's live row as writers of its readings do. Where there is none it makes one that shows
-- nothing: whoever stores the first reading of the device in this moment waits, and then sees what was
-- done. What was accepted up to the guard counts as late.
CREATE OR REPLACE FUNCTION hold_{stream}(id text, guard timestamptz, is_register boolean) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO {stream}_live_status AS live
        ({device}, last_timestamp, updated_at, voided_to, reports_register, {live_columns})
    VALUES (id, '-infinity', '-infinity', guard, is_register, {live_zeros})
    ON CONFLICT ({device}) DO UPDATE SET
        voided_to = greatest(live.voided_to, guard),
        reports_register = live.reports_register OR is_register
$$;

-- Takes away a live row that shows nothing.
CREATE OR REPLACE FUNCTION release_{stream}(id text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM {stream}_live_status WHERE {device} = id AND last_timestamp = '-infinity'
$$;
