"""The order in which a worker looks at its queues: always the same, or drawn at random each time, by weight.

Strict preference lets a busy queue starve those behind it. With weights each queue comes first in its share of
the turns: with 6 and 1 the second queue comes first in one turn of seven, however many tasks wait in the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


def order(queues: Sequence[str], weights: Mapping[str, int], chance: Callable[[], float]) -> list[str]:
    """Draw an order: at each place a queue comes next with the probability of its weight among those left.

    A queue without a weight weighs as much as the heaviest: it is the node's own, whose tasks no other worker
    can take. `chance` is in [0, 1). (Efraimidis and Spirakis, 2006: the keys are random ** (1 / weight).)
    """
    heaviest = max(weights.values())
    keys = {queue: (1.0 - chance()) ** (1.0 / weights.get(queue, heaviest)) for queue in queues}
    return sorted(queues, key=keys.__getitem__, reverse=True)
