"""`pq.local`: a task queue of several processes in one program, with no store and no server."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, assert_type

import local_tasks as tasks
import pytest

from pq import api
from pq.local import TaskQueue, Terminated

PATIENCE = 20.0
"""Seconds; only says when to call it a failure."""


@pytest.fixture(scope="module")
def shared() -> Iterator[TaskQueue]:
    """A queue for the tests that leave nothing behind."""
    with TaskQueue(2) as queue:
        yield queue


def until(condition: Callable[[], object]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


class Records(logging.Handler):
    """A handler as an application has one."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, name: str) -> list[tuple[str, str]]:
        return [(each.levelname, each.getMessage()) for each in self.records if each.name == name]


@pytest.fixture
def heard() -> Iterator[Records]:
    """An application that logs all from INFO up."""
    records, root = Records(), logging.getLogger()
    level = root.level
    root.addHandler(records)
    root.setLevel(logging.INFO)
    yield records
    root.removeHandler(records)
    root.setLevel(level)


# -------------------------------------------------------------------------------------- tasks
def test_a_task_is_an_object_with_run(shared: TaskQueue) -> None:
    """Made here, run in another process; its future has the result."""
    future = assert_type(shared.add(tasks.MyTask("a")), Future[str])
    assert future.result(PATIENCE) == "A"


def test_a_task_is_a_function_with_its_arguments(shared: TaskQueue) -> None:
    """Positional and named; a type checker knows the result."""
    future = assert_type(shared.add(tasks.add, 4, b=6), Future[int])
    assert future.result(PATIENCE) == 10
    assert shared.add(tasks.pid).result(PATIENCE) != os.getpid()


def test_an_async_function_is_run_to_its_end(shared: TaskQueue) -> None:
    """In an event loop of the worker process."""
    future = assert_type(shared.add(tasks.add_later, 1, 2), Future[int])
    assert future.result(PATIENCE) == 3


def test_map_gives_the_results_in_order(shared: TaskQueue) -> None:
    """All are queued at once; the first error is raised where its result would be."""
    assert list(shared.map(tasks.add, range(20))) == list(range(1, 21))
    results = shared.map(tasks.fails, ["chain", "exit"])
    with pytest.raises(ValueError, match="could not be worked out"):
        next(results)


def test_a_map_that_is_given_up_cancels_what_has_not_begun(tmp_path: Path) -> None:
    """No caller will ask for those results."""
    with TaskQueue(1) as queue:
        results = queue.map(tasks.waits_for, [str(tmp_path)] + [str(tmp_path / "never")] * 5)
        busy = queue.add(tasks.add, 1)
        assert next(results) is None
        results.close()  # type: ignore[attr-defined]
        # One of the five may have begun; it gets the signal to go on.
        (tmp_path / "never").touch()
        assert busy.result(PATIENCE) == 2
        assert queue.processed() in (2, 3)


@pytest.mark.parametrize("count", [0, -1, "2", True, 1.5])
def test_bad_numbers_are_named(count: Any) -> None:
    """The error names the number: of workers, of requests for each, or of seconds."""
    with pytest.raises(api.InvalidValue, match=f"worker_count is {count!r}, and must be a whole number"):
        TaskQueue(count)
    with pytest.raises(api.InvalidValue, match="requests_per_worker"):
        TaskQueue(1, count)
    if count not in (0, 1.5, True):
        with pytest.raises(api.InvalidValue, match="timeout"):
            TaskQueue(1).terminate(count)


def test_a_value_that_is_not_a_task_is_refused(shared: TaskQueue) -> None:
    """The error is raised at once, with a text to type instead."""
    with pytest.raises(api.BadArguments, match="3 is not a task"):
        shared.add(3)  # type: ignore[call-overload]
    with pytest.raises(api.BadArguments, match="MyTask is a class") as caught:
        shared.add(tasks.MyTask)
    assert caught.value.hint == "make one: queue.add(MyTask(…))"


def test_many_threads_add(shared: TaskQueue) -> None:
    """The threads of a web application do the same."""
    before = shared.processed()
    with ThreadPoolExecutor(10) as threads:
        futures = list(threads.map(lambda n: shared.add(tasks.add, n), range(300)))
    assert [future.result(PATIENCE) for future in futures] == list(range(1, 301))
    assert (shared.length(), shared.processed() - before) == (0, 300)


