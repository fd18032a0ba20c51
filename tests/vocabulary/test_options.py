"""CONFIG: what is accepted, and that every fault is told at once, with name, value and remedy."""

import math
import re
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from channels_sqlite.layers import SqliteChannelLayer, options_of
from channels_sqlite.options import Keeping, Options

DOCUMENTED_DEFAULTS: dict[str, Any] = {
    "database": "channels",
    "prefix": "asgi",
    "polling_interval": 0.05,
    "expiry": 60,
    "group_expiry": 86400,
    "capacity": 100,
    "channel_capacity": None,
    "message_retention": 86400,
    "auto_trim": True,
    "trim_batch_size": 100,
    "max_message_size": 16 * 1024 * 1024,
    "symmetric_encryption_keys": None,
    "history": None,
}

# Nothing is opened here, and looking for leaks takes longer than these tests.
pytestmark = pytest.mark.leaks_allowed(reason="values in, values out")

SECONDS = ("polling_interval", "expiry", "group_expiry", "message_retention")
COUNTS = ("capacity", "trim_batch_size", "max_message_size")
SECRET = "correct-horse-battery-staple"


def faults_of(**config: object) -> str:
    """The text of the error that this CONFIG raises; the test fails when it raises none."""
    with pytest.raises(ImproperlyConfigured) as raised:
        SqliteChannelLayer(**config)
    return str(raised.value)


# Defaults


def test_an_empty_config_means_the_documented_defaults() -> None:
    assert Options.from_config({}) == Options.from_config(DOCUMENTED_DEFAULTS)


@pytest.mark.parametrize("name", [name for name, value in DOCUMENTED_DEFAULTS.items() if value is not None])
def test_each_default_is_the_documented_one(name: str) -> None:
    assert getattr(Options.from_config({}), name) == DOCUMENTED_DEFAULTS[name]


def test_there_is_no_option_beyond_the_documented_ones() -> None:
    text = faults_of(surplus=1)
    known = text.partition("known are: ")[2].rstrip(".").split(", ")
    assert set(known) == set(DOCUMENTED_DEFAULTS)


def test_the_layer_has_the_attributes_that_channels_reads() -> None:
    layer = SqliteChannelLayer(expiry=7, capacity=8, group_expiry=9)
    assert (layer.expiry, layer.capacity, layer.group_expiry) == (7, 8, 9)
    assert layer.extensions == ["groups", "flush"]


# Accepted values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("polling_interval", 5),
        ("polling_interval", 0.001),
        ("expiry", 0.5),
        ("group_expiry", None),
        ("group_expiry", 0.5),
        ("message_retention", 0),
        ("message_retention", 0.0),
        ("capacity", 1),
        ("auto_trim", False),
        ("trim_batch_size", 1),
        ("max_message_size", 1024 * 1024),
        ("prefix", "tenant-1"),
        ("database", "default"),
    ],
)
def test_possible_values_are_taken_as_they_are(name: str, value: object) -> None:
    options = Options.from_config({name: value, **({"expiry": 0.1} if name == "message_retention" else {})})
    assert getattr(options, name) == value


@pytest.mark.parametrize("retention", [0.001, 5, 29.9])
def test_a_retention_below_expiry_counts_as_expiry(retention: float) -> None:
    assert Options.from_config({"expiry": 30, "message_retention": retention}).message_retention == 30


def test_a_retention_of_zero_stays_zero() -> None:
    assert Options.from_config({"expiry": 30, "message_retention": 0}).message_retention == 0


def test_an_expiry_above_the_default_retention_raises_it() -> None:
    assert Options.from_config({"expiry": 100_000}).message_retention == 100_000


# Histories


def test_the_first_pattern_that_matches_says_what_is_kept() -> None:
    options = Options.from_config(
        {"history": {"room.vip": {"size": 2, "ttl": 3}, re.compile(r"ro+m\."): {"size": 4, "ttl": 0.5}, "n*": KEEP}}
    )
    expected = {
        "room.vip": Keeping(2, 3),
        "room.1": Keeping(4, 0.5),
        "news": Keeping(1, 1),
        "other": None,
        "aroom.": None,
    }
    assert {name: options.keeping_of(name) for name in expected} == expected


