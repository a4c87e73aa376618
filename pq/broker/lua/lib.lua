-- Shared by all scripts; each script is sent with the parts that it names in `--@use`.

--@part now
-- The store's clock in ms; a test may pass its own.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

--@part renewals
-- A lease is renewed: note since when that has been done here without a gap, by any worker, and with a clock that did
-- not jump. Only then does a deadline that has passed mean that its holder is gone, and not that no worker could renew.
--
-- Where the clock was set back the deadlines are too: otherwise those of dead workers would lie in the future as long.
local JITTER = 1000
local function note_renewal(p, now, ttl)
  local known = redis.call('HMGET', p .. 'meta', 'seen', 'since')
  local seen, since = tonumber(known[1] or 0), tonumber(known[2] or 0)
  if now < seen - JITTER then
    local leases = redis.call('ZRANGE', p .. 'leases', 0, -1, 'WITHSCORES')
    for i = 1, #leases, 2 do
      local deadline = tonumber(leases[i + 1])
      if deadline > 0 then
        redis.call('ZADD', p .. 'leases', string.format('%.0f', math.max(1, deadline - seen + now)), leases[i])
      end
    end
    seen, since = now, now
  elseif now - seen > ttl / 2 then since = now end
  redis.call('HSET', p .. 'meta', 'seen', string.format('%.0f', math.max(seen, now)), 'since', string.format('%.0f', since))
end

--@part chunks
-- Call a variadic command with any number of values: Lua's stack holds some thousands.
local function each_chunk(values, f)
  for i = 1, #values, 1000 do f(unpack(values, i, math.min(i + 999, #values))) end
end

--@part events
-- Whether a channel has subscriptions. Asked once a call; `always` where PUBSUB cannot know (a cluster).
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
-- Leave one token for an idle worker. Never a second one: all idle workers would come for one task.
local function wake(p)
  if redis.call('LLEN', p .. 'wake') == 0 then redis.call('LPUSH', p .. 'wake', '1') end
end

--@part limits
-- Limits. A record that begins with `g` has a third word in its header: the limits that its task has to pass,
-- parted by commas (see pq.broker.records). What a task was granted is the task's and not its worker's. It
-- keeps it through crashes and releases, until it ends or goes back to wait: so there is no counter that could drift.
--
-- Most calls meet no such task. So all of it is made by `flow()`, when the first one comes.
local place_front  -- see the part `place`
local opened = {}  -- limits where a slot was left, in this call
local made

