"""The program of `pq top`: four panes, a line that says what a key did, and the keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widgets import DataTable, Footer, Input, Static

from ..describe import SHORT
from ..errors import PqError
from ..logs.formatters import escape
from .board import PANES, Board
from .feed import Feed
from .frame import NOTHING
from .panes import Table
from .screens import FactsScreen, Help, Question, QueueScreen, TaskScreen

EVERY = 0.25
"""Seconds between two frames."""
PATIENCE = 10.0
"""Seconds that what a key asked for may take."""


class Top(App[int]):
    """The live view. `feed` must have started."""

    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (150, "-wide")]  # noqa: RUF012  so textual declares it
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("p", "pause", "pause"),
        Binding("r", "retry", "retry"),
        Binding("c", "cancel", "cancel"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("escape", "all", show=False),
        Binding("question_mark", "help", "help", key_display="?"),
    ]
    CSS = """
    #head { height: 1; width: 100%; text-wrap: nowrap; text-overflow: ellipsis; background: $panel; }
    #head.trouble { background: $error; color: $text; }
    #panes { layout: vertical; height: 1fr; }
    Table { border-top: solid $primary; border-title-color: $text-muted; height: 1fr; overflow-x: hidden;
            background: $background; scrollbar-size-vertical: 1; }
    Table:focus { border-top: heavy $accent; border-title-color: $accent; border-title-style: bold; }
    .-narrow #queues, .-narrow #workers { height: auto; min-height: 3; max-height: 25%; }
    .-wide #panes { layout: grid; grid-size: 2 2; grid-rows: 1fr 2fr; grid-gutter: 0 2; }
    #said { height: 1; width: 100%; text-wrap: nowrap; text-overflow: ellipsis; color: $text-muted; }
    #filter { display: none; height: 1; border: none; padding: 0; }
    #filter.asked { display: block; }
    #question, #help { width: auto; max-width: 90%; height: auto; padding: 1 2; border: round $accent;
                       background: $surface; }
    Question, Help { align: center middle; }
    #details { padding: 0 1; }
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self.feed = feed
        self.board: Board = feed.board

    def compose(self) -> ComposeResult:
        yield Static("", id="head")
        with Container(id="panes"):
            for pane in PANES:
                yield Table(pane, id=pane.name)
        yield Static("", id="said")
        yield Input(placeholder="only lines with this text; enter keeps it, esc shows all", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        self.run_worker(self.feed.run(), exit_on_error=True)
        # A timer of the view, not of the program: it is stopped before anything of the view is taken down.
        self.screen.set_interval(EVERY, self.draw)
        self.draw()
        self.query_one("#queues").focus()

    # ---------------------------------------------------------------------------------- drawing
    def draw(self) -> None:
        """Show what the board says."""
        view = self.screen_stack[0]
        alarm = self.board.alarm()
        words = [alarm] if alarm else [*self.board.counts(), self.board.store]
        if self.board.filter:
            words.insert(0, f"filter {self.board.filter!r}")
        head = view.query_one("#head", Static)
        head.set_class(alarm is not None, "trouble")
        head.update(Text(" · ".join(["pq top", *words])))
        for table in view.query(Table):
            name = table.pane.name
            rows = self.board.rows(name)
            nothing = "no line has that text" if self.board.filter else NOTHING[name]
            title = self.board.title(table.pane, len(rows)) if rows else f"{table.pane.title}: {nothing}"
            table.show_rows(rows, title)

    def say(self, text: str, style: str = "") -> None:
        """A line at the bottom, of the screen that is open."""
        for screen in self.screen_stack:
            for line in screen.query("#said").results(Static):
                line.update(Text(escape(text), style=style))

    # ------------------------------------------------------------------------------------- keys
    def _table(self, *names: str) -> Table | None:
        """The pane with the focus, if it is one of these."""
        focused = self.focused
        return focused if isinstance(focused, Table) and focused.pane.name in names else None

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        self.action_details()

    def action_details(self) -> None:
        table = self._table(*(pane.name for pane in PANES))
        key = table.selected if table is not None else None
        if table is None or key is None:
            return
        if table.pane.name == "queues":
            self.push_screen(QueueScreen(self.feed, key, self.act, self.open_task))
        elif table.pane.name == "workers":
            self.push_screen(FactsScreen(f"worker {key}", lambda: self.board.worker(key)))
        else:
            self.open_task(key)

    def open_task(self, id: str) -> None:
        """The details of a task."""
        self.push_screen(TaskScreen(self.feed, id, self.act))

    def action_pause(self) -> None:
        table = self._table("queues")
        if table is None or table.selected is None:
            self.say("p pauses a queue: select one (tab goes from pane to pane)", "yellow")
            return
        queue, tasks = table.selected, self.feed.api.tasks
        state = self.board.queues.get(queue)
        paused = state is not None and state.paused
        change = tasks.resume if paused else tasks.pause
        said = f"queue {queue} is resumed" if paused else f"queue {queue} is paused; p resumes it"
        self.run_worker(self._do(lambda: change(queue), lambda _: said))

    def action_retry(self) -> None:
        table = self._table("failures")
        if table is None or table.selected is None:
            self.say("r runs a failure again: select one (tab goes from pane to pane)", "yellow")
            return
        task = self.board.failures.get(table.selected)
        self.run_worker(self.act("retry", table.selected, task.name if task else ""))

    def action_cancel(self) -> None:
        table = self._table("running")
        if table is None or table.selected is None:
            self.say("c cancels a task: select one that runs, or enter a queue for those that wait", "yellow")
            return
        one = self.board.running.get(table.selected)
        self.run_worker(self.act("cancel", table.selected, one.task.name if one else ""))

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.add_class("asked")
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.board.filter = event.value
        self.draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._close_filter()

    def _close_filter(self) -> None:
        field = self.query_one("#filter", Input)
        if field.has_class("asked"):
            field.remove_class("asked")
            self.query_one("#running" if self.board.filter else "#queues").focus()

    def action_all(self) -> None:
        self.query_one("#filter", Input).value = ""
        self.board.filter = ""
        self._close_filter()
        self.draw()

    def action_help(self) -> None:
        self.push_screen(Help())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The keys of the view are for the view: not while something is open over it."""
        if action in ("details", "pause", "retry", "cancel", "filter", "all", "help"):
            return len(self.screen_stack) == 1
        return True

    # ------------------------------------------------------------------------------------- acts
    async def act(self, verb: str, id: str, name: str) -> None:
        """Cancel or retry a task, and say what came of it."""
        what = f"{name} {id[:SHORT]}".strip()
        tasks = self.feed.api.tasks
        if verb == "cancel":
            if not await self.push_screen_wait(Question(f"Cancel {what}?")):
                self.say("nothing was done")
                return
            await self._do(
                lambda: tasks.cancel(id),
                lambda ok: f"cancelled: {what}" if ok else f"{what} is finished already",
            )
            return

        async def retry() -> bool:
            # It asks for the limits of the job, whose module may take seconds to be imported.
            await asyncio.to_thread(lambda: self.feed.api.registry)
            again: bool = await tasks.retry(id)
            if again:
                self.board.failures.pop(id, None)
            return again

        await self._do(retry, lambda ok: f"queued again: {what}" if ok else f"{what} runs or waits already")

    async def _do(self, call: Callable[[], Awaitable[Any]], told: Callable[[Any], str]) -> None:
        """Make a call of the api; what came of it, or why it could not be, is said at the bottom."""
        try:
            async with asyncio.timeout(PATIENCE):
                came = await call()
        except TimeoutError:
            self.say(
                "the store does not answer; it is done as soon as the store is back, or not at all", "red"
            )
        except PqError as exc:
            self.say(f"{exc.message} [{exc.slug}]" + (f" hint: {exc.hint}" if exc.hint else ""), "red")
        else:
            self.say(told(came), "" if came is not False else "yellow")
            self.feed.refresh_soon()
