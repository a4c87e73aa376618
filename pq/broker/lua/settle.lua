-- settle: end attempts. Accepted only under the lease that holds the task, under the very batch it was handed out in.
--
-- KEYS[1]  prefix of the queue
-- ARGV     now | lease | ttl ms | dead ttl ms | events channel | always
--          | n | n x (id:batch, record, reply) | rest x (op, id:batch, record, reply, wait ms)
--          ops: a succeed (a task with limits), f fail, v revoke, t retry, l release, c release and charge a crash
-- returns  the ids that were refused
--
-- `SREM held` is the fence and the first write: it frees memory, so a full server drains.
-- A repeat finds the fence gone and its own token in the record's header, and changes nothing.
--@use now chunks events wake limits place
local p, now = KEYS[1], clock(ARGV[1])
local lease, ttl, dead_ttl = ARGV[2], ARGV[3], ARGV[4]
local held = p .. 'held:' .. lease
local refused, done = {}, {}
local succeeded, failed, revoked, retried = 0, 0, 0, 0
local replies = {}
local announce = heard(ARGV[5], ARGV[6])
local event = announce and parcels(ARGV[5], 'done')
local again = announce and parcels(ARGV[5], 'retry')

local function id_of(member) return string.sub(member, 1, string.find(member, ':', 1, true) - 1) end

local function refuse(member)
  local id = id_of(member)
  local head = redis.call('GETRANGE', p .. 'task:' .. id, 0, 255)
  local token = string.match(head, '^[^ \n]* ([^ \n]*)')
  if token ~= lease .. string.sub(member, #id + 1) then refused[#refused + 1] = id end
end

local function finish(member, record, reply, keep)
  local id = id_of(member)
  redis.call('SET', p .. 'task:' .. id, record, 'PX', keep)
  done[#done + 1] = id
  if reply ~= '' then
    local mail = replies[reply]
    if not mail then
      mail = parcels(reply, 'done')
      replies[reply] = mail
    end
    mail.add(id, record)
  end
  if event then event.add(id, record) end
  return id
end

local at = 8
for _ = 1, tonumber(ARGV[7]) do
  local member = ARGV[at]
  if redis.call('SREM', held, member) == 1 then finish(member, ARGV[at + 1], ARGV[at + 2], ttl)
  else refuse(member) end
  at = at + 3
end
succeeded = #done
local limited = #ARGV >= at and redis.call('EXISTS', p .. 'holds') == 1

-- The task has ended: other tasks may have what it was granted.
local function over(id)
  if limited then
    local text = redis.call('HGET', p .. 'holds', id)
    flow().leave(p, id)
    if text then flow().free_key(p, id, text) end
  end
  return id
end

while at <= #ARGV do
  local op, member, record, reply = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if redis.call('SREM', held, member) == 0 then
    if op ~= 'l' and op ~= 'c' then refuse(member) end
  elseif op == 'a' then
    over(finish(member, record, reply, ttl))
    succeeded = succeeded + 1
  elseif op == 'f' then
    local id = over(finish(member, record, reply, dead_ttl))
    redis.call('ZADD', p .. 'dead', now, id)
    failed = failed + 1
  elseif op == 'v' then
    over(finish(member, record, reply, ttl))
    revoked = revoked + 1
  else
    local id = id_of(member)
    if op == 't' then
      redis.call('SET', p .. 'task:' .. id, record)
      redis.call('ZADD', p .. 'delayed', now + tonumber(ARGV[at + 4]), id)
      redis.call('HDEL', p .. 'crashes', id)
      if limited then flow().leave(p, id) end
      -- A worker that sleeps until the next due task should know of an earlier one.
      if redis.call('ZRANGE', p .. 'delayed', 0, 0)[1] == id then wake(p) end
      if again then again.add(id, record) end
      retried = retried + 1
    else
      if place_front(p, id) and op == 'c' then redis.call('HINCRBY', p .. 'crashes', id, 1) end
      wake(p)
    end
  end
  at = at + 5
end

if #opened > 0 and flow().open_gates(p, now) then wake(p) end

-- A task that goes back keeps its mark: the caller that cancelled it was answered that it will end.
if redis.call('EXISTS', p .. 'cancelling') == 1 then
  each_chunk(done, function(...) redis.call('SREM', p .. 'cancelling', ...) end)
end
if #done > 0 then
  if redis.call('EXISTS', p .. 'crashes') == 1 then
    each_chunk(done, function(...) redis.call('HDEL', p .. 'crashes', ...) end)
  end
  each_chunk(done, function(...) redis.call('LPUSH', p .. 'recent', ...) end)
  redis.call('LTRIM', p .. 'recent', 0, 999)
end
if failed > 0 then redis.call('ZREMRANGEBYSCORE', p .. 'dead', '-inf', now - dead_ttl) end
if #done + retried > 0 then
  local stats = p .. 'stats:' .. math.floor(now / 60000)
  local function count(name, n)
    if n > 0 then redis.call('HINCRBY', stats, name, n) end
  end
  count('succeeded', succeeded)
  count('failed', failed)
  count('revoked', revoked)
  count('retried', retried)
  redis.call('PEXPIRE', stats, 7200000)
end
for _, mail in pairs(replies) do mail.flush() end
if event then event.flush() end
if again then again.flush() end
return refused
