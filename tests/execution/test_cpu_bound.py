"""Attempts in child processes: real ones, and really killed."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing.process
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import execution_jobs as jobs
import pytest
import uvloop
from execution_bench import DEADLINE, Bench, child_threads, descriptors, make_pool, result, running, until

from pq.execution import cpu_bound
from pq.model.outcome import CRASHED, FAILED, OK, RELEASED, REVOKED, TIMED_OUT
from pq.model.serializers import MSGPACK
from pq.model.task import Task


@pytest.fixture
async def pool(bench):
    pool = make_pool(bench)
    await pool.start()
    yield pool
    await pool.stop()
    await until(lambda: not child_threads(), "the end of the threads that start children")


async def pids_in(path):
    """The process ids that a job wrote to its file."""

    def written():
        text = path.read_text() if path.exists() else ""
        return [int(word) for word in text.split()] if text.endswith("\n") else None

    return await until(written, "the job's mark")


# ------------------------------------------------------------------------------------------ running
async def test_a_task_runs_in_a_process_of_its_own_session(bench, pool):
    """It runs in another process, outside of the group that the terminal signals, with the settings it was given."""
    outcome = await bench.run(pool, jobs.whoami)
    pid, _, session, colour, name = result(outcome)
    assert pid == session == outcome.info["pid"] != os.getpid()
    assert (colour, name) == ("blue", "app")


async def test_fifty_tasks_share_two_children(bench, pool):
    """Children are warm: two processes do all, side by side."""
    assert pool.capacity() == 2
    await asyncio.gather(*(bench.run(pool, jobs.works, 0.01) for _ in range(2)))
    await until(lambda: len(pool._idle) == 2)
    started = [bench.start(pool, jobs.works, 0.002)[1] for _ in range(50)]
    assert pool.capacity() == 0
    pids = [result(await asyncio.wait_for(outcome, DEADLINE)) for outcome in started]
    assert len(set(pids)) == 2
    assert pool.capacity() == 2


async def test_an_async_job_runs_in_a_loop_that_is_kept(bench, pool):
    """Both tasks meet the same loop; asyncio tasks that the first left running are gone."""
    first, second = [result(await bench.run(pool, jobs.async_process, n)) for n in (1, 2)]
    assert (first[0], second[0]) == (1, 2)
    assert first[1] == second[1]


async def test_values_arrive_as_they_are(bench, pool):
    """A result is packed once, in the child, in the format of its task."""
    value = {"t": (1, 2), "s": {3}, "b": b"\0", "n": None}
    assert result(await bench.run(pool, jobs.echo, value)) == value


async def test_large_messages_block_neither_side(bench, pool):
    """Two megabytes there and back, larger than any socket's buffer, while the loop goes on."""
    big = make_pool(bench, limit=4_000_000)
    try:
        data = os.urandom(2_000_000)
        both = await asyncio.gather(bench.run(big, jobs.echo, data), bench.run(big, jobs.echo, data))
        assert [result(outcome) == data for outcome in both] == [True, True]
    finally:
        await big.stop()


@pytest.mark.parametrize(("job", "args"), [(jobs.bad_result, ()), (jobs.large_result, (2_000_000,))])
async def test_a_result_that_cannot_be_stored_is_an_outcome(bench, pool, job, args):
    """The result is not serializable, or larger than a message may be: the task failed, and the child goes on."""
    outcome = await bench.run(pool, job, *args)
    assert (outcome.kind, outcome.reason) == (FAILED, "result-not-serializable")
    assert job.name in outcome.error
    assert (await bench.run(pool, jobs.square, 2)).info == outcome.info


@pytest.mark.parametrize("body", [Task("t", "no.such.job"), Task("t", "square", call=b"\xc1")])
async def test_what_the_child_cannot_run_fails(bench, pool, body):
    """A job that the child does not know, arguments that cannot be read."""
    _, outcome = bench.launch(pool, body, jobs.square.job_class)
    assert (await outcome).kind == FAILED


