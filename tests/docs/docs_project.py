"""A project in a temporary directory, a server of it, and a Python prompt in it, as a reader has them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docs_blocks import ROOT
from servers import ServerProcess, clean_environment

PATIENCE = 30.0
"""Seconds; only says when to call it a failure."""


class Project:
    """A directory with a `manage.py`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "project"
        self.directory.mkdir()
        # Only the package itself: the repository has a `sampletasks` too, and would have it before the project's.
        library = directory / "library"
        library.mkdir()
        (library / "pq").symlink_to(ROOT / "pq")
        self.environment = clean_environment(library) | {"PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
        self._server: ServerProcess | None = None

    def write(self, path: str, text: str) -> None:
        """Make a file of the project."""
        target = self.directory / path
        assert target.resolve().is_relative_to(self.directory.resolve())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")

    def python(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`python …` in the project's directory."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.directory,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    @contextmanager
    def server(self, *words: str) -> Iterator[ServerProcess]:
        """Run `python manage.py …`; stop it as Ctrl-C does."""
        server = self._server = ServerProcess(self.directory, *words, base=self.environment)
        try:
            yield server
            assert server.process.poll() is None, f"the server ended by itself:\n{server.log}"
            assert server.stop(signal.SIGINT) == 0, server.log
        finally:
            server.kill()

    def said(self) -> str:
        """Return the log of the server that was started last."""
        assert self._server is not None
        return self._server.log

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the server has logged `text`."""
        assert self._server is not None
        self._server.wait_for(re.escape(text), count=times)


class Prompt:
    """A plain interactive Python, typed into line by line."""

    def __init__(self, project: Project) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-q", "-i", "-u"],
            cwd=project.directory,
            env=project.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        self._deadline = time.monotonic() + PATIENCE
        assert self._until_prompt() == ""

    def type(self, line: str) -> str:
        """Type a line; return the output before the next prompt."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        return self._until_prompt()

    def _until_prompt(self) -> str:
        import select

        out = self._process.stdout
        assert out is not None
        heard = b""
        while not heard.endswith(b">>> "):
            left = self._deadline - time.monotonic()
            ready, _, _ = select.select([out], [], [], max(0.0, left))
            assert ready, f"no prompt; so far: {heard.decode()!r}"
            more = os.read(out.fileno(), 65536)
            assert more, f"the interpreter has ended: {heard.decode()!r}"
            heard += more
        return heard[:-4].decode()

    def close(self) -> int:
        """Leave, as with Ctrl-D; the exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            return self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
