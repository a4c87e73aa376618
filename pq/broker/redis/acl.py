"""The rights of a worker in the store, checked once, at its start.

A user of the store with too few rights (ACL) would let a worker start, take tasks and then fail to end them. And what a
script may not do, Redis 6.2 says without the command's name. So one script tries each command that the scripts use, on keys
of its own that it takes away again; what is refused is named, with the line that grants it. All of it is one round trip.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ...errors import StoreRefused
from ..keys import Keys
from .scripts import script

RIGHTS = "@rights"
"""The tag of the keys that are tried. No queue has it: names begin with a letter or a digit."""

RunAll = Callable[..., Awaitable[list[Any]]]

# Each command with arguments that change nothing, or nothing that the end does not take away.
_PROBES = """
get {k} | set {k} 1 px 1000 | getrange {k} 0 1 | mget {k} | exists {k} | pexpire {k} 1000 | del {k}
hset {k} a 1 | hget {k} a | hmget {k} a | hgetall {k} | hlen {k} | hincrby {k} a 1 | hdel {k} a
rpush {k} 1 | lpush {k} 1 | llen {k} | lrange {k} 0 1 | ltrim {k} 0 1 | lrem {k} 0 x | lpop {k} | del {k}
sadd {k} 1 | scard {k} | smembers {k} | smismember {k} 1 | srandmember {k} | sscan {k} 0 | srem {k} x | spop {k}
zadd {k} 1 a | zcard {k} | zcount {k} 0 1 | zscore {k} a | zrange {k} 0 1 | zrevrange {k} 0 1 | zrangebyscore {k} 0 1
zremrangebyscore {k} 5 6 | zrem {k} a | del {k}
xadd {k} 1-1 a 1 | xrange {k} - + | xrevrange {k} + - | xtrim {k} maxlen 0 | del {k} | scan 0 count 1 | time | publish {c} x | pubsub numsub {c}
"""

_SCRIPT = b"""
local refused = {}
local at = 1
while at <= #ARGV do
  local n = tonumber(ARGV[at])
  local reply = redis.pcall(unpack(ARGV, at + 1, at + n))
  if type(reply) == 'table' and reply.err then
    local text = string.lower(reply.err)
    if string.find(text, 'noperm', 1, true) or string.find(text, "can't run this", 1, true)
        or string.find(text, 'acl', 1, true) or string.find(text, 'permission', 1, true)
        or string.find(text, "can't access", 1, true) then
      refused[#refused + 1] = ARGV[at + 1]
    end
  end
  at = at + n + 1
end
redis.pcall('DEL', KEYS[1])
return refused
"""


async def check_rights(run_all: RunAll, keys: Keys, *, where: str, tag: str) -> None:
    """Raise `StoreRefused` that names the commands which this user of a server may not use, and a worker needs.

    `run_all` runs commands in one round trip, at one server; `where` names that server. `tag`: what is between the
    braces of the keys that are tried; in a cluster it decides on the node.
    """
    namespace = keys.namespace
    prefix = keys.prefix(tag)
    key = prefix + "probe"
    arguments: list[str] = []
    for probe in _PROBES.replace("\n", "|").split("|"):
        words = probe.format(k=key, c=keys.lock_channel).split()
        if words:
            arguments += [str(len(words)), *words]
    try:
        found, *_ = await run_all(
            ("EVAL", _SCRIPT, 1, key, *arguments),
            ("BLPOP", key, "0.01"),  # a script may not block
            # One of ours: should the store forget it in between, it is loaded again as any other.
            ("SCRIPT", "LOAD", script("inspect").source),
            ("EVALSHA", script("inspect").digest, 1, prefix, ""),
        )
    except StoreRefused as exc:
        raise StoreRefused(
            f"{exc.message}; this user of the store may not do all that a worker has to",
            hint=f"give it ~{namespace}:* &{namespace}:* and the commands of the line for workers in docs/how-to/security.md",
        ) from None
    refused = sorted({word.decode() for word in found})
    if refused:
        raise StoreRefused(
            f"{where}: this user may not use {', '.join(refused)} on the keys and channels "
            f"of {namespace}, and a worker has to",
            hint=f"ACL SETUSER <user> ~{namespace}:* &{namespace}:* +{' +'.join(refused)}; docs/how-to/security.md has the whole line",
        )