async def test_in_an_event_loop(shared: TaskQueue, tmp_path: Path) -> None:
    """`asyncio.wrap_future` makes it awaitable; the loop goes on meanwhile."""
    future = asyncio.wrap_future(shared.add(tasks.waits_for, str(tmp_path / "go"), "done"))
    await asyncio.sleep(0.01)
    assert not future.done()
    (tmp_path / "go").touch()
    assert await asyncio.wait_for(future, PATIENCE) == "done"
    with pytest.raises(api.TaskError, match="StopIteration: the end"):
        await asyncio.wrap_future(shared.add(tasks.fails, "stop"))


def test_arguments_are_those_of_the_moment(shared: TaskQueue, tmp_path: Path) -> None:
    """The task is pickled when it is added: later changes to its arguments do not matter."""
    data = ["now"]
    future = shared.add(tasks.sleeps, 0, data)
    data.append("later")
    assert future.result(PATIENCE) == ["now"]


# --------------------------------------------------------------------------------------- errors
def test_an_error_is_the_original_with_its_traceback(shared: TaskQueue) -> None:
    """The exception itself; its cause is the text of the traceback in the other process, causes included."""
    error = shared.add(tasks.fails, "chain").exception(PATIENCE)
    assert type(error) is ValueError
    text = str(error.__cause__)
    assert text.index("return a / b") < text.index("ZeroDivisionError") < text.index("ValueError: could not")
    assert "pickled.py" not in text


@pytest.mark.parametrize(
    ("how", "text"),
    [("two words", "TwoWords: one two"), ("exit", "SystemExit: bye"), ("stop", "StopIteration: the end")],
)
def test_an_error_that_cannot_be_carried_over_is_a_task_error(shared: TaskQueue, how: str, text: str) -> None:
    """One that cannot be made again here, one that would end this program, one that futures do not take."""
    error = shared.add(tasks.fails, how).exception(PATIENCE)
    assert type(error) is api.TaskError
    assert text in str(error)
    assert "local_tasks.py" in (error.remote_traceback or "")


def test_a_wrong_call_is_the_usual_type_error(shared: TaskQueue) -> None:
    """Arguments that do not fit are found by the call."""
    error = shared.add(tasks.add, 1, 2, 3).exception(PATIENCE)  # type: ignore[call-arg]
    assert type(error) is TypeError


@pytest.mark.parametrize("task", [lambda: 1, tasks.Locked()])
def test_a_task_that_cannot_travel_fails_alone(shared: TaskQueue, task: Any) -> None:
    """`add` does not raise: its future does, and the error says what to do."""
    bad, good = shared.add(task), shared.add(tasks.add, 1)
    error = bad.exception(PATIENCE)
    assert isinstance(error, api.NotSerializable)
    assert "cannot be sent to a worker process" in str(error)
    assert "top of a module" in (error.hint or "")
    assert good.result(PATIENCE) == 2


@pytest.mark.parametrize(
    ("what", "text"),
    [("generator", "a generator, cannot be sent back"), ("unreadable", "cannot be read here: TypeError")],
)
def test_a_result_that_cannot_travel_fails_alone(shared: TaskQueue, what: str, text: str) -> None:
    """The value cannot be pickled there, or cannot be read here."""
    bad, good = shared.add(tasks.returns, what), shared.add(tasks.add, 1)
    with pytest.raises(api.ResultNotSerializable, match=text):
        bad.result(PATIENCE)
    assert good.result(PATIENCE) == 2


@pytest.mark.parametrize(
    ("how", "text"),
    [("segmentation fault", "SIGSEGV"), ("exit", "exit code 3"), ("kill", "SIGKILL .*memory")],
)
def test_a_worker_that_dies_costs_its_own_task_alone(shared: TaskQueue, how: str, text: str) -> None:
    """Its future says how it died; all others come to their end in a queue that goes on."""
    victim = shared.add(tasks.dies, how)
    others = [shared.add(tasks.add, n) for n in range(10)]
    with pytest.raises(api.TaskCrashed, match=f"task local_tasks.dies: the process .*{text}"):
        victim.result(PATIENCE)
    assert [future.result(PATIENCE) for future in others] == list(range(1, 11))


