"""The verb `config`: every setting, its value and where the value came from."""

from __future__ import annotations

import json
import sys

from ..cli import Command, VerbParser
from ..config import SETTINGS, load


def run(command: Command) -> int:
    """Print the settings as a table, or as JSON. Passwords are masked in both."""
    parser = VerbParser(command, "show each setting, its value and where it came from")
    parser.add_argument("--json", action="store_true", help="print JSON")
    wanted = parser.parse(command.argv)
    app = command.application
    settings = load(app.kwargs, app.config, cli=command.flags)
    rows = {
        name: (setting.shown(getattr(settings, name)), settings.sources.get(name, "default"))
        for name, setting in SETTINGS.items()
    }
    if wanted.json:
        told = {name: {"value": value, "source": source} for name, (value, source) in rows.items()}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
        return 0
    for name, (value, source) in rows.items():
        text = ", ".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
        sys.stdout.write(f"{name:<19} {text or '-':<28} {source}\n")
    return 0
