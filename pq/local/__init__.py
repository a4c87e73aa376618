"""A task queue of several processes within one program: no store, no server, nothing to set up.

    queue = TaskQueue(2)
    queue.add(MyTask("a"))            # an object with run()
    queue.add(word_count, "b.txt")    # or any function, with its arguments
    queue.terminate()

The processes are those of process jobs (`pq.execution.cpu_bound`). Each runs one task at a time, so the death of a
process costs that task only; all of them die with the program. `queue` has the public class, `engine` the thread that
starts and ends tasks, `logs` the way of their output to the handlers of the program.
"""

from __future__ import annotations

from .engine import Terminated
from .queue import Runnable, TaskQueue

__all__ = ["Runnable", "TaskQueue", "Terminated"]
