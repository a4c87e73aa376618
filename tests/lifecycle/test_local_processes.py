"""`pq.local` in programs of its own: their ends, their leftovers, and the tasks of their script."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from servers import ROOT, alive, of_session

from pq.local import TaskQueue

PATIENCE = 20.0
TASKS = Path(__file__).parents[1] / "fundamentals"

pytestmark = pytest.mark.lifecycle

Run = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Start a script as a program of a session of its own; its leftovers are killed."""
    programs: list[subprocess.Popen[str]] = []

    def start(source: str, *arguments: str, stdin: bool = False) -> subprocess.Popen[str]:
        script = tmp_path / "script.py"
        script.write_text(source)
        given = opened.enter_context(script.open()) if stdin else None
        program = subprocess.Popen(
            [sys.executable, *(["-"] if stdin else arguments or [str(script)])],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(TASKS), str(tmp_path)])},
            cwd=tmp_path,
            stdin=given.fileno() if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        programs.append(program)
        return program

    with ExitStack() as opened:
        yield start
    for program in programs:
        for pid in of_session(program.pid):
            os.kill(pid, signal.SIGKILL)
        program.communicate(timeout=PATIENCE)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.005)


def marked(folder: Path, count: int) -> list[int]:
    """Return the process ids of `count` workers that are busy."""
    until(lambda: len(list(folder.glob("*.pid"))) >= count, f"{count} busy workers")
    return [int(path.read_text()) for path in folder.glob("*.pid")]


BUSY = """\
import sys, time
import local_tasks as tasks
from pq.local import TaskQueue

queue = TaskQueue(2)
futures = [queue.add(tasks.marks, ".") for _ in range(4)]
print("ready", flush=True)
"""


# ------------------------------------------------------------------------------------ how they end
def test_workers_die_with_a_program_that_is_killed(run: Run, tmp_path: Path) -> None:
    """SIGKILL leaves no chance to clean up; all processes die nevertheless, the forkserver included."""
    program = run(BUSY + "time.sleep(60)\n")
    pids = marked(tmp_path, 2)
    os.kill(program.pid, signal.SIGKILL)
    until(lambda: not any(map(alive, pids)), "the end of the workers")
    until(lambda: not of_session(program.pid), "the end of the whole session")


@pytest.mark.parametrize("how", ["", "raise SystemExit(3)", "1 / 0"])
def test_a_program_that_forgets_to_terminate_ends(run: Run, tmp_path: Path, how: str) -> None:
    """The program does not hang, its workers are gone, and leftover calls are logged."""
    wait = "import pathlib\nwhile len(list(pathlib.Path('.').glob('*.pid'))) < 2: time.sleep(0.005)\n"
    program = run(BUSY + wait + how)
    _, errors = program.communicate(timeout=PATIENCE)
    assert program.returncode == {"": 0, "1 / 0": 1}.get(how, 3)
    assert "the program ends with 4 tasks undone" in errors
    assert "Exception ignored" not in errors
    assert not any(map(alive, marked(tmp_path, 2)))
    until(lambda: not of_session(program.pid), "the end of the whole session")


def test_a_thread_that_waits_for_a_task_gets_it_before_the_end(run: Run) -> None:
    """The main thread is through, another one waits: the program ends after it, as with any thread."""
    source = (
        "import threading\nimport local_tasks as tasks\nfrom pq.local import TaskQueue\n"
        "future = TaskQueue(1).add(tasks.sleeps, 0.2, 'done')\n"
        "threading.Thread(target=lambda: print(future.result())).start()\n"
    )
    assert run(source).communicate(timeout=PATIENCE) == ("done\n", "")


def test_ctrl_c_leaves_the_block(run: Run, tmp_path: Path) -> None:
    """The block ends with the running calls stopped after its time, and the program with KeyboardInterrupt."""
    source = (
        "import local_tasks as tasks\nfrom pq.local import TaskQueue\n"
        "class Hasty(TaskQueue):\n"
        "    def terminate(self, timeout=5): return super().terminate(0.1)\n"
        "with Hasty(1) as queue:\n"
        "    queue.add(tasks.marks, '.').result()\n"
    )
    program = run(source)
    pids = marked(tmp_path, 1)
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=PATIENCE)
    assert "KeyboardInterrupt" in errors
    assert "terminated with 1 task undone: local_tasks.marks (stopped)" in errors
    assert not any(map(alive, pids))


