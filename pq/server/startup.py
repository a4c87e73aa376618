"""Checks and log lines at the start of a server, log lines at its end."""

from __future__ import annotations

import logging
import os

from ..broker.connect import Store
from ..broker.contract.broker import Broker
from ..config import Settings
from ..errors import PqError, StoreEvicts
from .application import Application
from .pool import WorkerPool

logger = logging.getLogger("pq.server")


def introduce(app: Application, broker: Broker) -> None:
    """Log the store, the jobs and the workers of a server that starts."""
    server, cfg, jobs = app.store.server, app.cfg, len(app.registry)
    if server is not None:
        logger.info(
            "%s %s embedded, data in %s (set PQ_DATA_STORE to use your own)",
            server.product,
            server.version,
            _near(str(server.directory)),
            extra={"who": "pq"},
        )
    else:
        logger.info("store %s", broker.where, extra={"who": "pq"})
    if not jobs:
        modules = len(app.registry.modules)
        logger.warning(
            "task_paths %s matched %d module%s and no job [no-jobs]",
            list(cfg.task_paths), modules, "s" * (modules != 1),
            extra={"hint": "decorate a function with @api.job(), or list the module that has them in task_paths"},
        )  # fmt: skip
    least, most = cfg.min_workers, cfg.max_workers
    logger.info(
        "pid %d · %s worker%s · %d job%s",
        os.getpid(),
        least if least == most else f"{least} to {most}",
        "s" * (most != 1),
        jobs,
        "s" * (jobs != 1),
    )


async def check_store(broker: Broker, cfg: Settings) -> None:
    """Log the warnings about the store, and refuse one that deletes keys when it is full.

    Such a store loses tasks without an error. Raises `StoreEvicts`, unless `allow_eviction` is set.
    """
    try:
        facts = await broker.looks.facts()
    except PqError as exc:
        logger.debug("the policy of the store is unknown: %s", exc)
        return
    for slug, text, hint in facts.get("warnings", ()):
        logger.warning("%s [%s]", text, slug, extra={"hint": hint})
    policy = str(facts["policy"])
    if not policy.startswith("allkeys"):  # `volatile-*` deletes finished tasks alone
        return
    text = f"this store deletes keys when it is full (maxmemory-policy {policy}): tasks can vanish silently"
    hint = "CONFIG SET maxmemory-policy noeviction, or a store of its own"
    if not cfg.allow_eviction:
        raise StoreEvicts(text, hint=f"{hint}; --allow-eviction starts all the same")
    logger.warning("%s [%s]", text, StoreEvicts.slug, extra={"hint": hint})


def say_goodbye(store: Store, pool: WorkerPool) -> None:
    """Log what the workers of a server have done, and where an embedded store keeps its data."""
    url = store.url
    kept = f" · data kept in {_near(url.removeprefix('embedded://'))}" if url.startswith("embedded") else ""
    logger.info("stopped · %s done, %s failed%s", f"{pool.succeeded:,}", f"{pool.failed:,}", kept)


def _near(path: str) -> str:
    """Return a path as seen from the current directory, when that is shorter."""
    near = os.path.relpath(path)
    return near if len(near) < len(path) and not near.startswith("..") else path
