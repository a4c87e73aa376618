-- schedule: state, change, remove or pause a schedule. A text has the rule of its ticks in its first line.
--
-- KEYS[1]  prefix of the schedules
-- ARGV     now | verb | name | text | most; verbs: code, changed, forget, undo, drop, pause, resume
-- returns  1 something changed, 0 it was so already, -1 no such schedule, -2 there are too many
--
-- `code` is what a program's code states, `changed` what was stated at run time, which counts more.
-- `forget` removes the one, `undo` the other, `drop` both.
--@use now
local p, now, verb, name, text, most = KEYS[1], clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local function effective() return redis.call('HGET', p .. 'changed', name) or redis.call('HGET', p .. 'code', name) end
local function rule(of) return of and string.match(of, '^[^\n]*') end
local before = effective()

local function done()
  local after = effective()
  if not after then
    redis.call('HDEL', p .. 'since', name)
    redis.call('SREM', p .. 'paused', name)
  elseif rule(after) ~= rule(before) then
    redis.call('HSET', p .. 'since', name, string.format('%.0f', now))
  end
  redis.call('HINCRBY', p .. 'meta', 'version', 1)
  return 1
end

if verb == 'code' or verb == 'changed' then
  if redis.call('HGET', p .. verb, name) == text then return 0 end
  if not before and redis.call('HLEN', p .. 'since') >= most then return -2 end
  redis.call('HSET', p .. verb, name, text)
  return done()
end
if verb == 'forget' or verb == 'undo' or verb == 'drop' then
  local gone = verb ~= 'forget' and redis.call('HDEL', p .. 'changed', name) or 0
  if verb ~= 'undo' then gone = gone + redis.call('HDEL', p .. 'code', name) end
  return gone > 0 and done() or 0
end
if not before then return -1 end
if verb == 'pause' then
  if redis.call('SADD', p .. 'paused', name) == 0 then return 0 end
else
  if redis.call('SREM', p .. 'paused', name) == 0 then return 0 end
  redis.call('HSET', p .. 'since', name, string.format('%.0f', now))  -- what passed meanwhile was not missed
end
redis.call('HINCRBY', p .. 'meta', 'version', 1)
return 1
