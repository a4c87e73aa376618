"""Queues that have partitions: the names of these, and the one that a task goes to.

A queue is on one node of a store, and a node has one core for it. A queue that is too busy for that gets partitions:
`orders=8` makes eight queues, `orders.p0` to `orders.p7`, each a queue like any other, on a node of its own. Tasks
with the same key are in the same partition, so they keep their order; tasks without a key are spread evenly.

The store has no record of it. Programs that state the same number put a key into the same partition. Workers of the
queue look at all partitions that exist, those of a former number among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from .names import NAME

LEAST, MOST = 2, 256

_PARTITION = re.compile(r"(.+)\.p(0|[1-9][0-9]{0,8})")


def partition_name(queue: str, number: int) -> str:
    """Return the name of a partition."""
    return f"{queue}.p{number}"


def may_have_partitions(queue: str) -> bool:
    """Return True where the names of its partitions are valid names too."""
    return NAME.fullmatch(queue) is not None and NAME.fullmatch(partition_name(queue, MOST - 1)) is not None


def number_of(key: str, count: int) -> int:
    """Return the number of the partition of a key: the same in every program, and in every version of this one.

    It is the first 8 bytes of BLAKE2b over the UTF-8 of the key, big end first, modulo `count`.
    """
    import hashlib  # not at the top: the settings import this module, and `--help` imports the settings

    digest = hashlib.blake2b(key.encode("utf-8", "backslashreplace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % count


class Partitions:
    """The queues of an application that have partitions, and how many. False where none has any."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._names = {
            queue: tuple(partition_name(queue, n) for n in range(count)) for queue, count in counts.items()
        }

    def __bool__(self) -> bool:
        return bool(self._names)

    def __contains__(self, queue: object) -> bool:
        return queue in self._names

    @property
    def queues(self) -> Sequence[str]:
        """The queues that have partitions."""
        return tuple(self._names)

    def of(self, queue: str) -> Sequence[str]:
        """Return the partitions of a queue; none where it has none."""
        return self._names.get(queue, ())

    def of_key(self, queue: str, key: str) -> str:
        """Return the partition of a key."""
        names = self._names[queue]
        return names[number_of(key, len(names))]

    def queue_of(self, name: str) -> str | None:
        """Return the queue that `name` is a partition of, one of a former number too; None for any other name."""
        found = _PARTITION.fullmatch(name)
        return found[1] if found is not None and found[1] in self._names else None

    def all_of(self, queue: str, known: Iterable[str] = ()) -> list[str]:
        """Return a queue and its partitions, with those of a former number that are among the `known` names.

        The queue itself comes first: it has what was queued before it got partitions.
        """
        names = self.of(queue)
        former = [name for name in known if name not in names and self.queue_of(name) == queue]
        return [queue, *names, *sorted(former, key=lambda name: int(name.rpartition(".p")[2]))]

    def groups(self, queues: Iterable[str]) -> dict[str, list[str]]:
        """Return queues and partitions under the names of the queues that they belong to, in their order."""
        found: dict[str, list[str]] = {}
        for name in queues:
            found.setdefault(self.queue_of(name) or name, []).append(name)
        return found


def shuffled(
    order: Iterable[str], groups: Mapping[str, Sequence[str]], chance: Callable[[], float]
) -> list[str]:
    """Return the names to look at for queues in an order: each queue, then its partitions in an order of chance.

    In an order that is always the same, the first partition would starve the others.
    """
    found: list[str] = []
    for queue in order:
        group = groups[queue]
        found += (
            group if len(group) == 1 else sorted(group, key=lambda name: name != queue and 1.0 - chance())
        )
    return found
