-- Posts one reading a request: of each meter in turn, and every time round a minute later, so that
-- each is the meter's newest. Arguments: the time of the first (epoch seconds), how many meters.
local first, meters
local sent = 0

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function init(arguments)
   first, meters = tonumber(arguments[1]), tonumber(arguments[2])
end

function request()
   local time = first + math.floor(sent / meters) * 60
   local body = string.format(
      '{"meterId":"MTR_%06d","kwhConsumedAc":0.125,"voltage":230.5,"timestamp":"%s"}',
      sent % meters, os.date("!%Y-%m-%dT%H:%M:%SZ", time))
   sent = sent + 1
   return wrk.format(nil, nil, nil, body)
end

-- wrk counts a status above 399 as an error, which no other than 201 is expected to be below.
function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "failed": %d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
