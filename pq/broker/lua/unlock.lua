-- unlock: release a lock, if the token is its holder's, and notify those that wait for it.
--
-- KEYS[1]  the lock
-- ARGV     token | channel | name of the lock
-- returns  1, or 0 when it is held by another token or by none (so a repeat is harmless)
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'token', 'until')  -- the fence stays
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
