"""A whole application with keys: the contents of the store, their readers, and the end of foreign messages."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pq import api as pq
from pq.broker import records
from pq.config import Settings, load
from pq.errors import BadSetting, UnreadableMessage
from pq.model.keyring import new_key
from pq.model.task import Task

SIGNED = {"signing_keys": "k1:a secret of some length"}
KEYS = {**SIGNED, "encryption_keys": f"e1:{new_key()}"}
ROOT = Path(pq.__file__).parents[1]


@pq.job()
async def speaks(self: pq.Job, word: str = "") -> str:
    self.logger.warning("the word is %s", word)
    self.progress(1, 2, word)
    await self.stream(word)
    return word * 2


@pq.job()
async def breaks(self: pq.Job, word: str = "") -> None:
    raise ValueError(word)


def everything(client: Any) -> bytes:
    """All values of a store in one text."""
    found = []
    for key in client.scan_iter():
        kind = client.type(key)
        if kind == b"string":
            found.append(client.get(key))
        elif kind == b"list":
            found += client.lrange(key, 0, -1)
        elif kind == b"hash":
            found += client.hgetall(key).values()
        elif kind == b"stream":
            found += [value for _, fields in client.xrange(key) for value in fields.values()]
    return b"\n".join(found)


async def test_nothing_that_a_task_says_lies_there_in_clear(
    make_app: Any, start_worker: Any, valkey: Any
) -> None:
    """Arguments, results, errors, log lines, progress, streams, schedules; a process with the keys reads all of it."""
    app = make_app(**KEYS)
    heard: list[Any] = []
    async with app.api() as api:
        await api.on_events("task", "*", lambda _, event, task: heard.append((event, task)))
        await api.tasks.schedule("speaks", run_every=9999, name="daily", kwargs={"word": "hushhush"})
        waiting = api.tasks.queue("speaks", word="hushhush", delay=3600)
        await start_worker(app)
        done = await api.tasks.queue("speaks", word="hushhush")
        failed = await api.tasks.queue("breaks", word="hushhush")
        assert done.result == "hushhushhushhush"
        assert [part async for part in api.tasks.stream(done)] == ["hushhush"]
        assert "hushhush" in failed.exception
        async with asyncio.timeout(20):
            while not await api.tasks.log(done.id):
                await asyncio.sleep(0.02)
            while {"done", "queued", "started", "log"} - {event for event, _ in heard}:
                await asyncio.sleep(0.02)
        assert b"hushhush" not in everything(valkey.client)
        assert (await api.tasks.log(done.id))[0].text == "the word is hushhush"
        assert (await api.tasks.schedules())[0].kwargs == {"word": "hushhush"}
        assert {task.kwargs["word"] for event, task in heard if event == "done"} == {"hushhush"}
        # The dead set is looked at, mended and run again.
        (dead,) = await api.tasks.dead()
        assert dead.kwargs == {"word": "hushhush"}
        assert await api.tasks.retry(dead.id, word="still")
        async with asyncio.timeout(20):
            while "still" not in ((await _end(api, dead.id)).exception or ""):
                await asyncio.sleep(0.02)
        await api.tasks.cancel(waiting.id)
        await api.tasks.unschedule("daily")


async def test_a_part_of_a_stream_belongs_to_its_place(make_app: Any, start_worker: Any, valkey: Any) -> None:
    """A program that can write to the store can delete parts, which is noticed; it cannot change or move one."""
    app = make_app(**KEYS)
    await start_worker(app)
    async with app.api() as api:
        task = await api.tasks.queue("speaks", word="true")
        key = f"pq:{{{task.queue}}}:stream:{task.id}"
        (name, fields), (_, end_fields) = valkey.client.xrange(key)
        valkey.client.delete(key)
        valkey.client.xadd(key, end_fields, id=name)
        valkey.client.expire(key, 60)
        with pytest.raises(UnreadableMessage):
            [part async for part in api.tasks.stream(task)]
        valkey.client.delete(key)
        valkey.client.xadd(key, {next(iter(fields)): b"\xa5false"}, id=name)
        valkey.client.expire(key, 60)
        with pytest.raises(UnreadableMessage):
            [part async for part in api.tasks.stream(task)]


async def _end(api: pq.Producer, id: str) -> Task[Any]:
    async with asyncio.timeout(20):
        while True:
            task = await api.tasks.get(id)
            if task is not None and task.done():
                return task
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("keys", [SIGNED, KEYS], ids=["signed", "both"])
async def test_a_task_that_we_did_not_sign_is_set_aside(
    keys: Any, make_app: Any, start_worker: Any, caplog: Any
) -> None:
    """Queued without the keys, or moved from another id: failed with a reason, and work goes on."""
    async with make_app().api() as stranger, make_app(**keys).api() as api:
        forged = await stranger.tasks.queue("speaks", word="evil", callback=False)
        moved = await api.tasks.queue("speaks", word="moved", delay=3600, callback=False)
        plain = await stranger.broker()
        (record,) = await plain.looks.records("default", [moved.id])
        await plain.work.enqueue("default", [_entry("another", record)])
        with caplog.at_level(logging.CRITICAL, "pq.worker"):
            await start_worker(make_app(**keys))
            assert (await api.tasks.queue("speaks", word="good")).result == "goodgood"
            for id, why in ((forged.id, "not signed"), ("another", "belongs to another task")):
                task = await _end(api, id)
                assert task.status == pq.FAILURE
                assert why in (task.exception or "")
                assert task.reason == "unreadable-message"
        await api.tasks.cancel(moved.id)


def _entry(id: str, record: bytes) -> Any:
    from pq.broker.contract.values import Entry

    return Entry(id, record)


async def test_a_result_without_a_known_signature(make_app: Any, start_worker: Any) -> None:
    """A worker without the keys cannot answer for one with them: the future ends with an error that says why."""
    async with make_app(**SIGNED).api() as api, make_app().api() as stranger:
        queued = await api.tasks.queue("speaks", word="x", delay=3600, callback=False)
        future = queued.done_callback
        task: Task[Any] = Task(queued.id, "speaks", "default", status=pq.SUCCESS, result=b"\xa4evil")
        record = records.finished_header(pq.SUCCESS, "w:1") + task.to_wire()
        plain = await stranger.broker()
        await plain.work.cancel("default", [(queued.id, record, queued.reply or "")])
        with pytest.raises(pq.PqError, match="it is not signed or encrypted") as caught:
            async with asyncio.timeout(20):
                await future
        assert "signing_keys" in (caught.value.hint or "")


@pytest.mark.parametrize("keys", [SIGNED, KEYS], ids=["signed", "both"])
async def test_a_program_without_keys_raises_with_the_setting(
    keys: Any, make_app: Any, start_worker: Any
) -> None:
    """Lists, single tasks, the dead set, schedules, events: nothing breaks, and the missing key is named."""
    app = make_app(**keys)
    heard: list[Any] = []
    async with app.api() as api, make_app().api() as looker:
        await looker.on_events("task", "*", lambda *event: heard.append(event))
        await start_worker(app)
        done = await api.tasks.queue("speaks", word="x")
        failed = await api.tasks.queue("breaks", word="x")
        await api.tasks.schedule("speaks", run_every=9999, name="daily")
        found = await looker.tasks.search()
        assert {task.name for task in found} == {"unreadable"}
        assert all("this program has no key" in task.exception for task in found)
        assert [task.id for task in await looker.tasks.dead()] == [failed.id]
        assert await looker.tasks.schedules() == []
        for call in (looker.tasks.get, looker.tasks.cancel, looker.tasks.retry):
            with pytest.raises(pq.PqError, match="this program has no key") as caught:
                await call(done.id)
            assert "_keys here" in (caught.value.hint or "")
        assert await looker.tasks.why(done.id) is None
        assert heard == []
        await api.tasks.unschedule("daily")


async def test_keys_are_rolled_out_in_a_running_system(make_app: Any, start_worker: Any) -> None:
    """Old tasks of programs without keys are run as long as `accept_unsealed` says so."""
    careful = make_app(**SIGNED, accept_unsealed=True)
    async with make_app().api() as old, careful.api() as api:
        earlier = old.tasks.queue("speaks", word="old", callback=False)
        await earlier
        await start_worker(careful)
        assert (await _end(api, earlier.id)).result == "oldold"
        assert (await api.tasks.queue("speaks", word="new")).result == "newnew"


async def pq_command(directory: Path, *words: str, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pq", *words),
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode()


async def test_the_command_line_without_keys(
    make_app: Any, start_worker: Any, valkey: Any, tmp_path: Path
) -> None:
    """Every verb that reads records names the missing key, and ends in order."""
    (tmp_path / "manage.py").write_text(
        f"from pq.api import PulsarQueue\ndef app():\n    return PulsarQueue(data_store={valkey.url!r})\n"
    )
    app = make_app(**KEYS)
    async with app.api() as api:
        await start_worker(app)
        done = await api.tasks.queue("speaks", word="hushhush")
    verbs = (
        ("tasks",),
        ("status", done.id),
        ("logs", done.id),
        ("queues",),
        ("schedule",),
        ("top", "--once"),
    )
    said = await asyncio.gather(*(pq_command(tmp_path, *verb) for verb in verbs))
    for verb, (code, out) in zip(verbs, said, strict=True):
        assert code in (0, 1), (verb, out)
        assert "Traceback" not in out, (verb, out)
        assert "hushhush" not in out
    assert "unreadable" in said[0][1]
    assert "has no key" in said[1][1]


def test_keys_are_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a repr, nor `pq config`, nor the error about a bad key shows one."""
    settings = Settings(signing_keys=("k1:SWORDFISH-SWORDFISH",))
    assert "SWORDFISH" not in repr(settings)
    assert "k1:***" in repr(settings)
    for bad in ("k1:SWORDFISH", "SWORDFISH-SWORDFISH", "k1:SWORDFISH-SWORDFISH,k1:SWORDFISH-SWORDFISH", 5):
        for name in ("signing_keys", "encryption_keys"):
            with pytest.raises(BadSetting) as caught:
                load({name: bad}, environ={})
            assert "SWORDFISH" not in f"{caught.value} {caught.value.hint}"
            assert "pq key" in str(caught.value) or "twice" in str(caught.value)


