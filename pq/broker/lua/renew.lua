-- renew: push the deadline of a lease, in each queue where it is still valid.
--
-- KEYS     prefixes of the queues
-- ARGV     now | lease | ttl ms
-- returns  per queue: {alive, id asked to stop, …}
--
-- A lease whose deadline has passed is renewed as long as no worker has begun to reclaim it (score 0).
--@use now renewals
local now = clock(ARGV[1])
local replies = {}
for i, p in ipairs(KEYS) do
  local deadline = redis.call('ZSCORE', p .. 'leases', ARGV[2])
  if deadline and tonumber(deadline) > 0 then
    redis.call('ZREM', p .. 'leases', ARGV[2])
    note_renewal(p, now, tonumber(ARGV[3]))
    redis.call('ZADD', p .. 'leases', now + tonumber(ARGV[3]), ARGV[2])
    replies[i] = { 1, unpack(redis.call('SRANDMEMBER', p .. 'cancelling', 1000)) }
  else
    replies[i] = { 0 }
  end
end
return replies
