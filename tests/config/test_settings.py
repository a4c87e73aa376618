"""Settings: each is declared once, and no invalid one can exist."""

from __future__ import annotations

import dataclasses
import os
from datetime import timedelta
from pathlib import Path

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pq.config import SETTINGS, Settings, WorkerRange, redact
from pq.config.settings import cores
from pq.errors import BadSetting

CONTRACT = {
    "concurrent_tasks": ("--concurrent-tasks", 100),
    "data_store": ("--data-store", ""),
    "message_broker": ("--message-broker", None),
    "message_serializer": ("--message-serializer", "msgpack"),
    "lease": ("--lease", 30.0),
    "max_requests": ("--max-requests", 0),
    "schedule_periodic": ("--schedule-periodic", False),
    "task_queues": ("-q", ("default",)),
    "queue_weights": ("--queue-weights", ()),
    "task_pool_timeout": ("--task-pool-timeout", 2.0),
    "task_paths": ("--task-paths", ()),
    "graceful_timeout": ("--graceful-timeout", 30.0),
}


@pytest.mark.parametrize("name", CONTRACT)
def test_defaults_and_flags_are_those_of_the_contract(name: str) -> None:
    """The table of the manual, to the letter."""
    flag, default = CONTRACT[name]
    assert flag in SETTINGS[name].flags
    assert getattr(Settings(), name) == default


