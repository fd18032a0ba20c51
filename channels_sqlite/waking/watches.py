"""Who watches the wake-up socket for those who wait: their event loops, and one of the waiting threads."""

from __future__ import annotations

from channels_sqlite.waking.loop_watch import LoopWatches
from channels_sqlite.waking.pace import Duty
from channels_sqlite.waking.thread_watch import ThreadWatch

__all__ = ["Watches"]


class Watches:
    """All that watch in one process, for one layer. May be called by any thread."""

    def __init__(self, duty: Duty) -> None:
        self.loops = LoopWatches(duty)
        self.threads = ThreadWatch(duty)
        self.of = self.loops.of

    def rouse(self) -> None:
        """Poll at every interval until all is quiet again."""
        self.loops.rouse()
        self.threads.rouse()

    def let_go(self) -> None:
        """Have all let go of the wake-up socket soon."""
        self.threads.poke()
        self.loops.let_go()

    def stop(self) -> None:
        """End watching, when nobody waits any more."""
        try:
            self.loops.stop()
        finally:
            self.threads.close()

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, without touching it."""
        self.loops.abandon()
        self.threads.abandon()
