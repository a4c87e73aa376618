"""The tree of errors, and the slugs by which they are named."""

from __future__ import annotations

import re

import pytest

from pq import errors
from pq.commands.explain import pages
from pq.errors import FORMER_SLUGS, PqError, TaskCrashed
from pq.explanations import PAGES
from pq.model.states import FAILURE
from pq.model.task import Task


def tree(kind: type[PqError], before: str = "") -> list[str]:
    """Return the classes below `kind` as lines of a drawing, in the order of their definition."""
    below = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    lines = []
    for number, each in enumerate(below, start=1):
        last = number == len(below)
        lines.append(f"{before}{'└' if last else '├'}── {each.__name__}")
        lines += tree(each, before + ("    " if last else "│   "))
    return lines


def test_the_tree_in_the_docstring_is_that_of_the_classes() -> None:
    drawn = re.findall(r"^    (PqError|[│├└ ─]+\w+)", errors.__doc__ or "", re.MULTILINE)
    assert drawn == ["PqError", *tree(PqError)]


def test_every_slug_is_explained() -> None:
    """No two errors share a slug but where one has no own, and each has a text for `pq explain`."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PqError)]
    assert len({kind.slug for kind in kinds}) == len(kinds)
    assert {kind.slug for kind in kinds} <= pages().keys()


def test_a_slug_names_the_store_and_the_worker_never_a_broker_or_a_consumer() -> None:
    for slug in pages():
        assert "broker" not in slug
        assert "consumer" not in slug


@pytest.mark.parametrize("former", FORMER_SLUGS)
def test_a_former_slug_leads_to_a_present_one(former: str) -> None:
    assert former not in pages()
    assert FORMER_SLUGS[former] in pages()


def test_a_record_with_a_former_slug_raises_the_same_error() -> None:
    """Records live as long as `result_ttl`, so workers of the version before have written some."""
    task = Task("i1", "walk", status=FAILURE, reason="consumer-lost", exception="its process died")
    with pytest.raises(TaskCrashed):
        task.get()
    assert set(PAGES) >= {FORMER_SLUGS["consumer-lost"]}
