-- Shared by all scripts; each script is sent with the parts that it names in `--@use`.

--@part now
-- The store's clock in ms; a test may pass its own.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

--@part chunks
-- Call a variadic command with any number of values: Lua's stack holds some thousands.
local function each_chunk(values, f)
  for i = 1, #values, 1000 do f(unpack(values, i, math.min(i + 999, #values))) end
end

--@part events
-- Somebody listens? Asked once a call; `always` where PUBSUB cannot know (a cluster).
local function heard(channel, always)
  if channel == '' then return false end
  return always == '1' or redis.call('PUBSUB', 'NUMSUB', channel)[2] > 0
end

-- Collects records for one channel and sends them as one message, or as several large ones.
local LARGE = 262144
local function parcels(channel, head)
  local parts, size = {}, 0
  local self = {}
  function self.flush()
    if #parts > 0 then redis.call('PUBLISH', channel, head .. '\n' .. table.concat(parts)) end
    parts, size = {}, 0
  end
  function self.add(id, record)
    parts[#parts + 1] = id .. ' ' .. #record .. ':' .. record
    size = size + #record
    if size > LARGE then self.flush() end
  end
  return self
end

--@part wake
-- Leave one token for an idle worker. Never a second one: a herd of workers would come for one task.
local function wake(p)
  if redis.call('LLEN', p .. 'wake') == 0 then redis.call('LPUSH', p .. 'wake', '1') end
end

--@part place
-- prio's score: the higher priority first, then by turn. 2^42 turns a priority fit in a double.
local function score(prio, turn) return -prio * 4398046511104 + turn end

local function priority(p, id)
  local head = redis.call('GETRANGE', p .. 'task:' .. id, 0, 6)
  if string.sub(head, 1, 1) == 'd' then return nil end  -- finished: nowhere to put it
  if head == '' and redis.call('EXISTS', p .. 'task:' .. id) == 0 then return nil end  -- vanished
  return tonumber(string.match(head, '^q(%-?%d+)')) or 0
end

local function place_front(p, id)
  local prio = priority(p, id)
  if not prio then
    redis.call('HDEL', p .. 'crashes', id)  -- nobody else would
    redis.call('SREM', p .. 'cancelling', id)
    return false
  end
  if prio == 0 then redis.call('LPUSH', p .. 'ready', id)
  else redis.call('ZADD', p .. 'prio', score(prio, redis.call('HINCRBY', p .. 'meta', 'head', -1)), id) end
  return true
end

local function place_back(p, id)
  local prio = priority(p, id)
  if not prio then
    redis.call('SREM', p .. 'cancelling', id)
    return false
  end
  if prio == 0 then redis.call('RPUSH', p .. 'ready', id)
  else redis.call('ZADD', p .. 'prio', score(prio, redis.call('HINCRBY', p .. 'meta', 'tail', 1)), id) end
  return true
end

--@part reclaim
-- Take at most `limit` tasks from a lease and put them back to the front, oldest batch first.
-- Ends the lease when nothing is left of it, else marks it so that it cannot be renewed.
local function reclaim(p, lease, charge, limit)
  local members = redis.call('SPOP', p .. 'held:' .. lease, limit)
  table.sort(members, function(a, b)
    local x, y = tonumber(string.match(a, ':(%d+)$')), tonumber(string.match(b, ':(%d+)$'))
    if x ~= y then return x > y end
    return a > b
  end)
  for _, member in ipairs(members) do
    local id = string.match(member, '^(.*):')
    if place_front(p, id) and charge then redis.call('HINCRBY', p .. 'crashes', id, 1) end
  end
  if redis.call('EXISTS', p .. 'held:' .. lease) == 0 then
    redis.call('ZREM', p .. 'leases', lease)
    redis.call('HDEL', p .. 'batches', lease)
  else
    redis.call('ZADD', p .. 'leases', 0, lease)
  end
  return #members
end
