-- What common_hour keeps of a device of either stream.

-- Takes away the hours in which these readings are, and those beside them, into which an interval may reach.
CREATE OR REPLACE FUNCTION forget_{stream}_ground(changed reading_key[]) RETURNS void LANGUAGE sql AS $$
    DELETE FROM common_hour
    USING (SELECT DISTINCT device_id, rollup_hour("timestamp") AS touched FROM unnest(changed)) AS reading
    WHERE {device} = reading.device_id
      AND hour BETWEEN touched - interval '1 hour' AND touched + interval '1 hour'
$$;
