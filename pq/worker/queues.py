"""Which queues a worker consumes, and the warnings about those that it should."""

from __future__ import annotations

import logging

from ..broker.contract.broker import Broker
from ..config import Settings
from ..errors import did_you_mean
from ..model.registry import Registry

logger = logging.getLogger("pq.worker")


async def consumed_queues(queues: list[str], broker: Broker, cfg: Settings, registry: Registry) -> list[str]:
    """Return the queues to consume, in order of preference: `queues`, and their former partitions.

    A partition is a former one when the number of partitions was made smaller; it may have tasks still.
    """
    partitions = cfg.queue_partitions
    served = [queue for queue in queues if queue in partitions]
    _warn_of_unserved(queues, cfg, registry)
    if not served:
        return queues
    known = await broker.looks.queue_names()
    for queue in served:
        former = [name for name in partitions.all_of(queue, known) if name not in queues]
        left = sum([(await broker.looks.state(name)).waiting for name in former])
        if left:
            logger.warning(
                "queue %s has %d partitions, and %d tasks wait in former ones (%s): they run too, "
                "and their keys may lie in two partitions until then",
                queue, len(partitions.of(queue)), left, ", ".join(former),
            )  # fmt: skip
        queues += former
    return queues


def _warn_of_unserved(queues: list[str], cfg: Settings, registry: Registry) -> None:
    """Warn of a queue with partitions that no job uses and this worker does not serve: its name is misspelt."""
    elsewhere = {job.default_queue for job in registry} | {cfg.default_queue}
    for queue in cfg.queue_partitions.queues:
        if queue not in queues and queue not in elsewhere:
            hint = did_you_mean(queue, {*queues, *filter(None, elsewhere)})
            logger.warning(
                "partitions: no job queues to %r, and this worker does not serve it%s",
                queue, f"; {hint}" * bool(hint),
            )  # fmt: skip
