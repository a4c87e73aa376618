"""One frame as plain text: `pq top --once`."""

from __future__ import annotations

from .board import PANES, Board, Pane, Row

NOTHING = {
    "queues": "no queue was used yet",
    "workers": "no worker is running; start one: pq -w 2",
    "running": "nothing runs",
    "failures": "nothing failed",
}
"""The text of an empty pane."""


def frame(board: Board, width: int = 10_000) -> str:
    """All panes, one below the other; lines are cut at `width`."""
    lines = [" · ".join([f"pq top · {board.store}", *board.counts()])]
    for pane in PANES:
        rows = board.rows(pane.name)
        lines += (
            ["", f"{pane.title}: {NOTHING[pane.name]}"]
            if not rows
            else ["", board.title(pane, len(rows)), *_table(pane, rows)]
        )
    return "".join(f"{line if len(line) <= width else line[: width - 1] + '…'}\n" for line in lines)


def _table(pane: Pane, rows: list[Row]) -> list[str]:
    """Columns as wide as they must be."""
    lines = [pane.heads, *(row.cells for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(pane.heads))]
    made = []
    for line in lines:
        cells = [
            f"{cell:>{width}}" if head in pane.right else f"{cell:<{width}}"
            for cell, width, head in zip(line, widths, pane.heads, strict=True)
        ]
        made.append("  ".join(cells).rstrip())
    return made
