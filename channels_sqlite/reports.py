"""What the layer tells the log: drops and failures, at most one line a second for each thing, with numbers."""

from __future__ import annotations

import logging
import threading
import time

from channels_sqlite.codec import UndecodableError

__all__ = ["Reports"]

logger = logging.getLogger("channels_sqlite")

INTERVAL_S = 1.0
MOST_TOPICS = 1000


class Reports:
    """Throttled log lines. Never the contents of a message."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[float, int]] = {}

    def _due(self, topic: str) -> int:
        """Return how many times `topic` has come up since its last line, this time included; 0: no line now."""
        now = time.monotonic()
        with self._lock:
            if len(self._counts) > MOST_TOPICS:
                self._counts.clear()
            last, count = self._counts.get(topic, (now - INTERVAL_S, 0))
            if now - last < INTERVAL_S:
                self._counts[topic] = (last, count + 1)
                return 0
            self._counts[topic] = (now, 0)
            return count + 1

    def skipped(self, group: str, full: int, members: int) -> None:
        """A broadcast did not reach full members."""
        if times := self._due(f"skipped {group}"):
            logger.warning(
                "group %r: %d of %d members here were full and missed a message (%d such broadcasts since the last "
                'line); raise "capacity" or receive faster',
                group,
                full,
                members,
                times,
            )

    def dropped(self, channel: str) -> None:
        """A channel's buffer was full."""
        if times := self._due(f"dropped {channel}"):
            logger.warning(
                'channel %r is full: %d messages were dropped since the last line; raise "capacity" or receive faster',
                channel,
                times,
            )

    def undecodable(self, row_id: int, error: UndecodableError) -> None:
        """A row is no message."""
        if times := self._due("undecodable"):
            logger.error("message row %d was skipped: %s (%d skipped since the last line)", row_id, error, times)

    def membership_ended(self, group: str, channel: str, group_expiry: float | None) -> None:
        """A live member was dropped by group_expiry."""
        if times := self._due(f"ended {group}"):
            logger.warning(
                "channel %r and %d others left group %r as group_expiry (%s s) had passed since their group_add; call "
                'group_add again before that, or set "group_expiry" to None',
                channel,
                times - 1,
                group,
                group_expiry,
            )

    def failed(self, what: str, error: BaseException) -> None:
        """Something will be tried again."""
        if times := self._due(f"failed {what}"):
            logger.error("%s failed and is tried again: %s (%d times since the last line)", what, error, times)

    def slow_commit(self, commit_s: float) -> None:
        """The disk held up an event loop."""
        if times := self._due("slow commit"):
            logger.info(
                "a commit took %.0f ms, so the background thread writes for a while (%d times since the last line)",
                commit_s * 1000,
                times,
            )

    def dead(self, client: str, pid: int) -> None:
        """A dead process was cleaned up after."""
        logger.info("process %d (client %s) is dead; its memberships and unread messages were removed", pid, client)
