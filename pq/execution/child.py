"""The program of a child process: import the jobs once, then run one task after another.

The result is packed here, so the worker passes on bytes and never packs what a child has made; a
result that cannot be packed, or is too large, is therefore an outcome of this process too.

Everything is one thread and one task at a time. Async jobs share one event loop, kept from task to task.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import socket
import sys
from collections.abc import Awaitable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn, TextIO

from ..errors import NotSerializable, PayloadTooLarge, PqError, ResultNotSerializable
from ..model.backend import current_backend
from ..model.outcome import FAILED, OK, Outcome, error_text, stack_text, verdict
from ..model.payloads import dump_payload
from ..model.registry import Registry
from ..model.task import Task
from ..model.verdict import Verdict
from . import log_records
from .attempt import current_task, invoke, raised
from .channel import Channel
from .child_backend import ChildBackend
from .child_output import Allowance, shorten
from .frames import BROKEN, DONE, LOG, READY, RECORD, SLACK
from .isolation import isolate, leave_removed_directory

LEFTOVER_TIME = 1.0
"""Seconds that asyncio tasks which an async job left running get to end after they were cancelled."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """The start parameters of a child: plain values, the same for all children of a pool."""

    app_name: str
    task_paths: tuple[str, ...]
    settings: dict[str, Any]
    node_name: str
    limit: int  # bytes of the largest result, and of the arguments of a task that is queued
    log_level: int
    parent_levels: bool = False  # the levels of the parent's loggers come before each task


def child_main(connection: socket.socket, stdout: Connection, stderr: Connection, spec: ChildSpec) -> None:
    """Run until the worker closes the connection."""
    isolate(stdout, stderr)
    pid = os.getpid()
    channel = Channel(connection, spec.limit + SLACK)
    os.register_at_fork(after_in_child=channel.disconnect_fork)
    forward = _forward_logs(channel, spec)
    try:
        registry = Registry.from_paths(spec.task_paths)
    except BaseException as exc:  # a module may call sys.exit, too
        slug = exc.slug if isinstance(exc, PqError) else "import-failed"
        channel.send(BROKEN, error_text(exc), stack_text(exc), slug)
        return
    settings = {**spec.settings, "name": spec.app_name}
    backend = ChildBackend(channel, registry, settings=settings, node_name=spec.node_name, limit=spec.limit)
    channel.send(READY)
    info = {"pid": pid}
    with asyncio.Runner() as runner:
        while (received := channel.next_task()) is not None:
            number, body = received
            outcome = _run(body, registry, backend, runner, spec.limit)
            if os.getpid() != pid:
                _end_fork(outcome)
            _flush(forward)
            leave_removed_directory()
            channel.send(
                DONE, number, outcome.kind, outcome.encoded, outcome.error, outcome.stacktrace, outcome.reason,
                info, outcome.wait, outcome.final,
            )  # fmt: skip
    backend.close()


def _run(
    body: bytes, registry: Registry, backend: ChildBackend, runner: asyncio.Runner, limit: int
) -> Outcome:
    job_class = None
    try:
        task = Task.from_wire(body)
        job_class = registry[task.name]
        context = contextvars.copy_context()
        context.run(current_task.set, task)
        context.run(current_backend.set, backend)
        value = context.run(invoke, task, job_class, backend)
        if hasattr(type(value), "__await__"):
            try:
                value = runner.run(_await(value), context=context)
            finally:
                _end_leftovers(runner)
        return _packed(task, value, limit)
    except BaseException as exc:
        return raised(exc, job_class)


def _end_fork(outcome: Outcome) -> NoReturn:
    """End a process that the job forked and that came to the end of the job: it must not go on as this child."""
    if outcome.error is not None:
        _write_line(sys.stderr, f"a process that the job forked ended with {outcome.error}")
    _flush_streams()
    os._exit(0 if outcome.error is None else 1)


def _packed(task: Task[Any], value: Any, limit: int) -> Outcome:
    if value is None:
        return Outcome(OK)
    try:
        return Outcome(
            OK, encoded=dump_payload(task.format, value, what=f"result of {task.name!r}", limit=limit)
        )
    except (NotSerializable, PayloadTooLarge) as exc:
        if isinstance(value, Verdict):
            return verdict(value)
        kind = ResultNotSerializable
        text = shorten(f"{kind.__name__}: {exc.message}" + (f" ({exc.hint})" if exc.hint else ""))
        return Outcome(FAILED, error=text, reason=kind.slug)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _end_leftovers(runner: asyncio.Runner) -> None:
    """Cancel the asyncio tasks that a job left behind: between jobs the loop stands still."""
    left = asyncio.all_tasks(runner.get_loop())
    if left:
        for task in left:
            task.cancel()
        runner.run(_ended(left))


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks, timeout=LEFTOVER_TIME)


# ------------------------------------------------------------------------------------------- output
class _Forward(logging.Handler):
    """Sends log records to the worker, which has the loggers and handlers of the application."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._allowance = Allowance()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._channel.forked:
                # The pipes of the child take lines of every process that it starts.
                stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
                _write_line(stream, self.format(record))
                return
            data = log_records.pack(record)
            if self._allowance.take(len(data)):
                self.report()
                self._channel.send(RECORD, data)
        except Exception:
            self.handleError(record)

    def report(self) -> None:
        """Tell how many records were dropped, if any were."""
        report = self._allowance.report()
        if report:
            self._channel.send(LOG, logging.WARNING, report)


def _forward_logs(channel: Channel, spec: ChildSpec) -> _Forward:
    forward = _Forward(channel)
    log_records.take_over(forward)
    if not spec.parent_levels:
        logging.getLogger().setLevel(spec.log_level)
    return forward


def _flush(forward: _Forward) -> None:
    """Before a task is done: what it printed must be in the pipe by then, and its log be sent to its end."""
    _flush_streams()
    forward.report()


def _write_line(stream: TextIO, line: str) -> None:
    try:
        stream.write(f"{line}\n")
    except (AttributeError, OSError, ValueError):
        pass  # the job replaced it, or closed it


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # the job replaced it, or closed it