# ----------------------------------------------------------------------------------- what jobs do
async def test_what_is_printed_or_logged_reaches_the_logger_of_the_job(bench, pool, caplog):
    """Prints, descriptors and programs come out at `<app>.<job>` in the parent, log records at their own logger."""
    with caplog.at_level(logging.INFO, logger="app"):
        await bench.run(pool, jobs.prints)
    lines = {
        (record.levelname, f"{record.name}: {record.getMessage()}".removeprefix("app.prints: "))
        for record in caplog.records
        if record.name in ("app.prints", "other.library")
    }
    assert lines == {
        ("INFO", "to standard output"),
        ("INFO", "to the descriptor"),
        ("INFO", "from a program"),
        ("INFO", "without an end of line"),
        ("WARNING", "to standard error"),
        ("WARNING", "logged well"),
        ("ERROR", "other.library: of another logger"),
    }


@pytest.mark.parametrize(
    ("job", "args"),
    [
        (jobs.floods, (10_000_000,)),
        (jobs.floods_log, (20_000,)),
        (jobs.one_long_line, (10_000_000,)),
        (jobs.floods_with_the_interpreter_held, (1_000_000,)),
    ],
)
async def test_a_flood_neither_blocks_nor_bloats(bench, job, args):
    """Ten megabytes are taken from the job, a fraction is kept, and the loop is never held up."""
    lines = []
    pool = make_pool(bench, size=1, on_log=lambda task, level, text: lines.append(text))
    longest = 0.0

    async def watch():
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - before)

    try:
        await bench.run(pool, jobs.square, 1)
        watching = asyncio.create_task(watch())
        assert (await bench.run(pool, job, *args)).kind == OK
        watching.cancel()
    finally:
        await pool.stop()
    assert sum(map(len, lines)) < 2_000_000
    assert job is jobs.one_long_line or any(line.endswith("lines dropped") for line in lines)
    assert longest < 0.5


async def test_progress_arrives(bench, pool):
    """Reports that come together may be one; the last one is always there, before the outcome."""
    await bench.run(pool, jobs.reports, 500)
    assert bench.backend.reports[-1] == ("t1", 500, 500, "step 500")


async def test_a_job_queues_another_and_does_not_wait(bench, pool):
    """A synchronous job queues; the worker does it."""
    assert result(await bench.run(pool, jobs.queues)) == "sent"
    (task,) = bench.backend.queued
    assert (task.name, task.kwargs, task.meta) == ("addition", {"a": 1, "b": 2}, {"from_task": "t1"})


async def test_an_async_job_awaits_what_it_queued(bench, pool):
    """It gets the finished tasks."""
    assert result(await bench.run(pool, jobs.queues_and_waits)) == [("i0", 3, "t1"), ("i1", 7, "t1")]


async def test_queueing_what_does_not_exist_fails_in_the_job(bench, pool):
    """Every other mode raises the same error."""
    outcome = await bench.run(pool, jobs.queues_nonsense)
    assert (outcome.kind, outcome.reason) == (FAILED, "unknown-job")


async def test_a_refusal_of_the_worker_is_raised_where_it_is_awaited(bench, pool, caplog):
    """The worker also logs it, for the job that does not await."""
    outcome = await bench.run(pool, jobs.queues_refused)
    assert (outcome.kind, outcome.reason) == (FAILED, "queue-full")
    assert "addition was not queued: QueueFull: there is no room" in caplog.text


async def test_a_future_that_was_cancelled_does_not_keep_the_job_waiting(bench, pool, monkeypatch):
    """Every question has an answer, also when the worker's own future came to nothing."""

    def queue(*args, **kwargs):
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        return future

    monkeypatch.setattr(bench.backend, "queue", queue)
    outcome = await bench.run(pool, jobs.queues_and_waits)
    assert (outcome.kind, outcome.error) == (FAILED, "PqError: CancelledError")


