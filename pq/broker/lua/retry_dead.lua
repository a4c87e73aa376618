-- retry_dead: make a finished task live again, with a new record.
--
-- KEYS[1]  prefix of the queue
-- ARGV     events channel | always | id | record
-- returns  1, or 0 when the task is unknown or live already (so a repeat is harmless)
--@use events wake limits place
local p, id, record = KEYS[1], ARGV[3], ARGV[4]
if redis.call('GETRANGE', p .. 'task:' .. id, 0, 0) ~= 'd' then return 0 end
redis.call('ZREM', p .. 'dead', id)
local in_list = redis.call('SREM', p .. 'revoked', id) == 1
redis.call('HDEL', p .. 'crashes', id)
redis.call('DEL', p .. 'stream:' .. id)
redis.call('SET', p .. 'task:' .. id, record)
if not in_list then place_back(p, id) end  -- else it lies in `ready` still, and is not skipped any more
wake(p)
if heard(ARGV[1], ARGV[2]) then
  local event = parcels(ARGV[1], 'queued')
  event.add(id, record)
  event.flush()
end
return 1
