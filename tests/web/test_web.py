"""HTTP and JSON-RPC: the same calls by two interfaces, and the clients that may make them."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from pq import api as pq
from pq.web import asgi
from pq.web.calls import plain
from pq.worker.worker import Worker

ROOT = Path(pq.__file__).parents[1]
TOKEN = "a-token-of-some-length"


@pq.job()
def addition(a: int = 0, b: int = 0) -> int:
    """Add two numbers."""
    return a + b


@pq.job()
def breaks() -> None:
    raise ValueError("no")


@pq.job(run_every=3600)
def hourly() -> None: ...


@pytest.fixture
def app(valkey: Any) -> pq.PulsarQueue:
    return pq.PulsarQueue(
        data_store=valkey.url, task_paths=[__name__], node_name="here", max_message_size=5000
    )


@pytest.fixture
async def worker(app: pq.PulsarQueue) -> AsyncIterator[Worker]:
    worker = app.worker()
    await worker.start()
    yield worker
    await worker.stop(grace=0.0)


async def client_of(
    web: Any, headers: dict[str, str] | None = None, base: str = "http://localhost"
) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(web), base_url=base, headers=headers)


@pytest.fixture
async def http(app: pq.PulsarQueue) -> AsyncIterator[httpx2.AsyncClient]:
    """A client on this machine, of an application without a token."""
    api = app.api()
    client = await client_of(asgi(api))
    async with client:
        yield client
    await api.close()


async def rpc(http: httpx2.AsyncClient, method: str, params: Any = None, id: Any = 1) -> Any:
    request = {"jsonrpc": "2.0", "method": method, "id": id, **({} if params is None else {"params": params})}
    return (await http.post("/rpc", json=request)).json()


# --------------------------------------------------------------------------------------------- resources
async def test_a_task_from_its_queueing_to_its_result(http: httpx2.AsyncClient, worker: Worker) -> None:
    """Queued, looked at, waited for."""
    queued = await http.post("/tasks", json={"job": "addition", "kwargs": {"a": 4, "b": 6}})
    assert queued.status_code == 201
    assert queued.json()["status_string"] == "QUEUED"
    id = queued.json()["id"]
    done = await http.post("/tasks", json={"job": "addition", "args": [1, 2], "wait": 20})
    assert (done.json()["status_string"], done.json()["result"]) == ("SUCCESS", 3)
    async with asyncio.timeout(20):
        while (task := (await http.get(f"/tasks/{id}")).json())["status_string"] != "SUCCESS":
            await asyncio.sleep(0.005)
    assert task["result"] == 10
    assert (await http.get("/tasks", params={"text": "-1"})).json() == []
    assert id in [task["id"] for task in (await http.get("/tasks", params={"text": "10"})).json()]
    found = (await http.get("/tasks", params={"status": "success", "count": 1})).json()
    assert [task["name"] for task in found] == ["addition"]


async def test_what_waits_can_be_cancelled_and_run_again(http: httpx2.AsyncClient) -> None:
    """The answer also has the reason why it waits."""
    id = (await http.post("/tasks", json={"job": "addition", "queue": "unserved"})).json()["id"]
    assert (await http.get(f"/tasks/{id}/why")).json()["slug"] == "no-worker"
    assert (await http.delete(f"/tasks/{id}")).json() is True
    assert (await http.delete(f"/tasks/{id}")).json() is False
    assert (await http.get(f"/tasks/{id}")).json()["status_string"] == "REVOKED"
    assert (await http.post(f"/tasks/{id}/retry", json={})).json() is True
    assert (await http.get("/queues")).json()["unserved"]["ready"] == 1
    assert (await http.get(f"/tasks/{id}/log")).json() == []


async def test_jobs_schedules_workers_and_health(http: httpx2.AsyncClient, worker: Worker) -> None:
    """Facts for a program that monitors."""
    jobs = dict((await http.get("/jobs")).json())
    assert jobs["addition"]["doc"] == "Add two numbers."
    name, seconds = (await http.get("/schedules/next")).json()
    assert (name, 0 < seconds <= 3600) == ("hourly", True)
    assert (await http.get("/schedules")).json() == []
    async with asyncio.timeout(20):
        while not (await http.get("/health")).json()["workers"]:
            await asyncio.sleep(0.005)
    assert (await http.get("/workers")).json()[0]["worker"] == "w1"
    assert (await http.get("/consumers")).json()[0]["worker"] == "w1"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "slug", "text"),
    [
        ("POST", "/tasks", {"job": "additon"}, 404, "unknown-job", "did you mean 'addition'?"),
        (
            "POST",
            "/tasks",
            {"job": "addition", "kwargs": {"c": 1}},
            422,
            "bad-arguments",
            "unexpected keyword argument 'c'",
        ),
        ("POST", "/tasks", {"job": "addition", "delay": -1}, 422, "invalid-value", "delay is -1"),
        ("POST", "/tasks", {"jobb": "addition"}, 422, "bad-arguments", "jobb"),
        ("POST", "/tasks", ["addition"], 422, "bad-arguments", "the body is not a JSON object"),
        ("POST", "/tasks", {"job": "addition", "args": {}}, 422, "bad-arguments", "args a list"),
        ("POST", "/tasks", {"job": "addition", "wait": -1}, 422, "bad-arguments", "wait is true, or"),
        (
            "POST",
            "/tasks",
            {"job": "addition", "kwargs": {"a": "x" * 6000}},
            413,
            "payload-too-large",
            "more than 5,000 bytes",
        ),
        ("GET", "/tasks/missing", None, 404, "no-such-task", "no task missing"),
        ("DELETE", "/tasks/missing", None, 404, "no-such-task", "no task missing"),
        ("GET", "/tasks/a%2A", None, 422, "invalid-value", "not a valid task id"),
        ("GET", "/tasks?status=faild", None, 422, "invalid-value", "did you mean 'failure'?"),
        ("GET", "/tasks?colour=red", None, 422, "bad-arguments", "colour"),
        ("GET", "/nothing", None, 404, "no-such-page", "there is nothing at /nothing"),
        ("PUT", "/jobs", {}, 405, "no-such-method", "PUT makes no sense"),
    ],
)
async def test_mistakes(
    http: httpx2.AsyncClient, method: str, path: str, body: Any, status: int, slug: str, text: str
) -> None:
    """Each answer has its status, its slug and the error; nothing is queued."""
    answer = await http.request(method, path, json=body)
    assert (answer.status_code, answer.json()["error"]["slug"]) == (status, slug)
    assert text in f"{answer.json()['error']['message']} {answer.json()['error']['hint']}"
    assert (await http.get("/queues")).json().get("default", {"ready": 0})["ready"] <= (
        text.startswith("wait")
    )


async def test_a_store_that_is_away_is_503(valkey: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer has the address, and not its password."""
    monkeypatch.setattr("pq.broker.redis.server.FIRST_PATIENCE", 0.2)
    app = pq.PulsarQueue(data_store="redis://:secret@127.0.0.1:1/0")
    api = app.api()
    async with await client_of(asgi(api)) as http:
        answer = await http.get("/health")
    await api.close()
    assert (answer.status_code, answer.json()["error"]["slug"]) == (503, "store-unreachable")
    assert "secret" not in answer.text


