"""Running one attempt of a task, in one of four ways; no store is known here.

The worker makes an `Attempt` and hands it to the executor of its job's mode; whatever then happens,
its `finished` is called once, on the event loop, with an `Outcome`. Nothing else comes out of this
room: no exception says that a task failed.

    attempt.py      the record of one attempt: what runs, its time-out, why it was stopped
    executor.py     what the worker needs of an executor (Protocol)
    executors.py    the four of them by mode, made when first used
    async_io.py     in the event loop
    thread_io.py    in a bounded pool of threads
    green_io.py     in a greenlet on the loop
    cpu_bound.py    in warm child processes: who gets which attempt, who is replaced and when
      handle.py         one child as its parent sees it: start, bytes in and out, death
      errands.py        what a job in a child asks of its worker: to queue a task
      child.py          the child's own program: one task after another
      channel.py        the child's end of the connection
      child_backend.py  what a job in a child sees of the program: settings, progress, queueing
      isolation.py      how a child cuts itself loose from all but its parent, and dies with it
      frames.py         what the two say to each other
      output.py         what a job prints: lines, and how many of them pass
      log_records.py    what a job logs, where the parent wants it whole
      pickled.py        a job that runs any function of the program itself (see `pq.local`)

A time-out means the same in every mode: seconds from the moment the attempt runs. What stopping it
means differs, since threads cannot be stopped: a coroutine and a greenlet get a `CancelledError`, a
thread is left behind and counted, a process is killed.
"""