@pytest.mark.parametrize("value", [None, {}])
def test_no_patterns_are_no_history(value: object) -> None:
    assert Options.from_config({"history": value}) == Options()


KEEP = {"size": 1, "ttl": 1}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "None, or a dict of globs"),
        ("room.*", "None, or a dict of globs"),
        (True, "None, or a dict of globs"),
        ({1: KEEP}, "unlike 1"),
        ({re.compile(b"x"): KEEP}, "unlike re.compile"),
        ({"room": None}, "'room' is a dict with 'size'"),
        ({"room": 5}, "'room' is a dict with 'size'"),
        ({"room": {}}, "'room' is a dict with 'size'"),
        ({"room": {"size": 1}}, "'room' is a dict with 'size'"),
        ({"room": {"ttl": 1}}, "'room' is a dict with 'size'"),
        ({"room": {**KEEP, "age": 1}}, "'room' is a dict with 'size'"),
        ({"room": {"size": 0, "ttl": 1}}, "'size' for 'room' is a whole number of messages"),
        ({"room": {"size": -1, "ttl": 1}}, "'size' for 'room' is a whole number of messages"),
        ({"room": {"size": 1.0, "ttl": 1}}, "'size' for 'room' is a whole number of messages"),
        ({"room": {"size": True, "ttl": 1}}, "'size' for 'room' is a whole number of messages"),
        ({"room": {"size": None, "ttl": 1}}, "'size' for 'room' is a whole number of messages"),
        ({"room": {"size": 1, "ttl": 0}}, "'ttl' for 'room' is"),
        ({"room": {"size": 1, "ttl": -1}}, "'ttl' for 'room' is"),
        ({"room": {"size": 1, "ttl": True}}, "'ttl' for 'room' is"),
        ({"room": {"size": 1, "ttl": "300"}}, "'ttl' for 'room' is"),
        ({"room": {"size": 1, "ttl": math.nan}}, "'ttl' for 'room' is"),
        ({"room": {"size": 1, "ttl": math.inf}}, "'ttl' for 'room' is"),
        ({"room": {"size": 1, "ttl": None}}, "'ttl' for 'room' is"),
    ],
)
def test_what_is_no_history_is_refused(value: object, said: str) -> None:
    text = faults_of(history=value)
    assert "'history'" in text
    assert repr(value) in text
    assert said in text


# Wrong types and impossible values


@pytest.mark.parametrize("name", [*SECONDS, *COUNTS])
@pytest.mark.parametrize("value", [True, False, "30", b"30", math.nan, math.inf, -math.inf, -1, [30], {}, object()])
def test_what_is_no_possible_number_is_refused(name: str, value: object) -> None:
    text = faults_of(**{name: value})
    assert repr(name) in text
    assert repr(value) in text


@pytest.mark.parametrize("name", [name for name in [*SECONDS, *COUNTS] if name != "group_expiry"])
def test_none_is_no_number(name: str) -> None:
    assert repr(name) in faults_of(**{name: None})


@pytest.mark.parametrize("name", ["polling_interval", "expiry", "group_expiry", *COUNTS])
def test_zero_is_refused_where_it_makes_no_sense(name: str) -> None:
    assert repr(name) in faults_of(**{name: 0})


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [1.5, 10.0])
def test_counts_are_whole_numbers(name: str, value: float) -> None:
    assert repr(name) in faults_of(**{name: value})


@pytest.mark.parametrize("name", SECONDS)
def test_seconds_that_no_float_can_hold_are_refused(name: str) -> None:
    assert repr(name) in faults_of(**{name: 10**400})


@pytest.mark.parametrize("name", ["database", "prefix"])
@pytest.mark.parametrize("value", ["", None, 5, b"asgi", True, ["asgi"]])
def test_names_are_non_empty_strings(name: str, value: object) -> None:
    text = faults_of(**{name: value})
    assert repr(name) in text
    assert repr(value) in text


@pytest.mark.parametrize("value", [1, 0, None, "yes", "false"])
def test_auto_trim_is_true_or_false(value: object) -> None:
    text = faults_of(auto_trim=value)
    assert "'auto_trim'" in text
    assert "True or False" in text


