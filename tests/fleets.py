"""Servers in company: a primary with its replica and three Sentinels, and a cluster of six. Real ones, on 127.0.0.1.

The waits look at what the servers report of each other, with long deadlines: a machine may be slow.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

HOST = "127.0.0.1"
LONG = 60.0
"""Seconds for whatever comes true by itself, on the slowest machine."""
SLOTS = 16384
_used: set[int] = set()


def until(come_true: Callable[[], Any], what: str, seconds: float = LONG) -> Any:
    """Wait for it; errors of a server that is not there yet count as not yet."""
    deadline = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            if found := come_true():
                return found
        except (redis.RedisError, OSError, KeyError, IndexError) as exc:
            last = exc
        assert time.monotonic() < deadline, f"{what}: not after {seconds:g} s ({last})"
        time.sleep(0.02)


def free_port() -> int:
    """Return a free port; the one 10,000 above it is free too; both below those that the kernel gives to clients."""
    while True:
        port = random.randrange(11_000, 22_000)
        if port in _used:
            continue
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as two:
            one.bind((HOST, port))
            two.bind((HOST, port + 10_000))
            _used.add(port)
            return port


class Node:
    """One server, with nothing on disk but its notes about the others."""

    def __init__(
        self, binary: Path, *options: str, sentinel: str | None = None, password: str | None = None
    ) -> None:
        self.binary = binary
        self.directory = Path(tempfile.mkdtemp(prefix="pq-ha-"))
        self._options = options
        self._sentinel = sentinel
        self._password = password
        self._client: redis.Redis | None = None
        self.process: subprocess.Popen[bytes] | None = None
        for _ in range(20):
            self.port = free_port()
            if self.start():
                return
        raise AssertionError(f"{binary} does not start: {self.log()[-2000:]}")

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self, *more: str) -> bool:
        """Start it, and wait until it answers; False when it ended, its port being another's by now."""
        self.forget()
        log = ("--logfile", str(self.directory / "log"))
        if self._sentinel is not None:
            conf = self.directory / "sentinel.conf"
            if not conf.exists():
                conf.write_text(f"port {self.port}\nbind {HOST}\ndir {self.directory}\n{self._sentinel}")
            command = [str(self.binary), str(conf), "--sentinel", *log]
        else:
            command = [
                *(str(self.binary), "--port", str(self.port), "--bind", HOST, "--dir", str(self.directory)),
                *("--save", "", "--appendonly", "no", "--repl-diskless-sync", "yes"),
                *("--repl-diskless-sync-delay", "0", *log, *self._options, *more),
            ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.process = process
        until(lambda: process.poll() is not None or self.call("PING"), f"{self.address} answers")
        return process.poll() is None

    def call(self, *command: Any) -> Any:
        """Ask it, over a connection that is kept."""
        if self._client is None:
            self._client = redis.Redis(
                host=HOST,
                port=self.port,
                password=self._password,
                protocol=2,
                socket_timeout=20,
                retry=Retry(NoBackoff(), 0),
            )
        return self._client.execute_command(*command)

    @property
    def client(self) -> redis.Redis:
        self.call("PING")
        assert self._client is not None
        return self._client

    def facts(self, section: str) -> dict[str, Any]:
        """INFO of it."""
        found: dict[str, Any] = self.call("INFO", section)
        return found

    def forget(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def log(self) -> str:
        with contextlib.suppress(OSError):
            return (self.directory / "log").read_text("utf-8", "replace")
        return ""

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It accepts connections, and says nothing."""
        self.forget()
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns."""
        self.forget()
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Watched:
    """A primary, its replica, and three Sentinels that watch them under the name `shop`."""

    service = "shop"

    def __init__(self, binary: Path) -> None:
        self.nodes: list[Node] = []
        self.sentinels: list[Node] = []
        try:
            first = Node(binary)
            self.nodes.append(first)
            self.nodes.append(Node(binary, "--replicaof", HOST, str(first.port)))
            self.nodes[1]._options = ()
            conf = (
                f"sentinel monitor {self.service} {HOST} {first.port} 2\n"
                f"sentinel down-after-milliseconds {self.service} 3000\n"
                f"sentinel failover-timeout {self.service} 6000\n"
            )
            self.sentinels += [Node(binary, sentinel=conf) for _ in range(3)]
            for sentinel in self.sentinels:
                with contextlib.suppress(
                    redis.ResponseError
                ):  # Redis 6.2 looks every ten seconds, and has no choice
                    sentinel.call("SENTINEL", "DEBUG", "info-period", "1000")
            self.settle()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return "redis+sentinel://" + ",".join(node.address for node in self.sentinels) + f"/{self.service}"

    def settle(self) -> Node:
        """Wait until all is well: one primary, its replica is up to date, the Sentinels agree. The primary."""

        def well() -> Node | None:
            ports = set()
            for sentinel in self.sentinels:
                master = _table(sentinel.call("SENTINEL", "MASTER", self.service))
                ports.add(int(master["port"]))
                if master["flags"] != "master" or master["num-other-sentinels"] != "2":
                    return None
                replicas = [_table(each) for each in sentinel.call("SENTINEL", "REPLICAS", self.service)]
                if [(r["flags"], r["master-link-status"]) for r in replicas] != [("slave", "ok")]:
                    return None
                if replicas[0]["master-port"] != master["port"]:
                    return None
            if len(ports) != 1:
                return None
            primary = next(node for node in self.nodes if node.port in ports)
            other = next(node for node in self.nodes if node is not primary)
            there, here = primary.facts("replication"), other.facts("replication")
            if (there["role"], there["connected_slaves"]) != ("master", 1):
                return None
            if (here["role"], here.get("master_link_status")) != ("slave", "up"):
                return None
            return primary if int(here["master_port"]) == primary.port else None

        found: Node = until(well, "one primary and one replica")
        return found

    def primary(self) -> Node:
        """Return the primary that most of the Sentinels name."""
        named = [int(s.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)[1]) for s in self.sentinels]
        port = max(set(named), key=named.count)
        return next(node for node in self.nodes if node.port == port)

    def other(self, node: Node) -> Node:
        return next(each for each in self.nodes if each is not node)

    def failover(self) -> Node:
        """Have the replica take over, and the old primary follow it. The new primary."""
        old = self.settle()
        new = self.other(old)
        # NOGOODSLAVE for a moment, where a Sentinel has not looked at the replica recently.
        until(lambda: self.sentinels[0].call("SENTINEL", "FAILOVER", self.service), "a failover begins")
        until(lambda: self.primary() is new, "the Sentinels name the new primary")
        # They would do it themselves, some seconds later; and would drop the clients, which here find out alone.
        old.call("REPLICAOF", HOST, new.port)
        return new

    def crash(self, old: Node | None = None) -> Node:
        """Kill the primary, and have it come back as a replica of the other. The new primary."""
        old = old or self.settle()
        old.kill()
        new = self.other(old)
        until(lambda: self.primary() is new, "the Sentinels name the new primary")
        until(lambda: new.facts("replication")["role"] == "master", "it is the primary")
        assert old.start("--replicaof", HOST, str(new.port)), old.log()[-2000:]
        return new

    @contextlib.contextmanager
    def lagging(self) -> Iterator[Node]:
        """Cut the replica off: data that it lacks is lost when it takes over. Return the primary."""
        primary = self.settle()
        replica = self.other(primary)
        replica.call("CONFIG", "SET", "masteruser", "stranger")
        replica.call("CONFIG", "SET", "masterauth", "nothing")
        try:
            primary.call("CLIENT", "KILL", "TYPE", "replica")
            until(lambda: replica.facts("replication")["master_link_status"] == "down", "the replica is deaf")
            until(
                lambda: primary.facts("replication")["connected_slaves"] == 0, "no replica hears the primary"
            )
            yield primary
        finally:
            for node in self.nodes:
                until(lambda node=node: node.call("CONFIG", "SET", "masteruser", ""), "it is up")
                node.call("CONFIG", "SET", "masterauth", "")

    def close(self) -> None:
        for node in (*self.sentinels, *self.nodes):
            node.close()


def _table(flat: Any) -> dict[str, str]:
    if isinstance(flat, dict):
        return {_text(k): _text(v) for k, v in flat.items()}
    return {_text(k): _text(v) for k, v in zip(flat[::2], flat[1::2], strict=True)}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class Cluster:
    """Three masters, each with a replica."""

    def __init__(self, binary: Path, *, masters: int = 3) -> None:
        self.nodes: list[Node] = []
        self._masters = masters
        options = [
            *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
            *("--cluster-node-timeout", "2000", "--repl-ping-replica-period", "1"),
        ]
        try:
            self.nodes += [Node(binary, *options) for _ in range(2 * masters)]
            for n, node in enumerate(self.nodes):
                node.call("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
            for n, node in enumerate(self.nodes[:masters]):
                # In a few pieces each, as clusters have them after a while.
                for piece in range(n, 12, masters):
                    low, high = piece * SLOTS // 12, (piece + 1) * SLOTS // 12
                    node.call("CLUSTER", "ADDSLOTS", *range(low, high))
            for node in self.nodes[1:]:
                self.nodes[0].call("CLUSTER", "MEET", HOST, node.port)
            for node in self.nodes:
                until(lambda node=node: len(self.view(node)) == 2 * masters, "all know each other")
                until(lambda node=node: self.is_ok(node), f"the cluster is up for {node.address}")
            for n, node in enumerate(self.nodes[masters:]):
                until(lambda n=n, node=node: self.follow(node, self.nodes[n]), "a replica follows")
            self.settle()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(node.address for node in self.nodes[:3])

    @staticmethod
    def view(node: Node) -> dict[int, tuple[str, str]]:
        """Return the view that a node has of each: id and flags, by port."""
        raw = node.call("CLUSTER", "NODES")
        found = {}
        if isinstance(raw, dict):  # redis-py has parsed it
            for address, facts in raw.items():
                found[int(address.rpartition(":")[2])] = (facts["node_id"], facts["flags"])
            return found
        for line in _text(raw).splitlines():
            words = line.split()
            found[int(words[1].partition("@")[0].rpartition(":")[2])] = (words[0], words[2])
        return found

    @staticmethod
    def is_ok(node: Node) -> bool:
        info = node.call("CLUSTER", "INFO")
        state = (
            info.get("cluster_state")
            if isinstance(info, dict)
            else "cluster_state:ok" in _text(info) and "ok"
        )
        return state == "ok"

    def id(self, node: Node) -> str:
        return next(id for id, flags in self.view(node).values() if "myself" in flags)

    def follow(self, replica: Node, master: Node) -> bool:
        replica.call("CLUSTER", "REPLICATE", self.id(master))
        return True

    def masters(self) -> list[Node]:
        return [node for node in self.nodes if node.facts("replication")["role"] == "master"]

    def replica_of(self, master: Node) -> Node:
        def found() -> Node | None:
            for node in self.nodes:
                if node is not master:
                    facts = node.facts("replication")
                    if facts["role"] == "slave" and int(facts["master_port"]) == master.port:
                        return node
            return None

        replica: Node = until(found, "it has a replica")
        return replica

    def settle(self) -> None:
        """Wait until all is well: the cluster is up for all of its nodes, and each master has its replica."""

        def well() -> bool:
            masters = replicas = 0
            for node in self.nodes:
                view = self.view(node)
                if not self.is_ok(node) or len(view) != len(self.nodes):
                    return False
                if any("fail" in flags or "handshake" in flags for _, flags in view.values()):
                    return False
                facts = node.facts("replication")
                if facts["role"] == "master":
                    masters += facts["connected_slaves"] == 1
                else:
                    replicas += facts["master_link_status"] == "up"
            return masters == replicas == self._masters

        until(well, "the cluster is whole")

    def owner(self, key: str) -> Node:
        """The master that has the slot of a key."""
        slot = key_slot(key.encode())

        def found() -> Node | None:
            for node in self.nodes:
                for low, high, master, *_ in _ranges(node.call("CLUSTER", "SLOTS")):
                    if low <= slot <= high:
                        return next(each for each in self.nodes if each.port == master)
            return None

        owner: Node = until(found, f"a node has slot {slot}")
        return owner

    def queues(self, each: int = 1) -> list[str]:
        """Return names of queues, `count` on each master."""
        found: dict[int, list[str]] = {}
        for n in range(10_000):
            names = found.setdefault(self.owner(f"{{queue{n}}}").port, [])
            if len(names) < each:
                names.append(f"queue{n}")
            if sum(len(names) for names in found.values()) == each * self._masters:
                break
        return [name for names in found.values() for name in names]

    def flush(self) -> None:
        for node in self.masters():
            node.call("FLUSHALL")

    def failover(self, master: Node) -> Node:
        """Have its replica take over, at once and with the data that it has. Return the new master."""
        replica = self.replica_of(master)
        replica.call("CLUSTER", "FAILOVER", "TAKEOVER")
        until(lambda: replica.facts("replication")["role"] == "master", "it is a master")
        return replica

    def crash(self, master: Node) -> Node:
        """Kill it, wait for its replica to take over, and have it come back. The new master."""
        replica = self.replica_of(master)
        master.kill()
        until(lambda: replica.facts("replication")["role"] == "master", "it is a master")
        assert master.start(), master.log()[-2000:]
        return replica

    def move(self, key: str, to: Node, *, pause: float = 0.0) -> None:
        """Move the slot of a key to another master, key by key, as tools do that distribute slots again."""
        slot = key_slot(key.encode())
        source = self.owner(key)
        to.call("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(to))
        while keys := source.call("CLUSTER", "GETKEYSINSLOT", slot, 5):
            source.call("MIGRATE", HOST, to.port, "", 0, 20_000, "KEYS", *keys)
            time.sleep(pause)
        for node in (to, source, *(each for each in self.masters() if each not in (to, source))):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", self.id(to))
        until(lambda: self.owner(key) is to, "the slot has moved")

    def hand_over(self, key: str, to: Node) -> bool:
        """Move the slot as a whole, as Valkey can from version 9 on; False where it cannot."""
        slot = key_slot(key.encode())
        source = self.owner(key)
        try:
            source.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self.id(to))
        except redis.ResponseError as exc:
            if "unknown" in str(exc):
                return False
            raise
        until(lambda: self.owner(key) is to, "the slot has moved")
        return True

    def close(self) -> None:
        for node in self.nodes:
            node.close()


def _ranges(raw: Any) -> Iterator[tuple[int, int, int]]:
    """First and last slot, and the port of the master."""
    if isinstance(raw, dict):  # redis-py has parsed it
        for (low, high), facts in raw.items():
            yield low, high, facts["primary"][1]
    else:
        for low, high, master, *_ in raw:
            yield low, high, int(master[1])
