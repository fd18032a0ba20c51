"""The codec: what comes out equals what went in, and what cannot is refused with its path."""

import array
import dataclasses
import datetime as dt
import decimal
import enum
import itertools
import math
import re
import sys
import uuid
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import msgpack
import pytest
from channels.exceptions import MessageTooLarge
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.utils import translation
from django.utils.functional import lazystr
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from channels_sqlite.codec import Codec, UndecodableError

# Speed is judged by the benchmarks, not by examples on a machine that does other things too.
EXAMPLES = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
FEW_EXAMPLES = settings(EXAMPLES, max_examples=20)

LARGEST_BYTES = 16 * 1024 * 1024
INT64_EDGES = [0, -1, 1, 127, 128, -32, -33, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)]

# Text with everything that has a UTF-8 form: all but lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]))
integers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(INT64_EDGES)
scalars = st.none() | st.booleans() | integers | st.floats() | texts | st.binary()


def containers(children: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(children, max_size=6) | st.dictionaries(texts, children, max_size=6)


messages: st.SearchStrategy[dict[str, object]] = st.dictionaries(
    texts.filter(lambda key: key != "__asgi_channel__"), st.recursive(scalars, containers, max_leaves=20), max_size=6
)


class Level(enum.IntEnum):
    LOW = 1
    HIGHEST = 2**63 - 1


class Flag(enum.IntFlag):
    A = 1
    B = 2


class Colour(models.TextChoices):
    RED = "r", "Red"
    BLUE = "b", "Blue"


class Size(models.IntegerChoices):
    LARGE = 40, "Large"


class Name(str):
    """A str that pretends to be another."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"

    def __repr__(self) -> str:
        return "Name()"


class Metres(float):
    __slots__ = ()

    def __float__(self) -> float:
        return -1.0


class Count(int):
    __slots__ = ()

    def __index__(self) -> int:
        return -1


class Blob(bytes):
    __slots__ = ()


class Row(dict[str, object]):
    """A dict with a look of its own."""

    def __repr__(self) -> str:
        return "Row()"


class Rows(list[object]):
    pass


class View(Mapping[str, object]):
    """The least that a Mapping is."""

    def __init__(self, items: Mapping[str, object]) -> None:
        self._items = items

    def __getitem__(self, key: str) -> object:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


@dataclasses.dataclass
class Point:
    x: int = 1


def same(left: object, right: object) -> bool:
    """Equal in type and value at every level; NaN equals NaN, and -0.0 is not 0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same(*pair) for pair in zip(left, right, strict=True))
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or left.hex() == right.hex()
    return left == right


def codec(*, keys: Sequence[bytes] = (), max_message_size: int = LARGEST_BYTES) -> Codec:
    return Codec(max_message_size=max_message_size, keys=keys)


def round_trip(message: Mapping[str, object]) -> dict[str, Any]:
    return codec().decode(codec().encode(message))


# Round trips


@given(messages)
@example({"nan": math.nan, "negative zero": -0.0, "infinite": math.inf})
@example({"edges": INT64_EDGES})
@example({"": {"": [[], {}, "", b""]}})
@EXAMPLES
def test_what_comes_out_equals_what_went_in(message: dict[str, object]) -> None:
    assert same(round_trip(message), message)


# Each plain value with something that must come out as that value. msgpack alone would refuse the most of them.
def in_disguise(plain: object) -> st.SearchStrategy[object]:
    if type(plain) is str:
        return st.sampled_from([plain, SafeString(plain), Name(plain), lazystr(plain)])
    if type(plain) is bytes:
        return st.sampled_from([plain, bytearray(plain), memoryview(plain), Blob(plain)])
    if type(plain) is float:
        return st.sampled_from([plain, Metres(plain)])
    if type(plain) is int:
        return st.sampled_from([plain, Count(plain)])
    if isinstance(plain, list):
        return st.tuples(*map(in_disguise, plain)).flatmap(
            lambda items: st.sampled_from([items, list(items), Rows(items)])
        )
    if isinstance(plain, dict):
        return st.tuples(*map(in_disguise, plain.values())).flatmap(
            lambda values: disguised_mapping(dict(zip(plain, values, strict=True)))
        )
    return st.just(plain)


