"""The tables. They get all their lines and change what differs; the cursor stays with its line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from ..logs.formatters import escape
from .board import Pane, Row

STYLES = {"red": "red", "yellow": "yellow", "dim": "dim", "bold": "bold", "green": "green"}


def cell(text: str, tint: str | None = None, *, right: bool = False) -> Text:
    """Return a cell's text as it is: text of a task is not markup."""
    return Text(text, style=STYLES.get(tint or "", ""), justify="right" if right else "left", no_wrap=True)


class Table(DataTable[Text]):
    """A pane of the view."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "details"),
        Binding("tab", "app.focus_next", "next pane"),
    ]

    def __init__(self, pane: Pane, **options: Any) -> None:
        super().__init__(cursor_type="row", cell_padding=1, zebra_stripes=False, **options)
        self.pane = pane
        self._shown: list[Row] = []
        self._begun = False

    def on_mount(self) -> None:
        self._begin()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            for number, head in enumerate(self.pane.heads):
                self.add_column(cell(head, right=head in self.pane.right), key=str(number))

    @property
    def selected(self) -> str | None:
        """The key of the line under the cursor."""
        return self._shown[self.cursor_row].key if 0 <= self.cursor_row < len(self._shown) else None

    def show_rows(self, rows: Sequence[Row], title: str) -> None:
        """Show these lines, under that title."""
        self._begin()
        self.border_title = escape(title).replace("[", r"\[")
        if [row.key for row in rows] == [row.key for row in self._shown]:
            self._change(rows)
        else:
            self._replace(rows)
        self._shown = list(rows)

    def _change(self, rows: Sequence[Row]) -> None:
        for line, (row, before) in enumerate(zip(rows, self._shown, strict=True)):
            for column, text in enumerate(row.cells):
                if text != before.cells[column] or row.tint != before.tint:
                    made = cell(text, row.tint, right=self.pane.heads[column] in self.pane.right)
                    self.update_cell_at(Coordinate(line, column), made, update_width=True)

    def _replace(self, rows: Sequence[Row]) -> None:
        selected, line, scroll = self.selected, self.cursor_row, self.scroll_offset.y
        self.clear()
        for row in rows:
            self.add_row(
                *(
                    cell(text, row.tint, right=head in self.pane.right)
                    for text, head in zip(row.cells, self.pane.heads, strict=True)
                ),
                key=row.key,
            )
        keys = [row.key for row in rows]
        line = keys.index(selected) if selected in keys else min(line, len(keys) - 1)
        if line > 0:
            self.move_cursor(row=line, animate=False, scroll=False)
            self.scroll_to(y=scroll, animate=False)
