"""One write, and the transaction that writes share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, cast

from channels_sqlite.counters import Counters
from channels_sqlite.sending import INLINE_BYTES
from channels_sqlite.storage.messages import LogRow
from channels_sqlite.storage.store import Store

__all__ = ["AnyWrite", "ElsewhereError", "GivenUpError", "Registered", "Transaction", "Write"]


T = TypeVar("T")


class ElsewhereError(Exception):
    """A transaction may have to wait for another lock, which an event loop must not: the thread is to do it."""


class GivenUpError(Exception):
    """A write that waited for the lock was given up, as its caller wished."""


class Registered(Protocol):
    """A process's entry among the readers, as transactions see it."""

    client: str

    def enter_in(self, transaction: Transaction) -> None:
        """Write the entry, and all that hangs on it."""

    def return_soon(self) -> None:
        """Have the entry written again: somebody has deleted it."""


class Transaction:
    """One write transaction: what its writes share.

    A write checks first and writes then: it may raise (ChannelFull) as long as it has written nothing. State outside
    of the database that it changes goes back in `undo` when the transaction fails; `wake` names the clients to wake
    once it is committed, `own` has the rows for this very process, `after_commit` says what else to do then, and
    `at_end` what to do after all that, whatever has become of it. One that is `in_users_block` is part of a transaction
    of the user's: nobody tells when that fails, so such writes change no state outside.
    """

    __slots__ = (
        "after_commit",
        "at_end",
        "entered",
        "file",
        "first",
        "in_users_block",
        "newest",
        "now",
        "own",
        "refused",
        "registered",
        "sent",
        "store",
        "undo",
        "wake",
    )

    def __init__(
        self,
        store: Store,
        now: float,
        *,
        reader: str = "",
        file: object = None,
        in_users_block: bool = False,
    ) -> None:
        """`reader` is the client whose registration is looked for; "" for a process that is no reader.

        `file` is another object where another file was opened; None: it is not known.
        """
        self.store = store
        self.now = now  # seconds since 1970
        self.file = file
        self.in_users_block = in_users_block
        self.newest, self.registered = store.newest_id_and_registered(reader) if reader else (store.newest_id(), True)
        self.entered = False  # this transaction writes the registration
        self.first = self.newest
        self.own: list[LogRow] = []
        self.sent = 0  # messages; a broadcast counts once
        self.refused = 0  # messages that ended with ChannelFull
        self.wake: set[str] = set()
        self.undo: list[Callable[[], object]] = []
        self.after_commit: list[Callable[[], object]] = []
        self.at_end: list[Callable[[], object]] = []

    def take_back(self) -> None:
        """Undo what was changed outside of the database: the transaction has failed."""
        try:
            for undo in reversed(self.undo):
                undo()
        finally:
            self._end()

    def hand_over(self, counters: Counters) -> None:
        """Do what is to be done after the commit, but for waking others; interrupted (Ctrl-C), it may be called again.

        Within the lock under which transactions run, so that what comes of them keeps the order of the commits.
        """
        try:
            counters.sent, self.sent = counters.sent + self.sent, 0
            counters.refused, self.refused = counters.refused + self.refused, 0
            while self.after_commit:
                self.after_commit.pop(0)()
        finally:
            self._end()

    def _end(self) -> None:
        while self.at_end:
            self.at_end.pop(0)()


class Write(Generic[T]):
    """One write on its way. `done` is called once, on any thread, when `result` or `error` stands."""

    __slots__ = (
        "apply",
        "done",
        "error",
        "future",
        "is_large",
        "loop",
        "prepare",
        "result",
        "size_bytes",
        "submitted_at",
        "withdrawn",
    )

    def __init__(
        self, apply: Callable[[Transaction], T], size_bytes: int = 0, prepare: Callable[[], int] | None = None
    ) -> None:
        """`prepare` is called on the background thread, which then does the write; it returns the size in bytes."""
        self.apply = apply
        self.size_bytes = size_bytes
        self.prepare = prepare
        self.is_large = size_bytes > INLINE_BYTES or prepare is not None  # it would hold up an event loop
        self.submitted_at = time.monotonic()
        self.result: T | None = None
        self.error: BaseException | None = None
        self.withdrawn = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[None] | None = None
        self.done: Callable[[Write[T]], object] | None = None

    def make_ready(self) -> bool:
        """Do what is to be done before the transaction; return whether that has succeeded."""
        if self.prepare is not None and not self.withdrawn:
            try:
                self.size_bytes = self.prepare()
            except Exception as error:  # noqa: BLE001  # a message that cannot be sent, say: raised to who waits
                self.error = error
                return False
        return True

    def outcome(self) -> T:
        """Return the result or raise the error."""
        if self.error is not None:
            raise self.error.with_traceback(None)  # it may be raised to many, and would gather their frames
        return cast("T", self.result)


AnyWrite = Write[object]
