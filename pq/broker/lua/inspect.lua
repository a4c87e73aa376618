-- inspect: the number of tasks in each place, at one moment.
--
-- KEYS[1]  prefix of the queue
-- ARGV     now
-- returns  {ready, prio, delayed, held, leases, dead, paused, parked, due}; `due` are those of `delayed` whose
--          time has come, and that no worker had a free slot to promote
--@use now
local p = KEYS[1]
local held = 0
local leases = redis.call('ZRANGE', p .. 'leases', 0, -1)
for _, lease in ipairs(leases) do held = held + redis.call('SCARD', p .. 'held:' .. lease) end
return {
  redis.call('LLEN', p .. 'ready') - redis.call('SCARD', p .. 'revoked'), redis.call('ZCARD', p .. 'prio'),
  redis.call('ZCARD', p .. 'delayed'), held, #leases, redis.call('ZCARD', p .. 'dead'),
  redis.call('HGET', p .. 'meta', 'paused') and 1 or 0, redis.call('ZCARD', p .. 'parked'),
  redis.call('ZCOUNT', p .. 'delayed', '-inf', clock(ARGV[1])),
}
