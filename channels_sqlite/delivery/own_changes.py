"""What transactions of this process change of who is in which groups, while the log is read beside them.

Where another process has changed a place, a channel in a group, the log says so, and what it is now is read from the
database. A transaction of this very process may change the same place meanwhile. What was read may then be older than
what is noted here already, or than what will be once that is committed, and must be read again: at once, or when that
transaction has ended, which may be one of the very thread that reads.

Threads: transactions note things one at a time, within `OpenDatabase.writing`; the log is read by one thread at a time,
within `OpenDatabase.reading`. `_lock` is held for memory operations alone, and nothing is taken inside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from channels_sqlite.storage.transactions import Transaction

__all__ = ["OwnChanges"]

Place = tuple[str, str]
"""Group and channel."""

EVERYWHERE: Place = ("", "")


class OwnChanges:
    """Places that transactions of this process are changing, or have changed since a step of reading began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all that follows
        self._under_way: dict[Place, int] = {}
        self._recent: set[Place] = set()
        self._reading = False
        self.awaited = False
        """Reading goes on when a transaction has ended that is under way."""
        self.on_end: Callable[[], object] = _nothing
        """Called then, in the thread of the transaction."""

    def note(self, transaction: Transaction, group: str, channel: str) -> None:
        """Note that `transaction` changes a place; called before that is noted anywhere else."""
        self._note(transaction, (group, channel))

    def note_all(self, transaction: Transaction) -> None:
        """Note that `transaction` may change all places."""
        self._note(transaction, EVERYWHERE)

    def _note(self, transaction: Transaction, place: Place) -> None:
        with self._lock:
            self._under_way[place] = self._under_way.get(place, 0) + 1
            self._touch(place)

        def ended() -> None:
            with self._lock:
                self._under_way[place] -= 1
                if not self._under_way[place]:
                    del self._under_way[place]
                self._touch(place)
                awaited, self.awaited = self.awaited, False
            if awaited:
                self.on_end()

        transaction.at_end.append(ended)

    def _touch(self, place: Place) -> None:
        if self._reading:
            self._recent.add(place)

    # In the reader's turn

    def begin(self) -> None:
        """A step of reading begins: what it reads may be older than what is changed from now on."""
        with self._lock:
            self._reading = True

    def end(self) -> None:
        """It has ended, and noted what it has read."""
        with self._lock:
            self._reading = False
            self._recent.clear()

    def overtook(self, group: str, channel: str) -> bool:
        """Whether what this step has read of a place may be older than what is noted of it, or about to be."""
        places = ((group, channel), EVERYWHERE)
        with self._lock:
            if any(place in self._under_way for place in places):
                self.awaited = True
                return True
            return any(place in self._recent for place in places)

    def abandon(self) -> None:
        """In a forked child: a thread of the parent may hold the lock for ever."""
        self._lock = threading.Lock()
        self._under_way.clear()
        self._recent.clear()
        self._reading = self.awaited = False


def _nothing() -> None:
    pass
