-- hand_back: return what a lease holds to the front of its queue, and end it.
--
-- KEYS[1]  prefix of the queue
-- ARGV     now | lease | charge a crash (1 or 0) | limit
-- returns  how many went back; fewer than the limit means that the lease has ended
--@use now wake limits place reclaim
local p = KEYS[1]
local n = reclaim(p, ARGV[2], ARGV[3] == '1', tonumber(ARGV[4]))
if #opened > 0 then flow().open_gates(p, clock(ARGV[1])) end
if n > 0 then wake(p) end
return n
