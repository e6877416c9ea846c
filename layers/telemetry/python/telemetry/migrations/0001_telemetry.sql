-- The tables of both streams: append-only history, one live row a device, one rollup row a
-- device and hour. Every key begins with the device id and nothing uses a sequence, so the same
-- schema can be sharded by device. Device ids compare byte by byte (COLLATE "C").
--
-- Columns of fixed width come first: PostgreSQL pads each one to its alignment, and a history row
-- of 10.5 billion a year should carry no padding. What is summed is numeric, so that a sum does not
-- depend on the order of its terms; what is only shown is double precision.

CREATE TABLE meter_telemetry_history (
    "timestamp"      timestamptz      NOT NULL,
    received_at      timestamptz      NOT NULL,
    voltage          double precision NOT NULL,
    meter_id         text             COLLATE "C" NOT NULL,
    kwh_consumed_ac  numeric          NOT NULL,
    register_kwh     numeric,
    PRIMARY KEY (meter_id, "timestamp", received_at)
) PARTITION BY RANGE ("timestamp");

CREATE TABLE vehicle_telemetry_history (
    "timestamp"      timestamptz      NOT NULL,
    received_at      timestamptz      NOT NULL,
    soc              double precision,
    vehicle_id       text             COLLATE "C" NOT NULL,
    kwh_delivered_dc numeric          NOT NULL,
    battery_temp     numeric          NOT NULL,
    meter_id         text             COLLATE "C",
    register_kwh     numeric,
    PRIMARY KEY (vehicle_id, "timestamp", received_at)
) PARTITION BY RANGE ("timestamp");

-- Finds the readings that name a meter among those that do not; these are not in it.
CREATE INDEX vehicle_telemetry_history_meter
    ON vehicle_telemetry_history (vehicle_id, "timestamp") WHERE meter_id IS NOT NULL;

COMMENT ON TABLE meter_telemetry_history IS
    'Every accepted meter event, re-sends too. A reading is (meter_id, timestamp); of its receipts the latest received_at counts.';
COMMENT ON COLUMN meter_telemetry_history."timestamp" IS
    'Device time. The energy is that of the interval which ends here.';
COMMENT ON COLUMN meter_telemetry_history.received_at IS
    'When the API accepted the event; assigned once and kept through the queue.';
COMMENT ON COLUMN meter_telemetry_history.register_kwh IS
    'What the device reported, where that is a running register; the energy is then what it grew by.';
COMMENT ON TABLE vehicle_telemetry_history IS
    'Every accepted vehicle event, re-sends too. A reading is (vehicle_id, timestamp); of its receipts the latest received_at counts.';
COMMENT ON COLUMN vehicle_telemetry_history.register_kwh IS
    'What the device reported, where that is a running register; the energy is then what it grew by.';
COMMENT ON COLUMN vehicle_telemetry_history.meter_id IS
    'The meter that fed the vehicle, where the reading names one.';

-- The past, so that any timestamp since 2000 has an explicit partition. What comes after is made by
-- telemetry.partitions; the default partition is a net that should stay empty.
DO $$
DECLARE
    stream text;
BEGIN
    FOREACH stream IN ARRAY ARRAY['meter_telemetry_history', 'vehicle_telemetry_history'] LOOP
        EXECUTE format($ddl$
            CREATE TABLE %1$s_2000_2009 PARTITION OF %1$s
                FOR VALUES FROM ('2000-01-01 00:00:00+00') TO ('2010-01-01 00:00:00+00');
            CREATE TABLE %1$s_2010_2019 PARTITION OF %1$s
                FOR VALUES FROM ('2010-01-01 00:00:00+00') TO ('2020-01-01 00:00:00+00');
            CREATE TABLE %1$s_default PARTITION OF %1$s DEFAULT;
        $ddl$, stream);
        FOR year IN 2020..2025 LOOP
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                stream || '_' || year, stream,
                format('%s-01-01 00:00:00+00', year), format('%s-01-01 00:00:00+00', year + 1)
            );
        END LOOP;
    END LOOP;
