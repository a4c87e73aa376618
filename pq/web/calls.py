"""The calls over HTTP: a table, each call with plain data in and plain data out.

Both faces, JSON-RPC and the resource-like one, go through this table, so they cannot differ. Arguments are
checked by the api itself; here only their names are.
"""

from __future__ import annotations

import base64
import datetime as dt
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ..errors import BadArguments, PqError, did_you_mean
from ..model.task import Task
from ..producer.producer import Producer

Call = Callable[..., Awaitable[Any]]


class NoSuchCall(PqError):
    """A call of that name does not exist."""

    slug = "no-such-call"


class NoSuchTask(PqError):
    """A task of that id does not exist, or its result is no longer kept."""

    slug = "no-such-task"


class Calls:
    """The calls on one api."""

    def __init__(self, api: Producer) -> None:
        self._api = api
        self.table: Mapping[str, Call] = {
            "job_list": self.job_list,
            "queue": self.queue,
            "get": self.get,
            "cancel": self.cancel,
            "retry": self.retry,
            "search": self.search,
            "log": self.log,
            "why": self.why,
            "next_scheduled": self.next_scheduled,
            "schedules": self.schedules,
            "queues": self.queues,
            "workers": self.workers,
            "consumers": self.workers,  # the name of version 0.1
        }

    async def call(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Do a call by its name (`tasks.queue` and `queue` are the same). Raises `PqError`."""
        call = self.table.get(name.removeprefix("tasks."))
        if call is None:
            raise NoSuchCall(
                f"unknown call {name!r}",
                hint=did_you_mean(name, self.table) or "the calls are " + ", ".join(self.table),
            )
        signature = inspect.signature(call)
        stray = [key for key in kwargs if key not in signature.parameters]
        if stray:
            raise BadArguments(
                f"{name} has no parameter {stray[0]!r}",
                hint=did_you_mean(stray[0], signature.parameters)
                or f"it is {name}({', '.join(signature.parameters)})",
            )
        try:
            signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise BadArguments(f"{name}({', '.join(signature.parameters)}): {exc}") from None
        return await call(*args, **kwargs)

    # ------------------------------------------------------------------------------------ the table
    async def job_list(self, jobnames: list[str] | None = None) -> Any:
        """All jobs with what is known of them."""
        return [[name, plain(facts)] for name, facts in self._api.tasks.job_list(_names(jobnames))]

    async def queue(
        self,
        job: str,
        args: list[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        delay: float | None = None,
        queue: str | None = None,
        timeout: float | None = None,
        meta_params: dict[str, Any] | None = None,
        wait: bool | float = False,
    ) -> Any:
        """Queue a task; with `wait` (True, or seconds) answer when it is done."""
        args, kwargs = [] if args is None else args, {} if kwargs is None else kwargs
        if not isinstance(job, str) or not isinstance(args, list) or not isinstance(kwargs, dict):
            raise BadArguments("job is a text, args a list and kwargs an object")
        options = {"delay": delay, "queue": queue, "timeout": timeout, "meta_params": meta_params}
        (future,) = self._api.tasks.queue_many([(job, args, kwargs)], callback=False, **options)
        task = await future
        if wait is not False and wait is not None:
            task = await self._ended(task, None if wait is True else wait)
        return task_facts(task)

    async def _ended(self, task: Task[Any], seconds: Any) -> Task[Any]:
        import asyncio

        if seconds is not None and (type(seconds) not in (int, float) or not 0 <= seconds <= 3600):
            raise BadArguments("wait is true, or a number of seconds up to 3600")
        future = task.done_callback
        try:
            async with asyncio.timeout(seconds):
                ended: Task[Any] = await future
                return ended
        except TimeoutError:
            return (await self._api.tasks.get(task.id)) or task

    async def get(self, id: str) -> Any:
        """A task as it stands."""
        return task_facts(await self._task(id))

    async def _task(self, id: str) -> Task[Any]:
        task = await self._api.tasks.get(id)
        if task is None:
            raise NoSuchTask(f"no task {id}", hint="the id is wrong, or its result is no longer kept")
        return task

    async def cancel(self, id: str) -> Any:
        """Stop a task; false when it is finished."""
        await self._task(id)
        return await self._api.tasks.cancel(id)

    async def retry(self, id: str) -> Any:
        """Run a finished task again; false when it runs or waits."""
        await self._task(id)
        return await self._api.tasks.retry(id)

    async def search(
        self,
        status: str | None = None,
        queue: str | None = None,
        job: str | None = None,
        text: str | None = None,
        since: float | None = None,
        count: int = 50,
    ) -> Any:
        """Tasks as they stand now."""
        if text is not None:
            text = str(text)  # in an address a number is one, and here it is looked for
        found = await self._api.tasks.search(
            status, queue=queue, job=job, text=text, since=since, count=count
        )
        return [task_facts(task) for task in found]

    async def log(self, id: str) -> Any:
        """The log lines of a task."""
        return [line._asdict() for line in await self._api.tasks.log(id)]

    async def why(self, id: str) -> Any:
        """Why a task waits, or null."""
        reason = await self._api.tasks.why(id)
        return None if reason is None else reason._asdict()

    async def next_scheduled(self, jobnames: list[str] | None = None) -> Any:
        """The periodic job that comes next, and the seconds to it; or null."""
        found = self._api.tasks.next_scheduled(_names(jobnames))
        return None if found is None else list(found)

    async def schedules(self) -> Any:
        """All that is scheduled."""
        infos = await self._api.tasks.schedules()
        return [plain({name: getattr(info, name) for name in info.__slots__}) for info in infos]

    async def queues(self) -> Any:
        """Return the lengths of each queue, and for how many seconds its next task has been ready to start."""
        tasks = self._api.tasks
        states = await tasks.queue_states()
        late = await tasks.latency(*states) if states else {}
        return {name: {**state._asdict(), "latency": round(late[name], 3)} for name, state in states.items()}

    async def workers(self) -> Any:
        """Return the live workers."""
        return plain(await self._api.tasks.workers())


def _names(given: Any) -> list[str] | None:
    """Return the names of a request: a list, or one name."""
    if isinstance(given, str):
        return [given]
    if given is not None and not (isinstance(given, list) and all(isinstance(name, str) for name in given)):
        raise BadArguments("jobnames is a list of names")
    return given


def task_facts(task: Task[Any]) -> dict[str, Any]:
    """A task as plain data; one whose arguments cannot be read, without them."""
    try:
        facts = task.tojson()
    except PqError:
        facts = {"id": task.id, "name": task.name, "queue": task.queue, "status": task.status}
        facts["status_string"] = task.status_string
    told: dict[str, Any] = plain(facts)
    return told


def plain(value: Any) -> Any:
    """`value` in what JSON has; dates as ISO 8601, bytes in base 64, sets as lists, the rest as text."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)
