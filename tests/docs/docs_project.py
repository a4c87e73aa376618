"""A project in a temporary directory, a server of it, and a Python prompt in it: what a reader would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docs_blocks import ROOT

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
        self.log = directory / "server.log"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PQ_")}
        self.environment |= {"PYTHONPATH": str(library), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}

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
    def server(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """`python manage.py …`; afterwards stopped as Ctrl-C stops it."""
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", *words],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
            assert process.poll() is None, f"the server ended by itself:\n{self.said()}"
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0, self.said()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def said(self) -> str:
        """The log of the server."""
        return self.log.read_text("utf-8", "replace")

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the server has said it."""
        deadline = time.monotonic() + PATIENCE
        while self.said().count(text) < times:
            assert time.monotonic() < deadline, f"still waiting for {text!r} in:\n{self.said()}"
            time.sleep(0.01)


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
        """Type a line; what the interpreter prints before it asks for the next."""
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