END
$$;

-- Live rows are rewritten at every reading: room on the page keeps those updates HOT.
CREATE TABLE meter_live_status (
    last_timestamp       timestamptz      NOT NULL,
    previous_timestamp   timestamptz      NOT NULL DEFAULT '-infinity',
    summed_to            timestamptz      NOT NULL DEFAULT '-infinity',
    voided_to            timestamptz      NOT NULL DEFAULT '-infinity',
    updated_at           timestamptz      NOT NULL,
    last_voltage         double precision NOT NULL,
    reports_register     boolean          NOT NULL DEFAULT false,
    meter_id             text             COLLATE "C" PRIMARY KEY,
    last_kwh_consumed_ac numeric          NOT NULL,
    last_register_kwh    numeric
) WITH (fillfactor = 50);

CREATE TABLE vehicle_live_status (
    last_timestamp        timestamptz      NOT NULL,
    previous_timestamp    timestamptz      NOT NULL DEFAULT '-infinity',
    summed_to             timestamptz      NOT NULL DEFAULT '-infinity',
    voided_to             timestamptz      NOT NULL DEFAULT '-infinity',
    updated_at            timestamptz      NOT NULL,
    soc                   double precision,
    soc_timestamp         timestamptz      NOT NULL DEFAULT '-infinity',
    soc_received_at       timestamptz      NOT NULL DEFAULT '-infinity',
    reports_register      boolean          NOT NULL DEFAULT false,
    vehicle_id            text             COLLATE "C" PRIMARY KEY,
    last_kwh_delivered_dc numeric          NOT NULL,
    last_battery_temp     numeric          NOT NULL,
    last_register_kwh     numeric,
    avg_battery_temp      numeric          GENERATED ALWAYS AS (last_battery_temp) STORED
) WITH (fillfactor = 50);

COMMENT ON TABLE meter_live_status IS
    'The newest reading of each meter by device time; of its receipts the latest.';
COMMENT ON COLUMN meter_live_status.last_timestamp IS 'Device time of the reading shown.';
COMMENT ON COLUMN meter_live_status.previous_timestamp IS
    'What last_timestamp was before the last batch: a writer tells by it which of its readings are newer.';
COMMENT ON COLUMN meter_live_status.summed_to IS
    'Up to here daily rollups are made of this device. Who stores an earlier reading makes its day anew.';
COMMENT ON COLUMN meter_live_status.reports_register IS
    'Whether the device is, or was, declared to report a running register: see devices.';
COMMENT ON COLUMN meter_live_status.voided_to IS
    'Up to here readings may be voided. Who stores an earlier one looks whether it is.';
COMMENT ON COLUMN meter_live_status.updated_at IS 'received_at of the receipt shown.';
COMMENT ON COLUMN vehicle_live_status.soc IS
    'State of charge (percent) of the newest receipt that carried one.';
COMMENT ON COLUMN vehicle_live_status.avg_battery_temp IS
    'The last battery temperature under the name that clients of an earlier system read.';

-- hour stands for the interval (hour, hour + 1 h]: energy ends at its timestamp.
CREATE TABLE meter_hourly_rollup (
    hour             timestamptz NOT NULL,
    minutes          bigint      NOT NULL,
    readings         integer     NOT NULL,
    meter_id         text        COLLATE "C" NOT NULL,
    kwh_consumed_ac  numeric     NOT NULL,
    PRIMARY KEY (meter_id, hour)
) WITH (fillfactor = 80);

CREATE TABLE vehicle_hourly_rollup (
    hour             timestamptz NOT NULL,
    minutes          bigint      NOT NULL,
    readings         integer     NOT NULL,
    vehicle_id       text        COLLATE "C" NOT NULL,
    kwh_delivered_dc numeric     NOT NULL,
    battery_temp_sum numeric     NOT NULL,
    PRIMARY KEY (vehicle_id, hour)
) WITH (fillfactor = 80);

