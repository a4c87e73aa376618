"""Read by the type checkers, never run: each of these is wrong, and both checkers must say so.

A comment that ignores an error is itself an error where there is none to ignore.
"""

from __future__ import annotations

from typing import assert_type

from right_calls import Addition, addition, area, asynchronous, bare, bare_with_job

from pq.api import Producer, TaskFuture


def arguments() -> None:
    addition.queue(c=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    addition.queue(a="4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    addition.queue(1, 2, 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    addition.queue(None, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    asynchronous.queue()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    area.queue(height=2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    bare_with_job.queue(2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    addition.options(delay=2).queue(c=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    bare.options(delay=2).queue()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def options() -> None:
    addition.options(dealy=2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    addition.options(delay="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    addition.options(queue=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    addition.options(max_retries=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    addition.options(2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    addition.queue(delay=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def one_by_one() -> None:
    bare.map(["1"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    bare_with_job.map([1])  # type: ignore[misc, arg-type]  # pyright: ignore[reportAttributeAccessIssue]


def one_api(api: Producer) -> None:
    api.tasks.options(Addition).queue(x=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    api.tasks.options(Addition, dealy=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    api.tasks.options(addition).queue(a="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def results() -> None:
    number: str = (await addition.queue()).get()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    assert_type(addition.queue(), TaskFuture[str])  # type: ignore[assert-type]  # pyright: ignore[reportAssertTypeFailure]
    print(number)
