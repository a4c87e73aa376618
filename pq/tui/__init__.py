"""`pq top`: a live view of queues, workers, running tasks and failures.

`board` is what is known, as plain data; `feed` keeps it right with what the api says; `frame` prints it once
as text. The rest is the terminal: `app` the program, `panes` its tables, `screens` what opens over it. Only
these three need textual (`pip install 'pq-tasks[tui]'`).

All of it works in one event loop, textual's: the api is asynchronous, so it never holds up a key.
"""
