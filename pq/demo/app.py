"""The application of the tour; `python -m pq.demo.app` is the program that its server runs.

The server ends with the tour, however that ends: its standard input is a pipe from the tour, and the end
of that pipe is the order to stop.
"""

from __future__ import annotations

import os
import signal
import threading

from pq.api import PulsarQueue


def app() -> PulsarQueue:
    """The application; its store and its workers come by flag."""
    return PulsarQueue(task_paths=["pq.demo.jobs"])


def stop_with_the_tour() -> None:
    """Drain as soon as the other end of standard input is closed."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=stop_with_the_tour, daemon=True).start()
    app().start()
