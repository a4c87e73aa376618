"""Signals of processes that fork, each in a program of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOP = """
import asyncio, multiprocessing, signal, time
from pq.execution.signals import restore_in_forks

async def main():
    restore_in_forks(signal.SIGTERM)
    came = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, came.append, 1)
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    await asyncio.to_thread(process.join, 20)
    await asyncio.sleep(0.05)
    print(process.exitcode, came)
    process.kill()

asyncio.run(main())
"""

OWN_HANDLER = """
import os, signal, sys
from pq.execution.signals import disregard

disregard(signal.SIGTERM)
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
pid = os.fork()
if pid == 0:
    signal.pause()
os.kill(pid, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""

INTERRUPT = """
import os, signal
from pq.execution.signals import disregard

disregard(signal.SIGINT)
os.kill(os.getpid(), signal.SIGINT)
ready, say = os.pipe()
pid = os.fork()
if pid == 0:
    try:
        os.write(say, b"1")
        signal.pause()
    except KeyboardInterrupt:
        os._exit(7)
os.read(ready, 1)
os.kill(pid, signal.SIGINT)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        pytest.param(LOOP, "-15 []", id="a fork of a loop's process ends, and its parent has no signal"),
        pytest.param(OWN_HANDLER, "7", id="a fork keeps the handler that the program has set"),
        pytest.param(INTERRUPT, "7", id="a fork is interrupted as a new process is"),
    ],
)
def test_a_fork_reacts_to_signals_as_usual(program, said):
    """Its reaction to SIGTERM does not depend on whether it has run its first line."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == (said, "")
