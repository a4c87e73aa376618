"""The words of the project: what its style asks for, as far as a search can tell.

Plain English of the field: named subjects, no metaphors, the standard terms. Decision pages keep the words of their
day; the words of a user's data, quoted code and `bench/floor.py` (the speed floor) are not prose.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]


class Rule(NamedTuple):
    """A pattern that must not occur in a line, and what to write."""

    pattern: re.Pattern[str]
    instead: str


def rule(pattern: str, instead: str) -> Rule:
    return Rule(re.compile(pattern, re.IGNORECASE), instead)


RULES = (
    rule(r"\bwhoever\b", "name the subject: the worker, the caller, the user"),
    rule(r"\b(some|no|any|every)body\b", "name the subject: a worker, no worker, any program"),
    rule(r"\bfor ever\b", "forever"),
    rule(r"\banew\b", "again"),
    rule(r"\b(let|lets|letting) go\b", "release"),
    rule(r"\bso many\b", "N, or at most N"),
    rule(r"\bof late\b", "recently"),
    rule(r"(?<!\bthere )\bis no (?!longer|more|way\b)[a-z]", "is not a …"),
    rule(r"\b(is|are|was|were) told\b", "one of log, warn, notify, raise, report"),
    rule(r"\b(he|him|his)\b", "name the process; it is an it"),
    rule(r"\b(ears?|bells?(?!:)|nudges?|rivals?|crew|nursery|errands?)\b", "the term of the field"),
    rule(r"\bhouse\b|\brooms\b|\b(this|the|of|that) room\b", "package, layer, module"),
    rule(r"\bthe broker (is|was|says|does|has|answered)\b", "the store"),
)

PROSE = re.compile(r'("""|# )(Who|What|Whether|How|That)\b')
"""A docstring or comment begins with a verb or a named thing."""

NAMES = re.compile(
    r"^_?(nursery|crew|ears?|bells?|nudges?|errands|rivals?|insists|calm|renounce|take_stock|hurry|adopt"
    r"|seat|halt|watcher|twin|cuts|gates|pauses)$",
    re.IGNORECASE,
)
"""Identifiers that have a term of the field: forkserver, pool, queue wait, waiters, child requests, conflicts, …"""

TEST_NAMES = re.compile(
    r"^test_.*(whoever|nobod|somebod|anybod|everybod|anew|for_ever(_|$)|_told|let_go|so_many|of_late|_is_no_(?!longer)|_who_)|^test_who_"
)
"""A test bears the name of a behaviour, with named things."""

SKIPPED = {"tests/test_words.py"}
DATA = "he her here hers herself him himself his"
"""A line of the common English words that the word counts leave out."""
NOT_PROSE = ("docs/decisions/",)


def files() -> list[Path]:
    """Return the sources, scripts and pages, without those that keep the words of their day."""
    places = ("pq", "tests", "docs", "bench", "sampletasks")
    found = [
        path
        for place in places
        for path in (ROOT / place).rglob("*")
        if path.suffix in (".py", ".md", ".lua")
    ]
    found += [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "SECURITY.md",
        ROOT / "manage.py",
        ROOT / "config.py",
    ]
    named = {path: path.relative_to(ROOT).as_posix() for path in found}
    return [
        path for path, name in sorted(named.items()) if name not in SKIPPED and not name.startswith(NOT_PROSE)
    ]


def faults(text: str, *, python: bool) -> list[str]:
    """Return the lines of a text that break a rule, each with what to write instead."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if DATA in line:
            continue
        for pattern, instead in RULES:
            hit = pattern.search(line)
            if hit is not None:
                found.append(f"{number}: {hit[0]!r} → {instead}")
        if python and (hit := PROSE.search(line)) is not None:
            found.append(f"{number}: {hit[0]!r} → begin with a verb or a named thing")
    if python:
        found += [f"{node}: an identifier of its own → the term of the field" for node in names(text)]
    return found


def names(source: str) -> list[str]:
    """Return the identifiers that a source defines and that have a better name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        defined: list[str] = []
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            defined.append(node.name)
        elif isinstance(node, ast.arg):
            defined.append(node.arg)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            defined.append(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.append(node.id)
        found += [
            f"line {node.lineno} {name}" for name in defined if NAMES.match(name) or TEST_NAMES.match(name)
        ]  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_keeps_the_words_of_the_field(path: Path) -> None:
    found = faults(path.read_text("utf-8"), python=path.suffix == ".py")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        '"""Who waits for a token."""',
        "# What follows is read once",
        "# whoever comes first starts it",
        "x = 'there is nobody'",
        "# a worker is told of it",
        "self._ears = ()",
        "def hurry(): ...",
        "# it hands his task back",
        "'it is no job'",
        "def test_who_comes_first_is_told(): ...",
    ],
)
def test_a_fault_is_found(text: str) -> None:
    assert faults(text, python=True)


def test_plain_words_pass() -> None:
    text = '"""Return the longest wait of a queue in seconds."""\n# The lease is no longer held: release the task.\n'
    assert faults(text, python=True) == []
