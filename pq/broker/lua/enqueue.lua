-- enqueue: make tasks known and put them where they wait. All or nothing, idempotent by id.
--
-- KEYS[1]  prefix of the queue
-- ARGV     now | events channel | always | n | n x (id, record) | rest x (id, record, delay ms, priority)
-- returns  the ids that were known already; `<id> <mode><other id>` for one whose unique key another task
--          has; or the error PQFULL where the queue's limit is reached
--
-- The first write may be refused for lack of memory, and then nothing was written; later ones are not.
--@use now chunks events wake limits place
local p, now = KEYS[1], clock(ARGV[1])
local plain = tonumber(ARGV[4])

-- A queue with a limit takes all of a call or nothing. A repeat of a call that was applied adds nothing.
local limit = tonumber(redis.call('HGET', p .. 'meta', 'limit') or '')
if limit then
  local fresh, i = 0, 5
  while i <= #ARGV do
    if redis.call('EXISTS', p .. 'task:' .. ARGV[i]) == 0 then fresh = fresh + 1 end
    i = i + (i < 5 + 2 * plain and 2 or 4)
  end
  local waiting = redis.call('LLEN', p .. 'ready') - redis.call('SCARD', p .. 'revoked')
    + redis.call('ZCARD', p .. 'prio') + redis.call('ZCARD', p .. 'delayed') + redis.call('ZCARD', p .. 'parked')
  if fresh > 0 and waiting + fresh > limit then
    return redis.error_reply('PQFULL ' .. waiting .. ' tasks wait, and ' .. limit .. ' may')
  end
end
local known, ids = {}, {}
local event = heard(ARGV[2], ARGV[3]) and parcels(ARGV[2], 'queued')

local at = 5
for _ = 1, plain do
  local id, record = ARGV[at], ARGV[at + 1]
  if redis.call('SET', p .. 'task:' .. id, record, 'NX') then
    ids[#ids + 1] = id
    if event then event.add(id, record) end
  else
    known[#known + 1] = id
  end
  at = at + 2
end
each_chunk(ids, function(...) redis.call('RPUSH', p .. 'ready', ...) end)

local ready = #ids > 0
while at <= #ARGV do
  local id, record, delay, prio = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local mode, key, holder
  if string.byte(record) == 103 then  -- 'g' has limits
    mode, key = flow().unique_of(flow().limits_text(record))
    holder = key and flow().key_holder(p, key)
  end
  if holder and redis.call('EXISTS', p .. 'task:' .. id) == 0 then
    known[#known + 1] = id .. ' ' .. holder
  elseif redis.call('SET', p .. 'task:' .. id, record, 'NX') then
    if key then redis.call('SET', p .. 'unique:' .. key, mode .. id) end
    if event then event.add(id, record) end
    if delay and delay > 0 then
      redis.call('ZADD', p .. 'delayed', now + delay, id)
      -- It may be due before any worker would look again: an idle one should know of it.
      if redis.call('ZRANGE', p .. 'delayed', 0, 0)[1] == id then ready = true end
    else
      place_back(p, id)
      ready = true
    end
  else
    known[#known + 1] = id
  end
  at = at + 4
end

if event then event.flush() end
if ready then wake(p) end
return known
