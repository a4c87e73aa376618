"""The verb `explain`: what a slug in brackets means, at more length."""

from __future__ import annotations

import inspect

from ..cli import Command, VerbParser
from ..errors import InvalidValue, PqError, did_you_mean
from ..explanations import PAGES
from .terminal import say


def run(command: Command) -> int:
    """`pq explain SLUG`; without a word, all of them."""
    parser = VerbParser(command, "explain the word in brackets at the end of a message")
    parser.add_argument("slug", metavar="SLUG", nargs="?")
    wanted = parser.parse(command.argv)
    known = pages()
    if wanted.slug is None:
        for slug, text in sorted(known.items()):
            say(f"{slug:<24} {text.split('. ')[0].rstrip('.')}")
        return 0
    slug = wanted.slug.strip("[]").lower()
    if slug not in known:
        raise InvalidValue(
            f"nothing is known as {wanted.slug!r}",
            hint=did_you_mean(slug, known) or f"{command.program} explain lists all",
        )
    say(f"[{slug}]\n\n{known[slug]}")
    return 0


def pages() -> dict[str, str]:
    """All slugs with their texts: those of the errors, where nothing more is written, from their docstrings."""
    found: dict[str, str] = {}
    kinds: list[type[PqError]] = [PqError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found.setdefault(kind.slug, inspect.getdoc(kind) or kind.__name__)
    return {**found, **PAGES}
