"""Settings of the sample server. Every line is optional; `python manage.py config` shows what counts.

Each is a flag too (`-w 2`, `--concurrent-tasks 50`) and a variable (`PQ_WORKERS=2`): flags win over
variables, variables over this file.
"""

# Where the jobs are: dotted module names, `package.*` for all modules of a package.
task_paths = ["sampletasks.*"]

# Queues that the workers take from, the first preferred. Each server also has a queue of its own.
task_queues = ["default"]

# Where the tasks are kept. Not set: a Valkey of the project's own, with its data in `.pq/`.
# data_store = "redis://localhost:6379/0"

# Tasks that one worker runs at once.
# concurrent_tasks = 100