# ------------------------------------------------------------------------------------------- dying
@pytest.mark.parametrize(
    ("job", "args", "text"),
    [
        (jobs.segfaults, (), "was killed by SIGSEGV"),
        (jobs.leaves, (3,), "ended with exit code 3"),
        (jobs.leaves, (0,), "ended with exit code 0"),
        (jobs.kills_itself, (), "was killed by SIGKILL"),
    ],
)
async def test_a_child_that_dies_costs_its_own_task_alone(bench, pool, job, args, text):
    """Ten innocent tasks around it come to their end, in a pool that is whole again."""
    before = [bench.start(pool, jobs.works, 0.005)[1] for _ in range(5)]
    _, victim = bench.start(pool, job, *args)
    after = [bench.start(pool, jobs.works, 0.005)[1] for _ in range(5)]
    assert [(await asyncio.wait_for(outcome, DEADLINE)).kind for outcome in before + after] == [OK] * 10
    outcome = await victim
    assert (outcome.kind, outcome.reason) == (CRASHED, "worker-lost")
    assert outcome.error.startswith(f"the process that ran the task {text}")
    assert not running(outcome.info["pid"])
    assert pool.capacity() == 2


async def test_a_segmentation_fault_shows_where(bench, pool):
    """The last words of the child are the traceback."""
    assert "execution_jobs.py" in (await bench.run(pool, jobs.segfaults)).stacktrace


async def test_many_crashes_do_not_break_the_pool(bench, pool):
    """Every third of sixty tasks kills its child."""
    started = [
        bench.start(pool, *((jobs.segfaults,) if n % 3 == 0 else (jobs.square, n)))[1] for n in range(60)
    ]
    kinds = [(await asyncio.wait_for(outcome, DEADLINE)).kind for outcome in started]
    assert kinds == [CRASHED if n % 3 == 0 else OK for n in range(60)]


async def test_killed_from_outside(bench, pool, tmp_path):
    """The kernel does the same for want of memory."""
    _, outcome = bench.start(pool, jobs.forever, str(tmp_path / "mark"))
    (pid,) = await pids_in(tmp_path / "mark")
    os.kill(pid, signal.SIGKILL)
    assert "SIGKILL" in (await asyncio.wait_for(outcome, DEADLINE)).error


@pytest.mark.parametrize("why", [REVOKED, RELEASED])
async def test_a_cancel_kills_the_child_and_what_it_started(bench, pool, tmp_path, why):
    """The outcome is there at once; the child and its program are gone soon after; another child works."""
    attempt, outcome = bench.start(pool, jobs.starts_a_program, str(tmp_path / "mark"))
    pids = await pids_in(tmp_path / "mark")
    attempt.cancel(why)
    assert outcome.result().kind == why
    await until(lambda: not any(running(pid) for pid in pids))
    assert (await bench.run(pool, jobs.square, 2)).kind == OK


async def test_a_timeout_kills_a_busy_child(bench, pool):
    """`while True: pass` is stopped for real."""
    await bench.run(pool, jobs.square, 1)
    outcome = await bench.run(pool, jobs.forever, timeout=0.05)
    assert (outcome.kind, outcome.reason) == (TIMED_OUT, "timed-out")
    await until(lambda: not running(outcome.info["pid"]))


async def test_children_ignore_the_signals_of_their_service(bench, pool, tmp_path):
    """A service manager signals all processes; the running task may still finish."""
    assert result(await bench.run(pool, jobs.signals)) == "went on"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_program_that_a_job_starts_obeys_signals(bench, pool, number):
    """`Popen.terminate()` and `send_signal(SIGINT)` end it; it has not inherited an ignored signal."""
    assert result(await bench.run(pool, jobs.ends_a_program, number)) == -number


async def test_a_process_that_a_job_forks_obeys_sigterm(bench, pool):
    """`Process.terminate(); join()` returns, also where the signal comes right after the fork."""
    assert result(await bench.run(pool, jobs.ends_a_process)) == -signal.SIGTERM


async def test_a_job_leaves_a_busy_pool(bench, pool):
    """The end of `with multiprocessing.Pool()` terminates what still runs, and joins it."""
    assert result(await bench.run(pool, jobs.leaves_a_busy_pool)) == "left"