def disguised_mapping(plain: dict[str, object]) -> st.SearchStrategy[object]:
    safe_keys = {SafeString(key): value for key, value in plain.items()}
    return st.sampled_from(
        [plain, safe_keys, Row(plain), View(plain), MappingProxyType(plain), OrderedDict(plain), UserDict(plain)]
    )


@given(messages.flatmap(lambda message: st.tuples(st.just(message), in_disguise(message))))
@EXAMPLES
def test_what_stands_for_a_plain_value_becomes_that_value(pair: tuple[dict[str, object], Mapping[str, object]]) -> None:
    plain, disguised = pair
    assert same(round_trip(disguised), plain)


PLAIN_FORMS: dict[str, tuple[object, object]] = {
    "tuple": ((1, (2, [3, ()])), [1, [2, [3, []]]]),
    "SafeString": (mark_safe("<b>"), "<b>"),
    "IntEnum": (Level.HIGHEST, 2**63 - 1),
    "IntFlag": (Flag.A | Flag.B, 3),
    "TextChoices": (Colour.BLUE, "b"),
    "IntegerChoices": (Size.LARGE, 40),
    "bytearray": (bytearray(b"\x00\xff"), b"\x00\xff"),
    "memoryview with gaps": (memoryview(b"abcdef")[::2], b"ace"),
    "memoryview of ints": (memoryview(bytearray(8)).cast("I"), bytes(8)),
    "lazy str": (lazystr("lazy"), "lazy"),
    "Mapping": (MappingProxyType({"a": UserDict({"b": 1})}), {"a": {"b": 1}}),
    "keys": ({Colour.RED: 1, mark_safe("k"): 2, Name("n"): 3}, {"r": 1, "k": 2, "n": 3}),
}


def test_values_become_plain_wherever_they_stand() -> None:
    wraps: list[Callable[[object], object]] = [
        lambda value: value,
        lambda value: [value],
        lambda value: {"deeper": {"still": value}},
    ]
    for (name, (value, plain)), wrap in itertools.product(PLAIN_FORMS.items(), wraps):
        assert same(round_trip({"value": wrap(value)}), {"value": wrap(plain)}), name


def test_lazy_translation_becomes_text_of_the_language_at_the_time() -> None:
    for language, text in (("de", "Montag"), ("fr", "lundi"), ("en", "Monday")):
        with translation.override(language):
            payload = codec().encode({"day": gettext_lazy("Monday"), "days": [gettext_lazy("Monday")]})
        assert codec().decode(payload) == {"day": text, "days": [text]}


def test_message_may_be_any_mapping() -> None:
    plain: dict[str, object] = {"type": "a.message", "n": (1,)}
    for message in (Row(plain), View(plain), MappingProxyType(plain), OrderedDict(plain), UserDict(plain)):
        assert same(round_trip(message), {"type": "a.message", "n": [1]})


@given(messages)
@EXAMPLES
def test_message_is_not_changed_by_encoding(message: dict[str, object]) -> None:
    wrapped = {"inner": [message, (message,)]}
    before = repr(wrapped)
    codec().encode(wrapped)
    assert repr(wrapped) == before


@given(messages)
@EXAMPLES
def test_every_decoding_is_a_copy_of_its_own(message: dict[str, object]) -> None:
    payload = codec().encode({"inner": [message]})
    first, second = codec().decode(payload), codec().decode(payload)
    first["inner"][0]["changed"] = True
    first["inner"].append("changed")
    assert same(second, {"inner": [message]})


def test_one_value_may_stand_in_several_places() -> None:
    shared: list[object] = [1, {"a": 2}]
    expected = {"a": [1, {"a": 2}], "b": [[1, {"a": 2}], [[1, {"a": 2}]]]}
    assert round_trip({"a": shared, "b": [shared, (shared,)]}) == expected