COMMENT ON COLUMN meter_hourly_rollup.readings IS 'Distinct device timestamps in the hour.';
COMMENT ON COLUMN meter_hourly_rollup.minutes IS
    'Bit n (0 to 59) is set when a reading ended within minute n of the hour.';

-- Whole days, (day, day + 24 h] in UTC, for windows of weeks and years: a device has rows here for
-- its days up to summed_to of its live row.
CREATE TABLE meter_daily_rollup (
    day              timestamptz NOT NULL,
    minutes_heard    integer     NOT NULL,
    readings         integer     NOT NULL,
    meter_id         text        COLLATE "C" NOT NULL,
    kwh_consumed_ac  numeric     NOT NULL,
    PRIMARY KEY (meter_id, day)
);

CREATE TABLE vehicle_daily_rollup (
    day              timestamptz NOT NULL,
    minutes_heard    integer     NOT NULL,
    readings         integer     NOT NULL,
    vehicle_id       text        COLLATE "C" NOT NULL,
    kwh_delivered_dc numeric     NOT NULL,
    battery_temp_sum numeric     NOT NULL,
    PRIMARY KEY (vehicle_id, day)
);

COMMENT ON COLUMN meter_daily_rollup.minutes_heard IS
    'Minutes of the day in which a reading ended, of 1440.';

