-- stream: add parts to what a running task streams; only the lease that holds it may.
--
-- KEYS[1]  prefix of the queue
-- ARGV     now | id | lease | batch | ttl ms | channel | always | number of the first part | of the oldest to keep | part, …
-- returns  1, or 0 when the task is not held so: another worker has it, or it has ended
--
-- An entry is called `<attempt>-<number>`, and its one field is the token of the lease that holds the task. The attempt is the
-- moment of its first part, so it grows; with another holder the parts of the one before go away. A part whose number is
-- there already is left alone, so the same call may come twice.
--@use now events
local p, id, token = KEYS[1], ARGV[2], ARGV[3] .. ':' .. ARGV[4]
if redis.call('SISMEMBER', p .. 'held:' .. ARGV[3], id .. ':' .. ARGV[4]) == 0 then return 0 end
local key, attempt, last = p .. 'stream:' .. id, clock(ARGV[1]), 0
local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
if newest then
  local its, number = string.match(newest[1], '^(%d+)-(%d+)$')
  if newest[2][1] == token then
    attempt, last = tonumber(its), tonumber(number)
  else
    redis.call('DEL', key)
    attempt = math.max(attempt, tonumber(its) + 1)
  end
end
attempt = string.format('%.0f', attempt)
local first = tonumber(ARGV[8])
for i = 10, #ARGV do
  local number = first + i - 10
  if number > last then redis.call('XADD', key, string.format('%s-%.0f', attempt, number), token, ARGV[i]) end
end
if tonumber(ARGV[9]) > 1 then redis.call('XTRIM', key, 'MINID', attempt .. '-' .. ARGV[9]) end
redis.call('PEXPIRE', key, ARGV[5])
if heard(ARGV[6], ARGV[7]) then redis.call('PUBLISH', ARGV[6], id) end
return 1
