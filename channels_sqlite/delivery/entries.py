"""Entries of mailboxes that tell of presences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from channels_sqlite.codec import UndecodableError
from channels_sqlite.delivery import diffs
from channels_sqlite.delivery.mailbox import Entry
from channels_sqlite.storage.messages import NEVER, ClaimedRow

__all__ = ["claimed", "diff_entry", "merged"]


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
