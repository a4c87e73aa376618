"""When periodic jobs run."""

from __future__ import annotations

import datetime as dt


def anchorDate(hour: int = 0, minute: int = 0, second: int = 0) -> dt.datetime:
    """Today at that time of the day: the phase of a periodic job, whose runs are a multiple of
    `run_every` away from it."""
    return dt.datetime.now().replace(hour=hour, minute=minute, second=second, microsecond=0)