-- What of history is in the archive (telemetry.archive): of each stream, everything before archived_to.
CREATE TABLE archive_horizon (
    stream      text        PRIMARY KEY CHECK (stream IN ('meter', 'vehicle')),
    archived_to timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO archive_horizon VALUES ('meter'), ('vehicle');

-- Partitions that are detached from history and not all in the archive yet.
CREATE TABLE archive_closed (
    name        text        PRIMARY KEY,
    stream      text        NOT NULL REFERENCES archive_horizon,
    range_start timestamptz NOT NULL,
    range_end   timestamptz NOT NULL
);

-- The files of the archive. Number 0 is a day as it was when it was archived; later ones are what came
-- for it since.
CREATE TABLE archive_files (
    stream     text        NOT NULL REFERENCES archive_horizon,
    day        date        NOT NULL,
    number     integer     NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    bytes      bigint      NOT NULL,
    readings   bigint      NOT NULL,
    key        text        NOT NULL,
    sha256     text        NOT NULL,
    kwh        numeric     NOT NULL,
    checksum   numeric     NOT NULL,
    PRIMARY KEY (stream, day, number)
);
COMMENT ON COLUMN archive_files.readings IS 'Receipts in the file.';
COMMENT ON COLUMN archive_files.checksum IS
    'Sum of a hash of each row, the same whatever computes it: docs/archive.md.';

-- Receipts of days that are archived which may be of readings in the archive: they count when the
-- maintenance has compared them with it. In the order of arrival: the same one may be delivered twice.
CREATE TABLE meter_pending (
    number           bigint           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "timestamp"      timestamptz      NOT NULL,
    received_at      timestamptz      NOT NULL,
    voltage          double precision NOT NULL,
    meter_id         text             COLLATE "C" NOT NULL,
    kwh_consumed_ac  numeric          NOT NULL,
    register_kwh     numeric
);
CREATE TABLE vehicle_pending (
    number           bigint           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "timestamp"      timestamptz      NOT NULL,
    received_at      timestamptz      NOT NULL,
    soc              double precision,
    vehicle_id       text             COLLATE "C" NOT NULL,
    kwh_delivered_dc numeric          NOT NULL,
    battery_temp     numeric          NOT NULL,
    meter_id         text             COLLATE "C",
    register_kwh     numeric
);

-- What devices are declared to report, where that is not the energy of each interval: a running register,
-- in what was accepted in `registers`. It keeps all of these times: what was accepted in an earlier one may
-- come from a queue, or be stored once more. Migration 0011 says what becomes of it.
CREATE TABLE devices (
    declared_at      timestamptz NOT NULL,
    device_id        text        COLLATE "C" PRIMARY KEY,
    registers        tstzmultirange NOT NULL,
    register_modulus numeric     CHECK (register_modulus > 0),
    max_power_kw     numeric     CHECK (max_power_kw > 0)
);
COMMENT ON COLUMN devices.registers IS
    'What was accepted in these times, each (from, to], is of a register; the last may have no end.';
COMMENT ON COLUMN devices.register_modulus IS
    'Where the register begins anew at 0 (kWh); null where it never does, or nobody knows.';
COMMENT ON COLUMN devices.max_power_kw IS
    'A register that grows faster has jumped; null: 1000 kW.';

-- Readings of registers that are not just more than the one before.
CREATE TABLE register_events (
    "timestamp"      timestamptz NOT NULL,
    device_id        text        COLLATE "C" NOT NULL,
    stream           text        NOT NULL CHECK (stream IN ('meter', 'vehicle')),
    event            text        NOT NULL CHECK (event IN ('jump', 'reset', 'rollover')),
    register_kwh     numeric     NOT NULL,
    previous_kwh     numeric     NOT NULL,
    PRIMARY KEY (device_id, stream, "timestamp")
);

-- The last register of a device up to the horizon of the archive: what the first reading after it follows.
CREATE TABLE register_baselines (
    "timestamp"  timestamptz NOT NULL,
    device_id    text        COLLATE "C" NOT NULL,
    stream       text        NOT NULL CHECK (stream IN ('meter', 'vehicle')),
    register_kwh numeric,
    PRIMARY KEY (device_id, stream)
);

-- Readings that ops have voided (0012): who, when and why, and who took it back. While a void stands, all
-- receipts of its reading are in …_void_receipt instead of history, those that come later too: so whatever
-- is computed of history leaves them out.
CREATE TABLE meter_void (
    "timestamp"     timestamptz NOT NULL,
    voided_at       timestamptz NOT NULL,
    withdrawn_at    timestamptz,
    meter_id        text        COLLATE "C" NOT NULL,
    voided_by       text        NOT NULL,
    voided_why      text        NOT NULL,
    voided_token    text,
    withdrawn_by    text,
    withdrawn_why   text,
    withdrawn_token text,
    pending         boolean     NOT NULL DEFAULT false CHECK (NOT pending OR withdrawn_at IS NULL),
    PRIMARY KEY (meter_id, "timestamp", voided_at)
);
CREATE TABLE vehicle_void (
    "timestamp"     timestamptz NOT NULL,
    voided_at       timestamptz NOT NULL,
    withdrawn_at    timestamptz,
    vehicle_id      text        COLLATE "C" NOT NULL,
    voided_by       text        NOT NULL,
    voided_why      text        NOT NULL,
    voided_token    text,
    withdrawn_by    text,
    withdrawn_why   text,
    withdrawn_token text,
    pending         boolean     NOT NULL DEFAULT false CHECK (NOT pending OR withdrawn_at IS NULL),
    PRIMARY KEY (vehicle_id, "timestamp", voided_at)
);
CREATE UNIQUE INDEX meter_void_standing ON meter_void (meter_id, "timestamp")
    WHERE withdrawn_at IS NULL;
CREATE UNIQUE INDEX vehicle_void_standing ON vehicle_void (vehicle_id, "timestamp")
    WHERE withdrawn_at IS NULL;
CREATE TABLE meter_void_receipt (LIKE meter_telemetry_history INCLUDING ALL);
CREATE TABLE vehicle_void_receipt (LIKE vehicle_telemetry_history INCLUDING ALL);
COMMENT ON COLUMN meter_void.pending IS
    'It takes effect with the next maintenance, which looks into the archive for it.';
COMMENT ON COLUMN meter_void.voided_by IS 'Who, as it was said; voided_token is the token it was said with.';

-- Which meter feeds which vehicle. A row is a claim: from valid_from on, meter_id feeds vehicle_id
-- (null: nothing does). It holds until the next claim for the vehicle, or the next one of another
-- vehicle on the meter; of claims on one meter at one instant that of the greatest vehicle_id is the
-- last. So where a link ends is looked up, never stored, and no two can overlap, neither for a vehicle
-- nor for a meter, whatever is written at once. Migration 0008 says which claims are kept here.
CREATE TABLE links (
    valid_from timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    vehicle_id text        COLLATE "C" NOT NULL,
    meter_id   text        COLLATE "C",
    source     text        NOT NULL CHECK (source IN ('api', 'reading')),
    PRIMARY KEY (vehicle_id, valid_from),
    CHECK (meter_id IS NOT NULL OR source = 'api')
);
CREATE INDEX links_meter ON links (meter_id, valid_from, vehicle_id);

COMMENT ON TABLE links IS
    'From valid_from on, meter_id feeds vehicle_id, until the next row of either: see link_periods.';
COMMENT ON COLUMN links.meter_id IS 'Null: from here on no meter feeds the vehicle.';
COMMENT ON COLUMN links.source IS 'Who says so: the links API, or readings of the vehicle.';

-- (valid_from, valid_to], valid_to null while it goes on. The second look-up stops at the first's
-- find: it would otherwise read through all claims of the vehicle itself on the meter.
CREATE VIEW link_periods AS
    SELECT link.vehicle_id, link.meter_id, link.valid_from,
           least(own.valid_from, other.valid_from) AS valid_to, link.source
    FROM links link
    LEFT JOIN LATERAL (
        SELECT later.valid_from
        FROM links later
        WHERE later.vehicle_id = link.vehicle_id AND later.valid_from > link.valid_from
        ORDER BY later.valid_from
        LIMIT 1
    ) AS own ON true
    LEFT JOIN LATERAL (
        SELECT later.valid_from
        FROM links later
        WHERE later.meter_id = link.meter_id AND later.vehicle_id != link.vehicle_id
          AND (later.valid_from, later.vehicle_id) > (link.valid_from, link.vehicle_id)
          AND later.valid_from <= coalesce(own.valid_from, 'infinity')
        ORDER BY later.valid_from, later.vehicle_id
        LIMIT 1
    ) AS other ON true
    WHERE link.meter_id IS NOT NULL
      AND least(own.valid_from, other.valid_from) > link.valid_from IS NOT FALSE;
COMMENT ON VIEW link_periods IS
    'Which meter feeds which vehicle over (valid_from, valid_to]; valid_to is null while it goes on.';

-- Inlined into the query that calls it: no setting of its own, not SECURITY DEFINER.
CREATE FUNCTION links_of(
    for_vehicle_id text, window_start timestamptz, window_end timestamptz
) RETURNS TABLE (meter_id text, valid_from timestamptz, valid_to timestamptz, source text)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT period.meter_id, period.valid_from, period.valid_to, period.source
    FROM link_periods period
    WHERE period.vehicle_id = for_vehicle_id
      AND period.valid_from < window_end
      AND period.valid_from >= coalesce(
          (SELECT link.valid_from FROM links link
           WHERE link.vehicle_id = for_vehicle_id AND link.valid_from <= window_start
           ORDER BY link.valid_from DESC LIMIT 1), '-infinity')
      AND period.valid_to > window_start IS NOT FALSE
    ORDER BY period.valid_from
$$;
COMMENT ON FUNCTION links_of IS
    'The links of a vehicle that overlap (window_start, window_end], whole and in order.';

-- The names under which clients of the other ancestor query the same data.
CREATE VIEW meter_history AS
    SELECT meter_id, kwh_consumed_ac, voltage, "timestamp" FROM meter_telemetry_history;
CREATE VIEW vehicle_history AS
    SELECT vehicle_id, soc, kwh_delivered_dc, battery_temp, "timestamp"
    FROM vehicle_telemetry_history;
CREATE VIEW meter_live_state AS
    SELECT meter_id, last_kwh_consumed_ac AS kwh_consumed_ac, last_voltage AS voltage,
           updated_at AS last_updated_at
    FROM meter_live_status;
CREATE VIEW vehicle_live_state AS
    SELECT vehicle_id, soc, last_kwh_delivered_dc AS kwh_delivered_dc,
           last_battery_temp AS battery_temp, updated_at AS last_updated_at
    FROM vehicle_live_status;

-- Both are STABLE, not IMMUTABLE, because timestamptz - interval is; that way they are inlined.
CREATE FUNCTION rollup_hour("timestamp" timestamptz) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN date_bin('1 hour', $1 - interval '1 microsecond', timestamptz '2000-01-01 00:00:00+00');
COMMENT ON FUNCTION rollup_hour IS
    'The start of the rollup hour (hour, hour + 1 h] that a timestamp belongs to.';

CREATE FUNCTION minute_bit("timestamp" timestamptz, hour timestamptz) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN 1::bigint << (ceil(date_part('epoch', $1 - $2) / 60)::integer - 1);
COMMENT ON FUNCTION minute_bit IS
    'The bit of the minute (of the hour that starts at the second argument) in which a timestamp falls.';

-- The energy of an interval has a limit, so that no device can make a sum meaningless. A register has not:
-- it is as great as the meter is old.
CREATE FUNCTION refuse_energies(kwhs double precision[], registers double precision[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF EXISTS (SELECT FROM unnest(kwhs, registers) AS item (kwh, register)
               WHERE kwh > 10000 AND register IS NULL) THEN
        RAISE EXCEPTION 'more than 10000 kWh in an interval, of a device that reports no register'
            USING ERRCODE = 'numeric_value_out_of_range';
    END IF;
END
$$;

-- Devices that ops have erased, or asked to (0013). The store looks here for those that are new to it.
CREATE TABLE erasure (
    asked_at    timestamptz NOT NULL,
    finished_at timestamptz,
    receipts    bigint      NOT NULL DEFAULT 0,
    files       bigint      NOT NULL DEFAULT 0,
    erasure_id  uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    stream      text        NOT NULL CHECK (stream IN ('meter', 'vehicle')),
    device_id   text        COLLATE "C",
    device_hash bytea       NOT NULL,
    asked_by    text        NOT NULL,
    asked_why   text        NOT NULL,
    asked_token text,
    CHECK ((device_id IS NULL) = (finished_at IS NOT NULL))
);
COMMENT ON COLUMN erasure.device_id IS 'Null when it is done: then only device_hash tells whose it was.';
COMMENT ON COLUMN erasure.receipts IS 'Receipts that were erased, of history and of the archive.';
COMMENT ON COLUMN erasure.files IS 'Files of the archive that were rewritten.';
CREATE UNIQUE INDEX erasure_pending ON erasure (stream, device_id) WHERE device_id IS NOT NULL;
CREATE INDEX erasure_of_device ON erasure (device_hash, asked_at);
CREATE INDEX erasure_newest ON erasure (asked_at DESC, erasure_id);

-- What ids are hashed with. One for all, so that a device is found by an index; nobody but the owner reads
-- it, so that no list of ids can be tried against the trace.
CREATE TABLE erasure_key (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    key      bytea   NOT NULL
        DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
);

CREATE FUNCTION hash_device(of_stream text, id text) RETURNS bytea LANGUAGE sql STABLE
SET search_path = public, pg_temp AS $$
    SELECT sha256(key || convert_to(of_stream || '/' || id, 'UTF8')) FROM erasure_key
$$;

-- Of these devices those that were erased, each with up to when what was accepted before can be of.
CREATE FUNCTION erased_devices(of_stream text, ids text[])
RETURNS TABLE (device_id text, guarded_to timestamptz) LANGUAGE plpgsql STABLE
SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM erasure) THEN
        RETURN QUERY
        SELECT id, max(asked_at) + interval '1 hour'
        FROM unnest(ids) AS id
        JOIN erasure ON device_hash = hash_device(of_stream, id)
        GROUP BY id;
    END IF;
END
$$;