def test_a_fork_cannot_use_the_queue_of_its_parent(run: Run) -> None:
    """The fork gets an error; its own end does not touch the parent's workers. Any process may use an unused queue."""
    source = (
        "import os\nimport local_tasks as tasks\nfrom pq.local import TaskQueue\n"
        "unused, used = TaskQueue(1), TaskQueue(1)\n"
        "if os.fork() == 0:\n"
        "    print(unused.add(tasks.add, 1).result(), flush=True)\n"
        "    unused.terminate()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "used.add(tasks.add, 2).result()\n"
        "if os.fork() == 0:\n"
        "    try: used.add(tasks.add, 1)\n"
        "    except Exception as exc: print(type(exc).__name__, flush=True)\n"
        "    used.terminate()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(used.add(tasks.add, 3).result())\n"
    )
    assert run(source).communicate(timeout=PATIENCE)[0].split() == ["2", "QueueingError", "4"]


# ------------------------------------------------------------------------------------ what they leave
def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `terminate` there are no processes, no zombies and no descriptors more than before."""
    monkeypatch.syspath_prepend(str(TASKS))
    import local_tasks as tasks

    def use() -> list[int]:
        queue = TaskQueue(2, requests_per_worker=2)
        pids = [future.result(PATIENCE) for future in [queue.add(tasks.pid) for _ in range(9)]]
        queue.add(tasks.dies, "kill").exception(PATIENCE)
        queue.add(tasks.sleeps, 60)
        queue.terminate(0)
        return pids

    use()  # the fork server and its pipes stay
    before = len(os.listdir("/proc/self/fd"))
    pids = use()
    until(lambda: len(os.listdir("/proc/self/fd")) <= before, "the closing of all descriptors")
    until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()], "the reaping of all workers")
    assert multiprocessing.active_children() == []


# --------------------------------------------------------------------------------- tasks of the script
GUARDED = """\
from dataclasses import dataclass
from pq.local import TaskQueue

@dataclass
class MyTask:
    param: int

    def run(self):
        return MyTask(self.param + 1)

def twice(task):
    return MyTask(2 * task.param)

if __name__ == "__main__":
    with TaskQueue(1) as queue:
        task = queue.add(MyTask(3)).result()
        print(task, queue.add(twice, task).result() == MyTask(8))
"""


@pytest.mark.parametrize("arguments", [(), ("-m", "script")], ids=["python script.py", "python -m script"])
def test_tasks_of_the_script_itself(run: Run, arguments: tuple[str, ...]) -> None:
    """A class and a function of a plain script, there and back."""
    assert run(GUARDED, *arguments).communicate(timeout=PATIENCE) == ("MyTask(param=4) True\n", "")


UNGUARDED = """\
import local_tasks
from pq.local import TaskQueue

def here():
    pass

print(__name__)
queue = TaskQueue(1)
print(queue.add(local_tasks.add, 1).result())
for _ in range(2):
    error = queue.add(here).exception()
    print(type(error).__name__, error, "|", error.hint)
print(queue.add(local_tasks.add, 2).result())
"""


def test_a_script_without_its_guard(run: Run) -> None:
    """Tasks of other modules need none. One of the script itself fails with a text to write, and nothing grows."""
    said = run(UNGUARDED).communicate(timeout=PATIENCE)[0].splitlines()
    error = (
        "ConfigError a TaskQueue is made while a worker process imports the program's script, and so on "
        'without end | in the script, put what starts the program under `if __name__ == "__main__":`'
    )
    assert [line for line in said if line != "__mp_main__"] == ["__main__", "2", error, error, "3"]
    assert said.count("__mp_main__") == 1


def test_a_script_that_no_worker_can_import(run: Run) -> None:
    """Whatever it does there is the error of the task, and not of the worker."""
    source = (
        "from pq.local import TaskQueue\ndef here(): pass\n"
        "if __name__ == '__mp_main__': raise SystemExit('not here')\n"
        "print(TaskQueue(1).add(here).exception())\n"
    )
    said = run(source).communicate(timeout=PATIENCE)[0]
    assert "script.py cannot be imported in a worker process: SystemExit: not here" in said


def test_tasks_that_were_typed_in(run: Run) -> None:
    """At a prompt or through a pipe there is no file to find them in."""
    source = (
        "from pq.local import TaskQueue\ndef here(): pass\nerror = TaskQueue(1).add(here).exception()\n"
        "print(error, '|', error.hint)\n"
    )
    said = run(source, stdin=True).communicate(timeout=PATIENCE)[0]
    assert said.startswith("'here' is defined where a worker process cannot find it")
    assert "put it into a module" in said


def test_a_task_may_have_a_queue_of_its_own(run: Run) -> None:
    """Whose workers end with it."""
    source = (
        "import local_tasks as tasks\nfrom pq.local import TaskQueue\n"
        "def inner(n):\n"
        "    with TaskQueue(1) as queue: return queue.add(tasks.add, n).result()\n"
        "if __name__ == '__main__':\n"
        "    with TaskQueue(2) as queue: print(list(queue.map(inner, range(3))))\n"
    )
    assert run(source).communicate(timeout=PATIENCE) == ("[1, 2, 3]\n", "")
