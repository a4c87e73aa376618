"""Screens over the view: a question, the keys, one task, one worker, the tasks of a queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Static

from ..describe import SHORT, STATUS_TINTS, ago, call_text, facts_of, outcome_text
from ..errors import PqError
from ..logs.formatters import escape
from ..model.events import LogLine
from ..model.task import Task
from ..producer.reasons import Reason
from .board import Pane, Row
from .feed import Feed
from .panes import STYLES, Table

LISTED = 50
"""Tasks of a queue that are listed."""
AGAIN = 2.0
"""Seconds between two looks at what is open."""

KEYS = """\
tab, shift+tab   the next pane, the one before
up, down         another line
enter            details of a task or a worker; tasks of a queue
p                pause or resume the selected queue
r                run the selected failure again
c                cancel the selected task (asks first)
/                only lines with a text; esc shows all again
q                quit

>5 s: it runs for longer than that; its start was not heard."""


class Question(ModalScreen[bool]):
    """Asks before something that cannot be undone."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,enter,q", "answer(False)", "no"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        yield Static(Text(f"{self._question} [y/N]"), id="question")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class Help(ModalScreen[None]):
    """The keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss", "back")]

    def compose(self) -> ComposeResult:
        yield Static(Text(KEYS), id="help")


class Open(Screen[None]):
    """A screen that looks again now and then, until it is left."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "leave", "back")]
    ends = False
    """True once there will be nothing new."""

    def on_mount(self) -> None:
        self.run_worker(self._look_on(), exit_on_error=True)

    async def _look_on(self) -> None:
        while True:
            try:
                await self.look()
            except PqError as exc:
                self.show("said", Text(escape(exc.message), style="red"))
            if self.ends:
                return
            await asyncio.sleep(AGAIN)

    async def look(self) -> None:
        """Show what there is now. Raises `PqError`."""
        raise NotImplementedError

    def show(self, name: str, text: Text) -> None:
        """Put a text there; harmless while the screen is taken down."""
        for place in self.query(f"#{name}").results(Static):
            place.update(text)

    def action_leave(self) -> None:
        self.dismiss(None)


class TaskScreen(Open):
    """All that is known of a task: what `pq status` shows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "act('retry')", "retry"),
        Binding("c", "act('cancel')", "cancel"),
    ]

    def __init__(self, feed: Feed, id: str, act: Callable[[str, str, str], Awaitable[None]]) -> None:
        super().__init__()
        self._feed = feed
        self.id_shown = id
        self._act = act
        self._job = ""

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(Text(f"{self.id_shown} …"), id="details")
        yield Static("", id="said")
        yield Footer()

    async def look(self) -> None:
        tasks = self._feed.api.tasks
        task = await tasks.get(self.id_shown)
        if task is None:
            text = Text(f"{self.id_shown} is not in the store any more: results are kept for result_ttl")
            self.ends = True
        else:
            lines, reason = await tasks.log(task.id), None if task.done() else await tasks.why(task.id)
            self._job = task.name
            self._feed.board.complete(task)
            text = details(task, lines, reason)
        self.show("details", text)

    def action_act(self, verb: str) -> None:
        self.app.run_worker(self._act(verb, self.id_shown, self._job))


def details(task: Task[Any], lines: list[LogLine], reason: Reason | None) -> Text:
    """Return the lines of `pq status`."""
    text = Text()
    text.append(escape(task.name), style="bold")
    text.append(f" {escape(task.id)}  ")
    text.append(f"{task.status_string}\n", style=_style(task))
    try:
        facts = facts_of(task)
    except PqError as exc:
        facts = [("unreadable", exc.message)]
    if reason is not None:
        facts.append(("waits", f"{reason.text} [{reason.slug}]"))
        if reason.hint:
            facts.append(("", f"hint: {reason.hint}"))
    for name, told in facts:
        if told:
            text.append(f"  {name:<10} ", style="dim")
            text.append(f"{escape(told)}\n")
    if task.stacktrace:
        text.append("\n" + "\n".join(escape(line) for line in task.stacktrace.rstrip().splitlines()) + "\n")
    if lines:
        text.append("\nlog\n", style="dim")
        for line in lines:
            tint = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow"}.get(line.level, "")
            text.append(
                f"{datetime.fromtimestamp(line.time):%H:%M:%S} {line.level:<8} {escape(line.text)}\n",
                style=tint,
            )
    return text


def _style(task: Task[Any]) -> str:
    return STYLES.get(STATUS_TINTS.get(task.status_string, ""), "")


class FactsScreen(Open):
    """The last heartbeat of a worker."""

    def __init__(self, title: str, facts: Callable[[], dict[str, Any] | None]) -> None:
        super().__init__()
        self._title_text = title
        self._facts = facts

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static("", id="details")
        yield Static("", id="said")
        yield Footer()

    async def look(self) -> None:
        facts = self._facts()
        text = Text()
        text.append(f"{self._title_text}\n", style="bold")
        if facts is None:
            text.append("it does not live any more\n")
        for name, value in (facts or {}).items():
            if name in ("event", "leaving"):
                continue
            told = ago(value) if name == "time" else ", ".join(value) if name == "queues" else f"{value}"
            text.append(f"  {name:<12} ", style="dim")
            text.append(f"{escape(told)}\n")
        self.show("details", text)


class QueueScreen(Open):
    """The tasks of a queue: running, waiting, recently ended."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "act('retry')", "retry"),
        Binding("c", "act('cancel')", "cancel"),
    ]

    def __init__(
        self,
        feed: Feed,
        queue: str,
        act: Callable[[str, str, str], Awaitable[None]],
        details: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._feed = feed
        self._queue_name = queue
        self._act = act
        self._details = details
        self._names: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        pane = Pane("tasks", f"Queue {self._queue_name}", ("ID", "JOB", "STATUS", "SINCE", "ATTEMPT", ""))
        with Vertical():
            yield Table(pane, id="tasks")
        yield Static("", id="said")
        yield Footer()

    async def look(self) -> None:
        found = await self._feed.api.tasks.search(queue=self._queue_name, count=LISTED)
        self._names = {task.id: task.name for task in found}
        rows = [
            Row(
                task.id,
                (
                    escape(task.id[:SHORT]), escape(task.name), task.status_string,
                    ago(task.time_ended or task.time_started or task.time_queued),
                    f"{task.retry}/{(task.max_retries or 0) + 1}",
                    escape((outcome_text(task) or call_text(task))[:300]),
                ),
                STATUS_TINTS.get(task.status_string),
            )
            for task in found
        ]  # fmt: skip
        count = f"{len(rows)}+" if len(rows) == LISTED else f"{len(rows)}"
        for table in self.query(Table):
            table.show_rows(rows, f"Queue {self._queue_name} ({count})")

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if event.row_key.value is not None:
            self._details(event.row_key.value)

    def action_act(self, verb: str) -> None:
        id = self.query_one(Table).selected
        if id is not None:
            self.app.run_worker(self._act(verb, id, self._names.get(id, "")))
