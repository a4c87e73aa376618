"""The verb `top`: a live view of queues, workers, running tasks and failures."""

from __future__ import annotations

import os
import shutil
import signal
import sys

from ..cli import Command, UsageError, VerbParser
from ..errors import ExtraNeeded
from ..loops import run as run_loop
from .calling import parse_duration

SHORTEST, LONGEST = 0.1, 60.0
"""Seconds between two reads of the store."""


def run(command: Command) -> int:
    """`pq top`, `pq top --once`."""
    parser = VerbParser(command, "watch queues, workers, running tasks and failures; ? in it shows its keys")
    parser.add_argument("--once", action="store_true", help="print one frame as text and exit")
    parser.add_argument(
        "--interval", default="1s", metavar="TIME", help="time between two reads of the store (default 1s)"
    )
    wanted = parser.parse(command.argv)
    interval = parse_duration(wanted.interval)
    if not SHORTEST <= interval <= LONGEST:
        raise UsageError(f"--interval {wanted.interval} is out of range", hint="use 0.1s to 60s")
    if wanted.once:
        return run_loop(_once(command))
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        raise UsageError(
            "standard input and output are not a terminal",
            hint=f"{command.program} top --once prints one frame as text",
        )
    try:
        from ..tui import app as _  # noqa: F401  for the error, before a loop and an api are made
    except ImportError as exc:
        missing = (exc.name or "textual").partition(".")[0]
        raise ExtraNeeded(f"pq top needs {missing}", hint="pip install 'pq-tasks[tui]'") from None
    return run_loop(_live(command, interval))


async def _once(command: Command) -> int:
    from ..tui.board import Board
    from ..tui.feed import Feed
    from ..tui.frame import frame

    api = command.application.api()
    async with api:
        board = Board(hears=False)
        await Feed(api, board).look()
        # In a pipe nothing is cut off, unless COLUMNS says where.
        sys.stdout.write(frame(board, shutil.get_terminal_size((10_000, 0)).columns))
    return 0


async def _live(command: Command, interval: float) -> int:
    import asyncio

    from ..tui.app import Top
    from ..tui.board import Board
    from ..tui.feed import Feed

    api = command.application.api()
    async with api:
        feed = Feed(api, Board(), interval=interval)
        await feed.start()
        app = Top(feed)
        loop = asyncio.get_running_loop()
        # A signal ends the program through Textual, which restores the terminal.
        ends = {signal.SIGTERM: 143, signal.SIGHUP: 129}
        for number, exit_code in ends.items():
            loop.add_signal_handler(number, app.exit, exit_code)
        try:
            code = await app.run_async()
        finally:
            for number in ends:
                loop.remove_signal_handler(number)
            feed.stop()
    return code if code is not None else app.return_code or 0
