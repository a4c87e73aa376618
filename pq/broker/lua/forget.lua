-- forget: remove finished records and what is known of them.
--
-- KEYS[1]  prefix of the queue
-- ARGV     ids
-- returns  how many records were removed; one that is live stays
local p, removed = KEYS[1], 0
for _, id in ipairs(ARGV) do
  local first = redis.call('GETRANGE', p .. 'task:' .. id, 0, 0)
  if first == 'd' or first == '' then
    redis.call('ZREM', p .. 'dead', id)
    removed = removed + redis.call('DEL', p .. 'task:' .. id)
    redis.call('DEL', p .. 'stream:' .. id)
  end
end
return removed
