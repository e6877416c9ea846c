"""What hourly and daily rollups should say, computed anew: a part of telemetry.verification.

Shares of energy are cut at the bounds of hours here as telemetry.verification and
telemetry.cost_verification cut them at those of windows, links and prices.
"""

# Of a reading: when it ended and began (epoch seconds), and how long it is.
TIMES = """extract(epoch FROM "timestamp") AS ended, coalesce(seconds, 60) AS length,
               extract(epoch FROM "timestamp") - coalesce(seconds, 60) AS begun"""
_BY = """CASE WHEN {0} >= ended THEN kwh
             WHEN length <= 60 OR {0} <= begun THEN 0
             ELSE trunc(kwh * ({0} - begun) / length, 12) END"""
# What flowed of it in (opened, closed].
BETWEEN = f"({_BY.format('closed')} - {_BY.format('opened')})"
THERE = "ended > opened AND CASE WHEN length > 60 THEN begun ELSE ended - 0.000001 END < closed"

# Readings by the hours that they are in; what minutes they cover is counted back from their ends.
_HOURS = f"""
    WITH counted AS (
        SELECT DISTINCT ON ({{device}}, "timestamp") {{device}} AS device, {TIMES},
               {{energy}} AS kwh, {{temperature}} AS temperature
        FROM {{history}}
        WHERE "timestamp" > {{archived_to}}
        ORDER BY {{device}}, "timestamp", received_at DESC
    ), place AS (
        SELECT *, opened + 3600 AS closed, ended > opened AND ended <= opened + 3600 AS ends_here
        FROM counted
        CROSS JOIN LATERAL generate_series(
            floor((CASE WHEN length > 60 THEN begun ELSE ended - 0.000001 END) / 3600) * 3600,
            ended - 0.000001, 3600) AS opened
    ), covered AS (
        SELECT device, floor(minute / 60) * 3600 AS opened,
               bit_or(1::bigint << mod(minute, 60)::integer) AS mask
        FROM counted
        CROSS JOIN LATERAL generate_series(0, ceil(length / 60)::integer - 1) AS number
        CROSS JOIN LATERAL (SELECT ceil(ended / 60) - 1 - number) AS at (minute)
        WHERE length <= 3600
        GROUP BY 1, 2
    ), hourly AS (
        SELECT device, opened, count(*) FILTER (WHERE ends_here)::integer AS readings,
               coalesce(bit_or(1::bigint << mod(ceil(ended / 60) - 1, 60)::integer)
                        FILTER (WHERE ends_here), 0) AS minutes,
               sum({BETWEEN}) AS kwh,
               coalesce(sum({BETWEEN}) FILTER (WHERE length > 3600), 0) AS estimated,
               coalesce(sum(temperature) FILTER (WHERE ends_here), 0) AS temperature,
               count(temperature) FILTER (WHERE ends_here)::integer AS temperatures,
               coalesce(sum(CASE
                   WHEN length > 60 THEN least(ended, closed) - greatest(begun, opened)
                   ELSE length END) FILTER (WHERE length <= 3600), 0) AS seconds
        FROM place
        WHERE to_timestamp(opened) >= {{archived_to}}
        GROUP BY 1, 2
    ), heard AS (
        SELECT hourly.*, coalesce(mask, 0) AS covered,
               least(seconds, 60 * bit_count(coalesce(mask, 0)::bit(64))) AS seconds_heard
        FROM hourly LEFT JOIN covered USING (device, opened)
    )
"""
ROLLUPS = (
    _HOURS
    + """, expected AS (
        SELECT device, to_timestamp(opened) AS hour,
               ROW(readings, minutes, covered, trim_scale(seconds), trim_scale(kwh),
                   trim_scale(estimated), {expected_temperature})::text AS state
        FROM heard
    ), stored AS (
        SELECT {device} AS device, hour,
               ROW(readings, minutes, coalesce(covered, minutes),
                   trim_scale(coalesce(seconds, 60 * readings)), trim_scale({energy}),
                   trim_scale(coalesce(kwh_estimated, 0)), {stored_temperature})::text AS state
        FROM {rollup}
        WHERE hour >= {archived_to}
    )
"""
)
DAYS = (
    _HOURS
    + """, daily AS (
        SELECT device, floor(opened / 86400) * 86400 AS day, sum(readings) AS readings,
               sum(seconds_heard) AS seconds_heard, sum(kwh) AS kwh, sum(estimated) AS estimated,
               sum(temperature) AS temperature, sum(temperatures) AS temperatures
        FROM heard JOIN {live} ON {device} = device
        WHERE to_timestamp(floor(opened / 86400) * 86400 + 86400) <= summed_to
        GROUP BY 1, 2
    ), expected AS (
        SELECT device, to_timestamp(day) AS hour,
               ROW(readings, floor(seconds_heard / 60), trim_scale(seconds_heard), trim_scale(kwh),
                   trim_scale(estimated), {expected_temperature})::text AS state
        FROM daily
    ), stored AS (
        SELECT {device} AS device, day AS hour,
               ROW(readings, minutes_heard, trim_scale(coalesce(seconds_heard, 60 * minutes_heard)),
                   trim_scale({energy}), trim_scale(coalesce(kwh_estimated, 0)),
                   {stored_temperature})::text AS state
        FROM {days}
        WHERE day >= {archived_to}
    )
"""
)
