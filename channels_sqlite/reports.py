"""What the layer tells: counters, and drops and failures in the log, at most one line a second for each thing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from channels_sqlite.counters import Counters
from channels_sqlite.exceptions import LayerClosedError

__all__ = ["Reports"]

logger = logging.getLogger("channels_sqlite")

INTERVAL_S = 1.0
MOST_TOPICS = 1000
MOST_IDS = 20
NOBODY_RECEIVES = "receive() was cancelled or its consumer ended, and nobody has received since"

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
        self._lock = threading.Lock()  # guards what follows; nothing is waited for inside, lines are written outside
        self._topics: dict[str, Topic] = {}
        self._undecodable: dict[int, None] = {}  # ids of rows that no line has told of yet
        self._abandoned = 0  # channels that no line has told of yet

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

    def skipped(self, group: str, full: int, members: int, *, abandoned: int = 0) -> None:
        """A broadcast did not reach full members, of which so many were `abandoned`."""
        self.counters.dropped_full += full
        remedy = 'raise "capacity" or receive faster'
        if abandoned:
            remedy = (
                f"{abandoned} of them were abandoned by their consumers ({NOBODY_RECEIVES}), and leave their groups "
                f"once a message has expired there" + (f"; for the others {remedy}" if abandoned < full else "")
            )
        self._tell(
            f"skipped {group}",
            lambda times: logger.warning(
                "group %r: %d of %d members here were full and missed a message (%d such broadcasts since the last "
                "line); %s",
                group,
                full,
                members,
                times,
                remedy,
            ),
        )

    def dropped(self, channel: str, *, abandoned: bool = False) -> None:
        """A channel's buffer was full; it may be `abandoned`."""
        self.counters.dropped_full += 1
        remedy = f"it was abandoned by its consumer ({NOBODY_RECEIVES})"
        if not abandoned:
            remedy = 'raise "capacity" or receive faster'
        self._tell(
            f"dropped {channel}",
            lambda times: logger.warning(
                "channel %r is full: %d messages were dropped since the last line; %s", channel, times, remedy
            ),
        )

    def given_up(self, channel: str) -> None:
        """A message that was due later found its channel full for as long as it may wait."""
        self.counters.dropped_full += 1
        self._tell(
            f"given up {channel}",
            lambda times: logger.warning(
                "channel %r stayed full: %d messages that were due were tried until their expiry and dropped since the "
                'last line; raise "capacity" or receive faster',
                channel,
                times,
            ),
        )

    def abandoned(self, channels: Sequence[str]) -> None:
        """Members of groups were taken out of them, as nobody is left who receives there."""
        with self._lock:
            self._abandoned += len(channels)

        def line(_: int) -> None:
            with self._lock:
                count, self._abandoned = self._abandoned, 0
            logger.warning(
                "channels abandoned by their consumers were taken out of their groups (%d, such as %r): %s, and a "
                "message expired there; a consumer that ends by an exception, as from the send() of a server whose "
                "socket is gone, never gets to its disconnect handler",
                count,
                channels[0],
                NOBODY_RECEIVES,
            )

        self._tell("abandoned", line)

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

    def unreadable_info(self, group: str, key: str, reason: str) -> None:
        """What somebody who is present has told of themselves cannot be decoded."""
        self._tell(
            f"info {group}",
            lambda times: logger.error(
                "group %r: the info of %r cannot be read and counts as {} (%d times since the last line): %s",
                group,
                key,
                times,
                reason,
            ),
        )

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

    def held_up(self, pid: int | None, since_s: float, wal_bytes: int) -> None:
        """Nobody gets to a checkpoint."""
        self._tell(
            "held up",
            lambda _: logger.warning(
                "no checkpoint for %.0f s, and the write-ahead log has %.0f MiB: process %s began one and does not end "
                "it; if it is suspended (state T in ps), let it go on (kill -CONT) or end it (kill -KILL)",
                since_s,
                wal_bytes / 1024**2,
                "?" if pid is None else pid,
            ),
        )

    def read_on(self, _: int | None, since_s: float, wal_bytes: int) -> None:
        """Checkpoints are done, and cannot empty the WAL."""
        self._tell(
            "read on",
            lambda _: logger.warning(
                "no checkpoint for %.0f s could empty the write-ahead log, which has %.0f MiB: a connection reads on, "
                "of a process that is suspended (state T in ps), a shell or a backup; let it go on, or end it",
                since_s,
                wal_bytes / 1024**2,
            ),
        )

    def lost(self, channel: str, messages: int, error: BaseException) -> None:
        """The layer was closed, and what it had claimed could not be put back."""
        logger.error(
            "closing lost %d messages of channel %r: claimed and not received, they could not be put back: %s",
            messages,
            channel,
            error,
        )

    def failed(self, what: str, error: BaseException) -> None:
        """Something will be tried again."""
        if isinstance(error, LayerClosedError):  # by nobody: the end of all of it
            logger.debug("%s ended: %s", what, error)
            return
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

    def abandon(self) -> None:
        """In a forked child: a thread of the parent may hold the lock for ever."""
        self._lock = threading.Lock()