@pytest.mark.parametrize(("how", "code"), [("returns", 0), ("raises", 1), ("queues", 1), ("logs", 0)])
async def test_a_fork_of_a_child_is_not_the_child(bench, pool, how, code):
    """It ends where the job ends, its result and its error go nowhere, and the child goes on."""
    one = make_pool(bench, size=1)
    try:
        outcome = await bench.run(one, jobs.forks, how)
        assert result(outcome) == code
        assert [result(await bench.run(one, jobs.square, n)) for n in (2, 3, 4)] == [4, 9, 16]
        assert (await bench.run(one, jobs.square, 5)).info == outcome.info
        assert (bench.backend.queued, bench.backend.reports) == ([], [])
    finally:
        await one.stop()


async def test_a_fork_of_a_child_in_its_loop_ends(bench, pool):
    """The same in an async job."""
    assert result(await bench.run(pool, jobs.forks_in_a_loop)) == 0
    assert result(await bench.run(pool, jobs.square, 2)) == 4


async def test_what_a_fork_logs_is_printed(bench, caplog):
    """It has no connection for its records; the pipes of the child take its lines, and its error."""
    lines = []
    pool = make_pool(bench, on_log=lambda task, level, text: lines.append((level, text)))
    try:
        await bench.run(pool, jobs.forks, "logs")
        await bench.run(pool, jobs.forks, "raises")
    finally:
        await pool.stop()
    assert lines == [
        (logging.WARNING, "from the fork"),
        (logging.WARNING, "a process that the job forked ended with OSError: no file in the fork"),
    ]


async def test_an_answer_to_another_task_is_refused(bench, pool):
    """The task is charged, the child replaced."""
    outcome = await bench.run(pool, jobs.forges_an_answer)
    assert (outcome.kind, outcome.reason) == (CRASHED, "worker-lost")
    assert "sent an answer to another task (0 in place of" in outcome.error
    assert (await bench.run(pool, jobs.square, 2)).info != outcome.info


async def test_an_answer_that_no_task_waits_for_replaces_the_child(bench):
    """An idle child that answers would otherwise be given two tasks at once."""
    pool = make_pool(bench, size=1)
    try:
        pid = result(await bench.run(pool, jobs.forges_a_later_answer))
        await until(lambda: not running(pid), "the end of the child")
        outcomes = await asyncio.gather(*(bench.run(pool, jobs.works, 0.05) for _ in range(3)))
        assert len({result(outcome) for outcome in outcomes} - {pid}) == 1
    finally:
        await pool.stop()


async def test_a_default_timeout_of_sockets_does_not_reach_children(bench):
    """`socket.setdefaulttimeout()` in a job module; the connection of a child waits as long as it takes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.05)
    pool = make_pool(bench, size=1)
    try:
        pid = result(await bench.run(pool, jobs.works, 0.0))
        await asyncio.sleep(0.3)
        assert result(await bench.run(pool, jobs.works, 0.2)) == pid
    finally:
        socket.setdefaulttimeout(before)
        await pool.stop()


async def test_a_removed_directory_keeps_no_child_from_starting(bench, pool, tmp_path, monkeypatch, caplog):
    """A job in a thread left the worker in a directory that is gone: it goes back to where it started."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(multiprocessing.process, "ORIGINAL_DIR", str(tmp_path))
    assert result(await bench.run(pool, jobs.directory))[0] == str(tmp_path) == os.getcwd()
    assert f"the current directory was removed; this process goes on in {tmp_path}" in caplog.text


async def test_a_child_leaves_a_directory_that_its_job_removed(bench, tmp_path):
    """The next task of the same child has a current directory."""
    pool = make_pool(bench, size=1)
    try:
        before = result(await bench.run(pool, jobs.directory))
        assert (await bench.run(pool, jobs.removes_its_directory, str(tmp_path / "gone"))).kind == OK
        assert result(await bench.run(pool, jobs.directory)) == before
    finally:
        await pool.stop()


