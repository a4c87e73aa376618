-- cancel: end tasks that wait; ask for the end of those that run.
--
-- KEYS[1]  prefix of the queue
-- ARGV     now | events channel | always | ttl ms | at front (1 or 0) | n x (id, finished record, reply)
-- returns  per task: cancelled, cancelling, finished or unknown; a repeat of this very call: cancelled
--
-- Whether a task is held is looked up in the held sets: they are as small as the work under way.
--@use now events wake limits place withdraw
local p, ttl, at_front = KEYS[1], ARGV[4], ARGV[5] == '1'
local event = heard(ARGV[2], ARGV[3]) and parcels(ARGV[2], 'done')
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

for at = 6, #ARGV, 3 do
  local id, record, reply = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local head = redis.call('GETRANGE', p .. 'task:' .. id, 0, 1023)
  local state, text = string.sub(head, 1, 1), flow().limits_text(head)
  local answer = 'cancelled'
  if state == '' then answer = 'unknown'
  elseif state == 'd' then
    answer = redis.call('GET', p .. 'task:' .. id) == record and 'repeat' or 'finished'
  elseif withdraw(p, id, text, at_front) then
    -- It was where a removal is cheap.
  elseif is_held(id) then
    redis.call('SADD', p .. 'cancelling', id)
    answer = 'cancelling'
  else
    redis.call('SADD', p .. 'revoked', id)
  end
  if answer == 'cancelled' then revoke(p, id, text, record, ttl, reply, event) end
  answers[#answers + 1] = answer == 'repeat' and 'cancelled' or answer
end
if event then event.flush() end
if #opened > 0 and flow().open_gates(p, clock(ARGV[1])) then wake(p) end
return answers
