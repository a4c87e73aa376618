-- reserve: hand out tasks under a lease; on the way promote what is due and reclaim what was abandoned.
--
-- KEYS     prefixes of the queues, in order of preference (one slot, or no cluster)
-- ARGV     now | lease | batch | want | stable for ms or nothing | idle | events channel | always | worker name | solo after
-- returns  per queue: {alive, ms to next due or -1, vanished, left, flags, {id, crashes or limit, …}, id, record, …}
--          flags: 1 the task runs alone, 2 the next task must run alone and the caller is not idle
--          a limit: it is reached, and the task is not to wait for it
--
-- Guarantees: a task is in exactly one place before and after. The same batch number again (its reply
-- was lost) hands out the same tasks again, and no others. A number below one that was used hands out nothing: that
-- call was given up by its caller, and what it took would be lost. Expired leases are reclaimed only where leases
-- have been renewed without a gap for so long: otherwise it may be that no worker could. It is decided here and now,
-- since a caller may be stopped, and a call may be late. The first write is a removal, which a full server accepts.
--@use now chunks events wake limits place reclaim
local now = clock(ARGV[1])
local lease, batch, want = ARGV[2], ARGV[3], tonumber(ARGV[4])
local stable_for, idle = tonumber(ARGV[5]), ARGV[6] == '1'
local solo_after = tonumber(ARGV[10])
local taken_before, stop = 0, false

local function is_stable(p)
  if stable_for == 0 then return true end
  local known = redis.call('HMGET', p .. 'meta', 'seen', 'since')
  local seen, since = tonumber(known[1] or 0), tonumber(known[2] or 0)
  return math.abs(now - seen) <= stable_for / 2 and now - since >= stable_for
end

local function housekeeping(p, out)
  if stable_for then
    for _, other in ipairs(redis.call('ZRANGEBYSCORE', p .. 'leases', '-inf', now, 'LIMIT', 0, 2)) do
      if other ~= lease and is_stable(p) then
        reclaim(p, other, true, 100)
        break
      end
    end
  end
  local due = redis.call('ZRANGEBYSCORE', p .. 'delayed', '-inf', now, 'LIMIT', 0, 100)
  for _, id in ipairs(due) do
    redis.call('ZREM', p .. 'delayed', id)
    if not place_back(p, id) then out[3] = out[3] + 1 end
  end
  local timer = redis.call('ZRANGE', p .. 'timers', 0, 0, 'WITHSCORES')[2]
  if timer and tonumber(timer) <= now then
    local gates_due = redis.call('ZRANGEBYSCORE', p .. 'timers', '-inf', now, 'LIMIT', 0, 100)
    for _, gate in ipairs(gates_due) do redis.call('ZREM', p .. 'timers', gate) end
    flow().open_gates(p, now, gates_due)
  elseif #opened > 0 then flow().open_gates(p, now) end
  return timer
end

