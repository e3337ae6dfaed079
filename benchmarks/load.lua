-- The requests that wrk sends: wrk … -s load.lua http://host:port -- OPERATION FIRST COUNT
-- OPERATION is read, list, create, patch, delete, page, or warm: the first four in turn.
-- FIRST and COUNT bound the ids; for page FIRST is the query string.

local operation, first, count, calls
local json = {["Content-Type"] = "application/json"}

local requests = {
  read = function() return wrk.format("GET", "/heroes/" .. math.random(first, first + count - 1)) end,
  list = function() return wrk.format("GET", "/heroes/") end,
  create = function()
    local body = string.format('{"name": "New hero %d", "age": %d, "secret_name": "Nobody %d"}', calls, calls % 90, calls)
    return wrk.format("POST", "/heroes/", json, body)
  end,
  -- The age differs from one call to the next, so that an ORM cannot skip the UPDATE.
  patch = function()
    local path = "/heroes/" .. math.random(first, first + count - 1)
    return wrk.format("PATCH", path, json, string.format('{"age": %d}', calls))
  end,
  -- Every id once. Beyond the pool the server answers 404 and the measurement is refused.
  delete = function() return wrk.format("DELETE", "/heroes/" .. (first + calls)) end,
  page = function() return wrk.format("GET", "/heroes/?" .. first) end,
}
local turns = {"read", "list", "create", "patch"}

function requests.warm() return requests[turns[calls % 4 + 1]]() end

function init(args)
  operation, calls = args[1], 0
  first, count = tonumber(args[2]) or args[2], tonumber(args[3])
  math.randomseed(1)
end

function request()
  calls = calls + 1
  return requests[operation]()
end

-- Durations are in microseconds.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "duration": %d, "errors": %d, "refused": %d, "p50": %.1f, "p99": %.1f}\n',
    summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(99)))
end
