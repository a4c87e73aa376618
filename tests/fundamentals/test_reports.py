"""Reports of failures: a mail and a web hook at once, the rest in digests, and nothing on the task's way."""

from __future__ import annotations

import asyncio
import contextlib
import email
import json
import logging
import time
from collections.abc import AsyncIterator
from email.message import Message
from typing import Any

import pytest

from pq import api as pq
from pq.config import Settings
from pq.worker import reporter as module
from pq.worker.reporter import MOST_KEPT, Digest, Failure, Reporter


@pq.job()
def breaks(word: str = "no such row") -> None:
    raise KeyError(word)


@pq.job(max_retries=1, retry_delay=0)
def breaks_twice() -> None:
    raise ValueError("again")


@pq.job(timeout=0.05)
async def is_late() -> None:
    await asyncio.sleep(60)


@pq.job()
def calls_it_off() -> None:
    raise pq.Cancel("never mind")


class Post:
    """A mail server and a web hook that keep their input. `refusing` has them refuse it."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.recipients: list[str] = []
        self.logins = 0
        self.calls: list[dict[str, Any]] = []
        self.refusing = False
        self.silent = False
        self.tries = 0
        self.mail_port = self.hook_port = 0

    async def smtp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tries += 1
        if self.silent:
            await reader.read()
            return
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            verb = line.split(b":")[0].split()[0].upper()
            if verb == b"EHLO":
                writer.write(b"250-here\r\n250 AUTH PLAIN\r\n")
            elif verb == b"AUTH":
                self.logins += 1
                writer.write(b"535 no, not with hunter2\r\n" if self.refusing else b"235 welcome\r\n")
            elif verb == b"RCPT":
                self.recipients.append(line.decode())
                writer.write(b"250 ok\r\n")
            elif verb == b"DATA":
                writer.write(b"354 go on\r\n")
                text = await reader.readuntil(b"\r\n.\r\n")
                self.mails.append(email.message_from_bytes(text[:-3]))
                writer.write(b"250 ok\r\n")
            elif verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 ok\r\n")

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(fields["content-length"]))
        if not self.refusing:
            self.calls.append({"path": head.split()[1], **json.loads(body)})
        word = b"403 Forbidden" if self.refusing else b"200 OK"
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % word)

    async def mail(self, number: int = 1) -> str:
        """The text of the mail number `number`."""
        while len(self.mails) < number:
            await asyncio.sleep(0.01)
        text: str = self.mails[number - 1].get_payload(decode=True).decode()  # type: ignore[union-attr]
        return text

    def settings(self) -> dict[str, Any]:
        return {
            "report_mail_to": ["ann@example.org", "bob@example.org"],
            "report_mail_from": "pq@example.org",
            "smtp_url": f"smtp://robot:hunter2@127.0.0.1:{self.mail_port}",
            "report_webhook": f"http://127.0.0.1:{self.hook_port}/services/T0/s3cret",
        }


@pytest.fixture
async def post() -> AsyncIterator[Post]:
    post = Post()
    serving: set[asyncio.Task[Any]] = set()

    def closing(serve: Any) -> Any:
        async def wrapped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving.add(asyncio.current_task())  # type: ignore[arg-type]
            try:
                await serve(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

        return wrapped

    smtp = await asyncio.start_server(closing(post.smtp), "127.0.0.1", 0)
    http = await asyncio.start_server(closing(post.http), "127.0.0.1", 0)
    post.mail_port = smtp.sockets[0].getsockname()[1]
    post.hook_port = http.sockets[0].getsockname()[1]
    yield post
    smtp.close()
    http.close()
    if serving:
        await asyncio.wait(serving, timeout=5)


@pytest.fixture
def app(make_app: Any, post: Post) -> pq.PulsarQueue:
    made: pq.PulsarQueue = make_app(name="shop", **post.settings())
    return made


async def test_the_first_failure_goes_out_at_once(serving: pq.Producer, post: Post) -> None:
    """A mail and a web hook have all that is needed to find it; attempts before the last are not reported."""
    task = await serving.tasks.queue("breaks.twice")
    text = await post.mail()
    (mail,) = post.mails
    assert mail["Subject"] == "[shop] breaks.twice failed: ValueError: again"
    assert mail["To"] == "ann@example.org, bob@example.org"
    assert mail["From"] == "pq@example.org"
    assert len(post.recipients) == 2
    assert post.logins == 1
    assert task.id in text
    assert "attempt 2" in text
    assert 'raise ValueError("again")' in text
    while not post.calls:
        await asyncio.sleep(0.01)
    (call,) = post.calls
    assert (call["path"], call["application"], call["count"]) == ("/services/T0/s3cret", "shop", 1)
    assert call["text"] == mail["Subject"]
    assert call["failures"][0]["id"] == task.id


async def test_the_rest_is_summed_up(
    serving: pq.Producer, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most one mail in a while, with the counts; time-outs are in it, cancelled tasks are not."""
    monkeypatch.setattr(module, "EVERY", 0.3)
    await serving.tasks.queue("breaks", "first")
    await post.mail()
    for n in range(30):
        await serving.tasks.queue("breaks", n % 2)
    await serving.tasks.queue("is.late")
    await serving.tasks.queue("calls.it.off")
    text = await post.mail(2)
    assert post.mails[1]["Subject"] == "[shop] 31 tasks failed on here"
    assert "15 x breaks: KeyError: 0" in text
    assert "1 x is.late: the task ran longer" in text
    assert "… and 11 more" in text
    assert "calls.it.off" not in text
    await asyncio.sleep(0.5)
    assert len(post.mails) == 2


