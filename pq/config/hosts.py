"""The URL of a store that is several servers: of Sentinel, which know where the primary is, or of a Cluster.

    redis+sentinel://user:password@host:port,host:port/service/db?sentinel_password=…
    redis+cluster://user:password@host:port,host:port

`rediss+…` speaks TLS with all of them; `valkey+…` and `valkeys+…` mean the same. User and password are those
of the servers that keep the data. What follows `?` is for the client, as with a single server.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

SENTINEL, CLUSTER = "sentinel", "cluster"
PORTS = {SENTINEL: 26379, CLUSTER: 6379}
SYNTAX = {
    SENTINEL: "redis+sentinel://user:password@host:26379,host:26379/service/0",
    CLUSTER: "redis+cluster://user:password@host:6379,host:6379",
}
_OWN = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True, repr=False)
class Hosts:
    """A URL with several hosts, taken apart. It has passwords in it, and so no repr of its own."""

    kind: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    server: str
    """A URL for one of the servers that keep the data, whose host and port are still to be filled in."""
    sentinel: str
    """The same for a Sentinel."""


def kind_of(url: str) -> str | None:
    """`sentinel`, `cluster`, or None for the URL of a single server."""
    scheme = url.partition("://")[0]
    _, plus, kind = scheme.partition("+")
    return kind if plus and kind in PORTS else None


def parse_hosts(url: str) -> Hosts:
    """Take it apart. A `ValueError` completes the sentence "the value is not …"."""
    scheme, _, rest = url.partition("://")
    kind = kind_of(url)
    if kind is None:
        raise ValueError("a URL of several hosts")
    syntax = SYNTAX[kind]
    rest, _, query = rest.partition("?")
    login, at, places = rest.rpartition("@")
    hosts, _, path = places.partition("/")
    if any(sign in login for sign in "@/#"):
        raise ValueError(f"a store URL like {syntax}; write @ : / # ? in a password as %40 %3A %2F %23 %3F")
    found = tuple(_host(place, PORTS[kind], syntax) for place in hosts.split(","))
    words = [unquote(word) for word in path.strip("/").split("/") if word]
    service, database = "", "0"
    if kind == SENTINEL:
        if not 1 <= len(words) <= 2:
            raise ValueError(f"a store URL that names the service which the Sentinels watch, like {syntax}")
        service = words[0]
        database = words[1] if len(words) == 2 else "0"
        if not database.isdigit():
            raise ValueError(f"a store URL whose database is a number, like {syntax}")
    elif words and words != ["0"]:
        raise ValueError(f"a store URL without a path: a cluster has one database; write {syntax}")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise ValueError(
            f"a store URL whose options are name=value, like {syntax}?ssl_ca_certs=/path"
        ) from None
    own = {name: options.pop(name) for name in _OWN if name in options}
    if own and kind != SENTINEL:
        raise ValueError(f"a store URL for a cluster, which has no {min(own)}; write {syntax}")
    tls = "rediss" if scheme.startswith(("rediss+", "valkeys+")) else "redis"
    tail = "?" + urlencode(options) if options else ""
    # Options of the connection are for the Sentinels too; their login is stated separately.
    asking = {name: value for name, value in options.items() if name not in ("db", "username", "password")}
    asking.update({name.removeprefix("sentinel_"): value for name, value in own.items() if value})
    return Hosts(
        kind=kind,
        hosts=found,
        service=service,
        server=f"{tls}://{login}{at}host/{database}{tail}",
        sentinel=f"{tls}://host/0" + ("?" + urlencode(asking) if asking else ""),
    )


def _host(place: str, port: int, syntax: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"redis://{place.strip()}")
        if parts.hostname and not parts.path and parts.username is None and parts.port != 0:
            return parts.hostname, parts.port or port
    except ValueError:
        pass
    raise ValueError(f"a store URL whose hosts and ports are right, like {syntax}")
