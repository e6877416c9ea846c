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

-- Objects of the bucket that are no part of the archive (any more), to be deleted.
CREATE TABLE archive_leftover (
    key text PRIMARY KEY
);

GRANT SELECT ON archive_horizon, archive_files TO telemetry_read;
GRANT SELECT ON meter_pending, vehicle_pending TO telemetry_read;  -- telemetry.verification looks there
GRANT SELECT, INSERT, UPDATE, DELETE ON
    archive_horizon, archive_closed, archive_files, archive_leftover, meter_pending, vehicle_pending
TO telemetry_maintain;
