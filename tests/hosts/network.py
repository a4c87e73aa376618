"""Hosts of a network of their own: namespaces of this machine, joined by a switch that stands in the store's.

Only addresses of these namespaces are used, which no other host can reach. It takes root and `ip` (iproute2).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

STORE = "10.77.0.1"
PORT = 6379

SKEW = """\
import os, time

_skew, _real = float(os.environ.get("PQ_TEST_SKEW") or 0), time.time
if _skew:
    time.time = lambda: _real() + _skew
"""
"""A `sitecustomize` that sets the clock of a Python wrong, by `seconds`."""


def why_not() -> str | None:
    """Return the reason why this machine cannot have such hosts; None if it can."""
    if shutil.which("ip") is None:
        return "no `ip` here (iproute2)"
    name = f"pq-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return None


class Network:
    """The store's host and some others, by name."""

    def __init__(self, *names: str) -> None:
        self._tag = f"pq{os.getpid()}"
        self.names = names
        self._run("ip", "netns", "add", self._of("store"))
        self._in("store", "ip", "link", "set", "lo", "up")
        self._in("store", "ip", "link", "add", "switch", "type", "bridge")
        self._in("store", "ip", "addr", "add", f"{STORE}/24", "dev", "switch")
        self._in("store", "ip", "link", "set", "switch", "up")
        for number, name in enumerate(names, 2):
            self._run("ip", "netns", "add", self._of(name))
            self._in(
                "store",
                *("ip", "link", "add", f"to-{name}", "type", "veth"),
                *("peer", "name", "eth0", "netns", self._of(name)),
            )
            self._in("store", "ip", "link", "set", f"to-{name}", "master", "switch", "up")
            self._in(name, "ip", "link", "set", "lo", "up")
            self._in(name, "ip", "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            self._in(name, "ip", "link", "set", "eth0", "up")

    def on(self, name: str) -> list[str]:
        """Return the words that a command has to begin with to run on that host."""
        return ["ip", "netns", "exec", self._of(name)]

    def unplug(self, name: str) -> None:
        """Nothing comes to that host any more, nor from it, without an error."""
        self._in("store", "ip", "link", "set", f"to-{name}", "down")

    def plug(self, name: str) -> None:
        """It is on the network again."""
        self._in("store", "ip", "link", "set", f"to-{name}", "up")

    def close(self) -> None:
        """Take it down. Processes that still run there go on without a network."""
        for name in ("store", *self.names):
            subprocess.run(["ip", "netns", "del", self._of(name)], check=False, capture_output=True)

    def _of(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def _in(self, host: str, *command: str) -> None:
        self._run(*self.on(host), *command)

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def wrong_clock(directory: Path) -> Path:
    """A directory to be put on PYTHONPATH for `PQ_TEST_SKEW` to count."""
    place = directory / "wrong clock"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(SKEW)
    return place
