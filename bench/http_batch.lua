-- Posts batches of meter readings: each of a meter drawn at random, a minute after the meter's last,
-- so that a meter comes several times in a batch, and in batches that are sent at once.
-- Arguments: the time before the first (epoch seconds), how many meters, readings a batch, a seed.
local first, meters, batch
local minutes, clock, starts = {}, {}, {}
local threads = {}
stored, queued = 0, 0

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function setup(thread)
   threads[#threads + 1] = thread
end

function init(arguments)
   first, meters, batch = tonumber(arguments[1]), tonumber(arguments[2]), tonumber(arguments[3])
   math.randomseed(tonumber(arguments[4]))
   for meter = 1, meters do
      minutes[meter] = 0
      starts[meter] = string.format(
         '{"meterId":"MTR_%06d","kwhConsumedAc":0.%03d,"voltage":%.1f,"timestamp":"',
         meter - 1, math.random(499), 220 + math.random(200) / 10)
   end
end

function request()
   local body = {}
   for item = 1, batch do
      local meter = math.random(meters)
      local minute = minutes[meter] + 1
      minutes[meter] = minute
      clock[minute] = clock[minute] or os.date('!%Y-%m-%dT%H:%M:%SZ"}', first + minute * 60)
      body[item] = starts[meter] .. clock[minute]
   end
   return wrk.format(nil, nil, nil, "[" .. table.concat(body, ",") .. "]")
end

function response(status)
   if status == 201 then
      stored = stored + 1
   elseif status == 202 then
      queued = queued + 1
   end
end

function done(summary, latency)
   local errors = summary.errors
   local all_stored, all_queued = 0, 0
   for _, thread in ipairs(threads) do
      all_stored = all_stored + thread:get("stored")
      all_queued = all_queued + thread:get("queued")
   end
   io.write(string.format(
      '{"requests": %d, "stored": %d, "queued": %d, "microseconds": %d, "p50": %d, "p99": %d, '
      .. '"failed": %d}\n',
      summary.requests, all_stored, all_queued, summary.duration,
      latency:percentile(50), latency:percentile(99),
      errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
