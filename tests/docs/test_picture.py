"""The picture of README.md: a recording of the tour that still has the tour's text."""

from __future__ import annotations

import importlib.util
import re
import sys
import xml.etree.ElementTree as tree
from types import ModuleType

import pytest
from docs_blocks import ROOT


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """The program that makes it."""
    spec = importlib.util.spec_from_file_location("pictures_make", ROOT / "docs/pictures/make.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["pictures_make"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shape(line: str) -> str:
    """Return a line without measured figures, and without those of a machine."""
    line = re.sub(
        r"pq \S+ · python \S+ · (uvloop|asyncio) · (Valkey|Redis) \S+", "pq · python · loop · store", line
    )
    line = re.sub(r"\d+(\.\d+)? m?s\b", "TIME", line)
    return re.sub(r"\b(pid|worker w)( ?)\d+", r"\1\2N", " ".join(line.split()))


@pytest.mark.endurance
def test_it_says_what_the_tour_says_now(make: ModuleType) -> None:
    """Line by line, but for measured figures: a new recording draws the same text."""
    lines = make.record()
    said = [" ".join(make.plain(line.text).split()) for line in lines]
    assert make.words_of(make.draw(lines)) == said
    assert [shape(line) for line in make.words_of(make.PICTURE.read_text("utf-8"))] == [
        shape(line) for line in said
    ], "the tour has changed: python docs/pictures/make.py records it again"
    assert any(line.frames for line in lines)  # the bar moved


def test_it_is_small_and_safe(make: ModuleType) -> None:
    """A forge shows it as an image: no script, nothing from elsewhere; readable by day, by night and standing still."""
    text = make.PICTURE.read_text("utf-8")
    assert len(text.encode()) < 60_000
    names = {element.tag.rpartition("}")[2] for element in tree.fromstring(text).iter()}
    assert names == {"svg", "title", "style", "rect", "g", "text"}
    assert not re.search(r"href|url\(|@import|on\w+=", text)
    assert "prefers-color-scheme:dark" in text
    assert "prefers-reduced-motion:reduce" in text


def test_readme_shows_it() -> None:
    """The picture has an alternative text."""
    assert re.search(
        r"!\[[^\]]{20,}\]\(docs/pictures/first-contact\.svg\)", (ROOT / "README.md").read_text("utf-8")
    )
