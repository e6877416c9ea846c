-- Hourly rollups of both streams. Who writes them holds the lock of the device's live row.

-- Adds to hourly rollups what each reading adds to its hours: its values less those that counted for it
-- before. Sums are numeric, so this is exact. Returns how many events count now.
--
-- Each is added to the hour in which it ends; if it crosses into that, or did, its parts are put right beside it.
CREATE OR REPLACE FUNCTION count_{stream}_events(events {stream}_event[], old {stream}_event[])
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    fresh bigint;
BEGIN
    WITH counted AS (
        SELECT DISTINCT ON (event.{device}, event."timestamp")
               event.{device}, rollup_hour(event."timestamp") AS hour, event."timestamp",
               CASE WHEN old.{device} IS NULL THEN 1 ELSE 0 END AS is_new, {differences},
               event.{energy} AS kwh, event.seconds, old.{energy} AS old_kwh, old.seconds AS old_seconds,
               CASE WHEN event.battery_temp IS NULL THEN 0 ELSE 1 END                             -- of vehicles
               - CASE WHEN old.battery_temp IS NULL THEN 0 ELSE 1 END AS battery_temps,           -- of vehicles
               event.battery_temp IS NULL                                                         -- of vehicles
               OR old.vehicle_id IS NOT NULL AND old.battery_temp IS NULL AS lacks_temp,          -- of vehicles
               event.seconds IS NOT NULL OR old.seconds IS NOT NULL AS has_length,
               begin_of(greatest(event.seconds, old.seconds), event."timestamp")
               < rollup_hour(event."timestamp") AS crosses
        FROM unnest(events) AS event
        LEFT JOIN unnest(old) AS old
            ON old.{device} = event.{device} AND old."timestamp" = event."timestamp"
        WHERE old.{device} IS NULL OR event.received_at > old.received_at
        ORDER BY event.{device}, event."timestamp", event.received_at DESC
    ), part AS (
        SELECT {device}, hour, is_new, minute_bit("timestamp", hour) AS minutes, {sums},
               battery_temps, lacks_temp,                                                         -- of vehicles
               CASE WHEN crosses THEN 0
                    WHEN has_length THEN covered_minutes(hour, seconds, "timestamp")
                    ELSE minute_bit("timestamp", hour) END AS covered,
               CASE WHEN crosses THEN 0
                    WHEN is_new = 1 THEN coalesce(seconds, 60)
                    ELSE coalesce(seconds, 60) - coalesce(old_seconds, 60) END AS seconds,
               NULL::numeric AS kwh_estimated, has_length
        FROM counted
        UNION ALL
        SELECT {device}, there.hour, 0, 0,
               sign * (kwh_there - CASE WHEN there.hour = counted.hour THEN length.kwh ELSE 0 END),
               0, 0, false,                                                                       -- of vehicles
               CASE WHEN sign = 1 THEN covered ELSE 0 END, sign * seconds_there,
               CASE WHEN length.seconds > 3600 THEN sign * kwh_there END, true
        FROM counted
        CROSS JOIN LATERAL (VALUES (1, kwh, counted.seconds), (-1, old_kwh, old_seconds))
            AS length (sign, kwh, seconds)
        CROSS JOIN LATERAL hours_of(length.kwh, length.seconds, "timestamp") AS there
        WHERE crosses AND length.kwh IS NOT NULL
    ), written AS (
        INSERT INTO {stream}_hourly_rollup AS rollup
            ({device}, hour, readings, minutes, {sums},
             battery_temps,                                                                       -- of vehicles
             covered, seconds, kwh_estimated)
        SELECT {device}, hour, sum(is_new), bit_or(minutes), {resummed},
               CASE WHEN bool_or(lacks_temp) THEN sum(battery_temps) END,                         -- of vehicles
               CASE WHEN bool_or(has_length) THEN bit_or(covered) END,
               CASE WHEN bool_or(has_length) THEN sum(seconds) END, sum(kwh_estimated)
        FROM part
        GROUP BY {device}, hour
        ORDER BY {device}, hour
        ON CONFLICT ({device}, hour) DO UPDATE SET
            readings = rollup.readings + excluded.readings,
            minutes = rollup.minutes | excluded.minutes, {added},
            battery_temps = CASE                                                                  -- of vehicles
                WHEN coalesce(rollup.battery_temps, excluded.battery_temps) IS NOT NULL           -- of vehicles
                THEN coalesce(rollup.battery_temps, rollup.readings)                              -- of vehicles
                     + coalesce(excluded.battery_temps, excluded.readings) END,                   -- of vehicles
            covered = CASE
                WHEN coalesce(rollup.covered, excluded.covered) IS NOT NULL
                THEN coalesce(rollup.covered, rollup.minutes)
                     | coalesce(excluded.covered, excluded.minutes) END,
            seconds = CASE
                WHEN coalesce(rollup.seconds, excluded.seconds) IS NOT NULL
                THEN coalesce(rollup.seconds, 60 * rollup.readings)
                     + coalesce(excluded.seconds, 60 * excluded.readings) END,
            kwh_estimated = CASE
                WHEN coalesce(rollup.kwh_estimated, excluded.kwh_estimated) IS NOT NULL
                THEN coalesce(rollup.kwh_estimated, 0) + coalesce(excluded.kwh_estimated, 0) END
    )
    SELECT count(*) INTO fresh FROM counted;

    IF EXISTS (SELECT FROM unnest(events) WHERE seconds > 60) THEN
        UPDATE {stream}_live_status live SET longest_seconds = longest.seconds
        FROM (SELECT {device}, max(seconds) AS seconds FROM unnest(events) GROUP BY 1) AS longest
        WHERE live.{device} = longest.{device} AND longest.seconds > coalesce(live.longest_seconds, 60);
    END IF;
    RETURN fresh;
