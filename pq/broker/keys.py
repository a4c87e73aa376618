"""Every key and channel name, in one place.

All keys of one queue begin with the same prefix, `<namespace>:{<queue>}:`. The braces are a hash tag
of Redis Cluster: only what is between them decides the slot, so a queue lives whole in one slot and
its scripts stay atomic there. The scripts make the rest of a key by appending a word of the table:

| key               | type   | holds |
|-------------------|--------|-------|
| `…ready`          | LIST   | ids, first in first out |
| `…prio`           | ZSET   | ids with a priority other than 0 |
| `…delayed`        | ZSET   | id → due, in ms of the server's clock |
| `…task:<id>`      | STRING | the record (`pq.broker.records`) |
| `…held:<lease>`   | SET    | `<id>:<batch>` of what is held under one lease |
| `…leases`         | ZSET   | lease → deadline in ms; 0: being reclaimed |
| `…batches`        | HASH   | lease → number of its last reserve call |
| `…crashes`        | HASH   | id → how many workers died with it |
| `…wake`           | LIST   | at most one token; idle workers block on it |
| `…bell:<wait>`    | LIST   | with a TTL: the interrupt key of one wait for the token, in a cluster (`pq.broker.redis.queue_wait`) |
| `…revoked`        | SET    | finished ids that are still in `ready`, to be skipped |
| `…cancelling`     | SET    | live ids whose holder is asked to stop them |
| `…dead`           | ZSET   | id → when it failed for good, ms |
| `…recent`         | LIST   | the last finished ids |
| `…stats:<minute>` | HASH   | counters of one minute |
| `…meta`           | HASH   | `paused`, `limit`; when leases were renewed (`seen`, `since`); counters that order `prio` |
| `…ticks`          | HASH   | schedule → its last tick whose task was queued here, ms |
| `…parked`         | ZSET   | ids that wait at a limit, in the order of `prio` |
| `…parked:<limit>` | ZSET   | those that wait at this one |
| `…slots:<limit>`  | SET    | ids that have one of its slots |
| `…holds`          | HASH   | id → the limits that it was let through; `!<limit>,…` when that limit refused it |
| `…rate:<limit>`   | STRING | the mark of a rate, µs, with a TTL |
| `…timers`         | ZSET   | limit → when to open it, ms |
| `…unique:<key>`   | STRING | the holder of a unique key: how (f, l or r) and the id in one |
| `…log:<id>`       | LIST   | the last log lines of a task, with a TTL |
| `…progress:<id>`  | STRING | how far a running task is, with a TTL |
| `…stream:<id>`    | STREAM | the parts that a task has streamed, by attempt and number, with a TTL |

A lock belongs to no queue: `<namespace>:lock:{<name>}` is a HASH of the holder's token, the fence and
the deadline in ms.

`<namespace>:large` is a STRING, there where `large_dir` is set: what this store's own directory in it is called.

What is scheduled belongs to no queue. It has a prefix of its own, `<namespace>:{@schedules}:`, which no
queue can have, since names begin with a letter or a digit:

| key          | type | holds |
|--------------|------|-------|
| `:code`      | HASH | schedule → what the code of a program says of it (`pq.model.plan`) |
| `:changed`   | HASH | schedule → what was said at run time, which counts more |
| `:since`     | HASH | schedule → from when on its ticks count, ms |
| `:paused`    | SET  | schedules that are paused |
| `:meta`      | HASH | `version`, which grows with each change |
"""

from __future__ import annotations


