-- hand_back: return what a lease holds to the front of its queue, and end it.
--
-- KEYS[1]  prefix of the queue
-- ARGV     lease | charge a crash (1 or 0) | limit
-- returns  how many went back; fewer than the limit means that the lease has ended
--@use wake place reclaim
local p = KEYS[1]
local n = reclaim(p, ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]))
if n > 0 then wake(p) end
return n
