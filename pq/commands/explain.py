"""The verb `explain`: the long explanation of a slug."""

from __future__ import annotations

import inspect

from ..cli import Command, VerbParser
from ..errors import FORMER_SLUGS, InvalidValue, PqError, did_you_mean
from ..explanations import PAGES
from .terminal import say


def run(command: Command) -> int:
    """`pq explain SLUG`; without a word, all of them."""
    parser = VerbParser(command, "explain the word in brackets at the end of a message")
    parser.add_argument("slug", metavar="SLUG", nargs="?")
    wanted = parser.parse(command.argv)
    known = pages()
    if wanted.slug is None:
        for name, text in sorted(known.items()):
            say(f"{name:<24} {text.split('. ')[0].rstrip('.')}")
        return 0
    slug: str = wanted.slug.strip("[]").lower()
    slug = FORMER_SLUGS.get(slug, slug)
    if slug not in known:
        raise InvalidValue(
            f"unknown slug {wanted.slug!r}",
            hint=did_you_mean(slug, known) or f"{command.program} explain lists all",
        )
    say(f"[{slug}]\n\n{known[slug]}")
    return 0


def pages() -> dict[str, str]:
    """Return all slugs with their texts; an error without a page has its docstring."""
    found: dict[str, str] = {}
    kinds: list[type[PqError]] = [PqError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found.setdefault(kind.slug, inspect.getdoc(kind) or kind.__name__)
    return {**found, **PAGES}
