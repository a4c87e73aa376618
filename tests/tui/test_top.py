"""`pq top`: the view of a real store and a real worker, the keys, and the behaviour without a store."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from stores import Hand
from textual.pilot import Pilot
from textual.widgets import Static

from pq import api as pq
from pq import cli
from pq.broker.contract.values import QueueState
from pq.errors import StoreRefused
from pq.model.states import FAILURE
from pq.tui.app import Top
from pq.tui.board import SILENT, Board
from pq.tui.feed import Feed
from pq.tui.frame import frame
from pq.tui.panes import Table
from pq.worker.worker import Worker

gate: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    gate.clear()
    monkeypatch.setattr("pq.tui.screens.AGAIN", 0.1)


@pq.job()
def addition(a: int = 0, b: int = 0) -> int:
    return a + b


@pq.job()
async def held(self: pq.Job, name: str = "one") -> str:
    self.logger.warning("a line of its log")
    self.progress(1, 4, "begun")
    await gate.setdefault(name, asyncio.Event()).wait()
    self.progress(3, 4, "nearly")
    await gate.setdefault(f"{name} end", asyncio.Event()).wait()
    return "released"


@pq.job()
def breaks(what: str = "it") -> None:
    if not gate.get("mended"):
        raise ValueError(f"[bold]{what}[/bold] is broken\nreally")


@pytest.fixture
def app(valkey: Any) -> pq.PulsarQueue:
    return pq.PulsarQueue(data_store=valkey.url, task_paths=[__name__], node_name="here")


@pytest.fixture
async def api(app: pq.PulsarQueue) -> AsyncIterator[pq.Producer]:
    async with app.api() as producer:
        yield producer


@pytest.fixture
async def worker(app: pq.PulsarQueue) -> AsyncIterator[Worker]:
    worker = app.worker()
    await worker.start()
    yield worker
    await worker.stop(grace=0.0)


class View(NamedTuple):
    """The program, and the keyboard."""

    top: Top
    pilot: Pilot[Any]

    def cells(self, pane: str) -> list[list[str]]:
        """The lines of a pane, as they are on the screen."""
        table = self.top.screen_stack[0].query_one(f"#{pane}", Table)
        return [[cell.plain for cell in table.get_row_at(n)] for n in range(table.row_count)]

    def text(self, name: str) -> str:
        """Return the text of a line: `head`, `said`, `details`, `question`."""
        return str(self.top.screen.query_one(f"#{name}", Static).render())

    def screen(self) -> str:
        """All that is on the screen."""
        lines = self.top.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in line) for line in lines)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)
                await self.pilot.pause()

    async def go_to(self, pane: str) -> None:
        self.top.query_one(f"#{pane}").focus()
        await self.pilot.pause()


@contextlib.asynccontextmanager
async def viewed(api: pq.Producer, size: tuple[int, int] = (80, 24)) -> AsyncIterator[View]:
    feed = Feed(api, Board(), interval=0.1)
    await feed.start()
    top = Top(feed)
    try:
        async with top.run_test(size=size) as pilot:
            yield View(top, pilot)
    finally:
        feed.stop()


@pytest.fixture
async def view(api: pq.Producer) -> AsyncIterator[View]:
    async with viewed(api) as made:
        yield made


# ------------------------------------------------------------------------------------------- what is shown
async def test_a_task_appears_its_bar_moves_and_it_goes(api: pq.Producer, worker: Worker, view: View) -> None:
    """The events of a task move its row."""
    task = await api.tasks.queue("held", callback=False)
    await view.until(lambda: view.cells("running"))
    await view.until(lambda: "25 % begun" in view.cells("running")[0][-1])
    (row,) = view.cells("running")
    assert row[:3] == [task.id[:9], "held", "default"]
    assert row[3][0] != ">"  # its start was heard
    assert row[4] == "━━━·········" + " 25 % begun"
    gate.setdefault("one", asyncio.Event()).set()
    await view.until(lambda: "75 % nearly" in view.cells("running")[0][-1])
    assert view.cells("running")[0][4].startswith("━" * 9 + "·")
    gate.setdefault("one end", asyncio.Event()).set()
    await view.until(lambda: not view.cells("running"))


async def test_what_ran_before_is_found_by_a_look(api: pq.Producer, worker: Worker) -> None:
    """Without any event: running tasks and their progress; their time is known as a lower bound."""
    task = await api.tasks.queue("held", callback=False)
    async with asyncio.timeout(20):
        while (await api.tasks.get(task.id)).run_info.get("progress") is None:
            await asyncio.sleep(0.01)
    async with viewed(api) as view:
        await view.until(lambda: view.cells("running"))
        (row,) = view.cells("running")
        assert row[0] == task.id[:9]
        assert row[3].startswith(">")
        assert "25 % begun" in row[4]
        await view.until(lambda: "1 running" in view.text("head"))
    gate.setdefault("one", asyncio.Event()).set()
    gate.setdefault("one end", asyncio.Event()).set()


async def test_queues_and_workers(api: pq.Producer, worker: Worker, view: View) -> None:
    """The queues with their lengths and workers, and the workers."""
    await api.tasks.queue("addition", a=1, queue="low", callback=False)
    await api.tasks.queue("addition", a=1, delay=600, callback=False)
    rows = [
        ["default", "0", "1", "0", "0", "0", ""],
        ["here", "0", "0", "0", "0", "0", ""],
        ["low", "1", "0", "0", "0", "0", "no worker"],
    ]
    await view.until(lambda: view.cells("queues") == rows)
    (row,) = view.cells("workers")
    assert row[:4] == ["here", "w1", str(os.getpid()), "0/100"]
    assert row[-1] == "here, default"
    await view.until(lambda: "2 waiting" in view.text("head"))
    assert "1 worker · 0 running" in view.text("head")
    assert "Valkey" in view.text("head")


async def test_the_rate_counts_what_is_done(api: pq.Producer, worker: Worker, view: View) -> None:
    """Finished tasks a second, over the last seconds."""
    assert "0.0 done/s" in view.text("head")
    await api.tasks.map("addition", range(40))
    await view.until(lambda: re.search(r"[1-9]\d* done/s|[1-9]\.\d done/s", view.text("head")))


async def test_failures_are_newest_first_and_no_markup(api: pq.Producer, worker: Worker, view: View) -> None:
    """The first line of their error, as it is."""
    first = await api.tasks.queue("breaks", what="one")
    second = await api.tasks.queue("breaks", what="two")
    await view.until(lambda: len(view.cells("failures")) == 2)
    rows = view.cells("failures")
    assert [row[0] for row in rows] == [second.id[:9], first.id[:9]]
    assert rows[0][4:] == ["1/1", "ValueError: [bold]two[/bold] is broken"]
    async with viewed(api) as later:  # and who comes later finds them in the dead set
        assert [row[0] for row in later.cells("failures")] == [second.id[:9], first.id[:9]]


async def test_the_cursor_stays_with_its_line(api: pq.Producer, worker: Worker, view: View) -> None:
    """New failures come in above; the selected row stays selected."""
    first = await api.tasks.queue("breaks", what="one")
    await view.until(lambda: view.cells("failures"))
    await view.go_to("failures")
    for _ in range(3):
        await api.tasks.queue("breaks")
    await view.until(lambda: len(view.cells("failures")) == 4)
    table = view.top.query_one("#failures", Table)
    assert (table.cursor_row, table.selected) == (3, first.id)


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
async def test_all_panes_fit(api: pq.Producer, worker: Worker, size: tuple[int, int]) -> None:
    """On a small terminal one below the other, on a wide one side by side."""
    await api.tasks.queue("breaks")
    await api.tasks.queue("held", callback=False)
    async with viewed(api, size) as view:

        def fits() -> bool:
            lines = view.screen().splitlines()
            titles = ("Queues (2)", "Workers (1)", "Running (1)", "Failures (1)")
            places = [n for title in titles for n, line in enumerate(lines) if title in line]
            words = all(word in view.screen() for word in ("ValueError", "25 % begun", "here, default"))
            rows = 4 if size[0] == 80 else 2
            return words and (len(lines), len(places), len(set(places))) == (size[1], 4, rows)

        await view.until(fits)
        await view.until(lambda: "q quit" in view.screen().splitlines()[-1])
    gate.setdefault("one", asyncio.Event()).set()
    gate.setdefault("one end", asyncio.Event()).set()


# ---------------------------------------------------------------------------------------------------- keys
async def test_p_pauses_a_queue_and_lets_it_go_on(api: pq.Producer, worker: Worker, view: View) -> None:
    """The selected one, really."""
    await api.tasks.queue("addition")
    await view.until(lambda: view.cells("queues"))
    await view.pilot.press("p")
    await view.until(lambda: view.cells("queues")[0][-1] == "paused")
    assert (await api.tasks.queue_states())["default"].paused
    assert "queue default is paused" in view.text("said")
    await view.pilot.press("p")
    await view.until(lambda: view.cells("queues")[0][-1] == "")
    assert not (await api.tasks.queue_states())["default"].paused


async def test_c_cancels_a_task_when_it_is_sure(api: pq.Producer, worker: Worker, view: View) -> None:
    """It asks; anything but yes is no."""
    future = api.tasks.queue("held")
    await view.until(lambda: view.cells("running"))
    await view.go_to("running")
    await view.pilot.press("c")
    await view.until(lambda: len(view.top.screen_stack) == 2)
    assert view.text("question") == f"Cancel held {future.task.id[:9]}? [y/N]"
    await view.pilot.press("enter")
    await view.until(lambda: view.text("said") == "nothing was done")
    assert (await api.tasks.get(future.task.id)).status_string == "STARTED"
    await view.pilot.press("c")
    await view.until(lambda: len(view.top.screen_stack) == 2)
    await view.pilot.press("y")
    async with asyncio.timeout(20):
        assert (await future).status_string == "REVOKED"
    await view.until(lambda: view.text("said") == f"cancelled: held {future.task.id[:9]}")
    await view.until(lambda: not view.cells("running"))


async def test_r_runs_a_failure_again(api: pq.Producer, worker: Worker, view: View) -> None:
    """The selected one; it leaves the failures and succeeds."""
    task = await api.tasks.queue("breaks")
    await view.until(lambda: view.cells("failures"))
    gate["mended"] = asyncio.Event()
    await view.go_to("failures")
    await view.pilot.press("r")
    await view.until(lambda: view.text("said") == f"queued again: breaks {task.id[:9]}")
    await view.until(lambda: not view.cells("failures"))
    async with asyncio.timeout(20):
        while (await api.tasks.get(task.id)).status_string != "SUCCESS":
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("key", "pane"), [("p", "running"), ("r", "queues"), ("c", "failures")])
async def test_a_key_in_the_wrong_pane_says_what_it_is_for(view: View, key: str, pane: str) -> None:
    """Nothing is done to something that was not meant."""
    await view.go_to(pane)
    await view.pilot.press(key)
    await view.until(lambda: "select one" in view.text("said"))


async def test_an_impossible_act_is_reported(api: pq.Producer, worker: Worker, view: View) -> None:
    """An error is a line with its hint, and the view goes on."""
    await api.tasks.queue("breaks")
    await view.until(lambda: view.cells("failures"))

    def refuse(name: str) -> Any:
        raise StoreRefused("no right to do that", hint="ask who may")

    api.tasks.pause = refuse  # type: ignore[method-assign]
    await view.pilot.press("p")
    await view.until(lambda: view.text("said") == "no right to do that [store-refused] hint: ask who may")


async def test_the_filter(api: pq.Producer, worker: Worker, view: View) -> None:
    """Lines with a text, which may be in arguments and errors; escape shows all again."""
    await api.tasks.queue("breaks", what="green")
    await api.tasks.queue("breaks", what="blue")
    await view.until(lambda: len(view.cells("failures")) == 2)
    await view.pilot.press("slash", *"Blue")
    await view.until(lambda: len(view.cells("failures")) == 1)
    assert "blue" in view.cells("failures")[0][-1]
    assert view.cells("queues") == []
    assert "filter 'Blue'" in view.text("head")
    await view.pilot.press("enter")
    assert view.cells("failures")
    assert not view.cells("queues")
    await view.pilot.press("escape")
    await view.until(lambda: len(view.cells("failures")) == 2 and view.cells("queues"))


async def test_tab_goes_from_pane_to_pane_and_q_ends(view: View) -> None:
    """Queues, workers, running, failures, and round; ? has the keys."""
    seen = []
    for _ in range(5):
        seen.append(view.top.focused.id)
        await view.pilot.press("tab")
    assert seen == ["queues", "workers", "running", "failures", "queues"]
    await view.pilot.press("question_mark")
    await view.until(lambda: "asks first" in view.screen())
    await view.pilot.press("escape", "q")
    assert not view.top.is_running or view.top._exit


# -------------------------------------------------------------------------------------------------- details
async def test_the_details_of_a_failure(api: pq.Producer, worker: Worker, view: View) -> None:
    """The contents of `pq status`; r works there too."""
    task = await api.tasks.queue("breaks", what="pipe")
    await view.until(lambda: view.cells("failures"))
    await view.go_to("failures")
    await view.pilot.press("enter")
    await view.until(lambda: "Traceback" in view.text("details"))
    text = view.text("details")
    for word in (
        task.id,
        "FAILURE",
        "what='pipe'",
        "1 of 1",
        "on w1 of here",
        "ValueError: [bold]pipe[/bold]",
    ):
        assert word in text
    gate["mended"] = asyncio.Event()
    await view.pilot.press("r")
    await view.until(lambda: view.text("said") == f"queued again: breaks {task.id[:9]}")


async def test_the_details_of_a_running_task(api: pq.Producer, worker: Worker, view: View) -> None:
    """Its log, its progress, and its worker, which the record does not have."""
    await api.tasks.queue("held", callback=False)
    await view.until(lambda: view.cells("running"))
    await view.go_to("running")
    await view.pilot.press("enter")
    await view.until(lambda: "a line of its log" in view.text("details"))
    assert "25 % begun" in view.text("details")
    assert "on w1 of here" in view.text("details")
    gate.setdefault("one", asyncio.Event()).set()
    await view.until(lambda: "75 % nearly" in view.text("details"))
    gate.setdefault("one end", asyncio.Event()).set()
    await view.until(lambda: "SUCCESS" in view.text("details"))
    await view.pilot.press("escape")
    assert len(view.top.screen_stack) == 1


async def test_the_tasks_of_a_queue_and_why_one_waits(api: pq.Producer, view: View) -> None:
    """Enter on a queue lists its tasks; enter on one of those shows why it waits. c cancels it, though it never ran."""
    task = await api.tasks.queue("addition", a=4, b=6, callback=False)
    await view.until(lambda: view.cells("queues"))
    await view.pilot.press("enter")
    await view.until(lambda: "a=4 b=6" in view.screen())
    await view.pilot.press("enter")
    await view.until(lambda: "no worker is running [no-worker]" in view.text("details"))
    await view.pilot.press("escape")
    await view.until(lambda: len(view.top.screen_stack) == 2)
    await view.pilot.press("c", "y")
    await view.until(lambda: f"cancelled: addition {task.id[:9]}" in view.text("said"))
    assert (await api.tasks.get(task.id)).status_string == "REVOKED"


async def test_the_details_of_a_worker(worker: Worker, view: View) -> None:
    """Its last heartbeat."""
    await view.go_to("workers")
    await view.pilot.press("enter")
    await view.until(lambda: "worker here w1" in view.text("details"))
    assert re.search(r"queues +here, default", view.text("details"))


# -------------------------------------------------------------------------------------------- a lost store
async def test_a_lost_store_is_said_and_comes_back(
    api: pq.Producer, view: View, valkey: Any, valkey_server: Any
) -> None:
    """Nothing crashes, a key is answered, and the view is right again by itself."""
    await api.tasks.queue("addition", callback=False)
    await view.until(lambda: view.cells("queues"))
    valkey_server.kill()
    try:
        await view.until(lambda: "no sight of the store for" in view.text("head"))
        assert view.cells("queues")[0][0] == "default"  # the last that was known
        assert view.top.query_one("#head").has_class("trouble")
    finally:
        valkey_server.start()  # empty: it keeps nothing
    await view.until(lambda: "no sight" not in view.text("head"))
    await view.until(lambda: not view.cells("queues"))
    await api.tasks.queue("addition", queue="other", callback=False)
    await view.until(lambda: view.cells("queues") and view.cells("queues")[0][0] == "other")


async def test_it_ends_while_the_store_is_lost(api: pq.Producer, valkey_server: Any) -> None:
    """The program does not wait for a store that is away."""
    async with viewed(api) as view:
        valkey_server.kill()
        try:
            await view.until(lambda: "no sight of the store for" in view.text("head"))
            await view.pilot.press("q")
        finally:
            valkey_server.start()
    assert not view.top.is_running


async def test_nothing_is_drawn_once_the_view_is_taken_down(
    api: pq.Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer goes before the view, and the view before the program."""
    monkeypatch.setattr("pq.tui.app.EVERY", 0.001)
    drawn: list[bool] = []
    draw = Top.draw

    def noted(top: Top) -> None:
        drawn.append(bool(top.screen_stack) and len(top.screen_stack[0].query(Table)) == 4)
        draw(top)

    monkeypatch.setattr(Top, "draw", noted)
    async with viewed(api) as view:
        await view.until(lambda: len(drawn) > 5)
    assert all(drawn)


