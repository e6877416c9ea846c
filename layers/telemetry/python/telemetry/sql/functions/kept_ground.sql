-- What common_hour keeps of a device of either stream.

-- Takes away the hours that these readings touch: where both sides report every minute, those that are within three
-- minutes, and else two hours beside them as well: an interval may reach in from there, and one of the other side into
-- that.
CREATE OR REPLACE FUNCTION forget_{stream}_ground(changed reading_key[]) RETURNS void LANGUAGE sql AS $$
    DELETE FROM common_hour kept
    USING (SELECT DISTINCT * FROM unnest(changed)) AS reading
    WHERE kept.{device} = reading.device_id
      AND kept.hour BETWEEN rollup_hour(reading."timestamp") - interval '2 hours'
                        AND rollup_hour(reading."timestamp") + interval '2 hours'
      AND (reading."timestamp" BETWEEN kept.hour - interval '3 minutes' AND kept.hour + interval '63 minutes'
           OR EXISTS (SELECT FROM vehicle_live_status live
                      WHERE live.vehicle_id = kept.vehicle_id AND live.longest_seconds > 60)
           OR EXISTS (SELECT FROM meter_live_status live
                      WHERE live.meter_id = kept.meter_id AND live.longest_seconds > 60))
$$;
