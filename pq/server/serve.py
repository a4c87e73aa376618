"""Run a server: a supervisor and its workers; with `memory://` one worker in this process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import NoReturn

from ..errors import BadSetting
from ..logs import files as logfiles
from ..logs.tasks import observer
from ..loops import run
from . import forkserver
from .application import Application
from .startup import check_store, introduce, say_goodbye
from .supervisor import Supervisor

logger = logging.getLogger("pq.server")


def serve(app: Application) -> int:
    """Run a server for `app` in this process until a signal stops it; return the exit code."""
    cfg = app.cfg
    if cfg.reload and os.environ.get("PQ_ENV", "").lower() == "production":
        raise BadSetting(
            f"reload ({cfg.sources.get('reload', 'Settings')}) is not for production (PQ_ENV=production)",
            hint="leave it out; kill -HUP reloads a server by hand",
        )
    logfiles.set_up(cfg, "server", "supervisor", needed=True)
    # Until the loop listens to signals: exit in order, so that an embedded store is not left running.
    signal.signal(signal.SIGTERM, _exit)
    if app.store.is_memory:
        return run(_serve_here(app))
    forkserver.prepare()
    return run(_supervise(app))


def _exit(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


async def _supervise(app: Application) -> int:
    broker = await app.store.broker(name="pq-supervisor", patience=2.0)
    try:
        await broker.open()
        introduce(app, broker)
        await check_store(broker, app.cfg)
        supervisor = Supervisor(app, broker)
        code = await supervisor.run()
    finally:
        await broker.close()
        await asyncio.to_thread(app.store.detach)
    say_goodbye(app.store, supervisor.pool)
    return code


async def _serve_here(app: Application) -> int:
    """Serve `memory://`, whose tasks no other process can reach: one worker, in this process."""
    worker = app.worker("w1", observer=observer("w1"))
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await worker.start()
    if app.cfg.reload:
        logger.warning("reload is off: with memory:// there is no worker process to restart")
    logger.info("one worker in this process; the tasks are in its memory and end with it")
    await stop.wait()
    await worker.stop()
    return 0
