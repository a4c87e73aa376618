-- cancel: end tasks that wait; ask for the end of those that run.
--
-- KEYS[1]  prefix of the queue
-- ARGV     events channel | always | ttl ms | at front (1 or 0) | n x (id, finished record, reply)
-- returns  per task: cancelled, cancelling, finished or unknown; a repeat of this very call: cancelled
--
-- An id in the middle of a long list cannot be removed cheaply, so it stays there, noted in `revoked`,
-- and reserve skips it. Whether a task is held is looked up in the held sets: they are as small as the
-- work under way.
--@use events
local p, ttl, at_front = KEYS[1], ARGV[3], ARGV[4] == '1'
local event = heard(ARGV[1], ARGV[2]) and parcels(ARGV[1], 'done')
local answers = {}

local function is_held(id)
  for _, lease in ipairs(redis.call('ZRANGE', p .. 'leases', 0, -1)) do
    local cursor = '0'
    repeat
      local page = redis.call('SSCAN', p .. 'held:' .. lease, cursor, 'MATCH', id .. ':*', 'COUNT', 1000)
      if #page[2] > 0 then return true end
      cursor = page[1]
    until cursor == '0'
  end
  return false
end

for at = 5, #ARGV, 3 do
  local id, record, reply = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local state = redis.call('GETRANGE', p .. 'task:' .. id, 0, 0)
  local answer = 'cancelled'
  if state == '' then answer = 'unknown'
  elseif state == 'd' then
    answer = redis.call('GET', p .. 'task:' .. id) == record and 'repeat' or 'finished'
  elseif redis.call('ZREM', p .. 'delayed', id) == 1 or redis.call('ZREM', p .. 'prio', id) == 1 then
    -- It was where a removal is cheap.
  elseif at_front and redis.call('LREM', p .. 'ready', 1, id) == 1 then
    -- It was the first of the list.
  elseif is_held(id) then
    redis.call('SADD', p .. 'cancelling', id)
    answer = 'cancelling'
  else
    redis.call('SADD', p .. 'revoked', id)
  end
  if answer == 'cancelled' then
    redis.call('SET', p .. 'task:' .. id, record, 'PX', ttl)
    redis.call('HDEL', p .. 'crashes', id)
    redis.call('SREM', p .. 'cancelling', id)
    if reply ~= '' then redis.call('PUBLISH', reply, 'done\n' .. id .. ' ' .. #record .. ':' .. record) end
    if event then event.add(id, record) end
  end
  answers[#answers + 1] = answer == 'repeat' and 'cancelled' or answer
end
if event then event.flush() end
return answers
