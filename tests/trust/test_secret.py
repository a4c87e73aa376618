"""A secret argument reaches its job, and no other reader."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pq import api as pq
from pq.model.payloads import dump_payload, load_payload
from pq.model.secret import is_secret
from pq.model.serializers import JSON, MSGPACK

SECRET = "SWORDFISH"

JOBS = """\
from pq import api

@api.job()
async def login(self, user, password: api.Secret[str]):
    self.logger.warning("%s logs in with %s", user, password)
    self.logger.warning(f"that is {password!r} {password} {self.task.kwargs}")
    assert password.reveal() == "SWORD" + "FISH"
    return len(password.reveal())

@api.job()
async def fails(self, password: api.Secret[str], more=None):
    raise ValueError("no", password, more)

@api.job(concurrency=api.CPUBOUND)
def in_a_child(self, password: api.Secret[str]):
    print("child", password)
    return {"back": password, "length": len(password.reveal())}

@api.job()
async def passes_on(self, password: api.Secret[str]):
    task = await self.queue("in.a.child", password=password)
    return task.get()["length"]
"""


@pytest.mark.parametrize("fmt", [MSGPACK, JSON], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("value", ["x", 5, None, {"a": [1, (2,)]}, b"\0"])
def test_it_travels_as_what_it_was(fmt: Any, value: Any) -> None:
    there = load_payload(fmt, dump_payload(fmt, [pq.Secret(value)], what="it"))
    assert there == [pq.Secret(value)]
    assert there[0].reveal() == value


def test_it_does_not_show_itself() -> None:
    secret = pq.Secret(SECRET)
    shown = f"{secret} {secret!r} {[secret]} {json.dumps([secret], default=str)}" + f" {secret}"
    assert SECRET not in shown
    assert shown.startswith("*** *** ")
    assert copy.deepcopy(secret) == pickle.loads(pickle.dumps(secret)) == secret
    assert pq.Secret(secret).reveal() == SECRET
    assert secret != pq.Secret("other")
    assert secret != SECRET


def test_annotations() -> None:
    assert all(is_secret(each) for each in (pq.Secret, pq.Secret[str], "api.Secret[str]", "Secret"))
    assert not any(is_secret(each) for each in (str, "str", "NoSecret", list[int], None))


def test_what_is_in_it_has_to_be_sent_too() -> None:
    """The error names the way to the culprit, and shows nothing of it."""
    with pytest.raises(pq.NotSerializable, match="cannot be sent") as caught:
        dump_payload(MSGPACK, [{"a": pq.Secret({"b": object()})}], what="arguments")
    assert caught.value.path == "[0]['a']['b']"
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(pq.NotSerializable, match="nested"):
        dump_payload(MSGPACK, [pq.Secret(deep)], what="arguments")


@pq.job()
def takes(*rest: pq.Secret[str], first: pq.Secret[str] | None = None, **more: pq.Secret[str]) -> Any:
    return rest, more


@pq.job(unique=True)
def once(password: pq.Secret[str]) -> None: ...


async def test_wherever_the_parameter_stands(make_app: Any) -> None:
    """Positional, by name, in `*args` and in `**kwargs`; a plain value is made a secret when it is queued."""
    async with make_app().api() as api:
        task = await api.tasks.queue("takes", "a", "b", z="c", callback=False, delay=60)
        assert (task.args, task.kwargs) == ([pq.Secret("a"), pq.Secret("b")], {"z": pq.Secret("c")})
        await api.tasks.cancel(task.id)


async def test_unique_by_a_secret(make_app: Any) -> None:
    """Two secrets look the same and are not; the key in the store does not have them."""
    async with make_app().api() as api:
        ids = [
            (await api.tasks.queue("once", password=word, callback=False, delay=60)).id
            for word in (SECRET, "OTHER", SECRET)
        ]
        assert ids[0] == ids[2] != ids[1]
        for id in ids[:2]:
            await api.tasks.cancel(id)


async def test_a_dead_task_is_mended_with_a_secret(make_app: Any, start_worker: Any) -> None:
    """The value that replaces it is a secret as well."""
    async with make_app().api() as api:
        task = await api.tasks.queue("once", password="a", callback=False, delay=60)
        await api.tasks.cancel(task.id)
        assert await api.tasks.retry(task.id, password=SECRET)
        again = await api.tasks.get(task.id)
        assert again.kwargs == {"password": pq.Secret(SECRET)}
        assert SECRET not in repr(again.tojson())
        await api.tasks.cancel(task.id)


def verb(project: Path, *words: str) -> str:
    root = Path(pq.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "pq", *words],
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        cwd=project, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_all_that_a_server_says(project: Path, serve: Any, valkey: Any) -> None:
    """A server that logs all it can, with its log files; each verb that looks; events, web calls, mails of errors.

    The password of the store is in none of it either, nor in the list of processes.
    """
    valkey.client.config_set("requirepass", "STOREPASS")
    try:
        _all_that_a_server_says(project, serve, valkey)
    finally:
        valkey.client.config_set("requirepass", "")


def _all_that_a_server_says(project: Path, serve: Any, valkey: Any) -> None:
    url = valkey.url.replace("unix://", "unix://:STOREPASS@")
    (project / "jobs.py").write_text(JOBS)
    (project / "config.py").write_text(f'task_paths = ["jobs"]\ndata_store = {url!r}\n')
    server = serve("-v", "-w", "1", "--log-dir", "logs").ready(1)
    seen: list[str] = []
    app = pq.PulsarQueue(config="config.py")
    seen.append(repr(app.settings) if hasattr(app, "settings") else repr(app))

    def hear(*event: Any) -> None:
        seen.append(f"{event} {vars_of(event[-1])}")

    async def use() -> None:
        async with app.api() as api:
            seen.append(repr(api))
            for channel in ("task", "consumer"):
                await api.on_events(channel, "*", hear)
            assert (await api.tasks.queue("login", "ann", password=SECRET)).get() == 9
            assert (await api.tasks.queue("passes.on", password=pq.Secret(SECRET))).get() == 9
            failed = await api.tasks.queue("fails", password=SECRET, more=[pq.Secret(SECRET)])
            seen.append(f"{failed.exception} {failed.stacktrace} {failed.tojson()}")
            with pytest.raises(pq.BadArguments) as caught:
                api.tasks.queue("login", password=SECRET, wrong=1)
            seen.append(f"{caught.value} {caught.value.hint}")
            async with asyncio.timeout(20):
                while not await api.tasks.log(failed.id) and not any("logs in" in text for text in seen):
                    await asyncio.sleep(0.05)
            from pq.web.calls import Calls

            calls = Calls(api)
            seen.append(json.dumps(await calls.call("search", [], {}), default=str))
            for task in await api.tasks.search():
                seen.extend(str(line) for line in await api.tasks.log(task.id))
            seen.append(verb(project, "status", failed.id))
            seen.append(str([one.tojson() for one in await api.tasks.dead()]))

    asyncio.run(use())
    seen += [
        verb(project, *words)
        for words in (["tasks"], ["tasks", "--json"], ["top", "--once"], ["config"], ["doctor"])
    ]
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            seen.append(place.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    assert server.stop() == 0
    seen.append(server.log)
    seen += [path.read_text() for path in (project / "logs").iterdir()]
    whole = "\n".join(seen)
    for word in ("ann logs in with ***", "child ***", "ValueError", "login", "SUCCESS"):
        assert word in whole
    assert SECRET not in whole, [line for line in whole.splitlines() if SECRET in line]
    assert "STOREPASS" not in whole, [line for line in whole.splitlines() if "STOREPASS" in line]


def vars_of(thing: Any) -> str:
    return str(thing.tojson()) if isinstance(thing, pq.Task) else str(thing)
