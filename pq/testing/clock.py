"""The fixture `pq_clock`: the application's clock, moved on by hand."""

from __future__ import annotations

import datetime as dt

from ..errors import InvalidValue
from ..model.names import LIMITS
from ..producer.future import LoopFuture
from .harness import Harness


class ClockInHand:
    """The application's clock: it goes on by itself, and can be moved on."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._harness.clock.time()

    def now(self) -> dt.datetime:
        """The same as a date and time in UTC."""
        return dt.datetime.fromtimestamp(self.time(), dt.UTC)

    def advance(self, seconds: float | dt.timedelta) -> LoopFuture[None]:
        """Move on, from one thing that comes due to the next; resolves when what is due by then has run.

        An attempt that still runs after a second, a real one, is taken to wait for something: time goes on
        without it, and its time-out comes. Raises `InvalidValue`: time does not go back.
        """
        if isinstance(seconds, dt.timedelta):
            seconds = seconds.total_seconds()
        if type(seconds) not in (int, float) or not 0 <= seconds <= LIMITS.delay:
            raise InvalidValue(
                f"advance({seconds!r:.60}), and time moves on by a number of seconds from 0",
                hint="each test begins at the present: advance to what you want to see",
            )
        return self._harness.api.call(self._advance(float(seconds)))

    async def _advance(self, seconds: float) -> None:
        await self._harness.api.broker()  # with the worker, if there is to be one
        await self._harness.advance(seconds)

    def advance_to(self, moment: dt.datetime) -> LoopFuture[None]:
        """The same, to that moment, which has a time zone."""
        if not isinstance(moment, dt.datetime) or moment.tzinfo is None:
            raise InvalidValue(
                f"advance_to({moment!r:.60}) needs a date and time with its zone",
                hint="datetime(2030, 1, 1, 3, tzinfo=UTC)",
            )
        return self.advance(max(0.0, moment.timestamp() - self.time()))
