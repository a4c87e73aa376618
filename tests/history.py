"""A history of events, and the rules that hold for it wherever it was recorded.

A history has one event a line. The simulator writes it, and a test of real processes can: the calls of clients
and their answers (`invoke`, `ok`, `fail`), and looks at the store and at the bodies of jobs (`info`). The checker is
a set of pure functions over such a list; it knows no broker and no worker.

The operations, and the facts of each:

    enqueue   a client queues a task: id; `ok` when the reply came that it is queued
    await     a client waits for the end: id; `ok` with status and value, `fail` with the error
    cancel    a client asks for the end: id; `ok` with the answer
    lease     a process has taken a lease: lease
    start     a body begins: id, run, attempt
    value     a body ends: id, run, and its value where it returned one
    child     a body has queued another task: id, run, child
    stored    the store has a new task: id, queue, priority, plain
    handout   the store gave a task to a lease: id, lease, batch
    end       the store has accepted an end: id, status, token, value
    revived   the store has an ended task live again: id
    tick      the store queued the task of a tick: schedule, at
    crashed   something that must never stop has stopped, or a program has met an error that it does not know
    healthy   nothing will befall the workers themselves, but that they are killed
    quiesce   no more faults from here on: within, the seconds after which all must be done; told, those after which
              who waits must know; behind, those by which the store's clock was set back, and the tasks that this delays are late
    streamed  a body has streamed all its parts: id, run, parts (how many)
    read      a client reads the stream of a task: id; `ok` with the parts at its end, `fail` with the error
    probe     a task of a healthy system: took, the seconds until its future was resolved
    left      what the store has at the end: queue, held, foreign
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

SUCCESS = "SUCCESS"
PROBE_LIMIT = 1.5
"""Seconds within which a healthy system does a task of no work: less than it takes to look up a record."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its time, its process, and its facts."""

    time: float
    process: str
    op: str
    phase: str
    facts: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]

    def line(self) -> str:
        """Return the event as JSON, the same for equal events."""
        return json.dumps(
            [round(self.time, 6), self.process, self.op, self.phase, self.facts], sort_keys=True
        )


class History(list[Event]):
    """The events in the order in which they happened."""

    def note(self, time: float, process: str, op: str, phase: str = "info", **facts: Any) -> None:
        self.append(Event(time, process, op, phase, facts))

    def of(self, op: str, phase: str | None = None) -> list[Event]:
        return [event for event in self if event.op == op and phase in (None, event.phase)]

    def digest(self) -> str:
        """Equal for equal histories, in any process."""
        return hashlib.sha256("\n".join(event.line() for event in self).encode()).hexdigest()[:16]

    def lines(self) -> str:
        return "\n".join(event.line() for event in self)


def read(lines: Iterable[str]) -> History:
    """A history from its lines."""
    return History(Event(*json.loads(line)) for line in lines if line.strip())


def broken_rules(history: History) -> list[str]:
    """Each rule that was broken, with the event that shows it."""
    found: list[str] = []
    for rule in (
        lost, ended_twice, wrong_results, run_without_right, out_of_order, started_after_cancel,
        children_lost, ticks_twice, robbed, wrong_streams, too_late, left_behind, deaf, crashes,
    ):  # fmt: skip
        found += rule(history)
    return found


# ------------------------------------------------------------------------------------------ safety
def lost(history: History) -> list[str]:
    """S1: each task whose queueing was acknowledged, or that the store has, reaches an end."""
    known = [e["id"] for e in history.of("enqueue", "ok")]
    stored = {e["id"] for e in history.of("stored")}
    # There is always another tick: only those that came before the last fault must have ended.
    quiet = max((e.time for e in history.of("quiesce")), default=float("inf"))
    known += [e["id"] for e in history.of("stored") if e.time < quiet or not e["id"].startswith("cron.")]
    ended = {e["id"] for e in history.of("end")}
    found = [f"S1 {id} was acknowledged and is not in the store" for id in _once(known) if id not in stored]
    return found + [f"S1 {id} was queued and never ended" for id in _once(known) if id not in ended]


def ended_twice(history: History) -> list[str]:
    """S2: at most one accepted end of each task."""
    ends = Counter(e["id"] for e in history.of("end"))
    found = [f"S2 {id} has {n} ends" for id, n in ends.items() if n > 1]
    return found + [f"S2 {e['id']} had ended and is live again" for e in history.of("revived")]


