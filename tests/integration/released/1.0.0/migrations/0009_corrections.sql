-- Readings that ops have voided: who, when and why, and who took it back. While a void stands, all
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

-- A void as it is listed, with the receipts that are kept aside.
CREATE TYPE listed_void AS (
    stream text, device_id text, "timestamp" timestamptz, voided_at timestamptz, voided_by text,
    voided_why text, voided_token text, withdrawn_at timestamptz, withdrawn_by text,
    withdrawn_why text, withdrawn_token text, pending boolean, receipts jsonb
);

-- Devices that ops have erased, or asked to. The store looks here for those that are new to it.
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

CREATE INDEX meter_void_pending ON meter_void (meter_id, "timestamp") WHERE pending;

CREATE INDEX vehicle_void_pending ON vehicle_void (vehicle_id, "timestamp") WHERE pending;

GRANT SELECT ON meter_void, vehicle_void, meter_void_receipt, vehicle_void_receipt
TO telemetry_read, telemetry_maintain;
GRANT SELECT ON erasure TO telemetry_maintain;
GRANT UPDATE (receipts, files) ON erasure TO telemetry_maintain;
