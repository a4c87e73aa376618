"""Real processes and real kills for `test_embedded.py`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pq.broker.embedded import EmbeddedServer

CLIENT = """
import sys
from pathlib import Path
from pq.broker.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
print("here", flush=True)
for line in sys.stdin:
    getattr(server, line.strip())()
    print("started" if server.started_here else "found", flush=True)
"""


def until(come_true: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for an observable state; the deadline only says when to call it a failure."""
    deadline = time.monotonic() + seconds
    while not come_true():
        assert time.monotonic() < deadline, f"still waiting for: {what}"
        time.sleep(0.002)


def ask(server: EmbeddedServer, command: str) -> bytes:
    """Send one inline command to the server, as netcat would."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(10)
        link.connect(unquote(urlsplit(server.url).path))
        link.sendall(command.encode() + b"\r\n")
        return link.recv(65536).strip()


def pid_of(directory: Path) -> int:
    """The process id of the server of `directory`."""
    return int((directory / "server.pid").read_text())


def is_alive(pid: int) -> bool:
    """Return whether the process runs. A zombie does not."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process is gone."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid), f"death of {pid}")


def servers_of(directory: Path) -> list[int]:
    """Every server process that has `directory` as its own, whatever any file says."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and Path(os.readlink(entry / "cwd")) == directory.resolve():
                found.append(int(entry.name))
        except OSError:
            pass
    return found


class Client:
    """Another process of the project, which attaches and detaches on command."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CLIENT, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        """Return the next line that the process prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, method: str) -> None:
        """Have the process call `method`, without waiting for it."""
        assert self.process.stdin is not None
        self.process.stdin.write(method + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End the process, however it stands."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def clients(directory: Path, count: int) -> Iterator[list[Client]]:
    """Start `count` processes; all are up before the first gets a command."""
    made = [Client(directory) for _ in range(count)]
    try:
        assert [client.hear() for client in made] == ["here"] * count
        yield made
    finally:
        for client in made:
            client.close()
