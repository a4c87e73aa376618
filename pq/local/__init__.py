"""A task queue of several processes within one program: no store, no server, nothing to set up.

    queue = TaskQueue(2)
    queue.add(MyTask("a"))            # an object with run()
    queue.add(word_count, "b.txt")    # or any function, with its arguments
    queue.terminate()

The processes are those of process jobs (`pq.execution.cpu_bound`): one task at a time in each, so
whatever kills one costs that task alone; they die with the program. Here is what a program
wants around them:

    queue.py    `TaskQueue`, as it is used
    engine.py   what waits, what runs, and how it ends, in a thread of its own
    logs.py     where that goes which tasks log and print
"""

from __future__ import annotations

from .engine import Terminated
from .queue import Runnable, TaskQueue

__all__ = ["Runnable", "TaskQueue", "Terminated"]
