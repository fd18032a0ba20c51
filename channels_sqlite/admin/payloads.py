"""Stored payloads as text for people: decoded with whatever keys are configured, and never longer than a screen."""

from __future__ import annotations

import json
import pprint
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from channels_sqlite.channel_layers import our_entries
from channels_sqlite.codec import Codec, Message, UndecodableError
from channels_sqlite.delivery.diffs import message_of
from channels_sqlite.kinds import Kind
from channels_sqlite.options import Options

__all__ = ["info_line", "info_text", "one_line", "pretty", "pretty_json"]

FERNET_START = b"gAAAA"  # version 0x80 and the high bytes of a time before 2106, https://github.com/fernet/spec

LONGEST_LINE = 120  # characters
LONGEST_TEXT = 20_000  # characters
LONGEST_STRING = 2_000  # characters or bytes of one value
MOST_VALUES = 1_000
DEEPEST = 20


def one_line(kind: int, payload: bytes | memoryview | str) -> str:
    """Return a message row's content as one line of at most `LONGEST_LINE` characters, or why it cannot be shown."""
    try:
        text = repr(_content(kind, payload))
    except UndecodableError as error:
        text = str(error)
    return text if len(text) <= LONGEST_LINE else text[:LONGEST_LINE] + " …"


def pretty(kind: int, payload: bytes | memoryview | str) -> str:
    """Return a message row's content as indented text of about `LONGEST_TEXT` characters, or why it cannot be shown."""
    try:
        content = _content(kind, payload)
    except UndecodableError as error:
        return str(error)
    text = pprint.pformat(_Shortener().shorten(content, 0), width=100, sort_dicts=False)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "\n… (cut here)"


def pretty_json(payload: bytes | memoryview | str) -> str:
    """Return what a task was given, returned or raised, likewise."""
    stored = payload.encode() if isinstance(payload, str) else bytes(payload)
    try:
        content = json.loads(_decoded(stored)["json"])
    except UndecodableError as error:
        return str(error)
    except (KeyError, TypeError, ValueError):
        return "cannot be decoded: holds no JSON"
    text = pprint.pformat(_Shortener().shorten(content, 0), width=100, sort_dicts=False)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "\n… (cut here)"


def _content(kind: int, payload: bytes | memoryview | str) -> object:
    """Return the message, or for a row that processes tell one another with, what it tells."""
    # Text is what somebody else has put there.
    stored = payload.encode() if isinstance(payload, str) else bytes(payload)
    if kind == Kind.MEMBERSHIP:
        return _Words(f"the membership of {stored.decode(errors='replace')} has changed")
    if kind == Kind.FLUSH:
        return _Words("everything older was deleted")
    if kind == Kind.PRESENCE:
        return _diff(stored)
    try:
        return _decoded(stored)
    except UndecodableError:
        if kind != Kind.NORMAL:
            raise
        try:  # a normal channel may be told who is present
            return _diff(stored)
        except UndecodableError:
            pass
        raise


def info_line(stored: bytes | memoryview | str) -> str:
    """Return what somebody who is present has told of themselves, as one line, or why it cannot be shown."""
    return one_line(Kind.SPECIFIC, stored)


def info_text(stored: bytes | memoryview | str) -> str:
    """Likewise, as indented text."""
    return pretty(Kind.SPECIFIC, stored)


def _diff(stored: bytes) -> object:
    """Return what is told of who is present; infos that cannot be decoded are words. Errors as `message_of`."""
    return message_of(stored, _info) or _Words("nothing that can be seen has changed")


def _info(group: str, key: str, stored: bytes) -> Any:  # Any: in the place of a message
    try:
        return _decoded(stored)
    except UndecodableError as error:
        return _Words(str(error))


def _decoded(payload: bytes) -> Message:
    """Return the message; raise UndecodableError, with words for people, when no layer here could read it."""
    reason: UndecodableError | None = None
    for codec in _codecs():
        try:
            return codec.decode(payload)
        except UndecodableError as error:
            reason = reason or error
    if payload.startswith(FERNET_START):
        raise UndecodableError("encrypted, and no layer in CHANNEL_LAYERS has the key")
    raise UndecodableError(f"cannot be decoded: {reason}")


def _codecs() -> Iterator[Codec]:
    """One codec for plain messages, and one for the keys of each layer in CHANNEL_LAYERS."""
    yield Codec(max_message_size=Options.max_message_size)
    for entry in our_entries():
        try:
            options = Options.from_config(entry.config)
            if options.symmetric_encryption_keys:
                yield Codec(max_message_size=options.max_message_size, keys=options.symmetric_encryption_keys)
        except ImproperlyConfigured:  # said by the layer itself when it is used
            continue


class _Words:
    """Words of ours in the place of a value; shown without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class _Shortener:
    """Copies a message without what nobody would read: printing all of a large one takes minutes."""

    def __init__(self) -> None:
        self._values = 0

    def shorten(self, value: object, depth: int) -> object:
        """Return `value` with long strings, long lists and deep levels cut."""
        self._values += 1
        if isinstance(value, (str, bytes)):
            if len(value) > LONGEST_STRING:
                return _Words(f"{value[:LONGEST_STRING]!r}… ({len(value)} in all)")
            return value
        if not isinstance(value, (dict, list)):
            return value
        if depth >= DEEPEST:
            return _Words(f"… ({len(value)} more)")
        if isinstance(value, list):
            return self._shorten_list(value, depth)
        kept: dict[object, object] = {}
        for key, item in value.items():
            if self._values >= MOST_VALUES:
                kept[_Words("…")] = _Words(f"{len(value) - len(kept)} more")
                break
            kept[self.shorten(key, depth + 1)] = self.shorten(item, depth + 1)
        return kept

    def _shorten_list(self, value: list[object], depth: int) -> list[object]:
        kept: list[object] = []
        for item in value:
            if self._values >= MOST_VALUES:
                kept.append(_Words(f"… {len(value) - len(kept)} more"))
                break
            kept.append(self.shorten(item, depth + 1))
        return kept