def test_keys_from_a_file(tmp_path: Path) -> None:
    """A line each, with comments; a file that is not there is named."""
    path = tmp_path / "keys"
    path.write_text("# since May\nk2:a new secret of ours\n\nk1:an old secret of ours\n")
    found = load({"signing_keys": f"@{path}"}, environ={})
    assert found.signing_keys == ("k2:a new secret of ours", "k1:an old secret of ours")
    assert load(cli={"signing_keys": f"@{path}"}, environ={}).signing_keys == found.signing_keys
    with pytest.raises(BadSetting, match=r"nowhere.*No such file"):
        load({"signing_keys": "@/nowhere"}, environ={})


def test_a_key_on_the_command_line_is_refused() -> None:
    """Every user could read it in the list of processes."""
    with pytest.raises(BadSetting, match="for every user of this machine to see") as caught:
        load(cli={"signing_keys": "k1:SWORDFISH-SWORDFISH"}, environ={})
    assert "SWORDFISH" not in f"{caught.value} {caught.value.hint}"
    assert "--signing-keys @/" in (caught.value.hint or "")


async def test_the_verb_makes_a_key(tmp_path: Path) -> None:
    """The settings accept the output."""
    code, out = await pq_command(tmp_path, "key", "e7")
    key = next(line for line in out.splitlines() if line.startswith("e7:"))
    assert code == 0
    assert load({"encryption_keys": key, "signing_keys": key}, environ={}).encryption_keys == (key,)
    code, out = await pq_command(tmp_path, "key", "no/id")
    assert (code, "not a valid key id" in out) == (2, True)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, make_app: Any) -> None:
    """Encryption without `cryptography` is an error at once, with the package to install."""
    from pq.model import seal

    seal._aes.cache_clear()
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(pq.PqError, match="needs the package cryptography") as caught:
        make_app(**KEYS).api()
    seal._aes.cache_clear()
    assert "pq-tasks[encrypt]" in (caught.value.hint or "")