def test_workers_are_the_cores_and_at_most_four() -> None:
    """The one default that depends on the machine."""
    assert Settings().workers == min(4, cores())
    assert SETTINGS["workers"].flags == ("-w", "--workers")


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_documented_and_its_default_fits(name: str) -> None:
    """A setting has a sentence, a variable, a long flag, and a default its own parser leaves alone."""
    setting = SETTINGS[name]
    assert setting.about
    assert setting.variable == f"PQ_{name.upper()}"
    assert setting.flags[-1].startswith("--")
    assert setting.check(setting.default, "default") == setting.default


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("workers", 0, "a whole number, 1 to 1024"),
        ("workers", "two", "a whole number"),
        ("workers", True, "a whole number"),
        ("workers", 1.5, "a whole number"),
        ("workers", "8..1", "a range with its smaller number first; write 1..8"),
        ("workers", "0..3", "a range within 1..1024; write 1..3"),
        ("workers", "-2..3", "a range within 1..1024; write 1..3"),
        ("workers", "1..2000", "a range within 1..1024; write 1..1024"),
        ("workers", "8..0", "a range with its smaller number first; write 1..8"),
        ("workers", "1..", "a whole number, 1 to 1024, or a range of it such as 1..8"),
        ("workers", "..8", "a whole number, 1 to 1024, or a range of it such as 1..8"),
        ("workers", "a..b", "a whole number, 1 to 1024, or a range of it such as 1..8"),
        ("workers", "1...8", "a whole number, 1 to 1024, or a range of it such as 1..8"),
        ("workers", "1-8", "a whole number, 1 to 1024, or a range of it such as 1..8"),
        ("workers", (1, 8), "a whole number, 1 to 1024, or a range of it such as 1..8"),
        ("idle_timeout", 0, "a number of seconds, 0.1 or more"),
        ("concurrent_tasks", None, "a whole number"),
        ("lease", "soon", "a number of seconds"),
        ("lease", float("nan"), "a number of seconds"),
        ("lease", "inf", "a number of seconds"),
        ("lease", 10**400, "a number of seconds"),
        ("lease", -1, "a number of seconds, 0.1 or more"),
        ("graceful_timeout", [], "a number of seconds"),
        ("schedule_periodic", "maybe", "one of 1/true/yes/on or 0/false/no/off"),
        ("schedule_periodic", 2, "one of 1/true"),
        ("message_serializer", "pickle", "one of msgpack, json"),
        ("log_level", 10, "one of debug, info"),
        ("namespace", "a{b}", "a name of up to 128 letters"),
        ("node_name", "n" * 129, "a name of up to 128 letters"),
        ("task_queues", "", "a list of at least one name"),
        ("task_queues", ["ok", "not ok"], "a name of up to 128 letters"),
        ("task_queues", ["ok", 3], "a list of names"),
        ("task_queues", {"a", "b"}, "a list of names"),
        ("queue_weights", "default", "a list of queues with their weights"),
        ("queue_weights", {"default": 0}, "a list of queues with their weights"),
        ("queue_weights", "default:x", "a list of queues with their weights"),
        ("queue_weights", 3, "a list of queues with their weights"),
        ("task_paths", "../jobs", "a list of dotted module paths"),
        ("task_paths", "shop.*.jobs", "a list of dotted module paths"),
        ("data_store", 6379, "a store URL"),
        ("data_store", "localhost:6379", "a store URL"),
        ("data_store", "http://localhost", "a store URL; its scheme is one of redis://, rediss://, unix://"),
        ("data_store", "redis://localhost:port", "a store URL whose host and port are right"),
        ("data_store", "unix://", "a store URL with the path of a socket"),
        ("max_message_size", 1, "a whole number, 1024 to"),
        ("log_dir", 3, "a path"),
        ("log_dir", " ", "a path"),
        ("log_dir", "logs\n", "a path"),
    ],
)
def test_a_bad_value_is_refused_with_what_would_fit(name: str, value: object, fits: str) -> None:
    """The error names setting, value, source and valid values, and the hint says where to set it."""
    with pytest.raises(BadSetting) as caught:
        Settings.from_dict({name: value, "sources": {name: "somewhere, line 3"}})
    message = str(caught.value)
    assert message.startswith(f"{name}: {value!r}"[:60])
    assert "(somewhere, line 3) is not " + fits in message
    assert f"PQ_{name.upper()}" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "value", "canonical"),
    [
        ("workers", " 3 ", 3),
        ("workers", "1..8", WorkerRange(1, 8)),
        ("workers", " 2 .. 4 ", WorkerRange(2, 4)),
        ("workers", WorkerRange(1, 8), WorkerRange(1, 8)),
        ("workers", "3..3", 3),
        ("lease", timedelta(minutes=1), 60.0),
        ("lease", 5, 5.0),
        ("schedule_periodic", "ON", True),
        ("schedule_periodic", "no", False),
        ("schedule_periodic", 1, True),
        ("log_level", "INFO", "info"),
        ("log_dir", "", None),
        ("log_dir", "logs/../var", os.path.abspath("var")),
        ("log_dir", Path("logs"), os.path.abspath("logs")),
        ("log_dir", "~/logs", os.path.expanduser("~/logs")),
        ("task_queues", "high, low,high", ("high", "low")),
        ("queue_weights", {"default": 6}, ("default:6",)),
        ("queue_weights", "default:06", ("default:6",)),
        ("task_queues", ["high,low", "spare"], ("high", "low", "spare")),
        ("task_paths", "shop.jobs,mail.*", ("shop.jobs", "mail.*")),
        ("message_broker", "", None),
        ("node_name", "", None),
        ("data_store", None, ""),
        ("data_store", "REDIS://Host", "redis://Host"),
        ("data_store", "valkey://h:1/2", "redis://h:1/2"),
        ("data_store", "valkeys://h", "rediss://h"),
        ("data_store", "unix:///a%20b/c.sock?db=2", "unix:///a%20b/c.sock?db=2"),
        ("data_store", "redis+sentinel://a:1,b:2/primary", "redis+sentinel://a:1,b:2/primary"),
        ("data_store", "redis+cluster://a:1,b:2", "redis+cluster://a:1,b:2"),
        ("data_store", "embedded://", "embedded://"),
        ("data_store", "memory://", "memory://"),
    ],
)
def test_a_value_is_brought_into_its_one_form(name: str, value: object, canonical: object) -> None:
    """Text of a variable, a value of a program: the same setting in the end."""
    settings = Settings.from_dict({name: value})
    assert getattr(settings, name) == canonical
    assert dataclasses.replace(settings) == settings