async def test_a_log_record_of_a_child_arrives_whole(bench, pool, caplog):
    """Unformatted, with its `extra` and its traceback, though a module of the child has handlers of its own."""
    caplog.set_level(logging.INFO)
    await bench.run(pool, jobs.logs_with_extra)
    (record,) = [record for record in caplog.records if record.name == "lib"]
    assert (record.getMessage(), record.order) == ("of order 12", 12)
    assert record.exc_text.endswith("ValueError: no row")
    assert record.child == record.process != os.getpid()
    assert "printed twice" not in caplog.text


async def test_an_extra_that_is_too_large_is_left_out(bench, pool, caplog):
    """The record itself arrives, and the child goes on."""
    await bench.run(pool, jobs.logs_with_extra, "x" * 60_000, 40)
    (record,) = [record for record in caplog.records if record.name == "lib"]
    assert record.getMessage() == "of order 12"
    assert not hasattr(record, "order")
    assert result(await bench.run(pool, jobs.square, 2)) == 4


async def test_the_fork_server_may_die(bench, pool):
    """The child that runs goes on, and others can be started."""
    _, outcome = bench.start(pool, jobs.works, 0.3)
    pid, parent, *_ = result(await bench.run(pool, jobs.whoami))
    os.kill(parent, signal.SIGTERM)
    assert (await asyncio.wait_for(outcome, DEADLINE)).kind == OK
    assert (await bench.run(pool, jobs.leaves, 1)).kind == CRASHED
    assert (await bench.run(pool, jobs.leaves, 1)).kind == CRASHED
    assert (await bench.run(pool, jobs.square, 2)).kind == OK
    assert running(pid) is False


# ------------------------------------------------------------------------------------ start and stop
async def test_nothing_is_started_before_it_is_needed(bench):
    """Without work there is no child, unless some were asked to be warm."""
    before = descriptors()
    pool = make_pool(bench)
    await pool.start()
    assert descriptors() == before
    await pool.stop()


async def test_warm_children_are_there_before_the_first_task(bench):
    """The first task finds a child that has imported its job."""
    pool = make_pool(bench, warm=1)
    await pool.start()
    try:
        await until(lambda: len(pool._idle) == 1)
        assert (await bench.run(pool, jobs.square, 2)).kind == OK
    finally:
        await pool.stop()


async def test_stop_releases_everything(bench, tmp_path):
    """Running and waiting tasks are released, all children end, no descriptor stays open."""
    warm_up = make_pool(bench)
    await bench.run(warm_up, jobs.square, 1)
    await warm_up.stop()
    before = descriptors()
    pool = make_pool(bench)
    idle = (await bench.run(pool, jobs.square, 1)).info["pid"]
    started = [bench.start(pool, jobs.forever, str(tmp_path / "mark"))[1] for _ in range(3)]
    (busy,) = await pids_in(tmp_path / "mark")
    await pool.stop()
    assert [outcome.result().kind for outcome in started] == [RELEASED] * 3
    await until(lambda: not running(idle) and not running(busy))
    await until(lambda: descriptors() == before, f"{descriptors()} descriptors going down to {before}")
    assert multiprocessing.active_children() == []


async def test_crashes_and_kills_leak_nothing(bench, pool):
    """After twenty dead children there are as many descriptors and processes as before."""
    await asyncio.gather(*(bench.run(pool, jobs.works, 0.01) for _ in range(2)))
    await until(lambda: len(pool._idle) == 2)
    before = descriptors()
    for n in range(20):
        await bench.run(pool, *((jobs.leaves, n) if n % 2 else (jobs.kills_itself,)))
    await until(lambda: len(pool._idle) == 2 and not pool._dying)
    await until(lambda: descriptors() == before, f"{descriptors()} descriptors going down to {before}")
    assert len(multiprocessing.active_children()) == 2


async def test_a_child_has_few_descriptors(bench, pool):
    """Nothing of the parent is open in it: the connection, three standard ones, and those of multiprocessing."""
    with open(__file__), open(__file__):
        assert len(result(await bench.run(pool, jobs.descriptors))) < 15


