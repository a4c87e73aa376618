"""The users of docs/how-to/security.md, made on a test's server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "security.md"


def rules() -> dict[str, list[str]]:
    """By kind of program, the words of its `ACL SETUSER` line."""
    lines = re.findall(r"^ACL SETUSER (pq-(\w+) .*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    return {kind: words.split() for words, kind in lines}


def more_in_a_cluster() -> list[str]:
    """Words that the page adds to each line for a cluster."""
    (words,) = re.findall(r"^`(\+cluster\|[^`]*)` to each", PAGE.read_text("utf-8"), re.MULTILINE)
    return words.split()


def make_user(client: Any, kind: str, *more: str, old: bool = False) -> str:
    """Make that user, with `more` at the end of its line; `old`: as Redis 6.2 can have it. Returns its name and password."""
    words = [word.replace("%R~", "~") if old else word for word in rules()[kind]]
    words = [re.sub(r"^>.*", ">secret-word", word) for word in words]
    client.execute_command("ACL", "SETUSER", *words, *more)
    return f"{words[0]}:secret-word"


def as_user(url: str, user: str) -> str:
    """The URL of a Unix socket, with a user."""
    return url.replace("unix://", f"unix://{user}@")