@pytest.mark.parametrize("make", [list, tuple])
def test_deep_message_comes_out(make: Callable[[list[object]], object]) -> None:
    assert round_trip({"value": nested("the bottom", 100, make)}) == {"value": nested("the bottom", 100, list)}


# What is refused


WRAPPED_KEYS: list[tuple[Callable[[object], object], str]] = [
    (lambda key: {key: 1}, "message"),
    (lambda key: {"a": [{"b": {key: 1}}]}, "message['a'][0]['b']"),
]


def refused(message: object) -> str:
    with pytest.raises(TypeError) as caught:
        codec().encode(message)  # type: ignore[arg-type]  # that it is none is what is tested, mostly
    return str(caught.value)


UNSERIALIZABLE: dict[str, Any] = {
    "datetime": dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc),
    "date": dt.date(2024, 1, 2),
    "timedelta": dt.timedelta(1),
    "Decimal": decimal.Decimal("1.5"),
    "UUID": uuid.UUID(int=1),
    "set": {1, 2},
    "frozenset": frozenset({1}),
    "complex": 1j,
    "object": object(),
    "PurePosixPath": PurePosixPath("/a"),
    "Point": Point(),
    "generator": (n for n in range(3)),
    "range": range(3),
    "dict_keys": {}.keys(),
    "type": int,
    "function": refused,
    "ellipsis": ...,
    "array": array.array("b", [1]),
}


def test_refusal_names_path_and_type() -> None:
    for name, value in UNSERIALIZABLE.items():
        for message, path in (
            ({"when": value}, "message['when']"),
            ({"items": [1, 2, 3, {"when": value}]}, "message['items'][3]['when']"),
            ({"items": ((), ({"": value},))}, "message['items'][1][0]['']"),
            ({"it's": {"a b": value}}, "message[\"it's\"]['a b']"),
            (MappingProxyType({"a": View({"b": value})}), "message['a']['b']"),
        ):
            assert refused(message).startswith(f"{path}: {name} is not serializable; ")


def test_refusal_of_the_contract_reads_as_the_contract_says() -> None:
    when = UNSERIALIZABLE["datetime"]
    text = refused({"items": [0, 0, 0, {"when": when}]})
    assert text.startswith("message['items'][3]['when']: datetime is not serializable; ")
    assert "None, bool, int, float, str, bytes, list, dict" in text


def test_int_beyond_64_signed_bits_is_refused() -> None:
    for number in (2**63, -(2**63) - 1, 2**64, 10**400, Count(2**63)):
        assert refused({"a": [number]}).startswith("message['a'][0]: ")
        assert "64" in refused({"a": [number]})


def test_key_that_is_no_str_is_refused() -> None:
    keys: list[object] = [1, None, True, b"bytes", 1.5, (1, 2), Level.LOW]
    for key, (wrap, path) in itertools.product(keys, WRAPPED_KEYS):
        message = wrap(key)
        text = refused(message)
        assert text.startswith(f"{path}: key ")
        assert type(key).__name__ in text
        assert repr(key) in text


@given(st.sampled_from(["\ud800", "\udfff", "fine until here \udc80", "\ud83d"]), st.booleans())
@EXAMPLES
def test_lone_surrogate_is_refused(text: str, safe: bool) -> None:
    value = SafeString(text) if safe else text
    for message, path in (
        ({"a": value}, "message['a']: "),
        ({"a": [1, (value,)]}, "message['a'][1][0]: "),
        ({"a": {value: 1}}, "message['a']"),
        ({value: 1}, "message"),
    ):
        assert refused(message).startswith(path)
        assert "surrogate" in refused(message)


def test_message_that_is_no_mapping_is_refused() -> None:
    for message in (None, 7, "text", b"bytes", [], ["type"], [("a", 1)], {"a"}, object(), Point()):
        assert type(message).__name__ in refused(message)


