"""The registry: jobs by name, from the modules that are listed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pq.errors import BadSetting, DuplicateJob, ImportFailed, TaskNotAvailable
from pq.model.decorator import job
from pq.model.job import Job
from pq.model.registry import Registry, job_class

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write modules of a project that can be imported for the time of the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / (name.replace("__", "/") + ".py")
            path.parent.mkdir(exist_ok=True)
            (path.parent / "__init__.py").touch()
            path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


ONE = "from pq.model.decorator import job\nfrom pq.model.job import Job\n@job()\ndef one(): ...\n"


@job()
def here() -> None: ...


class There(Job):
    def __call__(self) -> None: ...


def test_jobs_are_found_in_a_module(write: Write) -> None:
    """Functions and classes that are defined there, without abstract or imported ones."""
    write(
        regmod=ONE + "class Two(Job):\n  def __call__(self): ...\nclass Base(Job):\n  abstract = True\n",
        regother="from regmod import one\n",
    )
    registry = Registry.from_paths(["regmod", "regother"])
    assert [kind.name for kind in registry] == ["one", "two"]
    assert "one" in registry
    assert "base" not in registry
    assert len(registry) == 2


FUNCTIONS = """
import os
from os.path import join
from pq.model.decorator import job

def plain(a, b=2): return a + b
async def coroutine(): ...
def _private(): ...
other = plain
class Class:
    def method(self): ...
@job("said.so")
def decorated(): ...
"""


def test_a_plain_function_is_a_job_under_its_path(write: Write) -> None:
    """A blocking one gets a thread, a coroutine function the loop; it is in no listing."""
    write(regplain=FUNCTIONS)
    registry = Registry.from_paths(["regplain"])
    plain = registry["regplain.plain"]
    assert (plain.name, plain.concurrency, str(plain.signature)) == ("regplain.plain", "thread", "(a, b=2)")
    assert registry["regplain.coroutine"].concurrency == "asyncio"
    assert registry["regplain.plain"] is plain
    assert [kind.name for kind in registry] == ["said.so"]
    module = sys.modules["regplain"]
    assert registry.job_of(module.plain) is plain
    assert registry.job_of(module.decorated).name == "said.so"


@pytest.mark.parametrize(
    "path",
    [
        "regplain.join", "regplain.os.getcwd", "regplain._private", "regplain.other", "regplain.Class",
        "regplain.Class.method", "regplain.decorated", "regplain.__name__", "os.getcwd", "regplain.", ".plain", "",
    ],
)  # fmt: skip
def test_nothing_else_of_a_module_can_be_called(write: Write, path: str) -> None:
    """No message reaches imported or private names, methods, or attributes."""
    write(regplain=FUNCTIONS)
    registry = Registry.from_paths(["regplain"])
    assert registry.get(path) is None
    assert path not in registry


def test_a_function_that_cannot_be_a_job_says_why(write: Write) -> None:
    """With the way out."""
    write(regplain=FUNCTIONS, regelse="def f(): ...\n")
    registry = Registry.from_paths(["regplain"])
    __import__("regelse")
    for function, why in (
        (sys.modules["regelse"].f, "its module 'regelse' is not in task_paths"),
        (sys.modules["regplain"].Class.method, "this one is within a function or class"),
        (sys.modules["regplain"]._private, "only a plain public name"),
    ):
        with pytest.raises(TaskNotAvailable, match=why):
            registry.job_of(function)
    with pytest.raises(TaskNotAvailable) as caught:
        registry["regplain.plane"]
    assert "regplain.plain" in caught.value.hint


def test_a_star_takes_all_of_a_package(write: Write) -> None:
    """The package itself and its modules, not those of packages within."""
    write(
        regpkg__c="",
        regpkg__d=ONE,
        regpkg__a=ONE.replace("one", "two"),
        regpkg__b=ONE.replace("one", "three"),
    )
    assert {kind.name for kind in Registry.from_paths(["regpkg.*"])} == {"one", "two", "three"}
    assert {kind.name for kind in Registry.from_paths(["regpkg.a"])} == {"two"}


def test_the_same_job_twice_is_harmless(write: Write) -> None:
    """Listed twice, added twice."""
    write(regmod=ONE)
    assert len(Registry.from_paths(["regmod", "regmod"])) == 1
    assert len(Registry([here, here, here.job_class, There])) == 2


def test_two_jobs_of_one_name_are_refused(write: Write) -> None:
    """With both places."""
    write(regone=ONE, regtwo="\n\n" + ONE)
    with pytest.raises(DuplicateJob, match=r"'one': .*regone\.py:\d+ and .*regtwo\.py:\d+") as caught:
        Registry.from_paths(["regone", "regtwo"])
    assert "name=" in str(caught.value.hint)


def test_a_value_that_is_not_a_job_is_refused() -> None:
    """A plain function, an abstract class."""
    for item in (print, Job, 5):
        with pytest.raises(ImportFailed, match="is not a job"):
            Registry([item])
        assert job_class(item) is None
    assert job_class(here) is here.job_class


def test_a_module_that_is_not_there_is_named(write: Write) -> None:
    """The path as it stands in `task_paths`, and the missing part of it."""
    for path, missing in (("regnone", "regnone"), ("regnone.sub.*", "regnone"), ("regnone.*", "regnone")):
        with pytest.raises(ImportFailed, match=f"there is no module '{missing}'") as caught:
            Registry.from_paths([path])
        assert "dotted" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("x = 1\nraise ValueError('broken')\n", 2, "ValueError: broken"),
        ("import reghas_no_such_module\n", 1, "ModuleNotFoundError: No module named 'reghas_no_such_module'"),
        ("\n\nfrom os import no_such_name\n", 3, "ImportError"),
        ("def f(:\n", None, "SyntaxError"),
    ],
    ids=["raises", "missing", "name", "syntax"],
)
def test_an_import_that_breaks_tells_the_users_line(
    write: Write, text: str, line: int | None, says: str
) -> None:
    """The innermost line outside the import machinery, and the error itself."""
    write(regbroken=text)
    with pytest.raises(ImportFailed, match="regbroken could not be imported") as caught:
        Registry.from_paths(["regbroken"])
    assert says in str(caught.value)
    if line is not None:
        assert f"regbroken.py, line {line})" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_an_option_that_cannot_be_keeps_its_own_error(write: Write) -> None:
    """With the user's line, not ours."""
    write(regbroken="from pq.model.decorator import job\n@job(timeout=-1)\ndef f(): ...\n")
    with pytest.raises(BadSetting, match=r"job f: timeout is -1.*regbroken\.py, line 2\)"):
        Registry.from_paths(["regbroken"])


