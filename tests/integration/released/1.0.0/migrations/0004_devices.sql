-- What devices are declared to report, where that is not the energy of each interval: a running register.
-- Each version holds in what was accepted after valid_from, up to the next: a receipt may come from a queue,
-- or be stored once more, so all are kept. devices.sql says what becomes of it.
CREATE TABLE device_declarations (
    valid_from       timestamptz NOT NULL,
    declared_at      timestamptz NOT NULL,
    device_id        text        COLLATE "C" NOT NULL,
    is_register      boolean     NOT NULL,
    register_modulus numeric     CHECK (register_modulus > 0),
    max_power_kw     numeric     CHECK (max_power_kw > 0),
    PRIMARY KEY (device_id, valid_from)
);

COMMENT ON COLUMN device_declarations.is_register IS
    'Whether what it reports as energy is a running register; else it is that of each interval.';
COMMENT ON COLUMN device_declarations.register_modulus IS
    'Where the register begins anew at 0 (kWh); null where it never does, or nobody knows.';
COMMENT ON COLUMN device_declarations.max_power_kw IS
    'A register that grows faster has jumped; null: 1000 kW.';

-- A row for each device that was ever declared. Whoever stores readings of it, or declares it, locks it.
CREATE TABLE devices (
    device_id     text COLLATE "C" PRIMARY KEY,
    changed_after timestamptz
);

COMMENT ON COLUMN devices.changed_after IS
    'What was accepted after this is to be stored again, by other declarations than those it came by.';

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

GRANT SELECT ON devices, device_declarations, register_events TO telemetry_read, telemetry_ingest, telemetry_maintain;
GRANT SELECT, INSERT, UPDATE, DELETE ON register_baselines TO telemetry_maintain;