# ------------------------------------------------------------------------------ counting and ending
def test_length_and_processed(tmp_path: Path) -> None:
    """Queued and running; ended, well or badly. A task is counted before its future is done."""
    with TaskQueue(1) as queue:
        futures = [queue.add(tasks.waits_for, str(tmp_path / "go")), queue.add(tasks.fails, "chain")]
        unfit = queue.add(lambda: 1)
        assert (queue.length(), queue.processed(), unfit.done()) == (2, 1, True)
        assert repr(queue) == "<TaskQueue 1 worker: 2 queued or running, 1 processed>"
        (tmp_path / "go").touch()
        futures[1].exception(PATIENCE)
        assert (queue.length(), queue.processed()) == (0, 3)


def test_a_queued_task_can_be_taken_back(tmp_path: Path) -> None:
    """It is not run, nor counted as processed; one that runs goes on."""
    with TaskQueue(1) as queue:
        first = queue.add(tasks.waits_for, str(tmp_path / "go"), "done")
        others = [queue.add(tasks.add, n) for n in range(3)]
        until(first.running)
        assert not first.cancel()
        assert others[1].cancel()
        assert queue.length() == 3
        assert concurrent.futures.wait([others[1]], PATIENCE).done
        (tmp_path / "go").touch()
        assert [first.result(PATIENCE), others[2].result(PATIENCE)] == ["done", 3]
        assert (queue.length(), queue.processed()) == (0, 3)


def test_terminate_waits_no_longer_than_needed(tmp_path: Path) -> None:
    """The queue finishes all queued tasks, with any time given, and logs that. A second call is harmless."""
    queue = TaskQueue(2)
    futures = [queue.add(tasks.add, n) for n in range(20)]
    assert queue.terminate(timeout=3600) == Terminated(20, (), ())
    assert all(future.done() for future in futures)
    assert queue.terminate() == Terminated(20, (), ())
    with pytest.raises(api.QueueingError, match=r"local_tasks.add was not queued: the queue was terminated"):
        queue.add(tasks.add, 1)


def test_terminate_stops_what_is_not_done_in_time(tmp_path: Path, heard: Records) -> None:
    """No future hangs: that of a task that ran has an error, the others are cancelled."""
    queue = TaskQueue(1)
    assert queue.add(tasks.add, 1).result(PATIENCE) == 2
    running = queue.add(tasks.waits_for, str(tmp_path / "never"))
    queued = queue.add(tasks.MyTask("late"))
    end = queue.terminate(timeout=0.05)
    assert end == Terminated(finished=1, stopped=("local_tasks.waits_for",), dropped=("my task late",))
    with pytest.raises(api.TaskRevoked, match="was stopped when its queue was terminated"):
        running.result(PATIENCE)
    with pytest.raises(CancelledError):
        queued.result(PATIENCE)
    assert concurrent.futures.wait([running, queued], PATIENCE).not_done == set()
    assert (queue.length(), queue.processed()) == (0, 1)
    assert (
        "WARNING",
        "terminated with 2 tasks undone: local_tasks.waits_for (stopped), my task late (not begun)",
    ) in heard.of("pq.local")


def test_a_second_terminate_may_be_less_patient(tmp_path: Path) -> None:
    """While one thread waits for everything, another can put an end to it."""
    queue = TaskQueue(1)
    future = queue.add(tasks.waits_for, str(tmp_path / "never"))
    ends: list[Terminated] = []
    patient = threading.Thread(target=lambda: ends.append(queue.terminate(None)))
    patient.start()
    until(future.running)
    end = queue.terminate(0)
    patient.join(PATIENCE)
    assert ends == [end]
    assert end.stopped == ("local_tasks.waits_for",)


def test_the_block_waits_for_all(tmp_path: Path) -> None:
    """At its end nothing is queued any more."""
    with TaskQueue(2) as queue:
        futures = [queue.add(tasks.sleeps, 0.01, n) for n in range(10)]
    assert [future.result(0) for future in futures] == list(range(10))


