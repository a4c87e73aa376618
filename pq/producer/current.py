"""Which api a job is queued to when none is named: `addition.queue(a=4)` names none.

The nearest one counts. Within a job it is that of its own worker; within `async with api:` that api; elsewhere
the newest that this program has made of its application. Where the program has made apis of two applications
nothing is guessed: a task in the wrong store is found late.

An api that was closed, or that the program does not hold any more, does not count.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import weakref
from collections.abc import Awaitable, Sequence
from typing import Protocol

from ..config import Settings
from ..errors import NoApi
from ..model.backend import TasksApi, current_backend


class Api(Protocol):
    """An api that a program has made: which store it is for, and what a test does with it at its end."""

    closed: bool

    @property
    def cfg(self) -> Settings:
        """The settings of its application."""
        ...

    @property
    def tasks(self) -> TasksApi:
        """The tasks producer."""
        ...

    @property
    def store_url(self) -> str:
        """The URL of its store."""
        ...

    @property
    def where(self) -> str:
        """The same without a password."""
        ...

    def loops(self) -> Sequence[asyncio.AbstractEventLoop]:
        """Return the loops that it works in."""
        ...

    async def sent(self) -> None:
        """Wait until all that was queued in the running loop is in the store."""

    def close(self) -> Awaitable[None]:
        """Send what is left and release everything."""
        ...


_made: weakref.WeakValueDictionary[int, Api] = weakref.WeakValueDictionary()
_numbers = itertools.count()
_mutex = threading.Lock()


def register(api: Api) -> None:
    """Note an api that the program has made. It is held weakly."""
    with _mutex:
        _made[next(_numbers)] = api


def tasks_for(name: str) -> TasksApi:
    """Return the tasks producer that the job called `name` is queued with. Raises `NoApi`."""
    backend = current_backend.get()
    if backend is not None and not backend.closed:
        return backend.tasks
    apis = open_apis()
    if len(apis) == 1:
        return apis[0].tasks
    if len({_application(api) for api in apis}) > 1:
        gc.collect()  # an api that is merely forgotten stays until then
        apis = open_apis()
    applications = {_application(api): api for api in apis}
    if not applications:
        raise NoApi(f"there is no api to queue {name} to", hint="make one, and keep it: api = app().api()")
    if len(applications) > 1:
        names = " and ".join(f"{api.cfg.namespace!r} at {api.where}" for api in applications.values())
        raise NoApi(
            f"{name} could go to {len(applications)} applications: {names}",
            hint=f"name the api: api.tasks.options({name}).queue(…), or queue it within `async with api:`",
        )
    return apis[-1].tasks


def open_apis() -> list[Api]:
    """Return the apis that this program holds and has not closed, the oldest first."""
    with _mutex:
        # Numbers only grow, and a dictionary keeps the order of insertion.
        return [api for api in _made.values() if not api.closed]


def _application(api: Api) -> tuple[str, str]:
    """Two calls of `app()` give two objects, and one application: what counts is where its tasks are."""
    return api.store_url, api.cfg.namespace