local function pop(p, n)
  local ids = {}
  local function from_prio(low, high)
    local some = redis.call('ZRANGEBYSCORE', p .. 'prio', low, high, 'LIMIT', 0, n - #ids)
    if #some > 0 then
      redis.call('ZREM', p .. 'prio', unpack(some))
      for _, id in ipairs(some) do ids[#ids + 1] = id end
    end
  end
  local prio = redis.call('EXISTS', p .. 'prio') == 1
  if prio then from_prio('-inf', '(0') end
  if #ids < n then
    local some = redis.call('LPOP', p .. 'ready', n - #ids)
    if some then
      if #ids == 0 then ids = some else for _, id in ipairs(some) do ids[#ids + 1] = id end end
    end
  end
  if prio and #ids < n then from_prio('0', '+inf') end
  return ids
end

local function note_of(id, note, out)
  out[6][#out[6] + 1] = id
  out[6][#out[6] + 1] = note
end

-- What may start of `ids`: not what was revoked while it waited, and a suspect only by itself.
local function admit(p, ids, out)
  if redis.call('EXISTS', p .. 'revoked') == 1 then
    local kept = {}
    for _, id in ipairs(ids) do
      if redis.call('SREM', p .. 'revoked', id) == 0 then kept[#kept + 1] = id end
    end
    ids = kept
  end
  if #ids == 0 or redis.call('EXISTS', p .. 'crashes') == 0 then return ids end
  local counts = redis.call('HMGET', p .. 'crashes', unpack(ids))
  local kept = {}
  for i, id in ipairs(ids) do
    local crashes = tonumber(counts[i] or 0)
    local suspect = crashes >= solo_after
    if stop or (suspect and not (idle and #kept == 0 and taken_before == 0)) then
      if not stop then out[5] = out[5] + 2 end
      stop = true
      for j = #ids, i, -1 do place_front(p, ids[j]) end
      break
    end
    kept[#kept + 1] = id
    if crashes > 0 then note_of(id, crashes, out) end
    if suspect then
      out[5] = out[5] + 1
      stop = true
      for j = #ids, i + 1, -1 do place_front(p, ids[j]) end
      break
    end
  end
  return kept
end

-- Whether a task with limits may start; otherwise it is parked at the first that is reached, in its turn.
local function let_in(p, id, record, out)
  local flow = flow()
  local text = flow.limits_text(record)
  local held = redis.call('HGET', p .. 'holds', id)
  if not held then
    local gate, at = flow.closed(p, text, now)
    if not gate then flow.grant(p, id, text, now)
    elseif string.find(',' .. text .. ',', ',x,', 1, true) then
      held = '!' .. gate .. ',' .. text
      redis.call('HSET', p .. 'holds', id, held)
    else
      flow.park(p, id, gate, at, score(priority_in(record), redis.call('HINCRBY', p .. 'meta', 'tail', 1)))
      return false
    end
  end
  local refusing = held and string.match(held, '^!([^,]+)')
  if refusing then note_of(id, refusing, out) end
  -- A task that only waits under its key frees it when it starts: what is queued from now on is something new.
  local mode, key = flow.unique_of(text)
  if key and mode ~= 'f' then flow.free_key(p, id, text) end
  return true
end

local function hand_out(p, ids, out)
  local parked = 0
  local event = #ids > 0 and heard(ARGV[7], ARGV[8]) and parcels(ARGV[7], 'started ' .. now .. ' ' .. ARGV[9])
  local members = {}
  for first = 1, #ids, 500 do
    local last = math.min(first + 499, #ids)
    local keys = {}
    for i = first, last do keys[#keys + 1] = p .. 'task:' .. ids[i] end
    local records = redis.call('MGET', unpack(keys))
    for i = first, last do
      local id, record = ids[i], records[i - first + 1]
      local kind = record and string.byte(record)
      if kind == 103 and not let_in(p, id, record, out) then  -- 'g' has limits
        parked = parked + 1
      elseif record and kind ~= 100 then  -- 'd' is finished; foreign bytes are the worker's to judge
        members[#members + 1] = id .. ':' .. batch
        out[#out + 1] = id
        out[#out + 1] = record
        if event then event.add(id, record) end
      else
        out[3] = out[3] + 1
        redis.call('HDEL', p .. 'crashes', id)
        redis.call('SREM', p .. 'cancelling', id)
        flow().leave(p, id)
      end
    end
  end
  if #members > 0 then
    each_chunk(members, function(...) redis.call('SADD', p .. 'held:' .. lease, ...) end)
    redis.call('HSET', p .. 'batches', lease, batch)
  end
  if event then event.flush() end
  return #members, parked
end

local function again(p, out)
  for _, member in ipairs(redis.call('SMEMBERS', p .. 'held:' .. lease)) do
    local id, its = string.match(member, '^(.*):(%d+)$')
    if its == batch then
      local record = redis.call('GET', p .. 'task:' .. id)
      if record then
        out[#out + 1] = id
        out[#out + 1] = record
        local crashes = tonumber(redis.call('HGET', p .. 'crashes', id) or 0)
        if crashes > 0 then
          note_of(id, crashes, out)
          if crashes >= solo_after then out[5] = 1 end
        end
        local refusing = string.match(redis.call('HGET', p .. 'holds', id) or '', '^!([^,]+)')
        if refusing then note_of(id, refusing, out) end
      else
        out[3] = out[3] + 1
        redis.call('SREM', p .. 'held:' .. lease, member)
        redis.call('SREM', p .. 'cancelling', id)
        redis.call('HDEL', p .. 'crashes', id)
        flow().leave(p, id)
      end
    end
  end
end

-- Which of the queues met this very call already, or a later one.
local last, is_new_batch = {}, true
for i, p in ipairs(KEYS) do
  last[i] = redis.call('HGET', p .. 'batches', lease)
  is_new_batch = is_new_batch and tonumber(last[i] or -1) < tonumber(batch)
end

local leased  -- a queue in which the lease is valid
local function reserve(p, i)
  local out = { 1, -1, 0, 0, 0, {} }
  redis.call('ZREM', p .. 'leases', '')  -- the removal that comes first; it removes nothing
  local deadline = redis.call('ZSCORE', p .. 'leases', lease)
  if not deadline or tonumber(deadline) == 0 then
    out[1] = 0
    if redis.call('LLEN', p .. 'ready') > 0 then wake(p) end  -- the token that brought us here was not for us
    return out
  end
  local timer = housekeeping(p, out)
  local paused = redis.call('HGET', p .. 'meta', 'paused')
  leased = p
  if last[i] == batch then
    again(p, out)  -- and nothing new, in no queue
  elseif want > 0 and is_new_batch and not stop and not paused then
    local looked = 0
    repeat  -- once, but where popped tasks were parked at a limit
      local ids = pop(p, math.min(want, 1000))
      if #ids == 0 then break end
      local taken, parked = hand_out(p, admit(p, ids, out), out)
      taken_before = taken_before + taken
      want = want - taken
      looked = looked + #ids
    until parked == 0 or want <= 0 or stop or looked >= 1000
  end
  if #opened > 0 then flow().open_gates(p, now) end
  local left = redis.call('LLEN', p .. 'ready') + redis.call('ZCARD', p .. 'prio')
  out[4] = left
  local first = redis.call('ZRANGE', p .. 'delayed', 0, 0, 'WITHSCORES')
  if made then timer = redis.call('ZRANGE', p .. 'timers', 0, 0, 'WITHSCORES')[2] end  -- it may be another one now
  local due = math.min(tonumber(first[2]) or math.huge, tonumber(timer) or math.huge)
  if due < math.huge then out[2] = math.max(0, math.floor(due - now)) end
  -- With delayed tasks a token may announce an earlier due time: it is left alone.
  if left > 0 and not paused then wake(p)
  elseif due == math.huge or paused then redis.call('DEL', p .. 'wake') end
  return out
end

local replies = {}
for i, p in ipairs(KEYS) do replies[i] = reserve(p, i) end
-- Where something was taken that is noted. All queues are looked at, so one of them will do.
if is_new_batch and taken_before == 0 and leased then redis.call('HSET', leased .. 'batches', lease, batch) end
return replies