# ---------------------------------------------------------------------------------------------- JSON-RPC
async def test_json_rpc(http: httpx2.AsyncClient, worker: Worker) -> None:
    """By name or by place; `tasks.` may stand before a call."""
    told = await rpc(http, "tasks.queue", {"job": "addition", "args": [4, 6], "wait": True})
    assert (told["id"], told["jsonrpc"], told["result"]["result"]) == (1, "2.0", 10)
    id = told["result"]["id"]
    assert (await rpc(http, "get", [id], id="x"))["result"]["status_string"] == "SUCCESS"
    assert (await rpc(http, "cancel", [id]))["result"] is False
    assert [name for name, _ in (await rpc(http, "job_list"))["result"]] == ["addition", "breaks", "hourly"]
    assert (await rpc(http, "next_scheduled"))["result"][0] == "hourly"


async def test_batches_and_notifications(http: httpx2.AsyncClient) -> None:
    """A notification has no answer; a batch has those of the others, in their order."""
    ask = {"jsonrpc": "2.0", "method": "queue", "params": {"job": "addition"}}
    answer = await http.post("/rpc", json=ask)
    assert (answer.status_code, answer.content) == (204, b"")
    batch = [{**ask, "id": 1}, ask, {**ask, "id": 2, "method": "nothing"}, 7]
    told = (await http.post("/rpc", json=batch)).json()
    assert [one.get("id") for one in told] == [1, 2, None]
    assert told[1]["error"]["code"] == -32601
    assert told[2]["error"]["code"] == -32600
    assert (await http.get("/queues")).json()["default"]["ready"] == 3


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b"{", -32700, "not JSON"),
        (b"[" * 100_000, -32700, "not JSON"),
        (b"[]", -32600, "a batch has 1 to"),
        (b"7", -32600, "a request is"),
        (b'{"jsonrpc": "1.0", "method": "get", "id": 1}', -32600, "a request is"),
        (b'{"jsonrpc": "2.0", "method": 5, "id": 1}', -32600, "a request is"),
        (b'{"jsonrpc": "2.0", "method": "get", "id": {}}', -32600, "the id is"),
        (b'{"jsonrpc": "2.0", "method": "get", "params": 5, "id": 1}', -32602, "params is"),
        (b'{"jsonrpc": "2.0", "method": "get", "params": {"idd": "x"}, "id": 1}', -32602, "idd"),
        (b'{"jsonrpc": "2.0", "method": "__init__", "params": [], "id": 1}', -32601, "unknown call"),
        (b'{"jsonrpc": "2.0", "method": "queue", "params": ["additon"], "id": 1}', -32000, "no job named"),
        (b'{"jsonrpc": "2.0", "method": "get", "params": ["x"], "id": 1}', -32000, "no task x"),
    ],
)
async def test_wrong_requests(app: pq.PulsarQueue, body: bytes, code: int, text: str) -> None:
    """By the codes of the specification, with the slug and the hint of ours as data."""
    app.kwargs["max_message_size"] = 1_000_000
    api = app.api()
    async with await client_of(asgi(api)) as http:
        told = (await http.post("/rpc", content=body, headers={"content-type": "application/json"})).json()
    await api.close()
    assert told["error"]["code"] == code
    assert text in told["error"]["message"]


