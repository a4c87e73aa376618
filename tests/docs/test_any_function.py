"""`docs/how-to/any-function.md` from a clean directory: a plain function, named queues, and its web application."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import httpx2
import pytest
from docs_blocks import ROOT, blocks
from docs_project import PATIENCE, Project

PAGE = blocks(ROOT / "docs/how-to/any-function.md")
RUNNER = Path(__file__).with_name("docs_runner.py")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The files of the page in a project."""
    project = Project(tmp_path)
    for block in PAGE:
        if block.file is not None:
            project.write(block.file, block.source)
    return project


class Site(http.server.BaseHTTPRequestHandler):
    """Says 200 for `/up`, and 404 for all else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/up" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def site() -> Iterator[str]:
    """A web server of the test's own."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_page_to_the_letter(project: Project) -> None:
    """Its files, its server, and its lines at a prompt."""
    with project.server("-w", "1"):
        project.wait_for("ready ·")
        python = [block for block in PAGE if block.kind == "python"]
        done = project.python(str(RUNNER), stdin=json.dumps([asdict(block) for block in python]))
        assert (done.returncode, done.stdout) == (0, ""), f"{done.stderr}\nthe server said:\n{project.said()}"


def test_a_worker_for_one_queue(project: Project) -> None:
    """`-q important` serves that queue, and no other."""
    project.write(
        "ask.py",
        "from manage import app\napi = app().api()\n"
        "low = api.tasks.queue('pages.is_page_ok', 'data:,x', queue='low')\n"
        "print(api.tasks.queue('pages.is_page_ok', 'data:,x', queue='important').wait(20).status_string)\n"
        "print(api.tasks.get(low.task.id).wait(5).status_string)\n",
    )
    with project.server("-w", "1", "-q", "important"):
        project.wait_for("ready ·")
        done = project.python("ask.py")
    assert (done.stdout, done.returncode) == ("SUCCESS\nQUEUED\n", 0), done.stderr


def test_the_web_application_shows_the_result_when_it_is_there(project: Project, site: str) -> None:
    """The form, the redirect, the page that waits, and the result; for a page that is up and for one that is not."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    web = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "web:web", "--port", str(port), "--log-level", "warning"],
        cwd=project.directory,
        env=project.environment,
    )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as browser:
            until_it_answers(browser)
            assert "<form" in browser.get("/").text
            assert browser.get("/result/missing").status_code == 404
            up, down = (browser.post("/", data={"url": f"{site}/{path}"}) for path in ("up", "<b>"))
            assert (up.status_code, down.status_code) == (303, 303)
            waiting = browser.get(up.headers["location"])
            assert (waiting.text, waiting.headers["refresh"]) == ("QUEUED: look again in a moment.", "1")
            with project.server("-w", "1"):
                assert until_done(browser, up.headers["location"]) == f"{site}/up is up"
                text = until_done(browser, down.headers["location"])
                assert "<b>" not in text, "what people type is shown as text"
    finally:
        web.terminate()
        assert web.wait(PATIENCE) is not None


def until_it_answers(browser: httpx2.Client) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            browser.get("/")
            return
        except httpx2.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def until_done(browser: httpx2.Client, place: str) -> str:
    """Reload as a browser would, until the page does not ask for it any more."""
    deadline = time.monotonic() + PATIENCE
    while "refresh" in (page := browser.get(place)).headers:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return page.text