def wrong_results(history: History) -> list[str]:
    """S3: an accepted result is the one that a body returned in the process whose lease settled it."""
    returned = {(e["id"], e["value"]): e.process for e in history.of("value") if e["value"] is not None}
    holder = {e["lease"]: e.process for e in history.of("lease")}
    ends = {e["id"]: e for e in history.of("end")}
    found = []
    for end in ends.values():
        if end["status"] != SUCCESS:
            continue
        who = returned.get((end["id"], end["value"]))
        lease = end["token"].partition(":")[0]
        if who is None:
            found.append(f"S3 {end['id']} ended with {end['value']!r}, which no body returned")
        elif holder.get(lease) != who:
            found.append(f"S3 {end['id']} has a result of {who}, settled by {holder.get(lease)}")
    for told in history.of("await", "ok"):
        end_of = ends.get(told["task"])
        if end_of is None:
            found.append(f"S3 {told['task']} was published as done, and is not")
        elif (end_of["status"], end_of["value"]) != (told["status"], told["value"]):
            found.append(
                f"S3 {told['task']} was published with {told.facts}, and the store has {end_of.facts}"
            )
    return found


def run_without_right(history: History) -> list[str]:
    """S4: no task is dispatched after its end, and no body starts but for a task that its process was given."""
    found = []
    ended: set[str] = set()
    holder: dict[str, str] = {}
    given: dict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)
    started: Counter[tuple[str, str]] = Counter()
    for event in history:
        if event.op == "lease":
            holder[event["lease"]] = event.process
        elif event.op == "end":
            ended.add(event["id"])
        elif event.op == "handout":
            if event["id"] in ended:
                found.append(f"S4 {event['id']} was handed out at {event.time:.3f}, after its end")
            given[event["id"], holder.get(event["lease"], "?")].add((event["lease"], event["batch"]))
        elif event.op == "start":
            key = (event["id"], event.process)
            started[key] += 1
            if started[key] > len(given[key]):
                found.append(
                    f"S4 {event.process} started {event['id']} at {event.time:.3f} for the {started[key]}. time, "
                    f"and was given it {len(given[key])} times"
                )
    return found


def out_of_order(history: History) -> list[str]:
    """S5: plain tasks of one queue and priority are first dispatched in the order in which the store took them."""
    turn: dict[tuple[str, int], list[str]] = defaultdict(list)
    line: dict[str, tuple[str, int]] = {}
    first: dict[tuple[str, int], list[str]] = defaultdict(list)
    seen: set[str] = set()
    for event in history:
        if event.op == "stored" and event["plain"]:
            line[event["id"]] = (event["queue"], event["priority"])
            turn[event["queue"], event["priority"]].append(event["id"])
        elif event.op == "handout" and event["id"] in line and event["id"] not in seen:
            seen.add(event["id"])
            first[line[event["id"]]].append(event["id"])
    found = []
    for key, ids in first.items():
        want = [id for id in turn[key] if id in seen]
        if ids != want:
            at = next(n for n, (a, b) in enumerate(zip(ids, want, strict=True)) if a != b)
            found.append(
                f"S5 {ids[at]} was handed out of {key[0]} before {want[at]}, which was there before it"
            )
    return found


def started_after_cancel(history: History) -> list[str]:
    """S6: a task that was cancelled while it waited does not start."""
    cancelled: dict[str, float] = {}
    given: set[str] = set()
    found = []
    for event in history:
        if event.op == "handout":
            given.add(event["id"])
        elif event.op == "end" and event["token"].startswith("cancel") and event["id"] not in given:
            cancelled[event["id"]] = event.time
        elif event.op == "start" and event["id"] in cancelled:
            found.append(f"S6 {event['id']} was cancelled while it waited, and started at {event.time:.3f}")
    return found


def children_lost(history: History) -> list[str]:
    """S7: a task that a body queued is in the store before the end of its run is accepted."""
    holder: dict[str, str] = {}
    stored: set[str] = set()
    queued: dict[tuple[str, str], list[tuple[str, Any]]] = defaultdict(list)
    values: dict[tuple[str, Any], Any] = {}
    found = []
    for event in history:
        if event.op == "lease":
            holder[event["lease"]] = event.process
        elif event.op == "stored":
            stored.add(event["id"])
        elif event.op == "child":
            queued[event["id"], event.process].append((event["child"], event["run"]))
        elif event.op == "value":
            values[event["id"], event["value"]] = event["run"]
        elif event.op == "end" and event["status"] == SUCCESS:
            run = values.get((event["id"], event["value"]))
            who = holder.get(event["token"].partition(":")[0], "?")
            found += [
                f"S7 {event['id']} ended at {event.time:.3f}, and {child}, which it had queued, is nowhere"
                for child, by in queued[event["id"], who]
                if by == run and child not in stored
            ]
    return found


