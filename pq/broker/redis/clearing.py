"""Remove all keys of a namespace from a store: the end of a test, on a server that other tests use too."""

from __future__ import annotations

from redis.client import Redis

COUNT = 1000
"""Keys that are looked at, and removed, in one call."""


def remove_namespace(url: str, namespace: str) -> None:
    """Remove every key of `namespace` from the store at `url`. Blocks; not for a running event loop."""
    with Redis.from_url(url) as client:
        keys = list(client.scan_iter(match=f"{namespace}:*", count=COUNT))
        for start in range(0, len(keys), COUNT):
            client.unlink(*keys[start : start + COUNT])