async def test_what_is_left_goes_out_at_the_end(
    app: pq.PulsarQueue, api: pq.Producer, post: Post, start_worker: Any
) -> None:
    """A worker that stops first sends the report that is due."""
    worker = await start_worker(app)
    await api.tasks.queue("breaks", "first")
    await post.mail()
    await api.tasks.queue("breaks", "second")
    assert len(post.mails) == 1
    await worker.stop()
    assert "second" in await post.mail(2)


async def test_a_server_that_says_no(
    serving: pq.Producer, post: Post, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Is logged once, without password and path; nothing is lost, and all goes out when it is back."""
    caplog.set_level(logging.INFO, "pq.worker")
    monkeypatch.setattr(module, "EVERY", 0.05)
    post.refusing = True
    for n in range(3):
        await serving.tasks.queue("breaks", n)
    while post.tries < 4:
        await asyncio.sleep(0.01)
    told = [record.getMessage() for record in caplog.records if "cannot be reported" in record.getMessage()]
    assert len(told) == 2
    assert "by mail (logged once): SMTPAuthenticationError" in " ".join(told)
    assert "by web hook (logged once): HTTPError: HTTP Error 403" in " ".join(told)
    assert "hunter2" not in caplog.text
    assert "s3cret" not in caplog.text
    post.refusing = False
    assert post.mails == []
    text = await post.mail()
    assert all(f"KeyError: {n}" in text for n in range(3))
    while "reports by mail are sent again" not in caplog.text:
        await asyncio.sleep(0.01)


async def test_no_task_waits_for_the_mail(
    app: pq.PulsarQueue, api: pq.Producer, post: Post, start_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says nothing holds up neither tasks nor, for longer than it must, the end of the worker."""
    monkeypatch.setattr(module, "LAST_TIME", 0.2)
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    post.silent = True
    worker = await start_worker(app)
    began = time.monotonic()
    for task in [await future for future in [api.tasks.queue("breaks") for _ in range(50)]]:
        assert task.status_string == "FAILURE"
    await worker.stop()
    assert time.monotonic() - began < 5


async def test_too_many_are_counted(post: Post) -> None:
    """The queue is bounded; surplus failures are in the next report as a number."""
    reporter = Reporter(Settings(**post.settings()), worker="w1", node="here")
    task: Any = pq.Task("i1", "breaks", "default", exception="KeyError: 1")
    for _ in range(MOST_KEPT + 7):
        reporter.report(task)
    await reporter.start()
    text = await post.mail()
    assert post.mails[0]["Subject"] == f"[pq] {MOST_KEPT + 7} tasks failed on here"
    assert "7 x not kept" in text
    assert f"{MOST_KEPT} x breaks: KeyError: 1" in text
    await reporter.stop()


def test_a_subject_is_one_short_line() -> None:
    """Whatever a job puts into its error: no header can be made of it."""
    failure = Failure("i1", "breaks", "q", 1, "E: a\r\nBcc: all@example.org\n" + "x" * 500, None, None)
    digest = Digest("shop", "w1", "here", [failure], 0)
    assert len(digest.subject) == 150
    assert digest.subject.isprintable()
    assert "s" * 9000 not in Digest("a", "w", "n", [failure._replace(stacktrace="s" * 9000)], 0).text


async def test_without_settings_no_reporter_is_made(make_app: Any, start_worker: Any) -> None:
    """A feature that is not used costs nothing."""
    worker = await start_worker(make_app())
    assert "reporter" not in worker.services


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("report_mail_to", "ann", "mail addresses"),
        ("report_mail_to", "a@b\r\nBcc: c@d", "mail addresses"),
        ("report_mail_from", "Ann <ann@example.org>", "a mail address"),
        ("smtp_url", "mail.example.org", "a URL of the form smtp://host"),
        ("smtp_url", "smtp://u:p/w@host", "a URL of the form smtp://host"),
        ("report_webhook", "ftp://host/x", "a URL of the form http://host or https://host"),
    ],
)
def test_settings_that_cannot_be(name: str, value: str, fits: str) -> None:
    """Are refused before anything runs."""
    with pytest.raises(pq.ConfigError, match=fits):
        Settings(**{name: value})


def test_no_secret_is_shown() -> None:
    """A log has neither the password of the mail server nor the path of the hook, which is a secret."""
    text = repr(
        Settings(smtp_url="smtps://u:pw@host:99", report_webhook="https://hooks.example.org/s3cret?k=v")
    )
    assert "smtps://u:***@host:99" in text
    assert "https://hooks.example.org/***'" in text
