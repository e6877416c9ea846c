-- A window of a vehicle, or of a meter over the part of it in which the meter fed the vehicle by a
-- link from valid_from to valid_to, and how it is cut. One array of these, because an aggregate costs
-- more to set up at every call than its few rows do.
CREATE TYPE charging_window AS (
    "position" bigint, id text, window_start timestamptz, window_end timestamptz,
    until timestamptz, first_hour timestamptz, first_day timestamptz, last_day timestamptz,
    last_hour timestamptz, valid_from timestamptz, valid_to timestamptz, source text
);

-- The fleet's last 24 hours, made ahead by telemetry.summaries: one row a vehicle, and totals. They hold at
-- every instant what the rollups and links say, or are marked as stale (fleet.sql).

-- The 24 hours up to a whole hour, judged by these rules. A window that is finished has a row of every
-- vehicle: the current one, and the one before for whoever is still turning its pages.
CREATE TABLE fleet_window (
    window_end     timestamptz PRIMARY KEY,
    finished       boolean NOT NULL DEFAULT false,
    by_name        boolean NOT NULL,
    least_kwh      numeric NOT NULL,
    least_coverage numeric NOT NULL
);

-- How each vehicle did in a window.
CREATE TABLE vehicle_summary (
    window_end       timestamptz NOT NULL,
    readings         bigint      NOT NULL,
    minutes_heard    bigint      NOT NULL,
    meter_minutes    bigint      NOT NULL,
    linked_minutes   bigint      NOT NULL,
    stale            boolean     NOT NULL DEFAULT false,
    vehicle_id       text        COLLATE "C" NOT NULL,
    status           text        NOT NULL,
    rank             numeric     NOT NULL,
    cost_rank        numeric     NOT NULL,
    kwh_dc numeric,
    battery_temp_sum numeric,
    kwh_ac  numeric,
    loss_cost        numeric,
    loss_co2_kg      numeric,
    meter_ids        text[],
    PRIMARY KEY (vehicle_id, window_end)
);

COMMENT ON COLUMN vehicle_summary.stale IS
    'A reading, link or tariff of the window came later: to be computed when asked for.';
COMMENT ON COLUMN vehicle_summary.linked_minutes IS
    'Minutes of the window in which a meter fed the vehicle; meter_minutes of them it was heard from.';
COMMENT ON COLUMN vehicle_summary.rank IS
    'DC - AC (kWh): the lower, the more was lost; Infinity where it is not known.';
COMMENT ON COLUMN vehicle_summary.cost_rank IS
    '-loss_cost, likewise: Infinity where it is not known, as without a tariff.';

CREATE INDEX vehicle_summary_rank ON vehicle_summary (window_end, rank, vehicle_id);

CREATE INDEX vehicle_summary_cost_rank ON vehicle_summary (window_end, cost_rank, vehicle_id);

CREATE INDEX vehicle_summary_stale ON vehicle_summary (window_end) WHERE stale;

-- The sums of a window's rows, stale ones with what they say. Energies of vehicles whose loss is known,
-- costs and CO2 of those of which they are.
CREATE TABLE fleet_totals (
    window_end       timestamptz NOT NULL,
    vehicles         bigint      NOT NULL,
    known            bigint      NOT NULL,
    cost_known       bigint      NOT NULL,
    co2_known        bigint      NOT NULL,
    status           text        NOT NULL,
    kwh_ac  numeric     NOT NULL,
    kwh_dc numeric     NOT NULL,
    loss_cost        numeric     NOT NULL,
    loss_co2_kg      numeric     NOT NULL,
    PRIMARY KEY (window_end, status)
);

GRANT SELECT ON vehicle_summary, fleet_window, fleet_totals TO telemetry_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON vehicle_summary, fleet_window, fleet_totals
TO telemetry_maintain;
