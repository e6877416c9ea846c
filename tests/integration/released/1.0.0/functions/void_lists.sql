-- The voids of both streams, the newest first, or those of a device or a reading; after_… are of the
-- last row before. receipts are those that are kept aside.
CREATE OR REPLACE FUNCTION list_voids(
    of_stream text, of_device text, of_time timestamptz, after_at timestamptz, after_stream text,
    after_device text, after_time timestamptz, most integer
) RETURNS SETOF listed_void LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, pg_temp
SET timezone = 'UTC' AS $$
    SELECT page.*, CASE page.stream
        WHEN 'meter' THEN (
            SELECT jsonb_agg(to_jsonb(kept) - '{meter_id,timestamp}'::text[] ORDER BY received_at)
            FROM meter_void_receipt kept
            WHERE kept.meter_id = page.device_id AND kept."timestamp" = page."timestamp"
              AND page.withdrawn_at IS NULL)
        ELSE (
            SELECT jsonb_agg(to_jsonb(kept) - '{vehicle_id,timestamp}'::text[] ORDER BY received_at)
            FROM vehicle_void_receipt kept
            WHERE kept.vehicle_id = page.device_id AND kept."timestamp" = page."timestamp"
              AND page.withdrawn_at IS NULL)
        END
    FROM (
        SELECT * FROM (
            SELECT 'meter' AS stream, meter_id AS device_id, "timestamp", voided_at, voided_by,
                   voided_why, voided_token, withdrawn_at, withdrawn_by, withdrawn_why,
                   withdrawn_token, pending
            FROM meter_void
            WHERE (of_stream IS NULL OR of_stream = 'meter' AND meter_id = of_device)
              AND (of_time IS NULL OR "timestamp" = of_time)
              AND (after_at IS NULL OR voided_at <= after_at)
            UNION ALL
            SELECT 'vehicle', vehicle_id, "timestamp", voided_at, voided_by, voided_why,
                   voided_token, withdrawn_at, withdrawn_by, withdrawn_why, withdrawn_token,
                   pending
            FROM vehicle_void
            WHERE (of_stream IS NULL OR of_stream = 'vehicle' AND vehicle_id = of_device)
              AND (of_time IS NULL OR "timestamp" = of_time)
              AND (after_at IS NULL OR voided_at <= after_at)
        ) AS void
        WHERE after_at IS NULL OR voided_at < after_at
           OR (void.stream, void.device_id, void."timestamp") > (after_stream, after_device, after_time)
        ORDER BY voided_at DESC, void.stream, void.device_id, void."timestamp"
        LIMIT most
    ) AS page
    ORDER BY voided_at DESC, page.stream, page.device_id, page."timestamp"
$$;

GRANT EXECUTE ON FUNCTION list_voids TO telemetry_correct;
