"""The server of the tour: a real one, in a process of its own, that never outlives it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from ..app import PulsarQueue
from ..errors import PqError
from .app import app

STOP_TIME = 10.0
"""Seconds that the server gets to stop; then it is killed."""
LAST_LINES = 4


class TourFailed(PqError):
    """A step of the tour did not do what it should have done."""

    slug = "tour-failed"


class TourServer:
    """A temporary directory with a store in it, and a server on that store.

        async with TourServer(workers=2) as server:
            …

    `verbose` sends the server's log to standard error; else it is kept until the end, for the hint of
    an error.
    """

    def __init__(self, *, workers: int, verbose: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pq-demo-"))
        self._log = self.directory / "server.txt"
        self._verbose = verbose
        self._process: subprocess.Popen[bytes] | None = None
        self._flags = {
            "data_store": f"embedded://{self.directory / 'store'}",
            "workers": str(workers),
            "graceful_timeout": "2",
        }

    def app(self) -> PulsarQueue:
        """The application, as the tour itself uses it: on the same store as the server."""
        made = app()
        made.configure(self._flags)
        return made

    def open(self) -> None:
        """Start the server."""
        words = [f"--{name.replace('_', '-')}={value}" for name, value in self._flags.items()]
        root = str(Path(__file__).resolve().parents[2])  # its server is this very `pq`
        environment = os.environ | {
            "TMPDIR": str(self.directory),  # what a killed worker leaves behind goes with the rest
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pq.demo.app", *words],
                cwd=self.directory,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=None if self._verbose else log,
                stderr=None if self._verbose else log,
                # Ctrl-C is answered by the tour, which then stops its server.
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise `TourFailed` when the server has ended."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise TourFailed(f"the server ended with exit code {code}", hint=self.last_lines())

    def last_lines(self) -> str | None:
        """Return the last lines of the server's log."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return None
        return "the server said:\n" + "\n".join(lines[-LAST_LINES:]) if lines else None

    def stop(self) -> None:
        """Stop the server and wait for its end; twice is harmless."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIME)
        except subprocess.TimeoutExpired:
            process.kill()  # its workers see that it is gone, and end
            process.wait()
        self._process = None

    def close(self) -> None:
        """Stop the server and remove the directory."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    async def __aenter__(self) -> TourServer:
        self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)