async def test_a_look_costs_the_same_however_many_tasks_there_are(api: pq.Producer, valkey: Any) -> None:
    """The look does not make a command for each task."""
    feed = Feed(api, Board())
    costs = []
    for count in (1, 300):
        await asyncio.gather(
            *api.tasks.queue_many([("addition", {"a": n}) for n in range(count)], callback=False)
        )
        await feed.look()
        before = sum(stat["calls"] for stat in valkey.client.info("commandstats").values())
        await feed.look()
        after = sum(stat["calls"] for stat in valkey.client.info("commandstats").values())
        costs.append(after - before)
    assert costs[0] == costs[1]
    assert feed.board.queues["default"].waiting == 301


# ----------------------------------------------------------------------------------------------- the board
def a_task(id: str = "i1", **facts: Any) -> pq.Task[Any]:
    task: pq.Task[Any] = pq.Task(id, "job", "default", b"\x92\x90\x80")
    for name, value in facts.items():
        setattr(task, name, value)
    return task


def test_a_look_does_not_undo_what_was_heard_since() -> None:
    """A task that ended after the look began does not come back, and one that began since stays."""
    clock = Hand()
    board = Board(clock=clock)
    board.heard("started", a_task("i1"))
    clock.advance(100)
    asked = clock.monotonic()
    clock.advance(100)
    board.heard("done", a_task("i1", status=FAILURE))
    board.heard("started", a_task("i2"))
    board.take_running(["default"], [a_task("i1"), a_task("i3")], asked)
    assert set(board.running) == {"i2", "i3"}
    assert set(board.failures) == {"i1"}
    clock.advance(100)
    board.take_running(["default"], [a_task("i3")], clock.monotonic())
    assert set(board.running) == {"i3"}


