"""Queues that are cut into partitions: their names, and which of them a task goes to.

A queue lies on one node of a store, and a node has one core for it. What is too much for that is cut: `orders=8`
is eight queues, `orders.p0` to `orders.p7`, each of which is a queue like any other and has its own place. Tasks
with the same key are in the same one, so they stay in their order; those without a key are spread evenly.

Nothing is written down of it in the store. Programs that state the same number put a key into the same
partition, and whoever works for the queue looks at all that there are, those of a former number among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from .names import NAME

LEAST, MOST = 2, 256

_PART = re.compile(r"(.+)\.p(0|[1-9][0-9]{0,8})")


def part_name(queue: str, number: int) -> str:
    """What a partition is called."""
    return f"{queue}.p{number}"


def may_be_cut(queue: str) -> bool:
    """Whether the names of its partitions are names too."""
    return NAME.fullmatch(queue) is not None and NAME.fullmatch(part_name(queue, MOST - 1)) is not None


def number_of(key: str, count: int) -> int:
    """The number of the partition of a key: the same in every program, and in every version of this one.

    The first 8 bytes of BLAKE2b over its UTF-8, big end first, modulo `count`.
    """
    import hashlib  # not before it is needed: the settings know this module, and `--help` knows them

    digest = hashlib.blake2b(key.encode("utf-8", "backslashreplace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % count


class Cuts:
    """Which queues of an application are cut, and into how many. False where none is."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._parts = {
            queue: tuple(part_name(queue, n) for n in range(count)) for queue, count in counts.items()
        }

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __contains__(self, queue: object) -> bool:
        return queue in self._parts

    @property
    def queues(self) -> Sequence[str]:
        """Those that are cut."""
        return tuple(self._parts)

    def parts(self, queue: str) -> Sequence[str]:
        """The partitions of a queue; none where it is not cut."""
        return self._parts.get(queue, ())

    def place(self, queue: str, key: str) -> str:
        """The partition of a key."""
        parts = self._parts[queue]
        return parts[number_of(key, len(parts))]

    def whole(self, name: str) -> str | None:
        """The queue that `name` is a partition of, be it one of a former number; None for any other name."""
        found = _PART.fullmatch(name)
        return found[1] if found is not None and found[1] in self._parts else None

    def all_of(self, queue: str, known: Iterable[str] = ()) -> list[str]:
        """A queue and its partitions, with those of a former number that are among the `known` names.

        The queue itself comes first: it has what was queued before it was cut.
        """
        parts = self.parts(queue)
        former = [name for name in known if name not in parts and self.whole(name) == queue]
        return [queue, *parts, *sorted(former, key=lambda name: int(name.rpartition(".p")[2]))]

    def groups(self, queues: Iterable[str]) -> dict[str, list[str]]:
        """Queues and partitions under the names of whole queues, in their order."""
        found: dict[str, list[str]] = {}
        for name in queues:
            found.setdefault(self.whole(name) or name, []).append(name)
        return found


def turn(order: Iterable[str], groups: Mapping[str, Sequence[str]], chance: Callable[[], float]) -> list[str]:
    """Whole queues in an order, as what is to be looked at: the partitions of each in an order of chance.

    In an order that is always the same the first of them would starve the others.
    """
    found: list[str] = []
    for queue in order:
        group = groups[queue]
        found += (
            group if len(group) == 1 else sorted(group, key=lambda name: name != queue and 1.0 - chance())
        )
    return found