async def test_a_child_is_replaced_after_its_tasks(bench):
    """With `max_tasks_per_child` no child runs more."""
    pool = make_pool(bench, size=1, max_tasks_per_child=3)
    try:
        pids = [(await bench.run(pool, jobs.square, n)).info["pid"] for n in range(7)]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
        await until(lambda: not running(pids[0]))
    finally:
        await pool.stop()


async def test_children_that_are_not_needed_end_but_for_one(bench, tmp_path):
    """After `idle_time` the second child is gone; the first stays warm, and more come when there is work."""
    pool = make_pool(bench, idle_time=0.2)
    try:
        for place in ("here", "there"):
            (tmp_path / place).mkdir()
        here, there = str(tmp_path / "here"), str(tmp_path / "there")
        both = await asyncio.gather(*(bench.run(pool, jobs.meets, here, 2) for _ in range(2)))
        first, second = (outcome.info["pid"] for outcome in both)
        await until(lambda: len(pool._children) == 1 and not pool._dying)
        assert sum(map(running, (first, second))) == 1
        assert pool.capacity() == 2
        (kept,) = pool._children
        assert (await bench.run(pool, jobs.square, 3)).info == {"pid": kept.pid}
        again = await asyncio.gather(*(bench.run(pool, jobs.meets, there, 2) for _ in range(2)))
        assert len({outcome.info["pid"] for outcome in again}) == 2
    finally:
        await pool.stop()
    assert not pool._children


async def test_a_child_that_works_is_never_retired(bench):
    """Only those that rest count, however long a task takes."""
    pool = make_pool(bench, idle_time=0.1)
    try:
        long = [bench.start(pool, jobs.works, 0.5)[1] for _ in range(2)]
        assert [(await outcome).kind for outcome in long] == [OK, OK]
    finally:
        await pool.stop()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import no_such_module_anywhere", "no_such_module_anywhere"),
        ("import sys; sys.exit('not today')", "not today"),
        ("import os; os._exit(9)", "ended with exit code 9 before it could run a job"),
    ],
)
async def test_modules_that_cannot_be_imported_fail_the_task(bench, tmp_path, monkeypatch, source, text):
    """With the reason; and the pool pauses before it tries again."""
    (tmp_path / "broken_jobs.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = make_pool(bench, task_paths=["broken_jobs"])
    try:
        outcome = await bench.run(pool, jobs.square, 2)
        assert (outcome.kind, outcome.reason) == (FAILED, "import-failed")
        assert text in outcome.error
        assert pool.capacity() == 0
    finally:
        await pool.stop()


async def test_the_pool_recovers_when_the_modules_are_mended(bench, tmp_path, monkeypatch):
    """Every new child imports the modules again."""
    monkeypatch.setattr(cpu_bound, "FIRST_PAUSE", 0.05)
    path = tmp_path / "mended_jobs.py"
    path.write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = make_pool(bench, task_paths=["mended_jobs"])
    try:
        assert "ZeroDivisionError" in (await bench.run(pool, jobs.square, 2)).error
        path.write_text(
            "from execution_jobs import square\nfrom pq.model.decorator import job\n\n@job()\ndef other(self):\n    return 1\n"
        )
        task = Task("t", "other", call=MSGPACK.dumps([[], {}]))
        _, outcome = bench.launch(pool, task, jobs.square.job_class)
        assert result(await asyncio.wait_for(outcome, DEADLINE)) == 1
    finally:
        await pool.stop()


async def test_no_descriptors_for_a_child_costs_the_task_nothing(bench, monkeypatch):
    """A lack of descriptors is not an error of the task: the task is released, and the pool pauses."""
    pool = make_pool(bench)

    def refuse():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("pq.execution.child_process.socket.socketpair", refuse)
    assert (await bench.run(pool, jobs.square, 2)).kind == RELEASED
    assert pool.capacity() == 0
    await pool.stop()


async def test_modules_whose_import_does_not_end(bench, tmp_path, monkeypatch):
    """A child that does not become ready is killed; the error of the task that waited for it has the reason."""
    monkeypatch.setattr("pq.execution.child_process.READY_TIME", 0.3)
    (tmp_path / "slow_jobs.py").write_text("import time; time.sleep(60)")
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = make_pool(bench, task_paths=["slow_jobs"])
    outcome = await bench.run(pool, jobs.square, 2)
    assert "did not import its modules within 0.3 s" in outcome.error
    await pool.stop()


async def test_an_idle_child_that_was_killed_costs_no_task(bench, pool):
    """The next task finds it dead and goes to another."""
    pid = (await bench.run(pool, jobs.square, 1)).info["pid"]
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists():  # until the fork server has reaped it; the loop does not notice
        time.sleep(0.001)
    outcome = await bench.run(pool, jobs.square, 2)
    assert (outcome.kind, result(outcome)) == (OK, 4)


# ------------------------------------------------------------------------------------- other loops
def test_it_works_on_uvloop():
    """The loop of a production worker: run, crash, time out, stop."""

    async def main():
        bench = Bench()
        pool = make_pool(bench)
        await pool.start()
        kinds = [(await bench.run(pool, jobs.square, 2)).kind, (await bench.run(pool, jobs.segfaults)).kind]
        kinds.append((await bench.run(pool, jobs.forever, timeout=0.05)).kind)
        kinds.append((await bench.run(pool, jobs.floods, 1_000_000)).kind)
        await pool.stop()
        return kinds

    assert uvloop.run(main()) == [OK, CRASHED, TIMED_OUT, OK]


PARENT = """
import asyncio, multiprocessing, os, sys

def work(folder):
    sys.path.insert(0, {tests!r})
    import execution_jobs as jobs
    from execution_bench import Bench
    from pq.execution.cpu_bound import CpuBound

    async def main():
        bench = Bench()
        pool = CpuBound(task_paths=["execution_jobs"], app_name="app", settings={{}}, size=2, backend=bench.backend)
        await bench.run(pool, jobs.square, 2)
        bench.start(pool, jobs.forever, folder + "/busy")
        bench.start(pool, jobs.starts_a_program, folder + "/program")
        {then}

    asyncio.run(main())

if __name__ == "__main__":
    {start}
"""
DIRECTLY = "work(sys.argv[1])"
AS_A_WORKER = """
    context = multiprocessing.get_context("forkserver")
    worker = context.Process(target=work, args=(sys.argv[1],))
    worker.start()
    open(sys.argv[1] + "/worker", "w").write(f"{worker.pid}\\n")
    worker.join()
"""


def parent(tmp_path, start, then):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(tests=str(Path(__file__).parent), start=start, then=then))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path])}
    return subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment)


