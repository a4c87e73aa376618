-- displace: end a task that waits under a unique key, and queue another under that key in the same moment.
--
-- KEYS[1]  prefix of the queue
-- ARGV     now | events channel | always | ttl ms | old id | its finished record | its reply
--          | id | record | delay ms | priority
-- returns  1, or 0 when the old one has started or ended (its key is free then)
--@use now events wake limits place withdraw
local p, now = KEYS[1], clock(ARGV[1])
local old, id, record, delay = ARGV[5], ARGV[8], ARGV[9], tonumber(ARGV[10])
local mode, key = flow().unique_of(flow().limits_text(record))
if redis.call('EXISTS', p .. 'task:' .. id) == 1 then return 1 end  -- a repeat
local holder = flow().key_holder(p, key)
if not holder or holder == 'f' .. old or string.sub(holder, 2) ~= old then return 0 end

local text = flow().limits_text(redis.call('GETRANGE', p .. 'task:' .. old, 0, 1023))
redis.call('SET', p .. 'task:' .. id, record)  -- first: a full server refuses this, and then nothing has happened
if not withdraw(p, old, text, false) then redis.call('SADD', p .. 'revoked', old) end
local ended = heard(ARGV[2], ARGV[3]) and parcels(ARGV[2], 'done')
revoke(p, old, text, ARGV[6], ARGV[4], ARGV[7], ended)
redis.call('SET', p .. 'unique:' .. key, mode .. id)
if delay and delay > 0 then redis.call('ZADD', p .. 'delayed', now + delay, id)
else place_back(p, id) end
if #opened > 0 then flow().open_gates(p, now) end
wake(p)
if ended then
  ended.flush()
  local event = parcels(ARGV[2], 'queued')
  event.add(id, record)
  event.flush()
end
return 1
