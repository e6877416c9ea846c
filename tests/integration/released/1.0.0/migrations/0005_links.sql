-- Which meter feeds which vehicle. A row is a claim: from valid_from on, meter_id feeds vehicle_id
-- (null: nothing does). It holds until the next claim for the vehicle, or the next one of another
-- vehicle on the meter; of claims on one meter at one instant that of the greatest vehicle_id is the
-- last. So where a link ends is looked up, never stored, and no two can overlap, neither for a vehicle
-- nor for a meter, whatever is written at once. links.sql says which claims are kept here.
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

CREATE TABLE link_locks (
    device_id text COLLATE "C" PRIMARY KEY
);

COMMENT ON TABLE link_locks IS 'A row for each vehicle and meter that was ever linked, to be locked.';

-- What a reading claims, beside the meter that the receipt which counted before names.
CREATE TYPE link_claim AS (
    vehicle_id text COLLATE "C", "timestamp" timestamptz, old_meter_id text COLLATE "C",
    meter_id text COLLATE "C"
);

GRANT SELECT ON links, link_periods TO telemetry_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON links TO telemetry_maintain;
GRANT SELECT, INSERT, UPDATE ON link_locks TO telemetry_maintain;
GRANT SELECT ON link_periods TO telemetry_maintain;