# ------------------------------------------------------------------------------------------ who may call
async def test_without_a_token_only_this_machine_may_call(app: pq.PulsarQueue) -> None:
    """Another machine may not, nor a page of the web under another name, nor a form of one."""
    api = app.api()
    web = asgi(api)
    ask = {"job": "addition"}
    async with await client_of(web) as here:
        assert (await here.get("/jobs")).status_code == 200
        form = await here.post(
            "/tasks", content=b'{"job": "addition"}', headers={"content-type": "text/plain"}
        )
        assert (form.status_code, form.json()["error"]["slug"]) == (415, "not-json")
    async with await client_of(web, base="http://evil.example") as rebound:
        assert (await rebound.post("/tasks", json=ask)).status_code == 403
    there = httpx2.ASGITransport(web, client=("192.0.2.7", 5))
    async with httpx2.AsyncClient(transport=there, base_url="http://localhost") as other:
        assert (await other.get("/jobs")).status_code == 403
    assert await api.tasks.size() == {}
    await api.close()


async def test_with_a_token_its_holders_may_call(app: pq.PulsarQueue) -> None:
    """From anywhere; a wrong one, or none, is 401, whatever is asked for."""
    api = app.api()
    web = asgi(api, token=TOKEN)
    base = "http://tasks.example"
    async with await client_of(web, {"Authorization": f"Bearer {TOKEN}"}, base) as known:
        assert (await known.post("/tasks", json={"job": "addition"})).status_code == 201
    for headers in (
        {},
        {"Authorization": "Bearer nope"},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
    ):
        async with await client_of(web, headers) as unknown:
            refused = await unknown.get("/nothing")
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    await api.close()
    with pytest.raises(pq.InvalidValue, match="16 characters"):
        asgi(app, token="short")


async def test_it_can_be_mounted(app: pq.PulsarQueue, worker: Worker) -> None:
    """Within another ASGI application."""
    api = app.api()
    outer = Starlette(routes=[Mount("/pq", asgi(api))])
    async with await client_of(outer) as http:
        done = await http.post("/pq/tasks", json={"job": "addition", "args": [1, 1], "wait": True})
    assert done.json()["result"] == 2
    await api.close()


# ------------------------------------------------------------------------------------------------ values
def test_values_that_json_has_no_form_for() -> None:
    """Dates as ISO 8601, bytes in base 64, sets as lists, large numbers as text."""
    value = {1: {2}, "d": dt.date(2026, 1, 2), "b": b"\xff", "n": 2**60, "f": float("nan"), "t": (None, True)}
    told = plain(value)
    assert told == {"1": [2], "d": "2026-01-02", "b": "/w==", "n": str(2**60), "f": "nan", "t": [None, True]}
    json.dumps(told, allow_nan=False)


# ---------------------------------------------------------------------------------------------- the verb
@pytest.fixture
def project(tmp_path: Path, valkey: Any) -> Path:
    (tmp_path / "manage.py").write_text(
        "from pq.api import PulsarQueue\n"
        f"def app(): return PulsarQueue(data_store={valkey.url!r})\n"
        "if __name__ == '__main__': app().start()\n"
    )
    return tmp_path


async def start(project: Path, *words: str, **env: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "manage.py", "web", *words, cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def test_the_verb_serves_until_a_signal(project: Path) -> None:
    """On loopback, with the token of the environment; SIGINT ends it in order."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await start(project, "--port", str(port), PQ_WEB_TOKEN=TOKEN)
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http, asyncio.timeout(20):
            while True:
                try:
                    assert (await http.get("/health")).status_code == 401
                    break
                except httpx2.ConnectError:
                    await asyncio.sleep(0.05)
            told = await http.get("/health", headers={"Authorization": f"Bearer {TOKEN}"})
            assert told.json() == {"ok": True, "workers": 0, "consumers": 0}
            second = await start(project, "--port", str(port))
            _, err = await second.communicate()
            assert second.returncode == 1
            assert f"another program listens on 127.0.0.1:{port} [port-in-use]" in err.decode()
    finally:
        process.send_signal(2)
        _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode in (0, 130), err.decode()
    assert re.search(rf"http://127\.0\.0\.1:{port}/jobs · JSON-RPC at /rpc · with a token", err.decode())


async def test_the_verb_does_not_open_to_others_without_a_token(project: Path) -> None:
    """A mistake, and not a warning."""
    process = await start(project, "--host", "0.0.0.0")
    _, err = await process.communicate()
    assert process.returncode == 1
    assert "0.0.0.0 can be reached by others, and no token is set" in err.decode()