def test_cycle_is_refused() -> None:
    listed: list[object] = [1]
    listed.append(listed)
    mapped: dict[str, object] = {}
    mapped["self"] = [mapped]
    crossed: list[object] = []
    crossed.append(({"back": crossed},))
    viewed: dict[str, object] = {}
    viewed["view"] = MappingProxyType(viewed)
    for message, path in (
        ({"a": listed}, "message['a'][1]"),
        (mapped, "message['self'][0]"),
        ({"a": crossed}, "message['a'][0][0]['back']"),
        ({"a": viewed}, "message['a']['view']"),
    ):
        text = refused(message)
        assert text.startswith(path)
        assert "is not serializable" in text


def nested(bottom: object, depth: int, make: Callable[[list[object]], object]) -> object:
    value = bottom
    for _ in range(depth):
        value = make([value])
    return value


@pytest.mark.parametrize("make", [list, tuple, lambda items: {"a": items[0]}], ids=["list", "tuple", "dict"])
def test_endless_depth_is_refused(make: Callable[[list[object]], object]) -> None:
    for depth in (600, 5000, 50_000):
        text = refused({"a": nested(1, depth, make)})
        assert text.startswith("message['a']")
        assert "is not serializable" in text
        assert len(text) < 1000


@pytest.mark.parametrize("make", [list, tuple])
def test_every_depth_ends_in_a_round_trip_or_a_type_error(make: Callable[[list[object]], object]) -> None:
    for depth, bottom in itertools.product([*range(90, 1100, 5), *range(498, 515)], (1, {2})):
        try:
            payload = codec().encode({"a": nested(bottom, depth, make)})
        except TypeError as error:
            assert "is not serializable" in str(error)  # noqa: PT017  # either outcome is fine, another error is not
        else:
            assert bottom == 1
            assert codec().decode(payload) == {"a": nested(bottom, depth, list)}


def test_reserved_key_is_refused_at_the_top_alone() -> None:
    for reserved in ("__asgi_channel__", SafeString("__asgi_channel__")):
        with pytest.raises(ValueError, match="__asgi_channel__"):
            codec().encode({"type": "a.message", reserved: "x"})
    assert round_trip({"a": {"__asgi_channel__": 1}}) == {"a": {"__asgi_channel__": 1}}


broken: st.SearchStrategy[object] = st.sampled_from([{1}, 2**63, 1j, object(), "\ud800", decimal.Decimal(1)])


def surrounded(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """`inner` among good values, in a list or a dict."""
    good = st.lists(scalars, max_size=3)
    in_list = st.tuples(good, inner, good).map(lambda parts: [*parts[0], parts[1], *parts[2]])
    in_dict = st.tuples(texts, inner, texts, scalars).map(lambda parts: {parts[2]: parts[3], parts[0]: parts[1]})
    return in_list | in_dict


@given(st.recursive(broken, surrounded, max_leaves=1))
@EXAMPLES
def test_path_is_the_expression_that_shows_what_is_refused(value: object) -> None:
    message = {"start": value}
    path = re.match(r"(message.*?\]): \w+ ", refused(message), re.DOTALL)
    assert path is not None
    found = eval(path[1], {"message": message})
    assert not isinstance(found, (list, dict))
    refused({"a": found})


# Sizes


@pytest.mark.parametrize("key", [(), (b"a key",)], ids=["plain", "encrypted"])
@given(limit=st.integers(20, 5000))
@FEW_EXAMPLES
def test_limit_is_exact(key: tuple[bytes, ...], limit: int) -> None:
    limited = codec(keys=key, max_message_size=limit)
    empty = len(msgpack.packb({"data": b""}))
    for size in range(max(0, limit - empty - 6), limit):
        message = {"data": bytes(size)}
        encoded = len(msgpack.packb(message))
        if encoded <= limit:
            assert limited.decode(limited.encode(message)) == message
        else:
            with pytest.raises(MessageTooLarge, match=rf"\b{encoded}\b.*\b{limit}\b"):
                limited.encode(message)


def test_limit_counts_bytes_and_not_characters() -> None:
    message = {"text": "\N{SNOWMAN}" * 100}
    size = len(msgpack.packb(message))
    assert size > 300
    assert codec(max_message_size=size).encode(message)
    with pytest.raises(MessageTooLarge, match="max_message_size"):
        codec(max_message_size=size - 1).encode(message)


@pytest.mark.parametrize("keys", [(), (b"a key",)], ids=["plain", "encrypted"])
def test_largest_message_comes_out_and_one_byte_more_is_refused(keys: tuple[bytes, ...]) -> None:
    limited = codec(keys=keys)
    overhead = len(msgpack.packb({"data": bytes(70_000)})) - 70_000
    message = {"data": bytes(LARGEST_BYTES - overhead)}
    assert limited.decode(limited.encode(message)) == message
    with pytest.raises(MessageTooLarge):
        limited.encode({"data": bytes(LARGEST_BYTES - overhead + 1)})


# Encryption


@given(messages, st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=3, unique=True))
@FEW_EXAMPLES
def test_encrypted_message_comes_out(message: dict[str, object], keys: list[bytes]) -> None:
    payload = codec(keys=keys).encode(message)
    assert same(codec(keys=keys).decode(payload), message)
    # The first key is the one that encrypts, and is enough to decrypt.
    assert same(codec(keys=keys[:1]).decode(payload), message)


