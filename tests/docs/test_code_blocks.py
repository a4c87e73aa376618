"""Every code block of the documentation is run, or checked, or says why not (see `docs_blocks`)."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from docs_blocks import PAGES, ROOT, Block, blocks, parse
from docs_project import Project

from pq import api
from pq.api import PulsarQueue
from pq.broker import keys
from pq.broker.redis.scripts import NAMES
from pq.cli import VERBS, run
from pq.config import SETTINGS
from pq.model.task import WIRE

BLOCKS = [block for page in PAGES for block in blocks(page)]
ENTRANCE = ("manage.py", "config.py")
RUNNER = Path(__file__).with_name("docs_runner.py")


def of_kind(kind: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind == kind]


def place(block: Block) -> str:
    return block.place


# ------------------------------------------------------------------------------------------- all
def test_no_block_is_left_out() -> None:
    """A block that nothing is done with has a reason, in words."""
    assert len(BLOCKS) > 40
    assert not [block.place for block in of_kind("unknown")]
    assert not [block.place for block in of_kind("skipped") if len(block.reason or "") < 12]


# ---------------------------------------------------------------------------------------- python
def run_page(project: Project, page: list[Block]) -> str:
    """The errors in the blocks of one page."""
    done = project.python(str(RUNNER), stdin=json.dumps([asdict(block) for block in page]))
    assert done.returncode == 0, done.stderr
    return done.stdout


# Followed in projects of their own, by `test_tutorial.py`, `test_word_counts.py`, `test_any_function.py` and
# `test_testing_page.py`.
FROM_SCRATCH = {
    "docs/tutorial.md",
    "docs/how-to/word-counts.md",
    "docs/how-to/any-function.md",
    "docs/how-to/testing.md",
}
# And these by `test_migration.py`.
FROM_SCRATCH |= {f"docs/how-to/from-{old}.md" for old in ("celery", "rq", "huey", "arq")}
PYTHON_PAGES = sorted({block.page for block in of_kind("python")} - FROM_SCRATCH)


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_the_python_of_a_page_runs(page: str, docs_project: Project) -> None:
    """Its blocks run one after the other against a live server, and their output is that of the page."""
    wrong = run_page(docs_project, [block for block in of_kind("python") if block.page == page])
    assert not wrong, f"{wrong}\n\nthe server said:\n{docs_project.said()}"


def test_the_runner_finds_what_is_wrong(docs_project: Project) -> None:
    """Wrong output and exceptions are found, and names are kept from block to block."""
    text = """\
