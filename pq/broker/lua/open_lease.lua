-- open_lease: start a lease. Again with the same name pushes its deadline.
--
-- KEYS  prefixes of the queues
-- ARGV  now | lease | ttl ms
--@use now renewals
local now = clock(ARGV[1])
for _, p in ipairs(KEYS) do
  redis.call('ZREM', p .. 'leases', ARGV[2])  -- a removal first: it must work on a full server
  note_renewal(p, now, tonumber(ARGV[3]))
  redis.call('ZADD', p .. 'leases', now + tonumber(ARGV[3]), ARGV[2])
end
return 1