def test_late_progress_brings_no_task_back() -> None:
    """The last report of a task may come after its end."""
    board = Board(clock=Hand())
    board.heard("started", a_task())
    board.heard("done", a_task())
    board.heard("progress", a_task())
    assert not board.running
    board.heard("started", a_task(retry=2))
    assert set(board.running) == {"i1"}


def test_a_silent_worker_is_taken_off_but_not_for_the_store_s_silence() -> None:
    """After as long as the store keeps its heartbeat; while the store was away no heartbeat could be heard."""
    clock = Hand()
    board = Board(clock=clock)
    board.beat({"node": "a", "worker": "w1", "pid": 1})
    board.lose("away")
    clock.advance(int(SILENT * 1000) + 1)
    assert board.find()
    board.bury_the_silent()
    assert board.workers
    clock.advance(int(SILENT * 1000) + 1)
    board.bury_the_silent()
    assert not board.workers


def test_the_rate_is_over_the_last_seconds() -> None:
    """Ten tasks in five seconds are two a second, and are forgotten."""
    clock = Hand()
    board = Board(clock=clock)
    assert board.rate == 0.0
    clock.advance(10_000)
    for n in range(10):
        board.heard("done", a_task(f"i{n}"))
    assert board.rate == 2.0
    clock.advance(6000)
    assert board.rate == 0.0