def ticks_twice(history: History) -> list[str]:
    """S8: each tick of a schedule is queued once."""
    ticks = Counter((e["schedule"], e["at"]) for e in history.of("tick"))
    return [f"S8 the tick {at} of {name} was queued {n} times" for (name, at), n in ticks.items() if n > 1]


def robbed(history: History) -> list[str]:
    """S9: where nothing befell the workers themselves, none loses its lease."""
    leases = Counter(e.process for e in history.of("lease"))
    if not history.of("healthy"):
        return []
    return [f"S9 {process} lost its lease and was not to blame" for process, n in leases.items() if n > 1]


def wrong_streams(history: History) -> list[str]:
    """S10: a stream that was read to its end has all parts of the run whose result was accepted, in order, and no others."""
    run_of = {(e["id"], e["value"]): e["run"] for e in history.of("value") if e["value"] is not None}
    sent = {(e["id"], e["run"]): e["parts"] for e in history.of("streamed")}
    accepted = {
        e["id"]: run_of.get((e["id"], e["value"])) for e in history.of("end") if e["status"] == SUCCESS
    }
    found = [
        f"S10 the stream of {read['id']}, which succeeded, ended with {read['error']}"
        for read in history.of("read", "fail")
        if read["id"] in accepted
    ]
    for read in history.of("read", "ok"):
        run = accepted.get(read["id"])
        if read["parts"] != [[run, number] for number in range(sent.get((read["id"], run), 0))]:
            found.append(
                f"S10 the stream of {read['id']} was read as {read['parts']}, and run {run} was accepted"
            )
    return found


# ---------------------------------------------------------------------------------------- liveness
def too_late(history: History) -> list[str]:
    """L1, L2: after the last fault all tasks end in time, and every waiting caller gets the end."""
    quiet = history.of("quiesce")
    if not quiet:
        return []
    begin, within, behind = quiet[-1].time, quiet[-1]["within"], quiet[-1]["behind"]
    # Tasks that wait for a moment of the store's clock: delayed, retried, limited in time.
    by_clock = {e["id"] for e in history.of("stored") if not e["plain"]}
    by_clock |= {e["id"] for e in history.of("start") if e["attempt"] > 1}
    ends: dict[str, float] = {}
    for end in history.of("end"):
        ends.setdefault(end["id"], end.time)
    since = {e["id"]: max(begin, e.time) for e in history.of("stored")}
    found = [
        f"L1 {id} ended {at - since.get(id, begin):.1f} s after the last fault, and {within:.1f} s is the limit"
        for id, at in ends.items()
        if at > since.get(id, begin) + within + (behind if id in by_clock else 0.0)
    ]
    waits: dict[str, Event] = {}
    for event in history.of("await"):
        if event.phase == "invoke":
            waits[event["id"]] = event
        else:
            waits.pop(event["id"], None)
            if event.phase == "fail":
                found.append(f"L2 the caller that waited for {event['id']} got the error: {event['error']}")
            else:
                # A call that was under way at the last fault may take as long as calls may take.
                known = max(begin + 10.0, ends.get(event["task"], begin))
                if event.time > known + quiet[-1]["told"]:
                    found.append(
                        f"L2 the end of {event['id']} was published {event.time - known:.1f} s after it was known"
                    )
    reading = {e["id"] for e in history.of("read", "invoke")} - {
        e["id"] for phase in ("ok", "fail") for e in history.of("read", phase)
    }
    found += [f"L2 the stream of {id} never ended" for id in sorted(reading)]
    return found + [f"L2 the future of {id} was never resolved" for id in waits]


def left_behind(history: History) -> list[str]:
    """L3: in the end nothing is held, and every lease belongs to a live worker."""
    found = []
    for event in history.of("left"):
        found += [
            f"L3 {what} is held by {lease} in {event['queue']} for no worker" for lease, what in event["held"]
        ]
        found += [
            f"L3 the lease {lease} in {event['queue']} belongs to no worker" for lease in event["foreign"]
        ]
    return found


def deaf(history: History) -> list[str]:
    """L4: when all is well again a task of no work is done at once, and its end is heard and not looked up."""
    return [
        f"L4 {e['what']} took {e['took']:.2f} s in a healthy system"
        for e in history.of("probe")
        if e["took"] > PROBE_LIMIT
    ]


def crashes(history: History) -> list[str]:
    """Nothing meets an error that it does not know."""
    return [f"X {event.process} at {event.time:.3f}: {event['what']}" for event in history.of("crashed")]


def _once(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ids))
