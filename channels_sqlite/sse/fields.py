"""Events as text: the fields of the event stream format
(https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).

A field ends at CR, LF or CRLF, and at nothing else: neither at U+2028 nor at what `str.splitlines` takes for an end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from channels_sqlite.codec import Message

__all__ = ["COMMENT", "RESET", "UnsayableError", "event", "id_only", "reset"]

COMMENT = b":\n\n"
"""Says nothing. An empty line behind it, as behind an event, has browsers and proxies pass it on."""
RESET = "reset"

_LINE_END = re.compile(r"\r\n|\r|\n")
_MAX_DEPTH = 200  # as the codec has it; messages of other layers may be deeper
_SCALARS = (str, int, type(None))  # bool is an int


class UnsayableError(ValueError):
    """A message that cannot become an event; the text names the path and what is there, never the contents."""


def event(message: Message, position: str | None, encode: Callable[[Any], object] | None) -> bytes:
    """Return a message as an event: `event:` is its type, `id:` its position where it has one.

    Raises UnsayableError, and whatever `encode` raises.
    """
    lines = []
    if "type" in message:
        lines.append(f"event: {_type_of(message['type'])}\n")
    if position is not None:
        lines.append(f"id: {position}\n")
    lines += [f"data: {line}\n" for line in _LINE_END.split(_data_of(message, encode))]
    try:
        return "".join((*lines, "\n")).encode()
    except UnicodeEncodeError:
        raise UnsayableError("message: a str with a lone surrogate has no UTF-8 form") from None


def id_only(position: str) -> bytes:
    """Return what gives a client a position and dispatches no event."""
    return f"id: {position}\n\n".encode()


def reset(position: str) -> bytes:
    """Return the event that says that something was missed for good."""
    return f"event: {RESET}\nid: {position}\ndata:\n\n".encode()  # without `data:` it would not be dispatched


def _type_of(value: object) -> str:
    if not isinstance(value, str):
        raise UnsayableError(f"message['type']: {type(value).__name__} is no name of an event; use a str")
    if _LINE_END.search(value):
        raise UnsayableError("message['type']: a str with a line break is no name of an event; take CR and LF out")
    return value


def _data_of(message: Message, encode: Callable[[Any], object] | None) -> str:
    if encode is not None:
        data = encode(message)
        if not isinstance(data, str):
            raise UnsayableError(f"encode() returned {type(data).__name__}; it must return a str")
        return data
    rest = {key: value for key, value in message.items() if key != "type"}
    try:
        return json.dumps(rest, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsayableError(
            f"{_culprit(rest, 'message', 0) or f'message: {error}'}; leave it out, or say it otherwise with encode="
        ) from None


def _culprit(value: object, path: str, depth: int) -> str:
    """Return the path of what JSON cannot say, and what it is; "" where there is nothing of the kind."""
    if isinstance(value, _SCALARS):
        return ""
    if isinstance(value, float):
        return "" if abs(value) < float("inf") else f"{path}: {value} is no number in JSON"
    if depth > _MAX_DEPTH:
        return f"{path[:80]}...: {type(value).__name__} is too deep for JSON"
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, (str, int, float, type(None))):
                return f"{path}: key {key!r} of type {type(key).__name__} is none in JSON"
            found = _culprit(item, f"{path}[{key!r}]", depth + 1)
            if found:
                return found
        return ""
    if isinstance(value, (list, tuple)):
        return next(filter(None, (_culprit(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value))), "")
    return f"{path}: {type(value).__name__} cannot be said in JSON"