def test_a_queue_that_was_never_used_ends_at_once() -> None:
    """It has started nothing: no thread, no process."""
    before = threading.active_count()
    queue = TaskQueue()
    assert threading.active_count() == before
    assert queue.terminate() == Terminated(0, (), ())


def test_a_queue_without_references_finishes_and_ends() -> None:
    """Its futures come to their end; then its thread ends."""
    before = set(threading.enumerate())
    futures = [TaskQueue(1).add(tasks.sleeps, 0.01, n) for n in range(2)]
    threads = [thread for thread in threading.enumerate() if thread not in before]
    gc.collect()
    assert [future.result(PATIENCE) for future in futures] == [0, 1]
    for thread in threads:
        thread.join(PATIENCE)
    assert threads
    assert not any(thread.is_alive() for thread in threads)


def test_a_callback_cannot_terminate(shared: TaskQueue, tmp_path: Path) -> None:
    """The callback runs in the queue's own thread and would wait for itself: an error is raised."""
    errors: list[BaseException] = []

    def callback(_: object) -> None:
        try:
            shared.terminate()
        except api.PqError as exc:
            errors.append(exc)

    shared.add(tasks.waits_for, str(tmp_path / "go")).add_done_callback(callback)
    (tmp_path / "go").touch()
    until(lambda: errors)
    assert "callback" in str(errors[0])


def test_workers_are_replaced_after_their_requests() -> None:
    """Each ends after three tasks, and none is lost."""
    with TaskQueue(2, requests_per_worker=3) as queue:
        pids = [future.result(PATIENCE) for future in [queue.add(tasks.pid) for _ in range(20)]]
    assert len(pids) == 20
    assert max(pids.count(pid) for pid in pids) == 3


# ------------------------------------------------------------------------------------------ logs
def test_what_tasks_log_reaches_the_handlers_of_the_application(shared: TaskQueue, heard: Records) -> None:
    """Records keep logger, level, place, process id, `extra` and traceback, as records of this process have them."""
    pid = shared.add(tasks.talks, "some.library").result(PATIENCE)
    assert heard.of("some.library") == [("INFO", "hello from some.library"), ("ERROR", "it failed")]
    info, error = (record for record in heard.records if record.name == "some.library")
    assert (info.process, info.funcName, info.filename) == (pid, "talks", "local_tasks.py")
    assert (info.request, info.where) == (7, "/tmp")  # type: ignore[attr-defined]
    assert "ZeroDivisionError" in logging.Formatter().format(error)


SETS_UP_LOGGING = """
import logging, sys
logger = logging.getLogger("parcels")
logger.addHandler(logging.StreamHandler(sys.stderr))
logger.propagate = False
logger.setLevel(logging.INFO)

def task():
    logger.info("only once")
"""


