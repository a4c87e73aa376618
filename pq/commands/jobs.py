"""Verbs about what is there: `jobs`, `schedule`, `workers`."""

from __future__ import annotations

import time

from ..cli import Command, UsageError, VerbParser
from ..describe import ago
from .calling import answer, connected
from .terminal import as_json, note, say, table


def jobs(command: Command) -> int:
    """`pq jobs`."""
    parser = VerbParser(command, "list the jobs of the application")
    parser.add_argument("job", metavar="JOB", nargs="*", help="these alone, with their whole description")
    parser.add_argument("--json", action="store_true", help="print JSON")
    wanted = parser.parse(command.argv)
    with connected(command) as api:
        found = api.tasks.job_list(wanted.job or None)
    if wanted.json:
        as_json(dict(found))
        return 0
    if wanted.job:
        for name, facts in found:
            say(f"{name}{facts['signature']}")
            say("".join(f"  {line}\n" for line in facts["doc"].splitlines()).rstrip() or "  (not described)")
            for key, value in facts.items():
                if key not in ("doc", "doc_syntax", "signature"):
                    say(f"  {key:<16} {value}")
        return 0
    rows = [
        (
            name + facts["signature"],
            facts["concurrency"],
            str(facts.get("run_every", "")),
            facts["doc"].split("\n", 1)[0],
        )
        for name, facts in found
    ]
    table(("JOB", "MODE", "RUNS EVERY", ""), rows)
    if not rows:
        note("no job is registered: list its module in task_paths")
    return 0


def workers(command: Command) -> int:
    """`pq workers`."""
    parser = VerbParser(command, "list live workers, their tasks and queues")
    parser.add_argument("--json", action="store_true", help="print JSON")
    wanted = parser.parse(command.argv)
    with connected(command) as api:
        found = answer(api.tasks.workers())
    if wanted.json:
        as_json(found)
        return 0
    now = time.time()
    rows = [
        (
            str(facts.get("node")), str(facts.get("worker")), str(facts.get("pid")),
            f"{facts.get('running')}/{facts.get('concurrency')}", f"{facts.get('processed', 0):,}",
            f"{facts.get('failed', 0):,}", ago(facts.get("time"), now), ", ".join(facts.get("queues") or ()),
        )
        for facts in found
    ]  # fmt: skip
    table(("NODE", "WORKER", "PID", "RUNNING", "DONE", "FAILED", "HEARD", "QUEUES"), rows)
    if not rows:
        note(f"no worker is running\nhint: start one: {command.program} -w 2")
    return 0


def schedule(command: Command) -> int:
    """`pq schedule`, `pq schedule pause NAME`."""
    parser = VerbParser(command, "list schedules; or pause, resume or run one now")
    parser.add_argument("verb", nargs="?", metavar="VERB", help="pause, resume or run")
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print JSON")
    wanted = parser.parse(command.argv)
    acts = {"pause": "pause_schedule", "resume": "resume_schedule", "run": "run_schedule_now"}
    if wanted.verb is not None and (wanted.verb not in acts or wanted.name is None):
        raise UsageError(
            f"unknown action {wanted.verb!r}" if wanted.verb not in acts else "which schedule?",
            hint=f"{command.program} schedule pause NAME; or resume, or run",
        )
    with connected(command) as api:
        if wanted.verb is not None:
            answered = answer(getattr(api.tasks, acts[wanted.verb])(wanted.name))
            say(
                f"queued: {answered.name} {answered.id[:9]}"
                if wanted.verb == "run"
                else f"{wanted.name}: {'paused' if answered.paused else 'resumed'}"
            )
            return 0
        found = answer(api.tasks.schedules())
    if wanted.json:
        as_json([{name: getattr(info, name) for name in info.__slots__} for info in found])
        return 0
    now = time.time()
    rows = [
        (
            info.name,
            info.job,
            info.runs,
            "paused" if info.paused else ago(info.next, now),
            ago(info.last, now),
            info.by,
        )
        for info in found
    ]
    table(("SCHEDULE", "JOB", "RUNS", "NEXT", "LAST", "STATED BY"), rows)
    if not rows:
        note("nothing is scheduled: @api.job(run_every=60), and a server with --schedule-periodic")
    return 0
