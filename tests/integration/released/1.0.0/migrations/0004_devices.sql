-- What devices are declared to report, where that is not the energy of each interval: a running register,
-- in what was accepted in `registers`. It keeps all of these times: what was accepted in an earlier one may
-- come from a queue, or be stored once more. devices.sql says what becomes of it.
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

GRANT SELECT ON devices, register_events TO telemetry_read, telemetry_ingest, telemetry_maintain;
GRANT SELECT, INSERT, UPDATE, DELETE ON register_baselines TO telemetry_maintain;