def test_an_unknown_name_gets_the_nearest() -> None:
    """Without a near name the error has the existing ones; without any, how to have one."""
    registry = Registry([here, There])
    assert registry["here"] is here.job_class
    assert registry.get("nowhere") is None
    with pytest.raises(TaskNotAvailable, match=r"no job named 'hree' \(2 known\)") as caught:
        registry["hree"]
    assert str(caught.value.hint).startswith("did you mean 'here'")
    with pytest.raises(TaskNotAvailable) as caught:
        registry["zzz"]
    assert caught.value.hint == "known: here, there"
    with pytest.raises(TaskNotAvailable) as caught:
        Registry()["zzz"]
    assert "task_paths" in str(caught.value.hint)


def test_dictconfig_in_a_module_does_not_silence_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default it disables all loggers that exist; those of this package stay, others are the module's business."""
    (tmp_path / "module_with_dictconfig.py").write_text(
        "import logging.config\n"
        "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': True})\n"
        "raise SystemExit('also when it fails')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    ours, other, off = (logging.getLogger(name) for name in ("pq.server", "some.library", "pq.switched_off"))
    off.disabled = True
    known = list(logging.root.manager.loggerDict.values())
    before = {logger: logger.disabled for logger in known if isinstance(logger, logging.Logger)}
    handlers = logging.root.handlers[:]
    try:
        with pytest.raises(SystemExit):
            Registry.from_paths(["module_with_dictconfig"])
        assert (ours.disabled, other.disabled, off.disabled) == (False, True, True)
    finally:
        logging.root.handlers[:] = handlers
        for logger, disabled in before.items():
            logger.disabled = disabled
