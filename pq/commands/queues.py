"""Verbs about queues: `queues`, `pause`, `resume`, `purge`."""

from __future__ import annotations

from ..cli import Command, VerbParser
from ..errors import did_you_mean
from ..producer.producer import Producer
from .calling import answer, connected
from .terminal import as_json, note, say, sure, table


def queues(command: Command) -> int:
    """`pq queues`."""
    parser = VerbParser(command, "list queues: how much waits, runs and has failed in each")
    parser.add_argument("--json", action="store_true", help="print JSON")
    wanted = parser.parse(command.argv)
    with connected(command) as api:
        found = answer(api.tasks.queue_states())
        late = answer(api.tasks.latency(*found)) if found else {}
        served = {name for facts in answer(api.tasks.workers()) for name in facts.get("queues") or ()}
    if wanted.json:
        facts = {
            name: {**state._asdict(), "latency": round(late[name], 3), "served": name in served}
            for name, state in found.items()
        }
        as_json(facts)
        return 0
    rows = [
        (
            name, str(state.ready + state.prio), str(state.delayed), str(state.parked), str(state.held), str(state.dead),
            f"{late[name]:.1f} s" if state.ready + state.prio else "",
            "paused" if state.paused else "" if name in served else "no worker",
        )
        for name, state in found.items()
    ]  # fmt: skip
    table(("QUEUE", "WAITING", "DELAYED", "AT LIMIT", "RUNNING", "DEAD", "LATE", ""), rows)
    if not rows:
        note("no queue was used yet")
    return 0


def pause(command: Command) -> int:
    """`pq pause QUEUE …`."""
    return _switch(command, "pause", "stop dispatching from queues, until `resume`", "paused")


def resume(command: Command) -> int:
    """`pq resume QUEUE …`."""
    return _switch(command, "resume", "start dispatching from paused queues again", "resumed")


def _switch(command: Command, verb: str, about: str, done: str) -> int:
    parser = VerbParser(command, about)
    parser.add_argument("queue", metavar="QUEUE", nargs="+")
    wanted = parser.parse(command.argv)
    with connected(command) as api:
        states = answer(api.tasks.queue_states())
        answer(getattr(api.tasks, verb)(*wanted.queue))
        parts = {name: api.partitions.all_of(name) for name in wanted.queue}
    for name in wanted.queue:
        say(f"{done}: {name}")
        if states.keys().isdisjoint(parts[name]):
            near = did_you_mean(name, states)
            note(f"{name} was not used yet" + (f"\nhint: {near}" if near else ""))
    return 0


def purge(command: Command) -> int:
    """`pq purge QUEUE … --yes`."""
    parser = VerbParser(command, "revoke all tasks that wait in these queues")
    parser.add_argument("queue", metavar="QUEUE", nargs="+")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    wanted = parser.parse(command.argv)
    with connected(command) as api:
        waiting: dict[str, int] = answer(api.tasks.size(*wanted.queue))
        total = sum(waiting.values())

        def act() -> int:
            say(f"revoked: {flushed(api, wanted.queue)}")
            return 0

        names = ", ".join(wanted.queue)
        return sure(
            f"{total:,} tasks wait in {names}. Revoke all of them?", yes=wanted.yes or not total, act=act
        )


def flushed(api: Producer, names: list[str]) -> int:
    """Flush; a million tasks may take a while."""
    count: int = api.tasks.flush_queues(*names).wait()
    return count