```python
one = 1
```
```pycon
>>> one + 1
3
```
```python
import asyncio
two = await asyncio.sleep(0, result=2)
assert two == one
```
```pycon
>>> two
2
>>> f"i{'0' * 32}"
'i26ad5c14c5bb422e87b0f7ccbce5ba06'
```
"""
    wrong = run_page(docs_project, list(parse(text, "page.md")))
    assert re.findall(r"^page\.md:\d+$", wrong, re.M) == ["page.md:5", "page.md:9"]
    assert "Expected:\n    3\nGot:\n    2" in wrong
    assert "AssertionError" in wrong


def test_a_block_must_be_closed_and_a_comment_must_have_its_block() -> None:
    with pytest.raises(AssertionError, match="never closed"):
        list(parse("```python\n", "page.md"))
    with pytest.raises(AssertionError, match="no block"):
        list(parse("<!-- file: a.py -->\nwords\n", "page.md"))


# ----------------------------------------------------------------------------------------- files
@pytest.mark.parametrize("block", [block for block in of_kind("file") if block.file in ENTRANCE], ids=place)
def test_a_program_or_its_settings_are_valid(block: Block, tmp_path: Path) -> None:
    """`manage.py` and `config.py` of a page give settings without an error."""
    project = Project(tmp_path)
    project.write("config.py", "")
    project.write(
        "manage.py",
        'from pq.api import PulsarQueue\n\ndef app():\n    return PulsarQueue(config="config.py")\n',
    )
    project.write(block.file or "", block.source)
    done = project.python("-c", "from manage import app; app().cfg")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "block", [block for block in of_kind("file") if block.file not in ENTRANCE], ids=place
)
def test_a_file_is_python_and_lies_where_the_server_finds_it(block: Block) -> None:
    path = Path(block.file or "")
    assert path.parts[0] in ("shop", "sampletasks") or block.page in FROM_SCRATCH
    if block.language == "python":
        compile(block.source, block.place, "exec")


# -------------------------------------------------------------------------------------- commands
def check_run(words: list[str]) -> None:
    """`./run WORD`"""
    assert (
        f"    {words[1]})" in (ROOT / "run").read_text() or f"    {words[1]}) " in (ROOT / "run").read_text()
    )
    if words[1] == "python" and len(words) > 2:
        check_python(words[1:])


def check_python(words: list[str]) -> None:
    """`python manage.py [flags] [verb]`, `python` alone, `python -m pytest …`, `python FILE`"""
    if len(words) == 1:
        return
    if words[1] == "manage.py":
        check_pq(words[1:])
    elif words[1] == "-m":
        assert words[2] in ("pytest", "venv", "pip"), words
    else:
        assert (ROOT / words[1]).exists(), words


def check_pq(words: list[str]) -> None:
    """The flags are known and their values fit; the verb exists."""
    words = [word for word in words[1:] if word != "&"]
    if "--help" in words or "--version" in words:
        return
    if words[:1] in (["-a"], ["--app"]):
        words = words[2:]
    plain = ("serve", "config", "demo")
    if words and words[0] in VERBS and words[0] not in plain:
        # Its own words are tried in `tests/fundamentals/test_verbs.py`; here it explains itself.
        with pytest.raises(SystemExit) as ended:
            run(PulsarQueue(), [words[0], "--help"])
        assert ended.value.code == 0
        return
    if "config" not in words:
        # `config` reads every setting, flags included, and starts nothing; so it stands in for the verb.
        words = [*[word for word in words if word not in plain], "config"]
    assert run(PulsarQueue(), words) == 0, words


def check_pip(words: list[str]) -> None:
    """`pip install "pq-tasks[EXTRA]"`: the extras exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, extras in re.findall(r"(pq-tasks)(?:\[([\w,]+)\])?", " ".join(words)):
        assert name == project["name"]
        assert set(filter(None, extras.split(","))) <= project["optional-dependencies"].keys()


def check_nothing(words: list[str]) -> None:
    """A command of the system, of which nothing is ours."""


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "./run": check_run,
    "python": check_python,
    "pq": check_pq,
    "pip": check_pip,
    **dict.fromkeys(("kill", "cd", "mkdir", "find", "git", "valkey-cli", "uvicorn"), check_nothing),
}


