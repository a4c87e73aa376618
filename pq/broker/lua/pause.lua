-- pause: stop dispatching from a queue, or go on.
--
-- KEYS[1]  prefix of the queue
-- ARGV     1 or 0
--@use wake
local p = KEYS[1]
redis.call('HDEL', p .. 'meta', 'paused')  -- a removal first: it must work on a full server
if ARGV[1] == '1' then redis.call('HSET', p .. 'meta', 'paused', '1')
else wake(p) end
return 1
