"""Which api a job is queued to when nobody says it: `addition.queue(a=4)` names none.

The nearest one counts. Within a job it is that of its own worker; within `async with api:` that api; elsewhere
the newest that this program has made of its application. Where the program has made apis of two applications
nothing is guessed: a task in the wrong store is found late.

An api that nobody holds any more, or that was closed, is none.
"""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from typing import TYPE_CHECKING

from ..errors import NoApi
from ..model.backend import TasksApi, current_backend

if TYPE_CHECKING:
    from .producer import Producer

_made: weakref.WeakValueDictionary[int, Producer] = weakref.WeakValueDictionary()
_numbers = itertools.count()
_mutex = threading.Lock()


def register(api: Producer) -> None:
    """A program has made `api`."""
    with _mutex:
        _made[next(_numbers)] = api


def tasks_for(name: str) -> TasksApi:
    """What the job called `name` is queued with. Raises `NoApi`."""
    backend = current_backend.get()
    if backend is not None and not backend.closed:
        return backend.tasks
    apis = open_apis()
    if len(apis) == 1:
        return apis[0].tasks
    if len({_application(api) for api in apis}) > 1:
        gc.collect()  # what was merely forgotten lies about until then
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


def open_apis() -> list[Producer]:
    """The apis that this program holds and has not closed, the oldest first."""
    with _mutex:
        # Numbers only grow, and a dictionary keeps the order of insertion.
        return [api for api in _made.values() if not api.closed]


def _application(api: Producer) -> tuple[str, str]:
    """Two calls of `app()` give two objects, and one application: what counts is where its tasks are."""
    return api.store_url, api.cfg.namespace