def test_a_title_tells_how_many_there_are_beside_those_that_are_shown() -> None:
    """Fifty lines of a dead set of a thousand: the newest."""
    board = Board(clock=Hand())
    board.take_queues({"default": QueueState(0, 0, 0, 0, 0, 1000, False)})
    board.take_failures([a_task(f"i{n}", status=FAILURE, time_ended=float(n)) for n in range(1000)])
    board.fail(a_task("last", status=FAILURE, time_ended=2000.0))
    keys = [row.key for row in board.rows("failures")]
    assert (keys[:3], len(keys)) == (["last", "i999", "i998"], 50)
    assert "Failures (50 of 1,000)" in frame(board)


def test_no_control_character_gets_through() -> None:
    """The text of a task cannot take over the terminal."""
    board = Board(clock=Hand())
    board.take_queues({"default": QueueState(1, 0, 0, 0, 0, 1, False)})
    board.take_failures([a_task(exception="\x1b[2J gone", name="a\x1bb", status=FAILURE)])
    board.lose("\x1b[2J")
    assert "\x1b" not in frame(board) + (board.alarm() or "")


# ------------------------------------------------------------------------------------------ the verb itself
async def test_once_prints_a_frame(
    app: pq.PulsarQueue,
    api: pq.Producer,
    worker: Worker,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One frame as text, for pipes."""
    monkeypatch.delenv("COLUMNS", raising=False)  # the processes of xdist have it
    failed = await api.tasks.queue("breaks")
    running = await api.tasks.queue("held", callback=False)
    async with asyncio.timeout(20):
        while (await api.tasks.get(running.id)).run_info.get("progress") is None:
            await asyncio.sleep(0.01)
    other = pq.PulsarQueue(**app.kwargs)
    assert await asyncio.to_thread(cli.run, other, ["top", "--once"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^pq top · Valkey .* · 1 worker · 1 running · 0 waiting$", out, re.M)
    assert re.search(r"^default +0 +0 +0 +1 +1$", out, re.M)
    assert re.search(rf"^here +w1 +{os.getpid()} ", out, re.M)
    assert re.search(rf"^{running.id[:9]}  held  default  >.*25 % begun$", out, re.M)
    assert re.search(rf"^{failed.id[:9]}  breaks .*ValueError: \[bold\]it\[/bold\] is broken$", out, re.M)
    gate.setdefault("one", asyncio.Event()).set()
    gate.setdefault("one end", asyncio.Event()).set()


def test_a_frame_of_nothing_says_so_and_is_cut_at_the_edge() -> None:
    """An empty store has a frame too."""
    text = frame(Board(hears=False, store="Valkey"), 40)
    assert text.splitlines()[0] == "pq top · Valkey · 0 workers · 0 running…"
    assert "Failures: nothing failed" in text


@pytest.mark.parametrize("interval", ["0", "0.01", "2m", "soon"])
def test_an_interval_that_makes_no_sense(
    app: pq.PulsarQueue, capsys: pytest.CaptureFixture[str], interval: str
) -> None:
    assert cli.run(app, ["top", "--interval", interval]) == 2
    assert "[usage]" in capsys.readouterr().err


def test_without_a_terminal_it_says_what_to_type(
    app: pq.PulsarQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a pipe there is nothing to draw on."""
    assert cli.run(app, ["top"]) == 2
    said = capsys.readouterr().err
    assert "standard input and output are not a terminal [usage]" in said
    assert "top --once" in said


def on_a_terminal(script: str, type: bytes = b"", at: bytes = b"\0") -> tuple[int, str]:
    """Run a program on a terminal of 80x24; `type` is typed when `at` has appeared. Return its code and its output."""
    pid, terminal = pty.fork()
    if pid == 0:
        env = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)}
        os.execve(sys.executable, [sys.executable, "-c", script], env)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    seen = b""
    while True:
        try:
            more = os.read(terminal, 65536)
        except OSError:  # Linux says so when the other side is gone
            break
        seen += more
        if type and at in seen:
            os.write(terminal, type)
            type = b""
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), seen.decode("utf-8", "replace")