@pytest.mark.parametrize("name", ["Capacity", "retention", "hosts", "symmetric_encryption_key"])
def test_an_unknown_option_is_named_with_those_that_exist(name: str) -> None:
    text = faults_of(**{name: 1})
    assert repr(name) in text
    assert all(known in text for known in DOCUMENTED_DEFAULTS)


def test_all_faults_are_told_at_once() -> None:
    text = faults_of(
        hosts=["localhost"],
        capacity=0,
        polling_interval=-1,
        prefix="",
        expiry=math.nan,
        auto_trim="yes",
        channel_capacity=[1],
        symmetric_encryption_keys="secret",
    )
    for name in (
        "hosts",
        "capacity",
        "polling_interval",
        "prefix",
        "expiry",
        "auto_trim",
        "channel_capacity",
        "symmetric_encryption_keys",
    ):
        assert repr(name) in text


def test_each_fault_says_what_is_accepted() -> None:
    assert "a whole number of messages" in faults_of(capacity=0)
    assert "seconds" in faults_of(expiry="30")
    assert "non-empty string" in faults_of(prefix="")
    assert "None" in faults_of(group_expiry=-1)


# Capacity of single channels


def test_globs_and_regular_expressions_give_channels_their_capacity() -> None:
    layer = SqliteChannelLayer(
        capacity=100,
        channel_capacity={"http.request": 200, "chat.*": 5, re.compile(r"^websocket\.send\!.+"): 20},
    )
    expected = {"http.request": 200, "http.requests": 100, "chat.room": 5, "websocket.send!abc": 20, "other": 100}
    assert {name: options_of(layer).capacity_of(name) for name in expected} == expected
    assert {name: layer.get_capacity(name) for name in expected} == expected


def test_the_first_matching_pattern_wins() -> None:
    assert Options.from_config({"channel_capacity": {"chat.vip": 1, "chat.*": 2}}).capacity_of("chat.vip") == 1
    assert Options.from_config({"channel_capacity": {"chat.*": 2, "chat.vip": 1}}).capacity_of("chat.vip") == 2


def test_patterns_see_the_whole_name() -> None:
    options = Options.from_config({"channel_capacity": {"specific.*!b*": 7, "specific.abc!": 8}})
    assert options.capacity_of("specific.abc!b1") == 7
    assert options.capacity_of("specific.abc!") == 8
    assert options.capacity_of("specific.abc!c1") == 100


def test_regular_expressions_are_matched_from_the_start_as_channels_does() -> None:
    options = Options.from_config({"channel_capacity": {re.compile("room"): 3}})
    assert options.capacity_of("room-1") == 3
    assert options.capacity_of("the-room") == 100


@pytest.mark.parametrize(
    "value",
    [
        5,
        [("chat.*", 5)],
        "chat.*",
        {"chat.*": 0},
        {"chat.*": -1},
        {"chat.*": True},
        {"chat.*": 1.5},
        {"chat.*": None},
        {"chat.*": "5"},
        {5: 5},
        {b"chat": 5},
        {re.compile(b"chat"): 5},
        {None: 5},
    ],
)
def test_other_forms_of_channel_capacity_are_refused(value: object) -> None:
    assert "'channel_capacity'" in faults_of(channel_capacity=value)


# Keys


@pytest.mark.parametrize("keys", [[SECRET], (SECRET,), [SECRET.encode()], [SECRET, "older"]])
def test_keys_are_lists_of_str_or_bytes(keys: object) -> None:
    assert Options.from_config({"symmetric_encryption_keys": keys}).symmetric_encryption_keys[0] == SECRET.encode()


@pytest.mark.parametrize(
    "keys", [SECRET, SECRET.encode(), {SECRET: 1}, {SECRET}, [SECRET, 5], [SECRET, None], [SECRET, ""], [[SECRET]]]
)
def test_refused_keys_are_not_shown(keys: object) -> None:
    text = faults_of(symmetric_encryption_keys=keys)
    assert "'symmetric_encryption_keys'" in text
    assert SECRET not in text


def test_keys_under_a_misspelt_name_are_not_shown() -> None:
    assert SECRET not in faults_of(symetric_encryption_keys=[SECRET])


def test_keys_are_not_shown_with_the_options() -> None:
    layer = SqliteChannelLayer(symmetric_encryption_keys=[SECRET])
    assert SECRET not in repr(options_of(layer))
    assert SECRET not in repr(layer)
