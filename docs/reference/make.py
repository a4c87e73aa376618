"""Write `python.md` and `settings.md` beside this file, from the docstrings and the declared settings.

    ./run python docs/reference/make.py

A test compares the pages with the output of this script, so they cannot fall behind the code.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from pq import api, local  # noqa: E402
from pq.config import SETTINGS  # noqa: E402
from pq.config.settings import Settings  # noqa: E402
from pq.producer.tasks import Tasks  # noqa: E402

HEAD = "<!-- written by docs/reference/make.py; change the docstrings, and run it -->\n\n"
GROUPS = (
    ("Applications", ("PulsarQueue", "Manager", "Producer")),
    (
        "Jobs",
        ("job", "Job", "PeriodicJob", "JobFunction", "anchorDate", "Backoff", "Retry", "Snooze", "Cancel"),
    ),
    ("Limits", ("Concurrency", "Rate", "Unique", "Debounce")),
    ("Tasks", ("Task", "TaskFuture", "TaskEvent", "LogLine", "Reason", "ScheduleInfo", "Lock")),
)


def python_page() -> str:
    """Return the page of the public names."""
    parts = [
        HEAD
        + "# Python, name by name\n\nAll names of `pq.api`, `api.tasks` and `pq.local` with their docstrings. [The public API](api.md) shows them in use.\n"
    ]
    named = {name for _, names in GROUPS for name in names}
    for title, names in GROUPS:
        parts.append(f"\n## {title}\n")
        parts += [entry(f"api.{name}", getattr(api, name)) for name in names if name in api.__all__]
        if title == "Applications":
            parts.append(entry("api.tasks", Tasks))
    rest = [name for name in api.__all__ if name not in named]
    errors = [n for n in rest if inspect.isclass(getattr(api, n)) and issubclass(getattr(api, n), Exception)]
    others = [n for n in rest if n not in errors and inspect.isroutine(getattr(api, n))]
    parts.append("\n## Functions\n")
    parts += [entry(f"api.{name}", getattr(api, name)) for name in others]
    more = [
        n
        for n in rest
        if n not in errors
        and n not in others
        and inspect.isclass(getattr(api, n))
        and getattr(api, n).__name__ == n
    ]
    parts += [entry(f"api.{name}", getattr(api, name)) for name in more]
    constants = [n for n in rest if n not in errors and n not in others and n not in more]
    parts.append("\n## Constants and other names\n\n| name | value |\n|---|---|\n")
    parts += [f"| `api.{name}` | {constant(getattr(api, name))} |\n" for name in constants]
    parts.append("\n## Errors\n\n| error | slug | meaning |\n|---|---|---|\n")
    for name in errors:
        kind = getattr(api, name)
        if kind.__name__ == name:
            parts.append(f"| `api.{name}` | {getattr(kind, 'slug', '')} | {first_line(kind)} |\n")
    parts.append("\n## Without a server\n")
    parts += [entry(f"pq.local.{name}", getattr(local, name)) for name in local.__all__]
    return "".join(parts).replace("\n\n\n", "\n\n").rstrip() + "\n"


def constant(value: Any) -> str:
    if inspect.isclass(value):
        return f"another name of `{value.__name__}`"
    if isinstance(value, (set, frozenset)):
        return ", ".join(f"`{item!r}`" for item in sorted(value))
    return f"`{value!r}`"


def entry(name: str, thing: Any) -> str:
    """Return the section of a name with its signature, its docstring, and those of its methods."""
    lines = [f"\n### {name}\n"]
    if not inspect.isclass(thing):
        lines.append(f"\n`{name}{signature(thing)}`\n")
    elif issubclass(thing, BaseException) or "__init__" in vars(thing) or dataclasses.is_dataclass(thing):
        lines.append(f"\n`{name}{signature(thing, drop_self=True)}`\n")
    lines.append("\n" + markdown(inspect.getdoc(thing) or ""))
    if inspect.isclass(thing):
        for member, value in members(thing):
            lines.append(f"\n**`{member}`** {short(inspect.getdoc(value) or '')}\n")
    return "".join(lines)


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that the class, or a base in `pq`, documents."""
    seen = set()
    for base in kind.__mro__:
        if not base.__module__.startswith("pq"):
            continue
        for name, value in vars(base).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            inner = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
            if isinstance(value, property) and inspect.getdoc(value):
                yield name, value
            elif inspect.isfunction(inner) and inspect.getdoc(inner):
                yield f"{name}{signature(inner, drop_self=not isinstance(value, staticmethod))}", inner


def signature(thing: Any, *, drop_self: bool = False) -> str:
    """Return a signature without quotes around its annotations, which are text in the source."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return "(…)"
    parameters = list(found.parameters.values())
    if drop_self and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    text = str(found.replace(parameters=parameters, return_annotation=found.return_annotation))
    text = re.sub(r"<function .*?>|<factory>|<pq\.[\w.]+ object at 0x\w+>", "…", text)
    text = re.sub(r"<class '([\w.]+)'>", lambda m: m[1].rpartition(".")[2], text)
    return text.replace("'", "") if "'" in text and "Literal" not in text else text


def first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def short(text: str) -> str:
    """Return a docstring as one paragraph, with its lists."""
    return markdown(text).strip().replace("\n\n", "\n\n")


def markdown(text: str) -> str:
    """Return a docstring as Markdown: sections become lists, indented text becomes a block."""
    out: list[str] = []
    block: list[str] = []
    section = False

    def close() -> None:
        if block:
            width = min(len(line) - len(line.lstrip()) for line in block if line.strip())
            out.append(
                "<!-- not run: an example of a docstring -->\n```text\n"
                + "\n".join(line[width:] for line in block).rstrip()
                + "\n```\n"
            )
            block.clear()

    for line in text.splitlines():
        if re.fullmatch(r"(Args|Attributes):", line):
            close()
            section = True
            out.append("")
        elif section and re.match(r"    [\w*, ]+: ", line):
            name, _, rest = line.strip().partition(": ")
            out.append(f"- `{name}`: {rest}")
        elif section and line.startswith("        "):
            out.append(f"  {line.strip()}")
        elif (line.startswith("    ") and not section) or (not line.strip() and block):
            block.append(line)
        else:
            close()
            if line.strip():
                section = False
            out.append(line)
    close()
    return "\n".join(out).strip() + "\n"


def settings_page() -> str:
    """Return the page of the settings."""
    lines = [
        HEAD
        + "# Settings, one by one\n\nEach setting is a keyword of `PulsarQueue`, a name in a config file, a variable and a flag; "
        "[how they are read](../how-to/settings.md). Times are in seconds.\n"
    ]
    group = ""
    depends = {f.name for f in dataclasses.fields(Settings) if f.default_factory is not dataclasses.MISSING}
    for setting in SETTINGS.values():
        if setting.group != group:
            group = setting.group
            lines.append(
                f"\n## {group.capitalize()}\n\n| setting | flag | variable | default | meaning |\n|---|---|---|---|---|\n"
            )
        default = "depends on the machine" if setting.name in depends else shown(setting.default)
        unit = f" ({setting.unit})" if setting.unit else ""
        flags = ", ".join(f"`{flag}`" for flag in setting.flags)
        lines.append(
            f"| `{setting.name}` | {flags} | `{setting.variable}` | {default} | {setting.about}{unit} |\n"
        )
    return "".join(lines)


def shown(value: Any) -> str:
    if value is None or value in ((), ""):
        return "not set"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value:,g}`" if isinstance(value, float) else f"`{value}`"


PAGES = {"python.md": python_page, "settings.md": settings_page}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), "utf-8")
