"""The runs that really happened: a file that jobs append to, outside of any store, and what can be read off it.

Each line is one `write` to a file opened for appending, so lines of many processes never mix, and a line that
was written stays, whichever process is killed after it. Times are of the machine's monotonic clock, which all its
processes share.

    b <number> <attempt> <pid> <kind of job> <seconds> <node>/<worker>      the job of this task began
    e <number> <pid> <seconds>                              and came to its end
    x <number> <pid> <seconds>                              or this attempt failed, and another one follows
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

JOBS = '''\
"""Jobs that report their runs to an oracle outside of the store."""

import asyncio, os, time
from pq import api

_oracle = os.open(os.environ["PQ_ORACLE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def begin(task, n, kind):
    line = f"b {n} {task.retry} {os.getpid()} {kind} {time.monotonic():.6f} {task.node}/{task.worker}\\n"
    os.write(_oracle, line.encode())


def end(n):
    os.write(_oracle, f"e {n} {os.getpid()} {time.monotonic():.6f}\\n".encode())
    return n * 3 + 1


def failed(n):
    os.write(_oracle, f"x {n} {os.getpid()} {time.monotonic():.6f}\\n".encode())


@api.job()
async def by_loop(self, n, ms=0):
    begin(self.task, n, "loop")
    await asyncio.sleep(ms / 1000)
    return end(n)


@api.job(concurrency=api.THREAD_IO)
def by_thread(self, n, ms=0):
    begin(self.task, n, "thread")
    time.sleep(ms / 1000)
    return end(n)


@api.job(concurrency=api.CPUBOUND)
def by_process(self, n, ms=0):
    begin(self.task, n, "process")
    end_at = time.monotonic() + ms / 1000
    while time.monotonic() < end_at:
        pass
    return end(n)


@api.job(max_retries=3, retry_delay=0.05)
async def fails_once(self, n, ms=0):
    begin(self.task, n, "retry")
    await asyncio.sleep(ms / 1000)
    if self.task.retry == 1:
        failed(n)
        raise RuntimeError("the first attempt fails")
    return end(n)
'''
"""The module `jobs` of a project under chaos; `PQ_ORACLE` names the file."""


def result_of(n: int) -> int:
    """Return the expected result of the task with that number."""
    return n * 3 + 1


class Begun(NamedTuple):
    """An attempt of a task, in a process, at a moment."""

    at: float
    pid: int
    attempt: int


@dataclass
class Story:
    """The lines of the oracle so far. `read` takes in new ones."""

    path: Path
    begun: dict[int, list[Begun]] = field(default_factory=lambda: defaultdict(list))
    """Number of a task → when it was begun, in which process, and which attempt that was."""
    ended: set[int] = field(default_factory=set)
    """Numbers that have come to their end, somewhere."""
    at_it: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Process → numbers that it has begun, and that have neither ended nor failed there."""
    over: dict[int, list[Begun]] = field(default_factory=lambda: defaultdict(list))
    """Number → when an attempt ended or failed, where, and which."""
    names: dict[int, str] = field(default_factory=dict)
    """Process → the worker that it is."""
    recent: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=400))
    """The last that began something: process and kind of job."""
    _offset: int = 0

    def read(self) -> None:
        """Take in the lines that were added; half of one waits for its rest."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        for line in data[:whole].decode("ascii").splitlines():
            words = line.split(" ")
            if words[0] == "b":
                n, pid = int(words[1]), int(words[3])
                self.begun[n].append(Begun(float(words[5]), pid, int(words[2])))
                self.at_it[pid].add(n)
                self.recent.append((pid, words[4]))
                if words[4] != "process":
                    self.names[pid] = words[6]
            else:
                n, pid = int(words[1]), int(words[2])
                self.at_it[pid].discard(n)
                attempt = max((each.attempt for each in self.begun[n] if each.pid == pid), default=0)
                self.over[n].append(Begun(float(words[3]), pid, attempt))
                if words[0] == "e":
                    self.ended.add(n)

    def workers(self) -> list[int]:
        """Processes that ran jobs of the loop or of threads lately: workers, and no children of theirs."""
        return list(dict.fromkeys(pid for pid, kind in self.recent if kind != "process"))

    def recovery(self, pid: int, killed_at: float) -> float | None:
        """Seconds from the death of a process to when the last task that it was at was begun elsewhere.

        None where it was at nothing, or where something was not begun again (a child's task that its parent
        had settled meanwhile, say).
        """
        longest = None
        for n in self.at_it.get(pid, ()):
            before = [each for each in self.begun[n] if each.at <= killed_at]
            if not before:
                continue
            last = max(before)
            if last.pid != pid:
                continue  # it was taken from this one before (a zombie's), and is another's to lose
            if any(each.attempt >= last.attempt and each.at < last.at for each in self.over[n]):
                continue  # a zombie again, which begins what another has done
            later = [each.at for each in self.begun[n] if each.at > killed_at and each.pid != pid]
            if later:
                longest = max(longest or 0.0, min(later) - killed_at)
        return longest


def now() -> float:
    """The oracle's clock."""
    return time.monotonic()