def test_handlers_that_a_module_sets_up_are_those_of_the_parent(
    heard: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker imports that module too, and its copies of the handlers are not asked there."""
    (tmp_path / "shop_with_logs.py").write_text(SETS_UP_LOGGING)
    monkeypatch.syspath_prepend(str(tmp_path))
    import shop_with_logs  # type: ignore[import-not-found]

    monkeypatch.setattr(shop_with_logs.logger, "handlers", [heard])
    with TaskQueue(1) as queue:
        queue.add(shop_with_logs.task).result(PATIENCE)
    assert heard.of("parcels") == [("INFO", "only once")]
    assert heard.of("pq.local.stderr") == []


def test_what_tasks_print_reaches_them_too(shared: TaskQueue, heard: Records) -> None:
    """Standard output is INFO, standard error is WARNING."""
    pid = shared.add(tasks.prints).result(PATIENCE)
    assert heard.of("pq.local.stdout") == [("INFO", "to standard output")]
    assert heard.of("pq.local.stderr") == [("WARNING", "to standard error")]
    assert {record.process for record in heard.records if record.name.startswith("pq.local.std")} == {pid}


def test_the_levels_of_the_application_count_in_the_workers(heard: Records) -> None:
    """The levels at the start of a task count, whenever they were set: also in a worker that runs already."""
    logger = logging.getLogger("some.package")
    seen = {}
    with TaskQueue(1) as queue:
        for level in (logging.NOTSET, logging.DEBUG, logging.ERROR, logging.NOTSET):
            logger.setLevel(level)
            heard.records.clear()
            queue.add(tasks.talks, "some.package").result(PATIENCE)
            seen[level] = [name for name, _ in heard.of("some.package")]
    assert seen == {
        logging.NOTSET: ["INFO", "ERROR"],
        logging.DEBUG: ["DEBUG", "INFO", "ERROR"],
        logging.ERROR: ["ERROR"],
    }


def test_an_application_with_handlers_at_its_own_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records without another handler go to the given logger, as `app.logger` of Flask."""
    root, app, own = logging.getLogger(), logging.getLogger("hello"), Records()
    monkeypatch.setattr(root, "handlers", [])
    app.addHandler(own)
    app.setLevel(logging.INFO)
    try:
        with TaskQueue(1, logger=app) as queue:
            for name in ("hello", "another.library"):
                queue.add(tasks.talks, name).result(PATIENCE)
            queue.add(tasks.prints).result(PATIENCE)
    finally:
        app.removeHandler(own)
        app.setLevel(logging.NOTSET)
    assert own.of("hello") == [("INFO", "hello from hello"), ("ERROR", "it failed")]
    assert own.of("another.library") == [("INFO", "hello from another.library"), ("ERROR", "it failed")]
    assert own.of("pq.local.stdout") == [("INFO", "to standard output")]
    assert any(text.endswith("begins task local_tasks.prints") for _, text in own.of("pq.local"))


def test_prints_are_shown_without_log_handlers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small script without logging shows the output of its tasks."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with TaskQueue(1) as queue:
        queue.add(tasks.prints).result(PATIENCE)
    assert capsys.readouterr() == ("to standard output\n", "to standard error\n")


def test_the_queue_tells_what_it_does(heard: Records) -> None:
    """Workers that start and end, tasks that begin and are done, by their descriptions."""
    with TaskQueue(1) as queue:
        queue.add(tasks.MyTask("a")).result(PATIENCE)
        pid = queue.add(tasks.pid).result(PATIENCE)
        queue.add(tasks.dies, "exit").exception(PATIENCE)
    said = heard.of("pq.local")
    assert said[:5] == [
        ("INFO", f"worker {pid} started"),
        ("INFO", f"worker {pid} begins task my task a"),
        ("INFO", f"worker {pid} is done with task my task a"),
        ("INFO", f"worker {pid} begins task local_tasks.pid"),
        ("INFO", f"worker {pid} is done with task local_tasks.pid"),
    ]
    assert ("WARNING", f"worker {pid} ended with exit code 3 after 2 tasks") in said
    assert ("ERROR", f"worker {pid} failed task local_tasks.dies") in said


def test_every_failure_is_logged_with_its_traceback(shared: TaskQueue, heard: Records) -> None:
    """The error is logged also if no caller reads the future."""
    shared.add(tasks.fails, "chain")
    shared.add(lambda: 1)
    until(lambda: not shared.length())
    errors = [record for record in heard.records if record.levelno == logging.ERROR]
    texts = "\n".join(logging.Formatter().format(record) for record in errors)
    assert "failed task local_tasks.fails" in texts
    assert "ZeroDivisionError: division by zero" in texts
    assert "<lambda> failed before a worker had it" in texts


def test_a_task_that_cannot_say_what_it_is(shared: TaskQueue, heard: Records) -> None:
    """The task runs nevertheless, as '(unknown)'."""
    assert shared.add(tasks.Nameless("a")).result(PATIENCE) == "A"
    assert any(text.endswith("is done with task (unknown)") for _, text in heard.of("pq.local"))
    assert ("WARNING", "a task of class Nameless has no description") in heard.of("pq.local")


# ----------------------------------------------------------------------------------------- helpers
def test_a_queue_does_not_travel(shared: TaskQueue) -> None:
    """A task that holds its queue fails as all do that cannot be pickled."""
    with pytest.raises(TypeError):
        pickle.dumps(shared)
