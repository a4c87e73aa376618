"""The page about production: its units and manifests are true."""

from __future__ import annotations

import configparser
import re
from typing import Any

import httpx2
import pytest
from docs_blocks import ROOT, blocks

from pq import api as pq
from pq.cli import VERBS
from pq.config.settings import SETTINGS
from pq.web import asgi

PAGE = ROOT / "docs" / "how-to" / "production.md"
BLOCKS = {
    kind: [b.source for b in blocks(PAGE) if b.language == kind] for kind in ("ini", "dockerfile", "yaml")
}


def test_flags_and_verbs_exist() -> None:
    """Each flag is one of a setting, or of the verb `check`, and `check` is a verb."""
    flags = {flag for setting in SETTINGS.values() for flag in setting.flags} | {"--here"}
    text = "".join(source for sources in BLOCKS.values() for source in sources)
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", text)) - {"--no-cache-dir"}
    assert named >= {"--workers", "--graceful-timeout", "--here"}
    assert named <= flags
    assert "check" in VERBS


def test_a_kill_waits_longer_than_a_drain_takes() -> None:
    """systemd and Kubernetes give the drain its time."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(BLOCKS["ini"][0])
    grace = int(re.search(r"--graceful-timeout (\d+)", unit["Service"]["ExecStart"])[1])  # type: ignore[index]
    assert int(unit["Service"]["TimeoutStopSec"]) > grace + 10
    manifest = BLOCKS["yaml"][0]
    grace = int(re.search(r'--graceful-timeout, "(\d+)"', manifest)[1])  # type: ignore[index]
    assert int(re.search(r"terminationGracePeriodSeconds: (\d+)", manifest)[1]) > grace + 10  # type: ignore[index]


@pq.job()
def nothing() -> None: ...


async def test_the_latency_is_where_the_manifest_looks(valkey: Any) -> None:
    """`default.latency` of `GET /queues` is a number of seconds, and grows while a task waits."""
    (location,) = re.findall(r"valueLocation: (\S+)", BLOCKS["yaml"][1])
    queue, _, what = location.partition(".")
    app = pq.PulsarQueue(data_store=valkey.url, task_paths=[__name__], node_name="here")
    async with app.api() as api:
        await api.tasks.queue("nothing", callback=False)
        transport = httpx2.ASGITransport(asgi(api, token="of-sixteen-letters-or-more"))
        headers = {"Authorization": "Bearer of-sixteen-letters-or-more"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://shop", headers=headers) as http:
            first = (await http.get("/queues")).json()[queue][what]
            assert first >= 0
            while (await http.get("/queues")).json()[queue][what] <= first:
                pass
        await api.tasks.flush_queues("default")


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_page_has_one_of_each(kind: str) -> None:
    """Or the tests above would look at nothing."""
    assert BLOCKS[kind]
