"""Events as text, read by the rules by which browsers read them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels_sqlite.sse.fields import COMMENT, UnsayableError, event, id_only, reset
from tests.sse.event_source import EventSource, Heard

ENDS_FOR_PYTHON_ALONE = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
"""What `str.splitlines` takes for the end of a line, and browsers do not."""

Messages = st.dictionaries(
    st.text(max_size=8).filter(lambda key: key not in {"type", "__position__"}),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)  # fmt: skip
Types = st.text().filter(lambda text: not set(text) & set("\r\n"))


def hear(*chunks: bytes) -> list[Heard]:
    source = EventSource()
    for chunk in chunks:
        source.feed(chunk)
    return source.events


@given(Types, Messages, st.none() | st.text("ab1.-_", min_size=1))
def test_a_message_is_heard_as_it_was_sent(kind: str, message: dict[str, Any], position: str | None) -> None:
    [heard] = hear(event({"type": kind, **message}, position, None))
    assert heard.type == (kind or "message")
    assert json.loads(heard.data) == message
    assert heard.last_event_id == (position or "")


@given(st.text())
def test_what_encode_returns_is_heard_with_its_lines(text: str) -> None:
    [heard] = hear(event({"type": "x"}, None, lambda _: text))
    # CR and CRLF are ends of lines, which the browser joins by LF.
    assert heard.data == text.replace("\r\n", "\n").replace("\r", "\n")


def test_only_cr_and_lf_split_data() -> None:
    written = event({"type": "x"}, None, lambda _: f"a{ENDS_FOR_PYTHON_ALONE}b\rc\nd\r\ne")
    assert written.count(b"data: ") == 4
    assert hear(written) == [Heard("x", f"a{ENDS_FOR_PYTHON_ALONE}b\nc\nd\ne")]


@pytest.mark.parametrize(
    "text", ["x\nid: 9", "x\rid: 9", "x\r\nid: 9", "x\n\nevent: forged\ndata: y\n\n", "x\n\nretry: 1\n\n", "\n", "\r\n"]
)
def test_no_field_can_be_forged(text: str) -> None:
    [told] = hear(event({"type": "x", "text": text}, "5", None))
    assert (told.type, json.loads(told.data), told.last_event_id) == ("x", {"text": text}, "5")
    [told] = hear(event({"type": "x"}, "5", lambda _: text))
    assert (told.type, told.last_event_id) == ("x", "5")


@pytest.mark.parametrize("kind", ["a\nb", "a\rb", "a\r\nid: 9", "\n"])
def test_a_type_with_a_line_break_is_refused(kind: str) -> None:
    with pytest.raises(UnsayableError, match=r"^message\['type'\]: a str with a line break"):
        event({"type": kind}, None, None)


@pytest.mark.parametrize("kind", [None, 5, b"x", ["x"]])
def test_a_type_that_is_no_str_is_refused(kind: object) -> None:
    with pytest.raises(UnsayableError, match=r"^message\['type'\]: " + type(kind).__name__):
        event({"type": kind}, None, None)


def test_a_message_without_a_type_is_an_event_named_message() -> None:
    assert hear(event({"n": 1}, None, None)) == [Heard("message", '{"n":1}')]


def test_the_data_is_compact_json_in_utf_8_without_the_type() -> None:
    assert (
        event({"type": "x", "a": "ü", "b": [1, None]}, None, None)
        == b'event: x\ndata: {"a":"\xc3\xbc","b":[1,null]}\n\n'
    )


def test_encode_gets_the_message_with_its_type() -> None:
    got: list[object] = []

    def encode(message: dict[str, object]) -> str:
        got.append(message)
        return "said"

    assert hear(event({"type": "x", "n": 1}, None, encode)) == [Heard("x", "said")]
    assert got == [{"type": "x", "n": 1}]


def test_encode_may_return_nothing_to_say() -> None:
    assert hear(event({"type": "x"}, None, lambda _: "")) == [Heard("x", "")]


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"raw": b"\x00secret"}, r"^message\['raw'\]: bytes cannot be said in JSON; .*encode="),
        ({"items": [0, {"when": b"secret"}]}, r"^message\['items'\]\[1\]\['when'\]: bytes "),
        ({"n": float("nan")}, r"^message\['n'\]: nan is no number in JSON"),
        ({"a": [{"b": float("-inf")}]}, r"^message\['a'\]\[0\]\['b'\]: -inf is no number"),
        ({"a": {(1, 2): 3}}, r"^message\['a'\]: key \(1, 2\) of type tuple"),
        ({"a": {1, 2}}, r"^message\['a'\]: set cannot be said"),
        ({"a": "\ud800"}, r"^message: a str with a lone surrogate"),
    ],
)
def test_what_json_cannot_say_is_named_by_its_path(message: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UnsayableError, match=complaint) as caught:
        event({"type": "x", **message}, None, None)
    assert "secret" not in str(caught.value)


def test_a_message_that_contains_itself_is_refused() -> None:
    knot: list[object] = []
    knot.append(knot)
    with pytest.raises(UnsayableError, match=r"^message\['knot'\]\[0\]\[0\].*too deep"):
        event({"type": "x", "knot": knot}, None, None)


@pytest.mark.parametrize("encode", [lambda _: None, lambda _: b"x", lambda _: 5], ids=["None", "bytes", "int"])
def test_encode_must_return_a_str(encode: Callable[[Any], object]) -> None:
    with pytest.raises(UnsayableError, match=r"^encode\(\) returned (NoneType|bytes|int); it must return a str"):
        event({"type": "x"}, None, encode)


def test_what_json_cannot_say_encode_may() -> None:
    assert hear(event({"type": "x", "raw": b"\x01"}, None, lambda message: message["raw"].hex())) == [Heard("x", "01")]


def test_a_reset_is_an_event_with_an_empty_data_line() -> None:
    assert b"\ndata:\n" in reset("7")
    assert hear(reset("7")) == [Heard("reset", "", "7")]


def test_an_id_alone_is_no_event_and_is_kept() -> None:
    source = EventSource()
    source.feed(id_only("7"))
    assert (source.events, source.last_event_id) == ([], "7")


def test_a_comment_is_no_event() -> None:
    source = EventSource()
    source.feed(COMMENT)
    assert (source.events, source.last_event_id, source.comments) == ([], "", 1)


def test_a_byte_order_mark_at_the_beginning_of_a_type_is_kept() -> None:
    assert hear(event({"type": "\ufeffx"}, None, None)) == [Heard("\ufeffx", "{}")]


def test_an_event_that_was_cut_off_is_not_heard_and_its_id_not_kept() -> None:
    source = EventSource()
    source.feed(event({"type": "x"}, "1", None))
    source.feed(event({"type": "x"}, "2", None)[:-1])
    source.connect()
    assert [heard.last_event_id for heard in source.events] == [source.last_event_id] == ["1"]
