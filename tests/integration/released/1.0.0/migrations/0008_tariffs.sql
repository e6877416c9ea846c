-- What energy costs and how much CO2 it stands for, by the hour, and what the energy lost comes to.
--
-- A tariff is of the fleet ('*') or of a meter, and has versions: each holds from valid_from until the
-- next one's, or until its own valid_to. At every instant the meter's own version counts where one is
-- in force, else the fleet's; what the meter's leaves out (kg_co2_per_kwh) is the fleet's.
--
-- Prices change at quarters of an hour, rollups are of whole hours of UTC. So each hour has one price:
-- the mean of its four quarters, all of which have to have one. What is counted of an hour at the
-- edge of a window has the price of that hour, so that windows which follow each other add up.
CREATE TABLE tariff (
    valid_from     timestamptz NOT NULL,
    valid_to       timestamptz,
    meter_id       text        COLLATE "C" NOT NULL,
    currency       text        NOT NULL,
    time_zone      text        NOT NULL,
    price_per_kwh  numeric     NOT NULL,
    kg_co2_per_kwh numeric,
    periods        jsonb       NOT NULL,
    week_starts    interval[]  NOT NULL,
    week_prices    numeric[]   NOT NULL,
    PRIMARY KEY (meter_id, valid_from)
);

COMMENT ON COLUMN tariff.meter_id IS 'Or * for the fleet.';
COMMENT ON COLUMN tariff.periods IS 'As they were sent; outside of them the price is price_per_kwh.';
COMMENT ON COLUMN tariff.week_starts IS
    'The same for a local week, from Monday 00:00 on: where a price begins that holds until the next.';

-- How far the clocks of a time zone are ahead of UTC, from each change to the next, by a release of the
-- IANA database: the code's (telemetry.zones). PostgreSQL has zones of its own, which may be of another
-- year than those that the code reads; local times come from one source.
CREATE TABLE zone_offset (
    starts     timestamptz NOT NULL,
    utc_offset interval    NOT NULL,
    time_zone  text        COLLATE "C" NOT NULL,
    release    text        COLLATE "C" NOT NULL,
    PRIMARY KEY (time_zone, starts)
);

-- A row of vehicle_performance, as far as it takes to price it.
CREATE TYPE charged_window AS (
    "position" bigint, vehicle_id text, window_start timestamptz, window_end timestamptz,
    meter_ids text[], valid_froms timestamptz[], valid_tos timestamptz[]
);

-- Energy of one device in (part_start, part_end], priced by one tariff: of the meter's it is added, of
-- the vehicle's taken away. The hours from first_hour to last_hour are whole.
CREATE TYPE priced_part AS (
    "position" bigint, sign integer, id text, tariff_id text,
    part_start timestamptz, part_end timestamptz, first_hour timestamptz, last_hour timestamptz
);

GRANT SELECT ON tariff, zone_offset TO telemetry_read, telemetry_maintain;