def test_keys_can_be_rotated() -> None:
    old, both, new = codec(keys=[b"old"]), codec(keys=[b"new", b"old"]), codec(keys=[b"new"])
    message = {"type": "a.message"}
    assert both.decode(old.encode(message)) == message
    assert new.decode(both.encode(message)) == message
    assert both.decode(new.encode(message)) == message
    for reader, payload in ((old, both.encode(message)), (old, new.encode(message)), (new, old.encode(message))):
        with pytest.raises(UndecodableError):
            reader.decode(payload)


def test_encrypted_and_plain_do_not_mix() -> None:
    plain, encrypted = codec(), codec(keys=[b"a key"])
    with pytest.raises(UndecodableError):
        encrypted.decode(plain.encode({"a": 1}))
    with pytest.raises(UndecodableError):
        plain.decode(encrypted.encode({"a": 1}))


def test_encryption_hides_the_message_and_differs_each_time() -> None:
    encrypted = codec(keys=[b"a key"])
    first, second = encrypted.encode({"text": "secret words"}), encrypted.encode({"text": "secret words"})
    assert first != second
    assert b"secret" not in first
    assert b"text" not in first


def test_changed_ciphertext_is_refused() -> None:
    encrypted = codec(keys=[b"a key"])
    payload = encrypted.encode({"text": "secret words"})
    for position in range(0, len(payload), 7):
        changed = bytearray(payload)
        changed[position] ^= 1
        with pytest.raises(UndecodableError):
            encrypted.decode(bytes(changed))


def test_encryption_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(ImproperlyConfigured, match=r"channels_sqlite\[cryptography\]"):
        codec(keys=[b"a key"])


# Bytes that are no message


@given(st.binary(max_size=60))
@example(b"")
@example(msgpack.packb([1, 2]))
@example(msgpack.packb("text"))
@example(msgpack.packb(None))
@example(msgpack.packb({1: 2}))
@example(msgpack.packb({"a": 1}) + b"\x00")
@example(b"\x81\xa1a\xc1")
@example(b"\x81\xa1\xff\x01")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\x81\xa1a\xc7\x02\x05ab")
@EXAMPLES
def test_bytes_that_are_no_message_are_undecodable(payload: bytes) -> None:
    for reader in (codec(), codec(keys=[b"a key"])):
        try:
            message = reader.decode(payload)
        except UndecodableError as error:
            assert type(error) is UndecodableError  # noqa: PT017  # random bytes may well be a message
        else:
            assert type(message) is dict


@given(messages, st.integers(0, 200))
@EXAMPLES
def test_message_cut_short_is_undecodable(message: dict[str, object], cut: int) -> None:
    payload = codec().encode(message)
    with pytest.raises(UndecodableError):
        codec().decode(payload[: cut % len(payload)])


def test_undecodable_says_nothing_of_the_contents() -> None:
    payload = msgpack.packb("my secret words")
    with pytest.raises(UndecodableError) as caught:
        codec().decode(payload)
    assert "secret" not in str(caught.value)
