-- poke: leave a token for one idle worker, though nothing was queued: a delayed task is due. Or push an
-- interrupt key, which ends the wait of one worker alone.
--
-- KEYS[1]  prefix of the queue
-- ARGV     nothing, or the name of the interrupt key and its time to live in ms
--@use wake
redis.call('HDEL', KEYS[1] .. 'meta', '')  -- a removal first, of nothing: it must work on a full server
if ARGV[1] then
  local interrupt = KEYS[1] .. 'bell:' .. ARGV[1]
  if redis.call('EXISTS', interrupt) == 0 then redis.call('RPUSH', interrupt, '1') end
  redis.call('PEXPIRE', interrupt, ARGV[2])
else
  wake(KEYS[1])
end
return 1
