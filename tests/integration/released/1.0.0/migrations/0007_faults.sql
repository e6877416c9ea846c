-- Faults of chargers, each raised once. A charger is a vehicle and a meter that fed it; it is judged
-- by windows that end on whole hours, each over the time in which the meter was linked. A fault opens
-- where the last two windows that could be judged were in fault, and is cleared where the last two
-- were not. What cannot be judged (insufficient, implausible) is as if it had not been looked at.
--
-- A run judges the last two hours anew, so that data that came late count. One window end makes at
-- most one change of a charger: what flips within the hour is told by the next. A fault's id follows
-- from its charger and window, so that it is the same wherever it is computed.
--
-- fault_change is a fault's history and at once what has to be published: it is written together
-- with the state that it tells of, and published_at is set when somebody has taken it.

-- Of each charger the last windows that could be judged.
CREATE TABLE charger_window (
    window_end timestamptz NOT NULL,
    at_fault   boolean     NOT NULL,
    vehicle_id text        COLLATE "C" NOT NULL,
    meter_id   text        COLLATE "C" NOT NULL,
    evidence   jsonb       NOT NULL,
    PRIMARY KEY (vehicle_id, meter_id, window_end)
);

CREATE TABLE fault (
    fault_id      uuid        PRIMARY KEY,
    opened_window timestamptz NOT NULL,
    cleared_window timestamptz,
    state         text        NOT NULL DEFAULT 'open'
        CHECK (state IN ('open', 'acknowledged', 'cleared')),
    vehicle_id    text        COLLATE "C" NOT NULL,
    meter_id      text        COLLATE "C" NOT NULL,
    CHECK ((state = 'cleared') = (cleared_window IS NOT NULL)),
    CHECK (cleared_window > opened_window)
);

COMMENT ON COLUMN fault.opened_window IS 'The end of the window that opened it.';

CREATE UNIQUE INDEX fault_current ON fault (vehicle_id, meter_id) WHERE state != 'cleared';

CREATE INDEX fault_of_charger ON fault (vehicle_id, meter_id, opened_window);

CREATE INDEX fault_newest ON fault (opened_window DESC, fault_id);

CREATE TABLE fault_change (
    changed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),  -- while the fault is locked
    published_at timestamptz,
    fault_id     uuid        NOT NULL REFERENCES fault ON DELETE CASCADE,
    change       text        NOT NULL CHECK (change IN ('opened', 'acknowledged', 'cleared')),
    details      jsonb       NOT NULL,
    PRIMARY KEY (fault_id, change)
);

COMMENT ON COLUMN fault_change.details IS 'evidence; or by and why, where it was acknowledged.';

CREATE INDEX fault_change_unpublished ON fault_change (changed_at) WHERE published_at IS NULL;

GRANT SELECT ON fault, fault_change TO telemetry_read;
