-- replace: put another record in the place of one whose task waits under a unique key.
--
-- KEYS[1]  prefix of the queue
-- ARGV     now | id | record | delay ms, or '' to leave its time as it is
-- returns  1, or 0 when the task has started or ended (its key is free then)
--
-- It keeps its place. With a delay its time starts again, if it was delayed: that is a debounce.
--@use now wake limits
local p, now, id, record, delay = KEYS[1], clock(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
local mode, key = flow().unique_of(flow().limits_text(record))
local known = redis.call('GET', p .. 'task:' .. id)
if known == record then return 1 end  -- a repeat
local holder = redis.call('GET', p .. 'unique:' .. key)
if not known or (holder ~= 'l' .. id and holder ~= 'r' .. id) then return 0 end
redis.call('SET', p .. 'task:' .. id, record)
redis.call('SET', p .. 'unique:' .. key, mode .. id)
if delay and redis.call('ZSCORE', p .. 'delayed', id) then
  redis.call('ZADD', p .. 'delayed', now + delay, id)
  if redis.call('ZRANGE', p .. 'delayed', 0, 0)[1] == id then wake(p) end
end
return 1
