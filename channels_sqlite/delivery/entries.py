"""Messages that wait, still encoded: what lies in mailboxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from channels_sqlite.codec import Message, UndecodableError
from channels_sqlite.delivery import diffs
from channels_sqlite.storage.messages import NEVER, ClaimedRow

__all__ = ["Entry", "claimed", "diff_entry", "merged"]


@dataclass(slots=True)
class Entry:
    """A message that waits, still encoded; a broadcast's entry is shared by all its members."""

    id: int
    expires_at: float  # seconds since 1970
    payload: bytes
    shared: bool = field(default=False, compare=False)
    position: str = ""
    """What the message is given as its `__position__`; "" for one that is of no group with history."""
    group: str = ""
    """The group with history that it was sent to, on process-specific channels."""
    template: Message | None = field(default=None, compare=False)
    """The message, to be copied for each member; None when it was not decoded yet, or is more than a flat dict."""
    diff_of: str | None = field(default=None, compare=False)
    """The group whose presence this tells of; see `diffs`. It never expires, and takes no capacity."""
    lapses_at: float = field(default=math.inf, compare=False)
    """When whoever has not received it may be gone (seconds since 1970)."""


def diff_entry(row_id: int, group: str, payload: bytes, lapses_at: float = math.inf) -> Entry:
    """Return the entry of a diff."""
    return Entry(row_id, math.inf, payload, shared=True, diff_of=group, lapses_at=lapses_at)


def claimed(row: ClaimedRow) -> Entry:
    """Return the entry of what was claimed from a normal channel."""
    row_id, expires_at, payload, _ = row
    if expires_at == NEVER:
        return diff_entry(row_id, diffs.group_of(payload), payload)
    return Entry(row_id, expires_at, payload)


def merged(entries: Sequence[Entry], limit_bytes: int) -> list[Entry]:
    """Return diffs of one group as few entries with the same effect, which stand in the place of the last."""
    first, last = entries[0], entries[-1]
    try:
        payloads = diffs.merged([entry.payload for entry in entries], limit_bytes)
    except UndecodableError:  # told by whoever receives it
        return list(entries)
    return [diff_entry(last.id, last.diff_of or "", payload, first.lapses_at) for payload in payloads]
