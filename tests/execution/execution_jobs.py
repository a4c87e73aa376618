"""The jobs that the tests of `pq.execution` run, some of them badly behaved."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import contextvars
import ctypes
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from pq.execution.attempt import current_task
from pq.execution.frames import DONE
from pq.model.decorator import job
from pq.model.job import Job
from pq.model.options import CPUBOUND, GREEN_IO, THREAD_IO
from pq.model.serializers import MSGPACK

flavour = contextvars.ContextVar("flavour", default="none")


@job()
def addition(self, a=0, b=0):
    return a + b


@job()
def bare(a, b):
    return a * b


@job()
async def asynchronous(self, value=1):
    await asyncio.sleep(0)
    return value


@job()
def returns_coroutine(self):
    return asyncio.sleep(0, "awaited")


@job()
async def sleeps(self, seconds=60):
    await asyncio.sleep(seconds)


@job(timeout=0.02)
async def too_slow(self):
    await asyncio.sleep(60)


@job()
async def swallows(self):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "I am fine"


@job()
async def goes_on(self, seconds=0.2):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(seconds)


@job()
def raises(self, what="ValueError"):
    raise getattr(builtins, what)("as asked")


@job()
async def cancels_itself(self):
    raise asyncio.CancelledError


@job()
def type_error_inside(self):
    return len(5)


class Stateful(Job):
    def __init__(self):
        self.state = 1

    def __call__(self):
        self.state += 1
        return self.state


@job()
async def looks_at_its_context(self):
    """Return what the context holds at the start, and the id of the current task; then spoil the context."""
    before = flavour.get()
    flavour.set("spoilt")
    await asyncio.sleep(0)
    return before, current_task.get().id


# ----------------------------------------------------------------------- jobs that run until they are stopped
released = threading.Event()
"""Ends the thread jobs that block: a thread cannot be stopped."""


@job()
async def waits_in_the_loop(self, mark):
    Path(mark).touch()
    await asyncio.sleep(60)


@job(concurrency=THREAD_IO)
def blocks_a_thread(self, mark):
    Path(mark).touch()
    released.wait(30)


@job(concurrency=GREEN_IO)
def waits_in_a_greenlet(self, mark):
    Path(mark).touch()
    self.wait(asyncio.sleep(60))


@job(concurrency=CPUBOUND)
def blocks_a_process(self, mark):
    Path(mark).touch()
    while True:
        pass


# ------------------------------------------------------------------------------------------ threads
@job(concurrency=THREAD_IO)
def which_thread(self):
    return threading.current_thread().name, flavour.get(), self.task.id


@job(concurrency=THREAD_IO)
def thread_waits(self, event):
    event.wait(30)


@job(concurrency=THREAD_IO)
async def async_in_thread(self):
    await asyncio.sleep(0)
    return threading.current_thread().name


# ---------------------------------------------------------------------------------------- greenlets
@job(concurrency=GREEN_IO)
def green(self, seconds=0.001):
    flavour.set("green")

    async def inner():
        await asyncio.sleep(seconds)
        return flavour.get()

    return self.wait(inner())


@job(concurrency=GREEN_IO)
def green_catches(self):
    async def fails():
        raise KeyError("inside")

    try:
        self.wait(fails())
    except KeyError:
        return "caught"


@job(concurrency=GREEN_IO)
def green_cleans(self, log):
    try:
        self.wait(asyncio.sleep(60))
    except asyncio.CancelledError:
        log.append("cancelled at the wait")
        raise


@job(concurrency=GREEN_IO)
def green_waits_for_nothing(self):
    self.wait(3)


# ---------------------------------------------------------------------------------------- processes
@job(concurrency=CPUBOUND)
def square(self, n):
    return n * n


@job(concurrency=CPUBOUND)
def whoami(self):
    return os.getpid(), os.getppid(), os.getsid(0), self.cfg.colour, self.cfg.name


@job(concurrency=CPUBOUND)
def works(self, seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return os.getpid()


@job(concurrency=CPUBOUND)
def meets(self, place, count):
    """Return when `count` processes have written their files to `place`."""
    with open(os.path.join(place, str(os.getpid())), "w"):
        pass
    end = time.monotonic() + 30
    while len(os.listdir(place)) < count and time.monotonic() < end:
        time.sleep(0.005)
    return os.getpid()


@job(concurrency=CPUBOUND)
def forever(self, mark=None):
    if mark:
        with open(mark, "w") as file:
            file.write(f"{os.getpid()}\n")
    while True:
        pass


@job(concurrency=CPUBOUND)
def starts_a_program(self, mark):
    program = subprocess.Popen(["sleep", "60"])
    with open(mark, "w") as file:
        file.write(f"{os.getpid()} {program.pid}\n")
    program.wait()


@job(concurrency=CPUBOUND)
def segfaults(self):
    ctypes.string_at(0)


@job(concurrency=CPUBOUND)
def leaves(self, code):
    os._exit(code)


@job(concurrency=CPUBOUND)
def kills_itself(self):
    os.kill(os.getpid(), signal.SIGKILL)


@job(concurrency=CPUBOUND)
def prints(self):
    print("to standard output")
    print("to standard error", file=sys.stderr)
    os.write(1, b"to the descriptor\n")
    subprocess.run(["echo", "from a program"], check=True)
    self.logger.warning("logged %s", "well")
    self.logger.debug("not shown")
    logging.getLogger("other.library").error("of another logger")
    print("without an end of line", end="")


@job(concurrency=CPUBOUND)
def floods(self, size):
    line = "x" * 99
    for _ in range(size // 100):
        print(line)
    return size


@job(concurrency=CPUBOUND)
def floods_log(self, count):
    for i in range(count):
        self.logger.warning("record %d %s", i, "y" * 500)


@job(concurrency=CPUBOUND)
def one_long_line(self, size):
    print("z" * size)


@job(concurrency=CPUBOUND)
def floods_with_the_interpreter_held(self, size):
    libc = ctypes.PyDLL(None)  # PyDLL keeps the GIL while it calls
    data = b"h" * 999 + b"\n"
    for _ in range(size // 1000):
        libc.write(1, data, len(data))
    return "not blocked"


@job(concurrency=CPUBOUND)
def bad_result(self):
    return {"rows": [1, object()]}


@job(concurrency=CPUBOUND)
def large_result(self, size):
    return "x" * size


@job(concurrency=CPUBOUND)
def echo(self, data):
    return data


@job(concurrency=CPUBOUND)
async def async_process(self, value):
    asyncio.get_running_loop().create_task(asyncio.sleep(60))
    await asyncio.sleep(0.001)
    return value, id(asyncio.get_running_loop())


@job(concurrency=CPUBOUND)
def reports(self, count):
    for i in range(count):
        self.progress(i + 1, count, f"step {i + 1}")


@job(concurrency=CPUBOUND)
def queues(self):
    self.queue("addition", a=1, b=2)
    return "sent"


@job(concurrency=CPUBOUND)
async def queues_and_waits(self):
    tasks = await asyncio.gather(self.queue("addition", a=1, b=2), self.queue(addition, a=3, b=4))
    return [(task.id, task.result, task.meta["from_task"]) for task in tasks]


@job(concurrency=CPUBOUND)
def queues_nonsense(self):
    self.queue("additon", a=1)


@job(concurrency=CPUBOUND)
async def queues_refused(self):
    await self.queue("addition", a=1, refuse=True)


@job(concurrency=CPUBOUND)
def descriptors(self):
    return sorted(os.listdir("/proc/self/fd"))


@job(concurrency=CPUBOUND)
def signals(self):
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
        time.sleep(0.05)
    return "went on"


@job(concurrency=CPUBOUND)
def ends_a_program(self, number):
    program = subprocess.Popen(["sleep", "60"])
    program.send_signal(number)
    return program.wait()


@job(concurrency=CPUBOUND)
def ends_a_process(self):
    # At once: the signal may come before the new process has run its first line.
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join()
    return process.exitcode


@job(concurrency=CPUBOUND)
def forks(self, how):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if how == "logs":
        logging.getLogger("lib").warning("from the fork")
        self.progress(1, 2)
    if how == "queues":
        self.queue("addition", a=1, b=2)
    if how == "raises":
        raise OSError("no file in the fork")
    return "the result of the fork"


@job(concurrency=CPUBOUND)
async def forks_in_a_loop(self):
    return forks.job_class.__call__(self, "returns")


@job(concurrency=CPUBOUND)
def forges_an_answer(self):
    channel = self.backend._channel
    channel.send(DONE, 0, 0, MSGPACK.dumps("forged"), None, None, None, None, None, False)
    time.sleep(60)


@job(concurrency=CPUBOUND)
def forges_a_later_answer(self):
    channel = self.backend._channel

    def send():
        time.sleep(0.3)
        channel.send(DONE, 0, 0, MSGPACK.dumps("forged"), None, None, None, None, None, False)

    threading.Thread(target=send, daemon=True).start()
    return os.getpid()


@job(concurrency=CPUBOUND)
def removes_its_directory(self, path):
    os.makedirs(path)
    os.chdir(path)
    os.rmdir(path)


@job(concurrency=CPUBOUND)
def directory(self):
    return os.getcwd(), os.getpid()


@job(concurrency=CPUBOUND)
def logs_with_extra(self, text="", count=0):
    library, handler = logging.getLogger("lib"), logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("printed twice: %(message)s"))
    library.addHandler(handler)
    extra = {"order": 12, **{f"more{n}": text for n in range(count)}}
    try:
        raise ValueError("no row")
    except ValueError:
        library.error("of order %d", 12, exc_info=True, extra=extra)


@job(concurrency=CPUBOUND)
def leaves_a_busy_pool(self):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map_async(time.sleep, [60, 60])
        time.sleep(0.1)
    return "left"


@job(concurrency=CPUBOUND)
def whoami_briefly(self):
    return os.getpid()


@job(concurrency=CPUBOUND)
async def async_process_plain(self):
    return 1