def test_a_number_of_workers_is_a_range_of_one() -> None:
    """The limits of workers hold in either order of writing."""
    assert (Settings(workers=3).min_workers, Settings(workers=3).max_workers) == (3, 3)
    ranged = Settings.from_dict({"workers": "2..5"})
    assert (ranged.min_workers, ranged.max_workers) == (2, 5)
    assert "workers='2..5'" in repr(ranged)


def test_a_range_of_workers_goes_to_another_process_as_text() -> None:
    """msgpack and JSON know text; decoding gives the range again."""
    settings = Settings.from_dict({"workers": "1..8"})
    assert settings.to_dict()["workers"] == "1..8"
    assert Settings.from_dict(msgpack.unpackb(msgpack.packb(settings.to_dict()))) == settings


def test_the_cores_are_shared_out_among_all_workers_that_there_may_be() -> None:
    """A range of workers has as many child processes in all as its upper end would have."""
    ranged = Settings.from_dict({"workers": f"1..{4 * cores()}"})
    assert ranged.cpu_processes == 1
    assert Settings(workers=1).cpu_processes == cores()


def test_settings_are_frozen() -> None:
    """Checked settings cannot be changed."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().workers = 0  # type: ignore[misc]


def test_settings_go_to_another_process_as_plain_data() -> None:
    """msgpack carries them there and back, sources included."""
    settings = Settings(
        data_store="redis://:secret@h", task_queues=("a", "b"), sources={"task_queues": "keyword"}
    )
    there = msgpack.unpackb(msgpack.packb(settings.to_dict()))
    back = Settings.from_dict(there)
    assert back == settings
    assert back.sources == settings.sources
    assert hash(back) == hash(settings)


def test_defaults_that_depend_on_others_are_worked_out() -> None:
    """The default queue, the broker's URL, the child processes, the least time a record is kept."""
    plain = Settings(task_queues=("high", "low"), workers=1000, data_store="redis://a", result_ttl=0)
    assert (plain.default_queue, plain.broker_url, plain.cpu_processes, plain.kept) == (
        "high",
        "redis://a",
        1,
        60,
    )
    told = Settings(default_task_queue="low", message_broker="redis://b", processes=3, result_ttl=90)
    assert (told.default_queue, told.broker_url, told.cpu_processes, told.kept) == ("low", "redis://b", 3, 90)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@h:6379/0", "redis://:***@h:6379/0"),
        ("rediss://app:se@cr/et@h", "rediss://app:***@h"),
        ("redis://app@h", "redis://app@h"),
        ("app:secret@h:6379", "app:***@h:6379"),
        ("redis//app:secret@h", "redis//app:***@h"),
        ("unix:///run/v.sock?db=1&password=secret", "unix:///run/v.sock?db=1&password=***"),
        ("redis://h?ssl_password=secret&db=1", "redis://h?ssl_password=***&db=1"),
        ("redis+sentinel://:one@a:1,:two@b:2/primary", "redis+sentinel://:***@b:2/primary"),
        ("", ""),
    ],
)
def test_redact_hides_passwords(url: str, shown: str) -> None:
    """The rest of a URL stays readable, also that of a wrong one."""
    assert redact(url) == shown


@given(st.text(), st.sampled_from(["redis", "rediss", "unix", "redis+sentinel", "http", "redis:"]))
@example("p@ss:w/rd?x#y", "redis")
def test_no_password_is_ever_shown(signs: str, scheme: str) -> None:
    """Neither redact, nor a repr, nor the error about the URL shows it, for any form of URL."""
    url = f"{scheme}://app:SESAME{signs}SESAME@host:6379/0"
    assert redact(url) == f"{scheme}://app:***@host:6379/0"
    try:
        shown = repr(Settings(data_store=url))
    except BadSetting as error:
        shown = f"{error} {error.hint}"
    assert "app:***@host" in shown
    assert "SESAME" not in shown