local function flow()
  if made then return made end

  local function limits_text(head) return string.match(head, '^g[^ \n]* [^ \n]* ([^\n]*)\n') or '' end

  -- Iterate over the limits: kind, name, and numbers (c: at once; r: µs between two, and the burst).
  local function gates(text)
    local step = string.gmatch(text, '([cr])(%d+)%.?(%d*):([^,]+)')
    return function()
      local kind, a, b, name = step()
      return kind, name, tonumber(a or ''), tonumber(b or '')
    end
  end

  local function unique_of(text) return string.match(text, 'u([flr]):([^,]+)') end

  -- The task is no longer held: give up what it was granted.
  local function leave(p, id)
    local text = redis.call('HGET', p .. 'holds', id)
    if not text then return end
    redis.call('HDEL', p .. 'holds', id)
    for kind, name in gates(text) do
      if kind == 'c' and redis.call('SREM', p .. 'slots:' .. name, id) == 1 then opened[#opened + 1] = name end
    end
  end

  -- The task has ended: its key is free, if it is still this task's.
  local function free_key(p, id, text)
    local mode, key = unique_of(text)
    if key and redis.call('GET', p .. 'unique:' .. key) == mode .. id then redis.call('DEL', p .. 'unique:' .. key) end
  end

  -- The unfinished task that has this key: mode and id in one; nil when the key is free.
  local function key_holder(p, key)
    local holder = redis.call('GET', p .. 'unique:' .. key)
    if not holder then return nil end
    local state = redis.call('GETRANGE', p .. 'task:' .. string.sub(holder, 2), 0, 0)
    if state ~= '' and state ~= 'd' then return holder end
  end

  -- The µs that one more task would be too early for a rate, and the mark of the rate after it.
  -- The generic cell rate algorithm of ITU-T I.371; the second `min` is for a clock that was set back.
  local function early(p, name, interval, burst, now)
    local at = now * 1000
    local mark = math.max(at, tonumber(redis.call('GET', p .. 'rate:' .. name) or 0))
    mark = math.min(mark, at + interval * burst) + interval
    return mark - interval * burst - at, mark
  end

  -- The first limit that is reached, and for a rate the time in ms when it opens. No task overtakes those that are
  -- parked at a limit; `opening` is the limit at which this one was parked itself.
  local function closed(p, text, now, opening)
    for kind, name, a, b in gates(text) do
      if name ~= opening and redis.call('EXISTS', p .. 'parked:' .. name) == 1 then return name end
      if kind == 'c' then
        if redis.call('SCARD', p .. 'slots:' .. name) >= a then return name end
      else
        local by = early(p, name, a, b, now)
        if by > 0 then return name, now + math.ceil(by / 1000) end
      end
    end
  end

  -- All or nothing: a task that is parked at one limit keeps no slot of another.
  local function grant(p, id, text, now)
    for kind, name, a, b in gates(text) do
      if kind == 'c' then redis.call('SADD', p .. 'slots:' .. name, id)
      else
        local _, mark = early(p, name, a, b, now)
        redis.call('SET', p .. 'rate:' .. name, string.format('%.0f', mark),
          'PX', string.format('%.0f', math.ceil(mark / 1000) - now + 60000))
      end
    end
    redis.call('HSET', p .. 'holds', id, text)
  end

  local function open_at(p, gate, at)
    redis.call('ZADD', p .. 'timers', at, gate)
    if redis.call('ZRANGE', p .. 'timers', 0, 0)[1] == gate then wake(p) end
  end

  local function park(p, id, gate, at, turn)
    redis.call('ZADD', p .. 'parked', turn, id)
    redis.call('ZADD', p .. 'parked:' .. gate, turn, id)
    if at then open_at(p, gate, at) end
  end

  local function unpark(p, id, text)
    if redis.call('ZREM', p .. 'parked', id) == 0 then return false end
    for _, name in gates(text) do
      -- The next one may need less than this one did: two may state one limit with different numbers.
      if redis.call('ZREM', p .. 'parked:' .. name, id) == 1 then opened[#opened + 1] = name end
    end
    return true
  end

  -- Let parked tasks through, as long as the limit is not reached. One that finds its next limit reached is parked there.
  local function open(p, gate, now, let)
    for _ = 1, 1000 do
      local first = redis.call('ZRANGE', p .. 'parked:' .. gate, 0, 0, 'WITHSCORES')
      local id = first[1]
      if not id then return end
      local head = redis.call('GETRANGE', p .. 'task:' .. id, 0, 1023)
      local text = limits_text(head)
      local other, at
      if text ~= '' then other, at = closed(p, text, now, gate) end
      if other == gate then
        if at then open_at(p, gate, at) end
        return
      end
      redis.call('ZREM', p .. 'parked:' .. gate, id)
      if other then park(p, id, other, at, first[2])
      else
        redis.call('ZREM', p .. 'parked', id)
        if text ~= '' then
          grant(p, id, text, now)
          let[#let + 1] = id
        end
      end
    end
    open_at(p, gate, now)  -- enough for one call; the next reserve goes on
  end

  -- Open the limits where a slot was left, and those whose time has come. A task that gets through is older than all
  -- that is ready, so it goes to the front. Returns whether one did.
  local function open_gates(p, now, due)
    local let = {}
    for _, gate in ipairs(opened) do open(p, gate, now, let) end
    for _, gate in ipairs(due or {}) do open(p, gate, now, let) end
    opened = {}
    for i = #let, 1, -1 do place_front(p, let[i]) end
    return #let > 0
  end

  made = {
    limits_text = limits_text, unique_of = unique_of, leave = leave, free_key = free_key, key_holder = key_holder,
    closed = closed, grant = grant, park = park, unpark = unpark, open_gates = open_gates,
  }
  return made
end

--@part place
-- prio's score: the higher priority first, then by turn. 2^42 turns a priority fit in a double.
local function score(prio, turn) return -prio * 4398046511104 + turn end

local function priority_in(head) return tonumber(string.match(head, '^[qg](%-?%d+)')) or 0 end

local function priority(p, id)
  local head = redis.call('GETRANGE', p .. 'task:' .. id, 0, 6)
  if string.sub(head, 1, 1) == 'd' then return nil end  -- finished: it has no place
  if head == '' and redis.call('EXISTS', p .. 'task:' .. id) == 0 then return nil end  -- vanished
  return priority_in(head)
end

function place_front(p, id)
  local prio = priority(p, id)
  if not prio then
    redis.call('HDEL', p .. 'crashes', id)  -- no other script would
    redis.call('SREM', p .. 'cancelling', id)
    flow().leave(p, id)
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
    flow().leave(p, id)
    return false
  end
  if prio == 0 then redis.call('RPUSH', p .. 'ready', id)
  else redis.call('ZADD', p .. 'prio', score(prio, redis.call('HINCRBY', p .. 'meta', 'tail', 1)), id) end
  return true
end

--@part withdraw
-- Take a task out of where it waits, and write its end. In the middle of a long list it cannot be removed
-- cheaply, so there it stays, noted in `revoked`, and reserve skips it.
local function withdraw(p, id, text, at_front)
  if redis.call('ZREM', p .. 'delayed', id) == 1 or redis.call('ZREM', p .. 'prio', id) == 1
    or flow().unpark(p, id, text) then return true end
  return at_front and redis.call('LREM', p .. 'ready', 1, id) == 1
end

local function revoke(p, id, text, record, ttl, reply, event)
  redis.call('SET', p .. 'task:' .. id, record, 'PX', ttl)
  redis.call('LPUSH', p .. 'recent', id)
  redis.call('LTRIM', p .. 'recent', 0, 999)
  redis.call('HDEL', p .. 'crashes', id)
  redis.call('SREM', p .. 'cancelling', id)
  if text ~= '' then
    flow().leave(p, id)
    flow().free_key(p, id, text)
  end
  if reply ~= '' then redis.call('PUBLISH', reply, 'done\n' .. id .. ' ' .. #record .. ':' .. record) end
  if event then event.add(id, record) end
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
    if redis.call('EXISTS', p .. 'leases') == 0 then redis.call('HDEL', p .. 'meta', 'seen', 'since') end
  else
    redis.call('ZADD', p .. 'leases', 0, lease)
  end
  return #members
end
