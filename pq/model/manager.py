"""The hooks of an application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Manager:
    """Subclass it and pass the class to `PulsarQueue(Manager, …)`; one is made in every process.

    `backend` is the program around it, `backend.node_name` its server, `cfg` its settings.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    @property
    def cfg(self) -> Any:
        """The settings of the program, frozen."""
        return self.backend.cfg

    def queues(self) -> list[str]:
        """Return the queues that a worker takes from, in order of preference: the node's own, then `task_queues`."""
        return [self.backend.node_name, *self.cfg.task_queues]

    async def store_message(self, message: Any) -> None:
        """Called when a task is queued (by its producer), started and finished (by its worker).

        An exception that it raises is logged and stops nothing.
        """

    async def start(self) -> None:
        """Called once before the first task, in each process."""

    async def close(self) -> None:
        """Called once at the end."""

    def http(self) -> Callable[[bool], Any] | None:
        """Return a factory for the HTTP clients of jobs (`self.http`); None for the default one.

        It is called with True for a blocking client, with False for an async one, once for each kind; they
        are closed at the end. Child processes have no manager: process jobs get the default client.
        """
        return None
