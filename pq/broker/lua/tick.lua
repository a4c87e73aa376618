-- tick: queue the task of each tick that is unclaimed. Claim and queueing are one step, so no worker can
-- die in between, and a late one finds the tick claimed however long ago that was.
--
-- KEYS[1]  prefix of the queue
-- ARGV     now | events channel | always | n x (schedule, tick ms, id, record), the ticks of one in their order
-- returns  for each: 1 it is queued now, 0 it was claimed before or another task has its unique key,
--          -1 its time has not come
--
-- The first write may be refused for lack of memory, and then nothing was written; later ones are not.
--@use now events wake limits place
local p, now = KEYS[1], clock(ARGV[1])
local event = heard(ARGV[2], ARGV[3]) and parcels(ARGV[2], 'queued')
local answers, queued = {}, false

for at = 4, #ARGV, 4 do
  local name, tick, id, record = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local answer = 0
  if tonumber(tick) > now then
    answer = -1
  elseif tonumber(tick) > (tonumber(redis.call('HGET', p .. 'ticks', name)) or 0) then
    local mode, key
    if string.byte(record) == 103 then mode, key = flow().unique_of(flow().limits_text(record)) end
    if not (key and flow().key_holder(p, key)) and redis.call('SET', p .. 'task:' .. id, record, 'NX') then
      if key then redis.call('SET', p .. 'unique:' .. key, mode .. id) end
      place_back(p, id)
      if event then event.add(id, record) end
      answer, queued = 1, true
    end
    redis.call('HSET', p .. 'ticks', name, tick)
  end
  answers[#answers + 1] = answer
end

if event then event.flush() end
if queued then wake(p) end
return answers
