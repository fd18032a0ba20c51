"""What changes in the presence of a group: a key comes, goes, or tells something else.

A diff stands in the log as msgpack of `[group, [[key, before, after], ...]]`, where `before` and `after` are the infos
that the list showed and shows, each encoded (and encrypted) by itself, or nil where the key is not there. So whoever
ends a presence needs no key to the infos, which another layer's housekeeping does not have, and diffs that follow one
another can be put together without a look into them. Encryption makes any two infos different: whether they look the
same is up to the reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgpack

from channels_sqlite.codec import Message, UndecodableError

__all__ = ["Changes", "Diff", "farewells", "group_of", "is_same", "merged", "message_of", "packed"]

ROOM_BYTES = 256  # of a message, for all but its keys and infos, and for the longest name of a group
ENTRY_BYTES = 16  # beside a key and its info

Diff = Mapping[str, tuple["bytes | None", "bytes | None"]]
"""The infos of keys before and after a change; None where a key is not there."""

Changes = Iterable[tuple[str, "bytes | None", "bytes | None"]]


def packed(group: str, diff: Diff, limit_bytes: int) -> list[bytes]:
    """Return a diff as payloads, each of which makes a message of at most `limit_bytes`, as far as one key does."""
    payloads: list[bytes] = []
    entries: list[tuple[str, bytes | None, bytes | None]] = []
    size = ROOM_BYTES
    for key, (before, after) in diff.items():
        entry_bytes = ENTRY_BYTES + len(key.encode()) + max(len(before or b""), len(after or b""))
        if entries and size + entry_bytes > limit_bytes:
            payloads.append(msgpack.packb([group, entries]))
            entries, size = [], ROOM_BYTES
        entries.append((key, before, after))
        size += entry_bytes
    if entries:
        payloads.append(msgpack.packb([group, entries]))
    return payloads


def _unpacked(payload: bytes) -> tuple[str, Changes]:
    """Return the group and what has changed; raise UndecodableError where the payload is no diff."""
    try:
        group, entries = msgpack.unpackb(payload)
        changes = [_change(*entry) for entry in entries]
    except Exception as error:  # msgpack raises what it likes, by what is wrong
        raise UndecodableError(f"not a presence diff ({type(error).__name__})") from error
    if not isinstance(group, str):
        raise UndecodableError(f"a presence diff of a {type(group).__name__}")
    return group, changes


def _change(key: object, before: object, after: object) -> tuple[str, bytes | None, bytes | None]:
    if not isinstance(key, str):
        raise TypeError(f"a key that is a {type(key).__name__}")
    return key, _info(before), _info(after)


def _info(info: object) -> bytes | None:
    if info is None or isinstance(info, bytes):
        return info
    raise TypeError(f"an info that is a {type(info).__name__}")


def group_of(payload: bytes) -> str:
    """Return which group a diff tells of; "" where it is none."""
    try:
        return _unpacked(payload)[0]
    except UndecodableError:
        return ""


def merged(payloads: Iterable[bytes], limit_bytes: int) -> list[bytes]:
    """Return diffs of one group that follow each other as one with the same effect, or as few as `limit_bytes` allow.

    Raises UndecodableError where one of them is none.
    """
    group = ""
    whole: dict[str, tuple[bytes | None, bytes | None]] = {}
    for payload in payloads:
        group, changes = _unpacked(payload)
        for key, before, after in changes:
            first = whole[key][0] if key in whole else before
            if first == after:
                whole.pop(key, None)
            else:
                whole[key] = first, after
    return packed(group, whole, limit_bytes)


def message_of(payload: bytes, info: Callable[[str, str, bytes], Message]) -> Message | None:
    """Return the message that a diff is to its receiver; None where nothing that can be seen has changed.

    `info(group, key, stored)` decodes an info. Raises UndecodableError where the payload is no diff.
    """
    group, changes = _unpacked(payload)
    joins: dict[str, Message] = {}
    leaves: dict[str, Message] = {}
    updates: dict[str, Message] = {}
    for key, before, after in changes:
        if after is None:
            leaves[key] = {} if before is None else info(group, key, before)
        elif before is None:
            joins[key] = info(group, key, after)
        elif not is_same(info(group, key, before), told := info(group, key, after)):
            updates[key] = told
    if not (joins or leaves or updates):
        return None
    return {"type": "presence.diff", "group": group, "joins": joins, "leaves": leaves, "updates": updates}


def is_same(one: Any, other: Any) -> bool:  # Any: values of decoded messages
    """Whether two decoded values look the same: 1, 1.0 and True do not, the order of a dict's keys does not matter."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, float):
        return repr(one) == repr(other)  # NaN as well
    return bool(one == other)


def farewells(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (group, diff) of what the row of a flush tells to those who were present or watched until then."""
    if not payload:
        return
    try:
        found = msgpack.unpackb(payload)
    except Exception:  # noqa: BLE001  # msgpack raises what it likes; whatever it is, it is nothing of ours
        return
    for diff in found if isinstance(found, list) else ():
        if isinstance(diff, bytes) and (group := group_of(diff)):
            yield group, diff