@pytest.mark.parametrize(
    ("number", "command"),
    [pytest.param(n, text, id=f"{b.page}:{n}") for b in of_kind("shell") for n, text in b.commands()],
)
def test_a_command_exists(number: int, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its program is known here, and its flags, verbs and extras are those of today."""
    words = shlex.split(command, comments=True)
    while "=" in words[0]:  # PQ_WORKERS=2 python manage.py
        name, _, value = words.pop(0).partition("=")
        if name.startswith("PQ_"):
            words.append(f"--{name.removeprefix('PQ_').lower().replace('_', '-')}={value}")
    assert words[0] in COMMANDS, f"{words[0]} is an unknown command"
    COMMANDS[words[0]](words)


# ----------------------------------------------------------------------------------------- links
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a page, a file or a heading of this repository has its target."""
    for link in LINK.findall(page.read_text("utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if heading:
            assert heading in headings(target), f"{page.name} links to {link}"


def headings(page: Path) -> set[str]:
    """The anchors of a page, as forges make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# ------------------------------------------------------------------------- tables, against the code
def test_the_table_of_settings_has_them_all() -> None:
    """Each setting with its flag and its default, and no other."""
    page = (ROOT / "docs/how-to/settings.md").read_text("utf-8")
    rows = {row[0]: row for row in re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", page, re.M)}
    assert rows.keys() == SETTINGS.keys()
    for name, flags, default in rows.values():
        for flag in SETTINGS[name].flags:
            assert f"`{flag}`" in flags
        value = SETTINGS[name].default
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "workers":
            assert default == f"{value:g}" or default == str(value), name


def test_the_protocol_page_has_the_wire_format() -> None:
    page = (ROOT / "docs/explain/protocol.md").read_text("utf-8")
    assert " ".join(WIRE) in " ".join(page.split())
    for name in NAMES:
        assert f"| `{name}` |" in page
    for key in re.findall(r"^\| `…(\S+)`", keys.__doc__ or "", re.M):
        assert f"| `pq:{{q}}:{key}` |" in page


def test_the_written_pages_are_what_would_be_written() -> None:
    """`docs/reference/make.py` writes them from the docstrings and the settings."""
    spec = importlib.util.spec_from_file_location("make", ROOT / "docs/reference/make.py")
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    for page, write in make.PAGES.items():
        assert (ROOT / "docs/reference" / page).read_text("utf-8") == write(), (
            f"run it: ./run python docs/reference/make.py ({page})"
        )


def test_the_reference_names_everything_public() -> None:
    """`docs/reference/api.md` has each name of `pq.api`, errors apart: their tree is in `pq.errors`."""
    page = (ROOT / "docs/reference/api.md").read_text("utf-8")
    for name in api.__all__:
        value = getattr(api, name)
        if not (isinstance(value, type) and issubclass(value, api.PqError)):
            assert re.search(rf"\b{name}\b", page), name


def test_the_index_lists_every_page() -> None:
    """A page that nothing links to is not found. The decisions have an index of their own."""
    for index in (ROOT / "docs/index.md", ROOT / "docs/decisions/README.md"):
        pages = index.parent.glob("*.md") if "decisions" in str(index) else index.parent.rglob("*.md")
        linked = {
            (index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text())
        }
        found = {page.resolve() for page in pages if page != index}
        if index.parent.name == "docs":
            found = {page for page in found if page.parent.name != "decisions"}
        assert found - linked == set()


# ------------------------------------------------------------------------------------ guarantees
def test_the_tests_that_guarantees_name_exist() -> None:
    """The guarantees, the contract and the decisions name no test that there is not."""
    pages = [
        ROOT / "docs/explain/guarantees.md",
        ROOT / "docs/explain/faults.md",
        ROOT / "docs/contribute/contract.md",
    ]
    pages += (ROOT / "docs/decisions").glob("*.md")
    named = [
        pair for page in pages for pair in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text("utf-8"))
    ]
    assert len(named) > 10
    missing = []
    for path, name in named:
        file = ROOT / path
        if not file.exists() or not re.search(
            rf"^(async )?def {name}\b|^\s+(async )?def {name}\b", file.read_text(), re.M
        ):
            missing.append(f"{path}::{name}")
    assert not missing


def test_each_line_of_the_contract_has_its_test() -> None:
    """Or says that it is not kept yet. Its sections are numbered, and none is empty."""
    text = (ROOT / "docs/contribute/contract.md").read_text("utf-8")
    sections = re.split(r"^## (\d)\. .+$", text, flags=re.M)[1:]
    assert sections[::2] == [str(number) for number in range(1, 10)]
    for body in sections[1::2]:
        rows = re.findall(r"^\| (.+?) \| (.+) \|$", body, re.M)[1:]
        assert len(rows) >= 5
        bare = [promise for promise, shown in rows if "::test_" not in shown and "**Not yet**" not in shown]
        assert not bare
