-- lock: take a lock, or keep it: again with the same token pushes its deadline.
--
-- KEYS[1]  the lock
-- ARGV     now | token | ttl ms | 1: keep it, and take nothing | kept ms
-- returns  {fence, 0}, or {0, ms until its holder's time is over} when another token has it
--
-- The fence is larger than any before it: by the clock, and by the last one, which stays here for a day
-- after the lock was released, should the clock go back. A deadline that has passed loses nothing as long as
-- no other token took the lock.
--@use now
local now, token, keep = clock(ARGV[1]), ARGV[2], ARGV[4] == '1'
local lock = redis.call('HMGET', KEYS[1], 'token', 'fence', 'until')
local fence, deadline = tonumber(lock[2] or 0), tonumber(lock[3] or 0)
redis.call('HDEL', KEYS[1], '')  -- a removal first, of nothing: it must work on a full server
if lock[1] ~= token then
  if keep then return { 0, 0 } end
  if lock[1] and deadline > now then return { 0, deadline - now } end
  fence = math.max(fence + 1, now)
end
redis.call('HSET', KEYS[1], 'token', token, 'fence', string.format('%.0f', fence),
  'until', string.format('%.0f', now + tonumber(ARGV[3])))
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[3]) + tonumber(ARGV[5]))
return { fence, 0 }
