-- poke: leave a token for one idle worker, though nothing was queued: a delayed task is due.
--
-- KEYS[1]  prefix of the queue
--@use wake
redis.call('HDEL', KEYS[1] .. 'meta', '')  -- a removal first, of nothing: it must work on a full server
wake(KEYS[1])
return 1
