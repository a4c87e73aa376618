"""Run one attempt of a task, in one of four modes. No module here knows a store.

The worker makes an `Attempt` and hands it to the executor of its job's mode; `finished` is then called once, on the
event loop, with an `Outcome`. No exception says that a task failed. `executors` makes the executors when they are
first used: `async_io` (the event loop), `thread_io` (a bounded pool of threads), `green_io` (a greenlet on the loop),
`cpu_bound` (warm child processes). `child_process`, `child_messages` and `child_requests` are the parent's side of a
child; `child`, `channel` and `child_backend` are the child's own.

A time-out means the same in every mode: seconds from the moment the attempt runs. Stopping differs, since threads
cannot be stopped: a coroutine and a greenlet get a `CancelledError`, a thread is left behind and counted, a process
is killed.
"""
