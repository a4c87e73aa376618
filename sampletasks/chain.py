"""A job that queues others, and waits for their results."""

from pq import api


@api.job()
async def sum_of_squares(self: api.Job, numbers: list[float]) -> float:
    """Queue one task for each number and add up their results.

    While it waits it occupies one of the worker's `concurrent_tasks`, but no thread or process.
    """
    futures = [self.queue("square", number=number) for number in numbers]
    squares: list[float] = [(await future).get() for future in futures]
    return sum(squares)


@api.job()
def square(self: api.Job, number: float) -> float:
    """Square a number. `self.task.meta['from_task']` is the id of the task that queued this one."""
    return number * number