END
$$;

-- What hourly rollups say of (after, until], whole hours, computed of what counts in history and in others,
-- receipts of the archive. all_until is as far beyond as a reading may begin before until.
CREATE OR REPLACE FUNCTION {stream}_hours(
    id text, after timestamptz, until timestamptz, all_until timestamptz, others jsonb
) RETURNS SETOF {stream}_hourly_rollup LANGUAGE sql STABLE AS $$
    SELECT there.hour, bit_or(CASE WHEN ended THEN minute_bit("timestamp", there.hour) ELSE 0 END),
           count(*) FILTER (WHERE ended)::integer, id, sum(kwh_there),
           coalesce(sum(battery_temp) FILTER (WHERE ended), 0),                                   -- of vehicles
           CASE WHEN count(seconds) > 0 THEN bit_or(covered) END,
           CASE WHEN count(seconds) > 0 THEN sum(seconds_there) END,
           sum(kwh_there) FILTER (WHERE seconds > 3600)
           , nullif(count(battery_temp) FILTER (WHERE ended), count(*) FILTER (WHERE ended))::integer -- of vehicles
    FROM (
        SELECT DISTINCT ON ("timestamp") *
        FROM (
            SELECT * FROM {stream}_counted(id, after, until, after, all_until)
            UNION ALL
            SELECT * FROM jsonb_populate_recordset(NULL::{history}, others)
        ) AS receipt
        ORDER BY "timestamp", received_at DESC
    ) AS counted
    CROSS JOIN LATERAL hours_of({energy}, seconds, "timestamp") AS there
    CROSS JOIN LATERAL (SELECT there.hour = rollup_hour("timestamp")) AS place (ended)
    WHERE there.hour >= after AND there.hour < until
    GROUP BY there.hour
$$;

-- After a change of readings of another length than a minute: sets anew which minutes are covered of the hours that
-- they are in, and takes hours away of which nothing is left. Archived hours keep what they have: their readings are
-- not here, and the seconds of them are right all the same.
CREATE OR REPLACE FUNCTION mend_{stream}_hours(id text, after timestamptz, until timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first_hour constant timestamptz := greatest(
        rollup_hour(after + interval '1 microsecond'),
        (SELECT archived_to FROM archive_horizon WHERE stream = '{stream}'));
    last_hour  constant timestamptz := ceil_hour(until);
    reaching   constant timestamptz := last_hour + reach_of(
        (SELECT longest_seconds FROM {stream}_live_status WHERE {device} = id));
BEGIN
    WITH found AS MATERIALIZED (
        SELECT hour, minutes, covered FROM {stream}_hours(id, first_hour, last_hour, reaching, '[]')
    ), gone AS (
        DELETE FROM {stream}_hourly_rollup rollup
        WHERE {device} = id AND hour >= rollup_hour(after + interval '1 microsecond') AND hour < last_hour
          AND minutes = 0
          AND CASE WHEN hour >= first_hour THEN NOT EXISTS (SELECT FROM found WHERE found.hour = rollup.hour)
                   ELSE readings = 0 AND seconds = 0 AND kwh_estimated IS NULL END
    )
    UPDATE {stream}_hourly_rollup rollup SET covered = coalesce(found.covered, found.minutes)
    FROM found
    WHERE rollup.{device} = id AND rollup.hour = found.hour AND rollup.covered IS NOT NULL;
END
$$;

GRANT EXECUTE ON FUNCTION count_{stream}_events, {stream}_hours, mend_{stream}_hours TO telemetry_maintain;
