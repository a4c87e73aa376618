"""Retries: a job that fails at first."""

from pq import api


@api.job(max_retries=3, retry_delay=0.2)
def flaky(self: api.Job, failures: int = 2) -> str:
    """Fail in the first `failures` attempts. All attempts are one task, with one id and one future."""
    attempt = self.task.retry  # from 1
    if attempt <= failures:
        raise ConnectionError(f"no answer in attempt {attempt}")
    return f"done in attempt {attempt}"
