"""One-line changes of the scripts, each of which breaks something. The suite of the broker notices each.

`python tests/mutants/run.py` (or `./run mutants`) tries them all and says which lived. A mutant that changes
nothing visible has its reason in `EQUIVALENT`; it is tried as well, and must live.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` stands once in the script (`lib` is part of many) and becomes `new`."""

    script: str
    old: str
    new: str


MUTANTS = [
    # --- wake
    Mutant(
        "lib",
        "if redis.call('LLEN', p .. 'wake') == 0 then redis.call('LPUSH'",
        "if true then redis.call('LPUSH'",
    ),
    Mutant("lib", "redis.call('LPUSH', p .. 'wake', '1') end", "end"),
    # --- place
    Mutant("lib", "return -prio * 4398046511104 + turn", "return prio * 4398046511104 + turn"),
    Mutant(
        "lib",
        "if prio == 0 then redis.call('LPUSH', p .. 'ready', id)",
        "if prio == 0 then redis.call('RPUSH', p .. 'ready', id)",
    ),
    Mutant(
        "lib",
        "if prio == 0 then redis.call('RPUSH', p .. 'ready', id)",
        "if prio == 0 then redis.call('LPUSH', p .. 'ready', id)",
    ),
    Mutant(
        "lib",
        "redis.call('HINCRBY', p .. 'meta', 'head', -1)",
        "redis.call('HINCRBY', p .. 'meta', 'head', 1)",
    ),
    Mutant(
        "lib",
        "redis.call('HINCRBY', p .. 'meta', 'tail', 1)), id)",
        "redis.call('HINCRBY', p .. 'meta', 'tail', -1)), id)",
    ),
    Mutant("lib", "redis.call('HDEL', p .. 'crashes', id)  -- no other script would", ""),
    # --- reclaim
    Mutant("lib", "if x ~= y then return x > y end", "if x ~= y then return x < y end"),
    Mutant("lib", "if place_front(p, id) and charge then", "if place_front(p, id) then"),
    Mutant("lib", "redis.call('ZREM', p .. 'leases', lease)", ""),
    Mutant("lib", "redis.call('HDEL', p .. 'batches', lease)", ""),
    Mutant("lib", "redis.call('ZADD', p .. 'leases', 0, lease)", ""),
    Mutant("lib", "redis.call('HDEL', p .. 'meta', 'seen', 'since')", ""),
    Mutant("lib", "if redis.call('EXISTS', p .. 'leases') == 0 then", "if true then"),
    # --- renewals
    Mutant("lib", "elseif now - seen > ttl / 2 then since = now end", "end"),
    Mutant("lib", "elseif now - seen > ttl / 2 then since = now end", "else since = now end"),
    Mutant("lib", "elseif now - seen > ttl / 2 then", "elseif now - seen >= ttl / 2 then"),
    Mutant("lib", "if now < seen - JITTER then", "if now < seen then"),
    Mutant("lib", "if now < seen - JITTER then", "if false then"),
    Mutant("lib", "if deadline > 0 then", "if true then"),
    Mutant("lib", "math.max(1, deadline - seen + now)", "deadline - seen + now"),
    Mutant("lib", "seen, since = now, now", "seen = now"),
    Mutant("lib", "math.max(seen, now)), 'since'", "now), 'since'"),
    Mutant("renew", "note_renewal(p, now, tonumber(ARGV[3]))", ""),
    Mutant("open_lease", "note_renewal(p, now, tonumber(ARGV[3]))", ""),
    # --- limits
    Mutant(
        "lib",
        "if redis.call('SCARD', p .. 'slots:' .. name) >= a then return name end",
        "if redis.call('SCARD', p .. 'slots:' .. name) > a then return name end",
    ),
    Mutant(
        "lib",
        "if name ~= opening and redis.call('EXISTS', p .. 'parked:' .. name) == 1 then return name end",
        "",
    ),
    Mutant(
        "lib",
        "if by > 0 then return name, now + math.ceil(by / 1000) end",
        "if by > 0 then return name, now + math.floor(by / 1000) end",
    ),
    Mutant(
        "lib",
        "if by > 0 then return name, now + math.ceil(by / 1000) end",
        "if by >= 0 then return name, now + math.ceil(by / 1000) end",
    ),
    Mutant("lib", "mark = math.min(mark, at + interval * burst) + interval", "mark = mark + interval"),
    Mutant(
        "lib",
        "local mark = math.max(at, tonumber(redis.call('GET', p .. 'rate:' .. name) or 0))",
        "local mark = tonumber(redis.call('GET', p .. 'rate:' .. name) or 0)",
    ),
    Mutant("lib", "return mark - interval * burst - at, mark", "return mark - interval - at, mark"),
    Mutant(
        "lib",
        "if kind == 'c' then redis.call('SADD', p .. 'slots:' .. name, id)",
        "if kind == 'c' then redis.call('SADD', p .. 'slots:' .. name, id .. 'x')",
    ),
    Mutant("lib", "redis.call('HSET', p .. 'holds', id, text)", ""),
    Mutant(
        "lib",
        "if kind == 'c' and redis.call('SREM', p .. 'slots:' .. name, id) == 1 then opened[#opened + 1] = name end",
        "if kind == 'c' then redis.call('SREM', p .. 'slots:' .. name, id) end",
    ),
    Mutant("lib", "redis.call('HDEL', p .. 'holds', id)", ""),
    Mutant("lib", "if at then open_at(p, gate, at) end\n  end", "end"),
    Mutant("lib", "redis.call('ZADD', p .. 'parked', turn, id)", ""),
    Mutant("lib", "if at then open_at(p, gate, at) end\n        return", "return"),
    Mutant(
        "lib", "if other then park(p, id, other, at, first[2])", "if other then park(p, id, other, at, 0)"
    ),
    Mutant(
        "lib",
        "for i = #let, 1, -1 do place_front(p, let[i]) end",
        "for i = 1, #let do place_front(p, let[i]) end",
    ),
    Mutant("lib", "for _, gate in ipairs(due or {}) do open(p, gate, now, let) end", ""),
    Mutant(
        "lib",
        "if redis.call('ZREM', p .. 'parked:' .. name, id) == 1 then opened[#opened + 1] = name end",
        "redis.call('ZREM', p .. 'parked:' .. name, id)",
    ),
    Mutant("lib", "open_at(p, gate, now)  -- enough for one call", "-- enough for one call"),
    Mutant("lib", "if key and redis.call('GET', p .. 'unique:' .. key) == mode .. id then", "if key then"),
    Mutant(
        "lib",
        "if state ~= '' and state ~= 'd' then return holder end",
        "if state ~= '' then return holder end",
    ),
    Mutant("lib", "if text ~= '' then\n    flow().leave(p, id)", "if text ~= '' then"),
    # --- enqueue
    Mutant(
        "enqueue",
        "if redis.call('SET', p .. 'task:' .. id, record, 'NX') then\n    ids",
        "if redis.call('SET', p .. 'task:' .. id, record) then\n    ids",
    ),
    Mutant(
        "enqueue",
        "if fresh > 0 and waiting + fresh > limit then",
        "if fresh > 0 and waiting + fresh >= limit then",
    ),
    Mutant("enqueue", "if delay and delay > 0 then", "if delay and delay >= 0 then"),
    Mutant("enqueue", "if redis.call('ZRANGE', p .. 'delayed', 0, 0)[1] == id then ready = true end", ""),
    Mutant("enqueue", "- redis.call('SCARD', p .. 'revoked')", ""),
    Mutant("enqueue", "if key then redis.call('SET', p .. 'unique:' .. key, mode .. id) end", ""),
    Mutant("enqueue", "if holder and redis.call('EXISTS', p .. 'task:' .. id) == 0 then", "if holder then"),
    # --- reserve
    Mutant("reserve", "if other ~= lease and is_stable(p) then", "if is_stable(p) then"),
    Mutant("reserve", "if other ~= lease and is_stable(p) then", "if other ~= lease then"),
    Mutant("reserve", "if stable_for == 0 then return true end", ""),
    Mutant("reserve", "math.abs(now - seen) <= stable_for / 2 and", "now - seen <= stable_for / 2 and"),
    Mutant("reserve", "math.abs(now - seen) <= stable_for / 2 and", ""),
    Mutant("reserve", "and now - since >= stable_for", "and now - since > stable_for"),
    Mutant("reserve", "< tonumber(batch)", "<= tonumber(batch)"),
    Mutant(
        "reserve",
        "tonumber(last[i] or -1) < tonumber(batch)",
        "last[i] ~= batch",
    ),
    Mutant(
        "reserve",
        "redis.call('ZRANGEBYSCORE', p .. 'leases', '-inf', now, 'LIMIT', 0, 2)",
        "redis.call('ZRANGEBYSCORE', p .. 'leases', '-inf', now + 1, 'LIMIT', 0, 2)",
    ),
    Mutant(
        "reserve",
        "redis.call('ZRANGEBYSCORE', p .. 'delayed', '-inf', now, 'LIMIT', 0, 100)",
        "redis.call('ZRANGEBYSCORE', p .. 'delayed', '-inf', now + 1, 'LIMIT', 0, 100)",
    ),
    Mutant("reserve", "redis.call('ZREM', p .. 'delayed', id)", ""),
    Mutant("reserve", "if prio then from_prio('-inf', '(0') end", ""),
    Mutant("reserve", "if prio and #ids < n then from_prio('0', '+inf') end", ""),
    Mutant(
        "reserve",
        "if redis.call('SREM', p .. 'revoked', id) == 0 then kept[#kept + 1] = id end",
        "kept[#kept + 1] = id",
    ),
    Mutant("reserve", "local suspect = crashes >= solo_after", "local suspect = crashes > solo_after"),
    Mutant(
        "reserve",
        "if stop or (suspect and not (idle and #kept == 0 and taken_before == 0)) then",
        "if stop or (suspect and not (idle and #kept == 0)) then",
    ),
    Mutant(
        "reserve",
        "for j = #ids, i, -1 do place_front(p, ids[j]) end",
        "for j = i, #ids do place_front(p, ids[j]) end",
    ),
    Mutant("reserve", "for j = #ids, i + 1, -1 do place_front(p, ids[j]) end", ""),
    Mutant("reserve", "members[#members + 1] = id .. ':' .. batch", "members[#members + 1] = id .. ':0'"),
    Mutant("reserve", "redis.call('HSET', p .. 'batches', lease, batch)", ""),
    Mutant("reserve", "redis.call('HSET', leased .. 'batches', lease, batch)", ""),
    Mutant(
        "reserve",
        "if is_new_batch and taken_before == 0 and leased then",
        "if taken_before == 0 and leased then",
    ),
    Mutant("reserve", "if its == batch then", "if true then"),
    Mutant("reserve", "if not deadline or tonumber(deadline) == 0 then", "if not deadline then"),
    Mutant("reserve", "if redis.call('LLEN', p .. 'ready') > 0 then wake(p) end", ""),
    Mutant(
        "reserve",
        "elseif want > 0 and is_new_batch and not stop and not paused then",
        "elseif want > 0 and not stop and not paused then",
    ),
    Mutant(
        "reserve",
        "elseif want > 0 and is_new_batch and not stop and not paused then",
        "elseif want > 0 and is_new_batch and not stop then",
    ),
    Mutant("reserve", "if left > 0 and not paused then wake(p)", "if left > 1 and not paused then wake(p)"),
    Mutant(
        "reserve",
        "elseif due == math.huge or paused then redis.call('DEL', p .. 'wake') end",
        "else redis.call('DEL', p .. 'wake') end",
    ),
    Mutant("reserve", "until parked == 0 or want <= 0 or stop or looked >= 1000", "until true"),
    Mutant("reserve", "if key and mode ~= 'f' then flow.free_key(p, id, text) end", ""),
    Mutant("reserve", "if refusing then note_of(id, refusing, out) end\n  -- A task", "-- A task"),
    # --- settle
    Mutant(
        "settle",
        "if token ~= lease .. string.sub(member, #id + 1) then refused[#refused + 1] = id end",
        "refused[#refused + 1] = id",
    ),
    Mutant("settle", "if op ~= 'l' and op ~= 'c' then refuse(member) end", ""),
    Mutant("settle", "redis.call('ZADD', p .. 'dead', now, id)", ""),
    Mutant(
        "settle",
        "local id = over(finish(member, record, reply, dead_ttl))",
        "local id = over(finish(member, record, reply, ttl))",
    ),
    Mutant("settle", "if limited then flow().leave(p, id) end", ""),
    Mutant("settle", "redis.call('HDEL', p .. 'crashes', id)\n      if limited", "if limited"),
    Mutant("settle", "if redis.call('ZRANGE', p .. 'delayed', 0, 0)[1] == id then wake(p) end", ""),
    Mutant("settle", "if place_front(p, id) and op == 'c' then", "if place_front(p, id) then"),
    Mutant("settle", "if #opened > 0 and flow().open_gates(p, now) then wake(p) end", ""),
    Mutant("settle", "each_chunk(done, function(...) redis.call('SREM', p .. 'cancelling', ...) end)", ""),
    Mutant("settle", "each_chunk(done, function(...) redis.call('HDEL', p .. 'crashes', ...) end)", ""),
    Mutant("settle", "if text then flow().free_key(p, id, text) end", ""),
    # --- leases
    Mutant("renew", "if deadline and tonumber(deadline) > 0 then", "if deadline then"),
    Mutant("renew", "redis.call('ZADD', p .. 'leases', now + tonumber(ARGV[3]), ARGV[2])", ""),
    Mutant("hand_back", "if n > 0 then wake(p) end", ""),
    Mutant("hand_back", "if #opened > 0 then flow().open_gates(p, clock(ARGV[1])) end", ""),
    # --- the rest
    Mutant("cancel", "elseif is_held(id) then", "elseif false then"),
    Mutant("cancel", "redis.call('SADD', p .. 'revoked', id)", ""),
    Mutant("cancel", "if #opened > 0 and flow().open_gates(p, clock(ARGV[1])) then wake(p) end", ""),
    Mutant("retry_dead", "redis.call('ZREM', p .. 'dead', id)", ""),
    Mutant("retry_dead", "if not in_list then place_back(p, id) end", "place_back(p, id)"),
    Mutant("tick", "if tonumber(tick) > now then", "if tonumber(tick) >= now then"),
    Mutant(
        "tick",
        "elseif tonumber(tick) > (tonumber(redis.call('HGET', p .. 'ticks', name)) or 0) then",
        "elseif tonumber(tick) >= (tonumber(redis.call('HGET', p .. 'ticks', name)) or 0) then",
    ),
    Mutant("replace", "if known == record then return 1 end", ""),
    Mutant(
        "replace", "or (holder ~= 'l' .. id and holder ~= 'r' .. id) then return 0 end", "then return 0 end"
    ),
    Mutant(
        "displace",
        "if not withdraw(p, old, text, false) then redis.call('SADD', p .. 'revoked', old) end",
        "withdraw(p, old, text, false)",
    ),
    Mutant("displace", "if redis.call('EXISTS', p .. 'task:' .. id) == 1 then return 1 end", ""),
    Mutant("lock", "if lock[1] and deadline > now then return { 0, deadline - now } end", ""),
    Mutant("lock", "fence = math.max(fence + 1, now)", "fence = now"),
    Mutant("unlock", "if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end", ""),
    # --- streams
    Mutant(
        "stream",
        "if redis.call('SISMEMBER', p .. 'held:' .. ARGV[3], id .. ':' .. ARGV[4]) == 0 then return 0 end",
        "",
    ),
    Mutant("stream", "if newest[2][1] == token then", "if true then"),
    Mutant("stream", "redis.call('DEL', key)\n", "\n"),
    Mutant("stream", "attempt = math.max(attempt, tonumber(its) + 1)", ""),
    Mutant("stream", "attempt, last = tonumber(its), tonumber(number)", "attempt = tonumber(its)"),
    Mutant("stream", "attempt, last = tonumber(its), tonumber(number)", "last = tonumber(number)"),
    Mutant("stream", "if number > last then redis.call('XADD'", "if true then redis.call('XADD'"),
    Mutant("stream", "redis.call('XTRIM', key, 'MINID', attempt .. '-' .. ARGV[9])", "return 1"),
    Mutant("stream", "redis.call('PEXPIRE', key, ARGV[5])", ""),
    Mutant("stream", "redis.call('PUBLISH', ARGV[6], id)", "return 1"),
    Mutant("forget", "redis.call('DEL', p .. 'stream:' .. id)", ""),
    Mutant("retry_dead", "redis.call('DEL', p .. 'stream:' .. id)", ""),
]

EQUIVALENT: dict[Mutant, str] = {
    Mutant("lib", "if string.sub(head, 1, 1) == 'd' then return nil end", ""): (
        "A finished record can be met there only after a user wrote it by hand. Placed, it would be dropped when it is "
        "handed out, and be counted as vanished just the same."
    ),
}
