"""The verbs `doctor` and `check`: the state of a system, for people and for programs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..cli import Command, VerbParser
from ..describe import span
from ..errors import PqError
from .calling import answer, connected
from .terminal import as_json, note, say, tint

SKEW = 5.0
"""Seconds by which a worker's clock may differ from the store's before `doctor` warns."""
SILENT = 12.0
"""Seconds after which a heartbeat is late."""


class Finding(NamedTuple):
    """One result of an examination: `ok`, `warning` or `error`."""

    level: str
    text: str
    hint: str | None = None


MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


def doctor(command: Command) -> int:
    """`pq doctor`."""
    parser = VerbParser(command, "check the store, the workers, the queues and the jobs; print what is wrong")
    parser.add_argument("--json", action="store_true", help="print JSON")
    wanted = parser.parse(command.argv)
    found = list(_examined(command))
    if wanted.json:
        as_json([finding._asdict() for finding in found])
    else:
        for level, text, hint in found:
            mark, colour = MARKS[level]
            say(f"{tint(mark, colour)} {text}" + (f"\n  hint: {hint}" if hint else ""))
    return 1 if any(finding.level == "error" for finding in found) else 0


def _examined(command: Command) -> Iterator[Finding]:
    """Yield all findings; a store that cannot be reached is the last one."""
    app = command.application
    try:
        registry = app.registry
        if len(registry):
            yield Finding("ok", f"{len(registry)} jobs of {', '.join(app.cfg.task_paths)}")
        else:
            yield Finding(
                "warning",
                f"no job in task_paths {list(app.cfg.task_paths)}",
                "list the modules that have jobs",
            )
    except PqError as exc:
        yield Finding("error", exc.message, exc.hint)
        return
    with connected(command) as api:
        try:
            facts = answer(api.tasks.store())
        except PqError as exc:
            yield Finding("error", exc.message, exc.hint)
            return
        yield from _store(facts)
        workers = answer(api.tasks.workers())
        yield from _workers(workers, facts["now"])
        states = answer(api.tasks.queue_states())
        served = {name for beat in workers for name in beat.get("queues") or ()}
        for name, state in states.items():
            if state.waiting and name not in served:
                yield Finding(
                    "warning", f"queue {name!r} has {state.waiting:,} tasks and no worker", f"pq -q {name}"
                )
            if state.paused:
                yield Finding(
                    "warning",
                    f"queue {name!r} is paused, and {state.waiting:,} tasks wait",
                    f"pq resume {name}",
                )
            if state.dead:
                yield Finding(
                    "warning",
                    f"queue {name!r} has {state.dead:,} tasks in its dead set",
                    "pq tasks --status dead",
                )


def _store(facts: dict[str, Any]) -> Iterator[Finding]:
    if facts["kind"] == "memory":
        yield Finding("ok", "memory:// (this process alone; nothing is kept)")
        return
    text = f"{facts['kind']} {facts['version']} at {facts['where']}, {facts['memory']}, {facts['round_trip'] * 1e6:.0f} µs a round trip"
    yield Finding("ok", text)
    for _, text, hint in facts.get("warnings", ()):
        yield Finding("warning", text, hint)
    if not facts["append_only"]:
        yield Finding(
            "warning",
            "its append-only file is off: what was queued is lost when it is killed",
            "CONFIG SET appendonly yes",
        )
    if not str(facts["policy"]).startswith(("noeviction", "volatile")):
        yield Finding(
            "error",
            f"it deletes keys when it is full (maxmemory-policy {facts['policy']}): tasks can vanish silently",
            "CONFIG SET maxmemory-policy noeviction",
        )


def _workers(workers: list[dict[str, Any]], now: float) -> Iterator[Finding]:
    if not workers:
        yield Finding("warning", "no worker is running", "start one: python manage.py -w 2")
        return
    nodes = {str(beat.get("node")) for beat in workers}
    yield Finding("ok", f"{len(workers)} workers on {len(nodes)} node{'s' * (len(nodes) > 1)}")
    for beat in workers:
        age = now - float(beat.get("time") or 0.0)
        name = f"{beat.get('worker')} of {beat.get('node')}"
        if age < -SKEW:
            yield Finding(
                "warning",
                f"the clock of {name} is {span(-age)} ahead of the store's",
                "set the clocks by NTP",
            )
        elif age > SILENT:
            yield Finding(
                "warning",
                f"{name} was last heard of {span(age)} ago, or its clock is behind",
                "look at its log",
            )


def check(command: Command) -> int:
    """`pq check`: exit code 0 when tasks of this application's queues would be run."""
    parser = VerbParser(
        command, "exit with 0 when the store answers and a worker serves each queue, else with 1"
    )
    parser.add_argument("--store", action="store_true", help="check the store only")
    parser.add_argument(
        "--here", action="store_true", help="a worker of this node is alive: for the probe of a container"
    )
    wanted = parser.parse(command.argv)
    app = command.application
    started = time.monotonic()
    with connected(command) as api:
        answer(api.tasks.store())
        if wanted.here:
            if not any(beat.get("node") == app.node_name for beat in answer(api.tasks.workers())):
                note(
                    f"no worker of node {app.node_name!r} is known\nhint: set the same PQ_NODE_NAME for the server"
                )
                return 1
        elif not wanted.store:
            served = {name for beat in answer(api.tasks.workers()) for name in beat.get("queues") or ()}
            missing = [name for name in app.cfg.task_queues if name not in served]
            if missing:
                note(f"no worker serves {', '.join(missing)}\nhint: {command.program} -q {','.join(missing)}")
                return 1
    say(f"ok ({(time.monotonic() - started) * 1000:.0f} ms)")
    return 0
