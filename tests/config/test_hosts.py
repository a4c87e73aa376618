"""URLs of several hosts: the parts that are read, and the errors of wrong ones."""

from __future__ import annotations

import pytest

from pq.config import Settings, redact
from pq.config.hosts import kind_of, parse_hosts
from pq.errors import BadSetting


@pytest.mark.parametrize(
    ("url", "hosts", "service", "server", "sentinel"),
    [
        (
            "redis+sentinel://a,b:2,[::1]:3/shop",
            (("a", 26379), ("b", 2), ("::1", 3)),
            "shop",
            "redis://host/0",
            "redis://host/0",
        ),
        (
            "rediss+sentinel://me:p%40ss@a/my%20shop/3?sentinel_username=you&sentinel_password=x%26y&ssl_ca_certs=/c",
            (("a", 26379),),
            "my shop",
            "rediss://me:p%40ss@host/3?ssl_ca_certs=%2Fc",
            "rediss://host/0?ssl_ca_certs=%2Fc&username=you&password=x%26y",
        ),
        ("redis+cluster://:pw@a,b:1", (("a", 6379), ("b", 1)), "", "redis://:pw@host/0", "redis://host/0"),
        ("redis+cluster://a/0", (("a", 6379),), "", "redis://host/0", "redis://host/0"),
    ],
)
def test_a_url_is_taken_apart(url: str, hosts: object, service: str, server: str, sentinel: str) -> None:
    """Hosts with their ports, the service; a URL for each server and one for each Sentinel, with its own login."""
    found = parse_hosts(url)
    assert (found.hosts, found.service, found.server, found.sentinel) == (hosts, service, server, sentinel)
    assert "pw" not in repr(found)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+sentinel://a:1,b:2", "names the service"),
        ("redis+sentinel://a:1/shop/0/more", "names the service"),
        ("redis+sentinel://a:1/shop/first", "whose database is a number"),
        ("redis+sentinel://a:b/shop", "whose hosts and ports are right"),
        ("redis+sentinel://a,,b/shop", "whose hosts and ports are right"),
        ("redis+sentinel://a:0/shop", "whose hosts and ports are right"),
        ("redis+sentinel:///shop", "whose hosts and ports are right"),
        ("redis+sentinel://:SESAME@x@a:1/shop", "in a password as"),
        ("redis+sentinel://:SESAME@a:1/shop?x", "options are name=value"),
        ("redis+cluster://:SESAME@a:1/3", "has one database"),
        ("redis+cluster://a:1?sentinel_password=SESAME", "has no sentinel_password"),
    ],
)
def test_a_wrong_cron_line_raises_with_a_right_one(url: str, says: str) -> None:
    """With an example that is right, and without the password."""
    with pytest.raises(BadSetting, match=says) as caught:
        Settings(data_store=url)
    assert "://user:password@host:" in str(caught.value)
    assert "SESAME" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("alias", "scheme"),
    [
        ("valkey+sentinel", "redis+sentinel"),
        ("valkeys+sentinel", "rediss+sentinel"),
        ("valkey+cluster", "redis+cluster"),
        ("valkeys+cluster", "rediss+cluster"),
    ],
)
def test_valkey_is_another_word(alias: str, scheme: str) -> None:
    """It leaves the settings as redis."""
    assert Settings(
        data_store=f"{alias}://a/shop" if "sentinel" in alias else f"{alias}://a"
    ).data_store.startswith(f"{scheme}://")


def test_passwords_are_hidden() -> None:
    """Passwords of the servers and of the Sentinels are hidden."""
    url = "redis+sentinel://me:SESAME@a:1,b:2/shop?sentinel_username=you&sentinel_password=SESAME"
    assert redact(url) == "redis+sentinel://me:***@a:1,b:2/shop?sentinel_username=you&sentinel_password=***"
    assert "SESAME" not in repr(Settings(data_store=url))


def test_one_server_is_not_several() -> None:
    """The kind is in the scheme."""
    assert [kind_of(f"{scheme}://a") for scheme in ("redis", "unix", "redis+sentinel", "rediss+cluster")] == [
        None,
        None,
        "sentinel",
        "cluster",
    ]
