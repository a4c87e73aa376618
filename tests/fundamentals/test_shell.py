"""The shell: a prompt in which both `.wait()` and `await` work, with completion."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pq import api as pq
from pq.api import Producer
from pq.commands.shell import Completer, namespace

ROOT = Path(pq.__file__).parents[1]


@pq.job()
def addition(a: int = 0, b: int = 0) -> int:
    return a + b


@pq.job()
def process_html(text: str) -> str:
    return text


class Classy(pq.Job):
    def __call__(self) -> int:
        return 3


PROGRAM = """\
import sys
from pq.api import PulsarQueue

def app():
    return PulsarQueue(data_store={url!r}, task_paths=["{jobs}"], node_name="here")

if __name__ == "__main__":
    app().start()
"""

Shell = Callable[..., Any]


@pytest.fixture
async def shell(valkey: Any, serving: Producer, tmp_path: Path) -> Shell:
    """`python manage.py shell` in another process; a worker serves here."""
    (tmp_path / "manage.py").write_text(PROGRAM.format(url=valkey.url, jobs="shelljobs"))
    (tmp_path / "shelljobs.py").write_text(Path(__file__).read_text().split("PROGRAM =")[0])
    env = {**os.environ, "PYTHONPATH": f"{ROOT}", "PYTHONUNBUFFERED": "1"}

    async def run(*words: str, typed: str = "") -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "manage.py", "shell", *words, cwd=tmp_path, env=env,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(typed.encode()), 60)
        return process.returncode or 0, out.decode(), err.decode()

    return run


async def test_wait_and_await_both_work_at_the_prompt(shell: Shell) -> None:
    """Line by line; a loop over several lines, too; jobs are there by name."""
    code, out, err = await shell(
        typed="tasks.queue('addition', 4, 6).wait(10).result\n"
        "task = await tasks.queue(addition, 1, b=2)\n"
        "task.result\n"
        "for n in range(2):\n"
        "    print((await tasks.queue('addition', n)).result * 100)\n"
        "\n"
        "[(await future).result for future in [tasks.queue(classy) for _ in range(2)]]\n"
        "app.cfg.node_name, api is not None, process_html('x')\n"
    )
    assert code == 0
    shown = out.replace(">>> ", "").replace("... ", "").split("\n")
    assert [line for line in shown if line] == ["10", "3", "0", "100", "[3, 3]", "('here', True, 'x')"]
    assert "pq shell: app, api, tasks and 3 jobs are here; await works" in err


async def test_our_errors_are_short_at_the_prompt(shell: Shell) -> None:
    """The message, its slug and a hint; the traceback of the user's own mistakes is Python's."""
    code, _, err = await shell(typed="tasks.queue('additon', a=1)\ndef f(): return 1 / 0\n\nf()\n")
    assert code == 0
    assert (
        "TaskNotAvailable: no job named 'additon' (3 known) [unknown-job]\nhint: did you mean 'addition'?"
        in err
    )
    assert err.count("Traceback") == 1
    assert "ZeroDivisionError" in err


async def test_run_a_text(shell: Shell) -> None:
    """`-c`: for scripts; its exit code says whether it raised."""
    assert (await shell("-c", "print((await tasks.queue('addition', 2, 3)).result)"))[:2] == (0, "5\n")
    assert (await shell("-c", "tasks.queue('additon')"))[0] == 1
    code, _, err = await shell("-c", "1 +")
    assert (code, "SyntaxError" in err) == (1, True)


def completer(app: pq.PulsarQueue) -> Completer:
    app.kwargs["task_paths"] = [__name__]
    api = app.api(background=True)
    return Completer(namespace(app, api, api.registry), api.registry)


@pytest.mark.parametrize(
    ("line", "text", "found"),
    [
        ('tasks.queue("add', "add", ["addition"]),
        ('tasks.queue("process.h', "process.h", ["process.html"]),
        ("await tasks.queue_local('", "", ["addition", "classy", "process.html"]),
        (
            'tasks.queue("addition", ',
            "",
            ["a=", "b=", "delay=", "queue=", "timeout=", "callback=", "meta_params="],
        ),
        ('tasks.queue("addition", a=4, de', "de", ["delay="]),
        ('tasks.queue("nothing", a', "a", None),
        ("tasks.size", "tasks.size", ["tasks.size("]),
        ("proces", "proces", ["process_html("]),
    ],
)
def test_completion(line: str, text: str, found: list[str] | None) -> None:
    """Jobs within the quotes, arguments and options behind them, Python's own names elsewhere."""
    candidates = completer(pq.PulsarQueue(data_store="memory://")).candidates(line, text)
    if found is None:
        assert "a=" not in candidates
    else:
        assert candidates == found


async def test_an_api_in_the_background_works_within_a_loop(make_app: Any, start_worker: Any) -> None:
    """Its loop is another one, which goes on while this one stands still."""
    app = make_app()
    await start_worker(app)
    api = app.api(background=True)
    try:
        future = api.tasks.queue("addition", 1, 2)
        assert future.get_loop() is not asyncio.get_running_loop()
        assert (await future).result == 3
        with pytest.raises(pq.WaitInLoop):
            future.wait()
    finally:
        await asyncio.to_thread(api.close)
