"""What the layer tells: counters, and drops and failures in the log, at most one line a second for each thing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from channels_sqlite.counters import Counters

__all__ = ["Reports"]

logger = logging.getLogger("channels_sqlite")

INTERVAL_S = 1.0
MOST_TOPICS = 1000
MOST_IDS = 20

Line = Callable[[int], None]
"""Writes the line about something that came up so many times since the last one."""


class Topic:
    """One thing that comes up again and again."""

    __slots__ = ("last_at", "line", "times")

    def __init__(self) -> None:
        self.last_at = -INTERVAL_S  # monotonic
        self.times = 0
        self.line: Line | None = None


class Reports:
    """Counters and throttled log lines. Never the contents of a message."""

    def __init__(self, counters: Counters | None = None) -> None:
        self.counters = counters or Counters()
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}
        self._undecodable: dict[int, None] = {}  # ids of rows that no line has told of yet

    def _tell(self, name: str, line: Line) -> None:
        """Write `line` now, or with the times that follow when a second has passed."""
        with self._lock:
            if name not in self._topics and len(self._topics) >= MOST_TOPICS:
                self._topics.clear()
            topic = self._topics.setdefault(name, Topic())
            topic.times += 1
            topic.line = line
            times = self._due(topic, time.monotonic())
        if times:
            line(times)

    @staticmethod
    def _due(topic: Topic, now: float, interval_s: float = INTERVAL_S) -> int:
        if not topic.times or now - topic.last_at < interval_s:
            return 0
        times, topic.times, topic.last_at = topic.times, 0, now
        return times

    def tell_rest(self, interval_s: float = INTERVAL_S) -> None:
        """Write the lines that were held back and are due, and forget what has not come up for a while."""
        now = time.monotonic()
        with self._lock:
            due = [
                (topic.line, times) for topic in self._topics.values() if (times := self._due(topic, now, interval_s))
            ]
            for name in [name for name, topic in self._topics.items() if now - topic.last_at >= 2 * INTERVAL_S]:
                del self._topics[name]
        for line, times in due:
            if line is not None:
                line(times)

    def skipped(self, group: str, full: int, members: int) -> None:
        """A broadcast did not reach full members."""
        self.counters.dropped_full += full
        self._tell(
            f"skipped {group}",
            lambda times: logger.warning(
                "group %r: %d of %d members here were full and missed a message (%d such broadcasts since the last "
                'line); raise "capacity" or receive faster',
                group,
                full,
                members,
                times,
            ),
        )

    def dropped(self, channel: str) -> None:
        """A channel's buffer was full."""
        self.counters.dropped_full += 1
        self._tell(
            f"dropped {channel}",
            lambda times: logger.warning(
                'channel %r is full: %d messages were dropped since the last line; raise "capacity" or receive faster',
                channel,
                times,
            ),
        )

    def undecodable(self, row_id: int, reason: str) -> None:
        """A row is no message."""
        self.counters.dropped_undecodable += 1
        with self._lock:
            self._undecodable[row_id] = None

        def line(times: int) -> None:
            with self._lock:
                ids, self._undecodable = list(self._undecodable), {}
            shown = ", ".join(map(str, ids[:MOST_IDS])) + (" and others" if len(ids) > MOST_IDS else "")
            logger.error("message rows that are no messages were skipped, id %s (%d times): %s", shown, times, reason)

        self._tell("undecodable", line)

    def membership_ended(self, group: str, channel: str, group_expiry: float | None) -> None:
        """A live member was dropped by group_expiry."""
        self._tell(
            f"ended {group}",
            lambda times: logger.warning(
                "channel %r and %d others left group %r as group_expiry (%s s) had passed since their group_add; call "
                'group_add again before that, or set "group_expiry" to None',
                channel,
                times - 1,
                group,
                group_expiry,
            ),
        )

    def failed(self, what: str, error: BaseException) -> None:
        """Something will be tried again."""
        self._tell(
            f"failed {what}",
            lambda times: logger.error(
                "%s failed and is tried again: %s (%d times since the last line)", what, error, times
            ),
        )

    def slow_commit(self, commit_s: float) -> None:
        """The disk held up an event loop."""
        self._tell(
            "slow commit",
            lambda times: logger.info(
                "a commit took %.0f ms, so the background thread writes for a while (%d times since the last line)",
                commit_s * 1000,
                times,
            ),
        )

    def dead(self, client: str, pid: int) -> None:
        """A dead process was cleaned up after."""
        logger.info("process %d (client %s) is dead; its memberships and unread messages were removed", pid, client)
