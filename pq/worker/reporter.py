"""The reporter: reports tasks that failed for good, by mail and by web hook.

It delays no task: a failure goes into a bounded queue, and a thread of its own sends the reports. A bug may fail a
thousand tasks a second, and a thousand mails would not be read. So the first failure is sent at once, and those of
the next minute in one digest, with counts by job; failures that do not fit into the queue are counted.

When the mail server or the hook does not answer, that is logged once, and again only after it has worked in
between; the reports are kept, up to a limit. No log line has a password or the path of a hook. Arguments
of tasks are not reported, because they may be secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import smtplib
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ..config import Settings
from ..errors import TaskTimeout
from ..model.ending import Ending
from ..model.observer import TaskObserver
from ..model.operations import FAIL, REVOKE
from ..model.task import Task
from .service import Service

logger = logging.getLogger("pq.worker")

EVERY = 60.0
"""Seconds between two mails, or two calls of the hook."""
MOST_KEPT = 1000
"""Failures that are kept until they are sent."""
SHOWN = 20
"""Failures of a digest that are shown in full; the rest is counted."""
STACK = 4000
"""Characters of a traceback in a report."""
PATIENCE = 10.0
"""Seconds to wait for a mail server or a hook."""
LAST_TIME = 5.0
"""Seconds for the last reports when the worker stops."""


class Failure(NamedTuple):
    """The report of one task."""

    id: str
    name: str
    queue: str | None
    attempt: int
    error: str
    stacktrace: str | None
    time: float | None


class Digest(NamedTuple):
    """The content of one mail, or of one call of the hook."""

    application: str
    worker: str
    node: str
    failures: list[Failure]
    dropped: int

    @property
    def subject(self) -> str:
        """The subject: one line, whatever a job put into its error."""
        total = len(self.failures) + self.dropped
        first = self.failures[0]
        what = f"{first.name} failed: {first.error}" if total == 1 else f"{total} tasks failed on {self.node}"
        return " ".join(f"[{self.application}] {what}".split())[:150]

    @property
    def text(self) -> str:
        lines = [f"{self.subject}", f"worker {self.worker} of {self.node}", ""]
        if len(self.failures) + self.dropped > 1:
            for (name, error), count in Counter((f.name, f.error) for f in self.failures).most_common(50):
                lines.append(f"{count:5} x {name}: {error[:200]}")
            if self.dropped:
                lines.append(f"{self.dropped:5} x not kept: there were too many at once")
            lines.append("")
        for failure in self.failures[:SHOWN]:
            lines.append(f"{failure.name} {failure.id}, queue {failure.queue}, attempt {failure.attempt}")
            lines.append(_middle(failure.stacktrace or failure.error))
            lines.append("")
        if len(self.failures) > SHOWN:
            lines.append(f"… and {len(self.failures) - SHOWN} more")
        return "\n".join(lines)

    def plain(self) -> dict[str, Any]:
        """Return the content for programs."""
        return {
            "application": self.application,
            "worker": self.worker,
            "node": self.node,
            "count": len(self.failures) + self.dropped,
            "dropped": self.dropped,
            "text": self.subject,
            "failures": [
                {**failure._asdict(), "stacktrace": _middle(failure.stacktrace or "")}
                for failure in self.failures[:SHOWN]
            ],
        }


class Outlet:
    """One way to send reports: its queue, its pace, and whether it works."""

    def __init__(self, what: str, send: Callable[[Digest], None], secrets: list[str]) -> None:
        self.what = what
        self.dropped = 0
        self._send = send
        self._secrets = [secret for secret in secrets if secret]
        self._waiting: deque[Failure] = deque()
        self._news = asyncio.Event()
        self._broken = False

    def put(self, failure: Failure) -> None:
        """Queue a failure; never blocks."""
        if len(self._waiting) >= MOST_KEPT:
            self.dropped += 1
            return
        self._waiting.append(failure)
        self._news.set()

    async def run(self, digest: Callable[[list[Failure], int], Digest]) -> None:
        while True:
            await self._news.wait()
            await self.flush(digest)
            await asyncio.sleep(EVERY)

    async def flush(self, digest: Callable[[list[Failure], int], Digest]) -> None:
        """Send the queued failures. Those that cannot be sent stay in the queue."""
        if not self._waiting:
            return
        failures, self._waiting = list(self._waiting), deque()
        dropped, self.dropped = self.dropped, 0
        self._news.clear()
        try:
            await _in_thread(self._send, digest(failures, dropped))
        except Exception as exc:
            self._log(exc)
            kept = [*failures, *self._waiting]
            self._waiting = deque(kept[:MOST_KEPT])
            self.dropped += dropped + max(0, len(kept) - MOST_KEPT)
            self._news.set()
        else:
            if self._broken:
                self._broken = False
                logger.info("reports by %s are sent again", self.what)

    def _log(self, exc: Exception) -> None:
        if self._broken:
            return
        self._broken = True
        text = f"{type(exc).__name__}: {exc}"
        for secret in self._secrets:
            text = text.replace(secret, "***")
        logger.error("failures cannot be reported by %s (logged once): %s", self.what, text)


class Reporter(Service, TaskObserver):
    """A service that sends digests of failures over the outlets that are set up, and the observer that feeds it."""

    name = "reporter"

    def __init__(self, cfg: Settings, *, worker: str, node: str) -> None:
        super().__init__()
        self._cfg = cfg
        self._worker = worker
        self._node = node
        self.outlets = outlets(cfg)

    def started(self, task: Task[Any]) -> None:
        """See `TaskObserver`: the start of a task is not reported."""

    def ended(self, task: Task[Any], ending: Ending) -> None:
        """See `TaskObserver`: report a task that failed or timed out, and is not tried again."""
        if ending.op == FAIL or (ending.op == REVOKE and task.reason == TaskTimeout.slug):
            self.report(task)

    def report(self, task: Task[Any]) -> None:
        """Report that a task failed for good. Never blocks, never raises."""
        failure = Failure(
            task.id, task.name, task.queue, task.retry, task.exception or "it failed", task.stacktrace, task.time_ended
        )  # fmt: skip
        for outlet in self.outlets:
            outlet.put(failure)

    def _digest(self, failures: list[Failure], dropped: int) -> Digest:
        return Digest(self._cfg.name, self._worker, self._node, failures, dropped)

    async def run(self) -> None:
        await asyncio.gather(*(outlet.run(self._digest) for outlet in self.outlets))

    async def stop(self) -> None:
        await super().stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_TIME):
                await asyncio.gather(*(outlet.flush(self._digest) for outlet in self.outlets))


def outlets(cfg: Settings) -> list[Outlet]:
    """Return the outlets that the settings name."""
    found = []
    if cfg.report_mail_to:
        found.append(
            Outlet("mail", lambda digest: send_mail(cfg, digest), [urlsplit(cfg.smtp_url).password or ""])
        )
    hook = cfg.report_webhook
    if hook:
        parts = urlsplit(hook)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        secrets = [hook, path if len(path) > 1 else "", parts.password or ""]
        found.append(Outlet("web hook", lambda digest: call_hook(hook, digest), secrets))
    return found


def send_mail(cfg: Settings, digest: Digest) -> None:
    """Send one mail by the server of `smtp_url`. Blocks; raises what goes wrong."""
    message = EmailMessage()
    message["Subject"] = digest.subject
    message["From"] = cfg.report_mail_from or f"pq@{socket.gethostname() or 'localhost'}"
    message["To"] = ", ".join(cfg.report_mail_to)
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid("pq", socket.gethostname() or "localhost")
    message["Auto-Submitted"] = "auto-generated"  # so that no absence notice answers
    message.set_content(digest.text)
    parts = urlsplit(cfg.smtp_url)
    host = parts.hostname or "localhost"
    made: smtplib.SMTP
    if parts.scheme == "smtps":
        made = smtplib.SMTP_SSL(
            host, parts.port or 465, timeout=PATIENCE, context=ssl.create_default_context()
        )
    else:
        made = smtplib.SMTP(host, parts.port or (587 if "starttls" in parts.scheme else 25), timeout=PATIENCE)
    with made as server:
        if parts.scheme == "smtp+starttls":
            server.starttls(context=ssl.create_default_context())
        if parts.username:
            server.login(unquote(parts.username), unquote(parts.password or ""))
        server.send_message(message)


def call_hook(url: str, digest: Digest) -> None:
    """POST the digest as JSON. Blocks; raises what goes wrong, a status of 400 or more too."""
    body = json.dumps(digest.plain()).encode("utf-8")
    headers = {"Content-Type": "application/json", "User-Agent": "pq"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310  the setting takes http and https alone
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            answer.read(1000)
    except urllib.error.HTTPError as exc:
        exc.close()  # an answer too, with a connection
        raise


async def _in_thread(function: Callable[[Digest], None], digest: Digest) -> None:
    """Run it in a daemon thread, which delays no exit: a name server may take minutes to time out."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def end(error: Exception | None) -> None:
        if not done.done():
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    def work() -> None:
        error: Exception | None = None
        try:
            function(digest)
        except Exception as exc:
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has ended
            loop.call_soon_threadsafe(end, error)

    threading.Thread(target=work, name="pq-reporter", daemon=True).start()
    await done


def _middle(text: str) -> str:
    """Return the beginning and the end of a long text."""
    return text if len(text) <= STACK else f"{text[: STACK // 2]}\n…\n{text[-STACK // 2 :]}"
