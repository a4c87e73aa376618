"""Bad input to code that runs forever: a worker on a real store, listeners, lists, schedulers, and the api over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import Any

import httpx2
import pytest
from fuzz_inputs import mutated, packed, text, value
from fuzz_targets import Chance, bad_record, good_task, shown

from pq import api as pq
from pq.broker import records
from pq.broker.contract.values import CHANGE, Entry
from pq.web import asgi

TOTAL = int(os.environ.get("PQ_FUZZ", "0"))
FIRST = int(os.environ.get("PQ_FUZZ_SEED", "0"))
PATIENCE = 60.0 if not TOTAL else 3600.0

pytestmark = pytest.mark.timeout(0 if TOTAL else 120)


@pq.job()
def addition(a: float = 0, b: float = 0) -> float:
    return a + b


@pytest.fixture(params=["valkey", "redis62"])
def store(request: pytest.FixtureRequest) -> Any:
    fresh = request.getfixturevalue(request.param)
    fresh.check = False  # it is a mess
    return fresh


def app_of(store: Any, **settings: Any) -> pq.PulsarQueue:
    return pq.PulsarQueue(
        **{"data_store": store.url, "task_paths": [__name__], "node_name": "here", **settings}
    )


async def test_a_worker_goes_on(store: Any, caplog: Any) -> None:
    """Records that are none lie between good ones: each good one is done, each bad one set aside or ended."""
    caplog.set_level(logging.CRITICAL)
    app = app_of(store)
    worker = app.worker()
    async with app.api() as api, asyncio.timeout(PATIENCE):
        await worker.start()
        broker = await api.broker()
        for round in range(max(12, TOTAL // 20_000)):
            rng = Chance(FIRST + round)
            bad = {f"bad{round}.{n}": rng.feed(_record(rng, f"bad{round}.{n}")) for n in range(50)}
            await broker.work.enqueue("default", [Entry(id, record) for id, record in bad.items()])
            done = await asyncio.wait_for(api.tasks.queue("addition", a=round, b=1), PATIENCE)
            assert done.get() == round + 1, f"seed {FIRST + round}"
            await _listed(api)
        assert not worker.finished.is_set()
        assert (await api.tasks.queue("addition", a=1)).result == 1
    await worker.stop(grace=0.0)


def _record(rng: Chance, id: str) -> bytes:
    """Records that may lie under that id; most have that id, else they are refused at once."""
    if rng.random() < 0.3:  # what can be read, and has odd values
        task = good_task(rng)
        task.id = id
        setattr(
            task,
            rng.choice(("timeout", "delay", "expires", "max_retries", "priority", "retry", "time_queued")),
            rng.choice((-5, 0, 10**11, 0.001)),
        )
        return records.live_header() + task.to_wire()
    return (
        bad_record(rng)
        .replace(b"\xa2i1", b"%c%s" % (0xA0 | len(id), id.encode()))
        .replace(b'"i1"', b'"%s"' % id.encode())
    )


async def _listed(api: pq.Producer) -> None:
    """Make the calls of a person who looks at the mess."""
    for call in (
        api.tasks.search,
        api.tasks.dead,
        api.tasks.queue_states,
        api.tasks.workers,
        api.tasks.schedules,
    ):
        await call()


async def test_listeners_go_on(store: Any, caplog: Any) -> None:
    """Messages on every channel that processes hear: of tasks, consumers, replies, control, locks."""
    caplog.set_level(logging.CRITICAL)
    app = app_of(store)
    worker = app.worker()
    heard: list[Any] = []
    async with app.api() as api, asyncio.timeout(PATIENCE):
        for channel in ("task", "consumer"):
            await api.on_events(channel, "*", lambda *event: heard.append(event))
        await worker.start()
        broker = await api.broker()
        channels = [
            api.keys.task_channel,
            api.keys.consumer_channel,
            api.keys.control_channel,
            api.keys.lock_channel,
        ]
        channels.append(api.connections.engine().reply_channel)
        for n in range(max(300, TOTAL // 1000)):
            rng = Chance(FIRST + n)
            payload = rng.choice((b"done\n", b"started 1 a b\n", b"cancel ", b"", b"x\n"))
            payload += rng.choice(
                (records.parcel("i1", bad_record(rng)), packed(rng, value(rng)), rng.randbytes(9))
            )
            await broker.channels.publish(rng.choice(channels), mutated(rng, payload))
        heard.clear()
        assert (await api.tasks.queue("addition", a=2)).result == 2
        while not [event for event in heard if event[:2] == ("task", "done")]:
            await asyncio.sleep(0.02)
    await worker.stop(grace=0.0)


async def test_lists_and_schedulers_go_on(store: Any, caplog: Any) -> None:
    """Heartbeats, schedules, log lines and progress that are none, in the store."""
    caplog.set_level(logging.CRITICAL)
    app = app_of(store, schedule_periodic=True)
    worker = app.worker()
    async with app.api() as api, asyncio.timeout(PATIENCE):
        broker = await api.broker()
        await worker.start()
        waiting = await api.tasks.queue("addition", a=1, delay=3600, callback=False)
        for n in range(max(60, TOTAL // 5000)):
            rng = Chance(FIRST + n)
            junk = mutated(
                rng,
                packed(
                    rng, {"queues": value(rng), "worker": value(rng), "node": value(rng), "time": value(rng)}
                ),
            )
            await broker.channels.beat(f"odd{n % 20}", junk, 5.0)
            await broker.schedules.change(CHANGE, f"odd{n % 20}", rng.choice((junk, b"rule\n" + junk, b"")))
            await broker.channels.keep_lines("default", waiting.id, [junk], 60_000)
            await broker.channels.keep_progress("default", {waiting.id: junk}, 60_000)
            await api.tasks.log(waiting.id)
            await api.tasks.why(waiting.id)
            await _listed(api)
        await api.tasks.schedule("addition", run_every=1, name="good", kwargs={"a": 5})
        while not [
            task for task in await api.tasks.search(job="addition", status="success") if task.result == 5
        ]:
            await asyncio.sleep(0.1)
        await api.tasks.unschedule("good")
    await worker.stop(grace=0.0)


def _request(rng: Chance) -> dict[str, Any]:
    """A request over HTTP, made for `httpx2`."""
    ids = ("i1", "tasks", "%00", "..", "a" * 200, "i1/log", "i1/why", "i1/retry", "%7Bq%7D", "\u202e")
    places = [
        "/tasks",
        "/rpc",
        "/jobs",
        "/queues",
        "/consumers",
        "/schedules",
        "/schedules/next",
        "/health",
        "/nowhere",
        f"/tasks/{rng.choice(ids)}",
    ]
    path = rng.choice(places)
    query = "&".join(
        f"{rng.choice(('status', 'count', 'since', 'job', 'text', 'queue', 'jobnames', 'x'))}={rng.choice(('1', '-1', '1e999', 'NaN', '9' * 30, 'success', '%ff', 'a', '0x', '[1]'))}"
        for _ in range(rng.randrange(3))
    )
    method = rng.choice(("GET", "POST", "POST", "POST", "DELETE", "PUT", "OPTIONS", "HEAD"))
    call = {
        "jsonrpc": "2.0",
        "method": rng.choice(
            (
                "queue",
                "get",
                "search",
                "job_list",
                "cancel",
                "log",
                "why",
                "next_scheduled",
                "__init__",
                text(rng),
            )
        ),
        "params": rng.choice(
            (
                [],
                {},
                value(rng),
                {"job": "addition", "kwargs": value(rng)},
                {"id": value(rng)},
                {"count": value(rng)},
            )
        ),
        "id": rng.choice((1, None, "x", value(rng))),
    }
    body: Any = rng.choice(
        (
            call,
            [call, call],
            [],
            {"job": "addition", "kwargs": value(rng), "delay": value(rng), "wait": False},
            {"job": "addition", "meta_params": value(rng)},
            value(rng),
        )
    )
    content = packed(Chance(rng.random()), body) if rng.random() < 0.3 else _json(body)
    headers = {"content-type": rng.choice(("application/json", "application/json", "text/plain", "x/" * 50))}
    if rng.random() < 0.2:
        headers["host"] = rng.choice(("localhost", "evil.example.org", "127.0.0.1:80", "[::1]", ""))
    return {
        "method": method,
        "url": path + (f"?{query}" if query else ""),
        "content": mutated(rng, content) if rng.random() < 0.3 else content,
        "headers": headers,
    }


def _json(thing: Any) -> bytes:
    try:
        return json.dumps(thing, default=str).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return b"[" * 5000


async def test_the_api_over_http(caplog: Any) -> None:
    """Paths, queries, headers and bodies: an answer, and none of them says that the server failed."""
    caplog.set_level(logging.ERROR)
    api = pq.PulsarQueue(data_store="memory://fuzz.http", task_paths=[__name__], node_name="here").api()
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(asgi(api)), base_url="http://localhost")
    async with api, client, asyncio.timeout(PATIENCE):
        for n in range(max(500, TOTAL // 50)):
            rng = Chance(FIRST + n)
            request = rng.feed(_request(rng))
            try:
                answer = await client.request(**request)
            except (httpx2.InvalidURL, UnicodeError, httpx2.LocalProtocolError):
                continue  # the client would not send it
            except Exception as exc:
                raise AssertionError(f"seed {FIRST + n}: {exc!r} for {shown(request)}") from exc
            assert answer.status_code < 500, (
                f"seed {FIRST + n}: {answer.status_code} {answer.text} for {shown(request)}"
            )
            assert "-32603" not in answer.text, f"seed {FIRST + n}: {answer.text} for {shown(request)}"
            if n % 100 == 99:
                await api.tasks.flush_queues("default")
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]
