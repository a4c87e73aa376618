"""One child process, as its parent sees it: how it starts, what it says, how it dies.

Nothing here waits. The parent writes what the socket takes and keeps the rest; it reads all that comes,
so a child is never blocked by a full pipe and the parent never by a full socket. A child that prints
without end is read at a bounded pace (see `_Pipe`), which slows that child only.

A child is a child of multiprocessing's fork server, which reports its exit code through the process's
`sentinel`. Starting takes a fork server that may not run yet, and so happens in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import util
from multiprocessing.connection import Connection
from typing import Any, Protocol

from ..errors import UnreadableMessage
from .attempt import Attempt
from .child import ChildSpec, child_main
from .child_output import Allowance, Lines
from .frames import SLACK, FrameReader
from .isolation import leave_removed_directory

logger = logging.getLogger("pq.execution")

PRELOAD = ["pq.execution.preloaded", "pq.execution.child", "pq.execution.pickled"]
"""Modules of pq that the fork server imports once for all children. Modules of the user are imported by each child,
so a child that starts after a change has the change."""

READY_TIME = 60.0
"""Seconds in which a child must have imported its modules."""
REAP_TIME = 2.0
"""Seconds in which the exit code of a child that closed its connection must come."""

_CHUNK = 65_536
_READS = 4
_PACE = 0.002
# multiprocessing looks through all its processes whenever one is started, and reads exit codes as it
# goes; two threads that do so at once would take them from each other.
_multiprocessing = threading.Lock()


class Owner(Protocol):
    """Notified of what happens to a child, on the loop."""

    def received(self, child: Child, frames: list[list[Any]]) -> None:
        """It sent frames."""

    def printed(self, child: Child, level: int, line: str) -> None:
        """It printed a line."""

    def gone(self, child: Child, code: int | None, error: str | None) -> None:
        """It has ended, with that exit code where one is known; `error` says why it did not start."""


class Child:
    """One child process.

    Attributes:
        attempt: what it runs. number: of the task that it was sent last. ready: it has imported its modules. done: how many tasks it has finished.
        doomed: it was killed, or told to end; it gets nothing more.
        levels: the levels of loggers that were sent to it last.
        idle_since: when it was last without work, by the loop's clock.
        last_words: the end of what it wrote to standard error in this attempt.
    """

    def __init__(self, spec: ChildSpec, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.attempt: Attempt | None = None
        self.number = 0
        self.ready = False
        self.doomed = False
        self.done = 0
        self.idle_since = 0.0
        self.pid: int | None = None
        self.levels: dict[str, int] | None = None
        self.last_words: list[str] = []
        self._paths = spec.task_paths
        self._owner = owner
        self._loop = loop
        self._unsent = bytearray()
        self._frames = FrameReader(spec.limit + SLACK)
        self._timer: asyncio.TimerHandle | None = None
        self._gone = False
        self._error: str | None = None
        self._orphan = False  # its fork server died, so its exit code will not be known
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        allowance = Allowance()
        context = _context()
        out, their_out = context.Pipe(duplex=False)
        err, their_err = context.Pipe(duplex=False)
        self._out = _Pipe(loop, out, Lines(allowance, self._stdout))
        self._err = _Pipe(loop, err, Lines(allowance, self._stderr))
        self._process = context.Process(
            target=child_main, args=(theirs, their_out, their_err, spec), name="pq-child"
        )
        self._theirs: tuple[Any, ...] = (theirs, their_out, their_err)
        threading.Thread(target=self._start, name="pq-child-start", daemon=True).start()

    # ---------------------------------------------------------------------------- birth
    def _start(self) -> None:
        """In a thread of its own."""
        error: str | None = None
        try:
            with _multiprocessing, _main_module(hidden="__main__" not in self._paths):
                home = leave_removed_directory()
                if home is not None:
                    logger.warning("the current directory was removed; this process goes on in %s", home)
                multiprocessing.set_forkserver_preload(PRELOAD)
                self._process.start()
        except BaseException as exc:
            error = f"{type(exc).__name__}: {exc}"
        for end in self._theirs:
            end.close()
        try:
            self._loop.call_soon_threadsafe(self._started, error)
        except RuntimeError:
            self.kill()  # the loop is closed: nothing will use it, and nothing would end it

    def _started(self, error: str | None) -> None:
        if error is not None:
            self._error = error
            self._end(None)
            return
        self.pid = self._process.pid
        # A program that ends without stopping its pool must not wait for its children, as
        # multiprocessing would; killing them first is what makes its waiting short.
        self._at_exit = util.Finalize(self, _kill, args=(self.pid,), exitpriority=10)
        if self.doomed:
            self.kill()
        self._loop.add_reader(self._process.sentinel, self._reap)
        self._loop.add_reader(self._socket, self._read)
        self._out.open()
        self._err.open()
        self._timer = self._loop.call_later(READY_TIME, self._too_late)

    def _too_late(self) -> None:
        self._error = f"did not import its modules within {READY_TIME:g} s and was killed"
        self.kill()

    def is_ready(self) -> None:
        """It said so."""
        self.ready = True
        self._stop_timer()

    # ---------------------------------------------------------------------------- talk
    def send(self, data: bytes) -> bool:
        """Send frames, now or when the socket takes them. False when the child has ended: they were not received."""
        if self._gone:
            return False
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return False
            if sent == len(data):
                return True
            data = data[sent:]
            self._loop.add_writer(self._socket, self._write)
        self._unsent += data
        return True

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            # It closed the connection, so it can take no more tasks.
            self._loop.remove_reader(self._socket)
            self.kill()
            self._stop_timer()
            self._timer = self._loop.call_later(0 if self._orphan else REAP_TIME, self._end, None)

    def _take(self, data: bytes) -> None:
        try:
            frames = list(self._frames.feed(data))
        except UnreadableMessage:
            self.kill()  # a child that talks nonsense is a child that broke
            return
        if frames:
            self._owner.received(self, frames)

    def flush(self) -> None:
        """Hand on what was printed so far: the end of a task, whose last lines may still be in the pipe."""
        self._out.flush()
        self._err.flush()
        self.last_words.clear()

    def _stdout(self, line: str) -> None:
        self._owner.printed(self, logging.INFO, line)

    def _stderr(self, line: str) -> None:
        self.last_words.append(line)
        del self.last_words[:-50]
        self._owner.printed(self, logging.WARNING, line)

    # ---------------------------------------------------------------------------- death
    def kill(self) -> None:
        """End it now, with everything it started."""
        self.doomed = True
        pid = self._process.pid
        if pid is not None and not self._gone:
            _kill(pid)

    def retire(self) -> None:
        """Let it end by itself, which it does when it reads the end of the connection."""
        self.doomed = True
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _reap(self) -> None:
        """The sentinel is readable: it has ended, or the fork server has."""
        if not _multiprocessing.acquire(blocking=False):
            # Another child is being started; its thread must not make the loop wait.
            self._loop.remove_reader(self._process.sentinel)
            self._loop.call_later(_PACE, self._again)
            return
        try:
            code = self._process.exitcode
        finally:
            _multiprocessing.release()
        if code is None:
            return
        if code == 255 and self.pid is not None and _alive(self.pid):
            # 255 is also what multiprocessing says when the fork server died, and a service manager that
            # ends a service kills that first. The child lives; the end of its connection will tell.
            self._orphan = True
            self._loop.remove_reader(self._process.sentinel)
            return
        self._end(code)

    def _again(self) -> None:
        if not self._gone:
            self._loop.add_reader(self._process.sentinel, self._reap)

    def _end(self, code: int | None) -> None:
        if self._gone:
            return
        self.doomed = True  # what it says last may still count, but it gets nothing more
        if self.pid is not None:
            _kill_group(self.pid)  # what it had started and left behind
            self._drain()
        self._gone = True
        self._stop_timer()
        if self.pid is not None:
            self._loop.remove_reader(self._process.sentinel)
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._at_exit.cancel()
        self._socket.close()
        self._out.close()
        self._err.close()
        self._bury()
        self._owner.gone(self, code, self._error)

    def _bury(self) -> None:
        """Give back what multiprocessing keeps of it."""
        if not _multiprocessing.acquire(blocking=False):
            self._loop.call_later(_PACE, self._bury)
            return
        try:
            if self._process.pid is not None:
                self._process.join(0)
                self._process.close()
        except ValueError:
            pass  # it still runs, against all odds; multiprocessing waits for it when the program ends
        finally:
            _multiprocessing.release()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drain(self) -> None:
        """Its last bytes: it may have finished its task just before it ended."""
        try:
            while data := self._socket.recv(_CHUNK):
                self._take(data)
        except OSError:
            pass
        self._out.flush()
        self._err.flush()


class _Pipe:
    """The standard output or error of a child, read without ever falling behind or running hot.

    While more comes than its allowance lets pass, it is read in bursts with a rest in between, so that a
    child that prints in an endless loop cannot occupy the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, pipe: Connection, lines: Lines) -> None:
        self._loop = loop
        self._pipe = pipe
        self._lines = lines
        self._rest: asyncio.TimerHandle | None = None
        os.set_blocking(pipe.fileno(), False)

    def open(self) -> None:
        self._rest = None
        self._loop.add_reader(self._pipe.fileno(), self._read)

    def _read(self) -> None:
        if self._take(_READS) and self._lines.flooded:
            self._loop.remove_reader(self._pipe.fileno())
            self._rest = self._loop.call_later(_PACE, self.open)

    def _take(self, times: int) -> bool:
        """Read at most `times`; False when the pipe is empty, or closed at its other end."""
        for _ in range(times):
            try:
                data = os.read(self._pipe.fileno(), _CHUNK)
            except OSError:
                return False
            if not data:
                if self._rest is None:
                    self._loop.remove_reader(self._pipe.fileno())
                return False
            self._lines.feed(data)
        return True

    def flush(self) -> None:
        if not self._pipe.closed:
            self._take(_READS)
            self._lines.flush()

    def close(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._pipe.fileno())
        self._pipe.close()


def _context() -> Any:
    """The fork server where there is one; it starts a child in milliseconds, and never forks our threads."""
    methods = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")


@contextmanager
def _main_module(*, hidden: bool) -> Iterator[None]:
    """Let the program's script look as in the interactive interpreter, which has none, unless jobs are in it.

    multiprocessing runs the script again in every child. It need not: children import the jobs by the
    names of their modules. And a script without `if __name__ == "__main__"` would start a second server.
    """
    main = vars(sys.modules["__main__"])
    facts: dict[str, Any] = {name: main[name] for name in ("__spec__", "__file__") if hidden and name in main}
    if hidden:
        main["__spec__"] = None
        main.pop("__file__", None)
    try:
        yield
    finally:
        main.update(facts)


def _kill(pid: int) -> None:
    if not _kill_group(pid):  # it has made no group of its own yet
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def _kill_group(pid: int) -> bool:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def how_it_died(code: int | None) -> str:
    """Return the exit code of a process as the end of a sentence: `was killed by SIGSEGV`."""
    if code is None:
        return "died; its exit code is not known"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if -code == signal.SIGKILL:
        name += " (the system does that when memory runs out)"
    return f"was killed by {name}"
