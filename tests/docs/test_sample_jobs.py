"""The sample jobs (`sampletasks/`) do on a server as their files say."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from docs_blocks import parse
from docs_project import Project

SESSION = """\
```pycon
>>> from manage import app
>>> api = app().api()
>>> def run(name, **arguments):
...     return api.tasks.queue(name, **arguments).wait(20)
>>> run("count.lines", path="manage.py").result == len(open("manage.py").readlines())
True
>>> run("count.lines", path="nowhere.txt").exception
"FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.txt'"
>>> task = run("count.primes", limit=1000)
>>> task.result["primes"], task.result["pid"] == task.run_info["pid"]
(168, True)
>>> run("three.naps", lag=0.01).result
['nap 1', 'nap 2', 'nap 3']
>>> run("sum.of.squares", numbers=[1, 2, 3]).result
14
>>> task = run("flaky")
>>> task.result, task.retry
('done in attempt 3', 3)
>>> task = run("flaky", failures=9)
>>> task.status_string, task.retry, task.exception
('FAILURE', 4, 'ConnectionError: no answer in attempt 4')
>>> round(run("asynchronous", lag=0.1).result, 1) >= 0.1
True
```
"""


def test_the_sample_jobs(docs_project: Project) -> None:
    page = [asdict(block) for block in parse(SESSION, "sampletasks")]
    done = docs_project.python(str(Path(__file__).with_name("docs_runner.py")), stdin=json.dumps(page))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr + docs_project.said()
    assert "168 primes below 1000" in docs_project.said()  # what a process job prints is in the worker's log