@pytest.mark.parametrize("start", [DIRECTLY, AS_A_WORKER], ids=["a program", "a worker of a supervisor"])
async def test_children_die_with_a_parent_that_is_killed(tmp_path, start):
    """They die while they compute, with the programs that they started, and within a moment."""
    process = parent(tmp_path, start, "await asyncio.sleep(60)")
    try:
        pids = await pids_in(tmp_path / "busy") + await pids_in(tmp_path / "program")
        victim = process.pid if start is DIRECTLY else (await pids_in(tmp_path / "worker"))[0]
        assert all(running(pid) for pid in pids)
        os.kill(victim, signal.SIGKILL)
        await until(lambda: not any(running(pid) for pid in pids))
    finally:
        process.kill()
        process.wait()


async def test_a_program_that_forgets_to_stop_ends_all_the_same(tmp_path):
    """The program does not hang at its exit, and its children do not live on."""
    then = "\n        ".join(
        ["while not (os.path.exists(folder + '/busy') and os.path.exists(folder + '/program')):",
         "    await asyncio.sleep(0.01)"]
    )  # fmt: skip
    process = parent(tmp_path, DIRECTLY, then)
    try:
        pids = await pids_in(tmp_path / "busy") + await pids_in(tmp_path / "program")
        await until(lambda: process.poll() is not None)
        await until(lambda: not any(running(pid) for pid in pids))
    finally:
        process.kill()
        process.wait()
