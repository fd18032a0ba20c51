"""What those who watch for others have to do, and when they poll.

Every `polling_interval` each of them looks whether the database has changed, in case a wake-up was lost. After a few
polls that found nothing that is left to the kernel, where it tells of the next write.

Polling is the guarantee, and watching makes it fast. So a tick polls whatever else fails in it, and what fails is told
and done again at the next tick.
"""

from __future__ import annotations

from typing import Protocol

from channels_sqlite.waking.wake_socket import WakeSocket
from channels_sqlite.waking.write_alarm import WriteAlarm

__all__ = ["Duty", "Pace"]

QUIET_POLLS = 4  # that found nothing, one after the other, until polling rests
REST_S = 1.0  # from poll to poll while it rests


class Duty(Protocol):
    """What there is to watch, and what to do."""

    interval_s: float
    """From poll to poll."""

    @property
    def wake_socket(self) -> WakeSocket | None:
        """The socket to watch now, if there is one."""

    def look(self) -> bool:
        """Read what is new, after a wake-up; return whether there was anything."""

    def poll(self) -> bool:
        """Poll; return whether there was or may have been anything new."""

    def rest(self, alarm: WriteAlarm) -> bool:
        """Set the alarm; return whether whatever is committed after the latest poll rings it."""

    def failed(self, what: str, error: Exception) -> None:
        """Tell what failed, which is done again at the next tick."""


class Pace:
    """When to poll: at every interval, and only now and then while an alarm tells of writes.

    For one thread, but for `rouse`.
    """

    def __init__(self, duty: Duty) -> None:
        self.alarm = WriteAlarm()
        self._duty = duty
        self._quiet = 0  # polls that found nothing
        self._roused = 0  # times
        self._resting_since = -1  # roused so many times

    @property
    def resting(self) -> bool:
        """Whether the alarm is relied on."""
        return self._resting_since == self._roused

    @property
    def interval_s(self) -> float:
        """The seconds until the next poll."""
        return REST_S if self.resting else self._duty.interval_s

    def poll(self) -> None:
        """Poll, and rest or go on with it."""
        if self._duty.poll():
            self.rouse()
            return
        self._quiet += 1
        if not self.resting and self._quiet >= QUIET_POLLS:
            self._quiet = 0  # the next try, if this one fails
            roused = self._roused  # by another thread maybe, while the alarm is set
            if self._duty.interval_s < REST_S and self._duty.rest(self.alarm):
                self._resting_since = roused

    def rouse(self) -> None:
        """Poll at every interval again: somebody writes, but may not have committed yet."""
        self._quiet = 0
        self._roused += 1
