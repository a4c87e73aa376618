"""Whether a worker may do in the store what it has to, asked once, at its start.

A user of the store with too few rights (ACL) would let a worker start, take tasks and then fail to end them. And what a
script may not do, Redis 6.2 says without the command's name. So one script tries each command that the scripts use, on keys
of its own that it takes away again; what is refused is named, with the line that grants it. All of it is one round trip.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ...errors import StoreError, StoreRefused
from ..contract.work import Broker
from ..keys import Keys
from .scripts import script

logger = logging.getLogger("pq.broker")

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


async def check_rights(broker: Broker, namespace: str) -> None:
    """Raise `StoreRefused` that names the commands which this user of the store may not use, and a worker needs."""
    if not getattr(broker, "one_server", False):
        return  # the memory of this process asks nobody; the nodes of a cluster may each have rights of their own
    run_all: Any = getattr(broker, "run_all", None)
    keys = Keys(namespace)
    key = keys.prefix("@rights") + "probe"
    arguments: list[str] = []
    for probe in _PROBES.replace("\n", "|").split("|"):
        words = probe.format(k=key, c=keys.lock_channel).split()
        if words:
            arguments += [str(len(words)), *words]
    try:
        found, *_ = await run_all(
            ("EVAL", _SCRIPT, 1, key, *arguments),
            ("BLPOP", key, "0.01"),  # in a script nobody may block
            # One of ours: should the store forget it in between, it is loaded again as any other.
            ("SCRIPT", "LOAD", script("inspect").source),
            ("EVALSHA", script("inspect").digest, 1, keys.prefix("@rights"), ""),
        )
        refused = sorted({word.decode() for word in found})
    except StoreRefused as exc:
        raise StoreRefused(
            f"{exc.message}; this user of the store may not do all that a worker has to",
            hint=f"give it ~{namespace}:* &{namespace}:* and the commands of the line for workers in docs/how-to/security.md",
        ) from None
    if refused:
        raise StoreRefused(
            f"{getattr(broker, 'where', 'the store')}: this user may not use {', '.join(refused)} on the keys and channels "
            f"of {namespace}, and a worker has to",
            hint=f"ACL SETUSER <user> ~{namespace}:* &{namespace}:* +{' +'.join(refused)}; docs/how-to/security.md has the whole line",
        )


async def check_everywhere(broker: Broker, namespace: str) -> None:
    """`check_rights` of the store; in a cluster of each master, which may have users of its own."""
    apart: Any = getattr(broker, "apart", None)
    if apart is None:
        await check_rights(broker, namespace)
        return
    async with apart() as masters:
        found = await asyncio.gather(
            *(_check_master(master, namespace) for master in masters), return_exceptions=True
        )
    for refusal in found:
        if isinstance(refusal, BaseException):
            raise refusal


async def _check_master(master: Any, namespace: str) -> None:
    try:
        await check_rights(master, namespace)
    except StoreRefused as exc:
        raise StoreRefused(
            exc.message, hint=f"{exc.hint}; on that node, since each has users of its own"
        ) from None
    except StoreError as exc:  # it is away, or its slots have moved: that is no refusal
        logger.debug("the rights at %s were not asked: %s", master.where, exc)