START = """
import sys
from pq import cli
from pq.api import PulsarQueue
sys.exit(cli.run(PulsarQueue(data_store={url!r}), ["top"]))
"""


def test_without_textual_it_says_what_to_install(valkey: Any) -> None:
    """The extra is named, with the command; nothing is drawn."""
    script = 'import sys; sys.modules["textual"] = None\n' + START.format(url=valkey.url)
    code, seen = on_a_terminal(script)
    assert code == 1
    assert "pq top needs textual [extra-needed]" in seen
    assert "pip install 'pq-tasks[tui]'" in seen


def test_once_needs_no_extra(valkey: Any) -> None:
    """Neither textual nor rich is needed."""
    script = 'import sys; sys.modules["textual"] = sys.modules["rich"] = None\n' + START.format(
        url=valkey.url
    )
    code, seen = on_a_terminal(script.replace('["top"]', '["top", "--once"]'))
    assert code == 0, seen
    assert "Failures: nothing failed" in seen


def test_without_a_store_it_says_so_at_once(tmp_path: Path) -> None:
    """Every verb fails the same way, on an untouched terminal."""
    code, seen = on_a_terminal(START.format(url=f"unix://{tmp_path}/none"))
    assert code == 1
    assert "[store-unreachable]" in seen
    assert "\x1b[?1049h" not in seen


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_on_a_real_terminal(valkey: Any, key: bytes) -> None:
    """It draws, q and Ctrl-C end it with 0, and the terminal is as it was."""
    code, seen = on_a_terminal(START.format(url=valkey.url), key, b"nothing failed")
    assert code == 0, seen
    assert seen.rindex("\x1b[?1049l") > seen.rindex("\x1b[?1049h")