class Keys:
    """The names within one namespace."""

    def __init__(self, namespace: str = "pq") -> None:
        self.namespace = namespace
        self.schedules = f"{namespace}:{{@schedules}}:"
        """The prefix of the keys of the schedules."""
        self.schedule_code = f"{self.schedules}code"
        self.schedule_changes = f"{self.schedules}changed"
        self.schedule_since = f"{self.schedules}since"
        self.schedules_paused = f"{self.schedules}paused"
        self.schedules_meta = f"{self.schedules}meta"
        self.queues = f"{namespace}:queues"
        """SET of all queues that were ever used."""
        self.large = f"{namespace}:large"
        """STRING: what the directory of this store in `large_dir` is called."""
        self.task_channel = f"{namespace}:task"
        """Task events, to every subscription."""
        self.consumer_channel = f"{namespace}:consumer"
        """Heartbeats of the consumers."""
        self.control_channel = f"{namespace}:control"
        """Requests to the workers: cancel now."""
        self.lock_channel = f"{namespace}:unlocked"
        """Names of locks that were released."""
        self.stream_channel = f"{namespace}:streams"
        """Ids of tasks that have streamed something; the parts themselves are in the store."""

    def prefix(self, queue: str) -> str:
        """Return the prefix of all keys of a queue."""
        return f"{self.namespace}:{{{queue}}}:"

    # ------------------------------------------------------------------------------ of one queue
    def ready(self, queue: str) -> str:
        """LIST: ids, first in first out."""
        return f"{self.namespace}:{{{queue}}}:ready"

    def prio(self, queue: str) -> str:
        """ZSET: ids with a priority."""
        return f"{self.namespace}:{{{queue}}}:prio"

    def delayed(self, queue: str) -> str:
        """ZSET: ids by the moment in which they are due."""
        return f"{self.namespace}:{{{queue}}}:delayed"

    def parked(self, queue: str) -> str:
        """ZSET: ids that wait at a limit."""
        return f"{self.namespace}:{{{queue}}}:parked"

    def timers(self, queue: str) -> str:
        """ZSET: limits by the moment in which they open."""
        return f"{self.namespace}:{{{queue}}}:timers"

    def revoked(self, queue: str) -> str:
        """SET: finished ids that are still in `ready`."""
        return f"{self.namespace}:{{{queue}}}:revoked"

    def leases(self, queue: str) -> str:
        """ZSET: leases by their deadline."""
        return f"{self.namespace}:{{{queue}}}:leases"

    def held(self, queue: str, lease: str) -> str:
        """SET: what one lease holds."""
        return f"{self.namespace}:{{{queue}}}:held:{lease}"

    def recent(self, queue: str) -> str:
        """LIST: the last finished ids."""
        return f"{self.namespace}:{{{queue}}}:recent"

    def dead(self, queue: str) -> str:
        """ZSET: ids by the moment in which they failed for good."""
        return f"{self.namespace}:{{{queue}}}:dead"

    def ticks(self, queue: str) -> str:
        """HASH: schedule -> its last tick whose task was queued here."""
        return f"{self.namespace}:{{{queue}}}:ticks"

    def wake(self, queue: str) -> str:
        """LIST: at most one token; idle workers block on it."""
        return f"{self.namespace}:{{{queue}}}:wake"

    def interrupt(self, queue: str, wait: str) -> str:
        """LIST with a TTL: what ends one wait of an idle worker, which blocks on it too."""
        return f"{self.namespace}:{{{queue}}}:bell:{wait}"

    # ------------------------------------------------------------------------------- of one task
    def record(self, queue: str, id: str) -> str:
        """The record of one task."""
        return f"{self.namespace}:{{{queue}}}:task:{id}"

    def log(self, queue: str, id: str) -> str:
        """LIST with a TTL: the last log lines of one task."""
        return f"{self.namespace}:{{{queue}}}:log:{id}"

    def progress(self, queue: str, id: str) -> str:
        """STRING with a TTL: how far one running task is."""
        return f"{self.namespace}:{{{queue}}}:progress:{id}"

    def stream(self, queue: str, id: str) -> str:
        """STREAM with a TTL: what one task has streamed."""
        return f"{self.namespace}:{{{queue}}}:stream:{id}"

    # ------------------------------------------------------------------------------------ others
    def reply(self, producer: str) -> str:
        """Return the channel with the ends of the tasks of one producer."""
        return f"{self.namespace}:reply:{producer}"

    def consumer(self, name: str) -> str:
        """STRING with a TTL: the last heartbeat of one consumer."""
        return f"{self.namespace}:consumer:{name}"

    def lock(self, name: str) -> str:
        """The lock of that name."""
        return f"{self.namespace}:lock:{{{name}}}"
