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

-- The owner keeps all rights to history as a member of the role that has it.
DO $$
DECLARE
    history regclass;
BEGIN
    -- From PostgreSQL 16 on only who made a role may grant it: where that was another, the other.
    IF NOT pg_has_role('telemetry_maintain', 'USAGE') THEN
        EXECUTE format('GRANT telemetry_maintain TO %I', current_user);
    END IF;
    GRANT CREATE ON SCHEMA public TO telemetry_maintain;
    FOR history IN
        SELECT relid FROM pg_partition_tree('meter_telemetry_history')
        UNION ALL
        SELECT relid FROM pg_partition_tree('vehicle_telemetry_history')
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO telemetry_maintain', history);
    END LOOP;
END
$$;

GRANT SELECT ON
    meter_telemetry_history, meter_live_status, meter_hourly_rollup, meter_daily_rollup,
    vehicle_telemetry_history, vehicle_live_status, vehicle_hourly_rollup, vehicle_daily_rollup,
    meter_history, meter_live_state, vehicle_history, vehicle_live_state
TO telemetry_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    meter_live_status, meter_hourly_rollup, meter_daily_rollup,
    vehicle_live_status, vehicle_hourly_rollup, vehicle_daily_rollup
TO telemetry_maintain;

-- An event on its way into history: the columns of history, in the order of telemetry.streams.
CREATE TYPE meter_event AS (
    meter_id text COLLATE "C", "timestamp" timestamptz, received_at timestamptz,
    kwh_consumed_ac numeric, voltage double precision, register_kwh numeric
);
CREATE TYPE vehicle_event AS (
    vehicle_id text COLLATE "C", "timestamp" timestamptz, received_at timestamptz,
    kwh_delivered_dc numeric, battery_temp numeric, soc double precision, register_kwh numeric,
    meter_id text COLLATE "C"
);
-- Which reading.
CREATE TYPE reading_key AS (device_id text COLLATE "C", "timestamp" timestamptz);
-- A device whose live row is locked: up to where a reading of it may be in history, and is summed.
CREATE TYPE locked_device AS (
    device_id text COLLATE "C", shown_to timestamptz, summed_to timestamptz
);
