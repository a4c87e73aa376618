-- limit: how many tasks may wait in a queue.
--
-- KEYS[1]  prefix of the queue
-- ARGV     a number, or '' for no limit
local p = KEYS[1]
redis.call('HDEL', p .. 'meta', 'limit')  -- a removal first: it must work on a full server
if ARGV[1] ~= '' then redis.call('HSET', p .. 'meta', 'limit', ARGV[1]) end
return 1
