"""Facts about the machine and the libraries, and the resources of a process."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pq import __version__
from pq.config.settings import cores


def facts() -> dict[str, Any]:
    """Return the facts about the machine and the libraries."""
    return {
        "date": dt.datetime.now().astimezone().isoformat(timespec="seconds"),
        "cores": cores(),
        "cpu": cpu_model(),
        "busy_before": busy(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "pq": __version__,
        **{name: version(name) for name in ("uvloop", "redis", "hiredis", "msgpack")},
    }


def cpu_model() -> str:
    """Return the name of the processor."""
    if sys.platform == "darwin":
        return _said("sysctl", "-n", "machdep.cpu.brand_string")
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def busy(seconds: float = 0.5) -> float | None:
    """Return the share of all cores that other programs use now; None if it is unknown."""

    def used() -> tuple[int, int]:
        spent = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(spent), spent[3] + spent[4]  # all, idle

    try:
        before = used()
        time.sleep(seconds)
        after = used()
    except (OSError, ValueError):
        return None
    return 1 - (after[1] - before[1]) / max(1, after[0] - before[0])


def version(package: str) -> str:
    """Return the version of a package; "-" if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def cpu_seconds(*pids: int) -> float:
    """Return the CPU time of these processes, all threads; in nanoseconds if the kernel has them."""
    total = 0.0
    for pid in pids:
        threads = Path(f"/proc/{pid}/task")
        if threads.is_dir():
            for thread in threads.iterdir():
                try:
                    total += int((thread / "schedstat").read_text().split()[0]) / 1e9
                except (OSError, IndexError):
                    pass  # a thread that has just ended
        else:
            clock, _, part = _said("ps", "-o", "time=", "-p", str(pid)).partition(".")
            numbers = [int(number) for number in clock.replace("-", ":").split(":") if number]
            units = (1, 60, 3600, 86_400)
            total += sum(number * unit for number, unit in zip(reversed(numbers), units, strict=False))
            total += float(f"0.{part or 0}")
    return total


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    return int(_said("ps", "-o", "rss=", "-p", str(pid)) or 0) / 1024


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return done.stdout.strip()
