"""What a scenario's role gets to work with, and the pieces that several scenarios share."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager

from channels.exceptions import ChannelFull

from .board import Board, Value
from .measures import Account, Effort
from .protocols import Layer
from .stores import Store

__all__ = ["SETTLING", "Player", "make_message"]

SETTLING = -1
"""The identity of messages that no scenario counts."""

_WARM_UP = 20
_WARM_UP_LIMIT_S = 0.5
_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.05
_ROUND_S = 0.1
_QUIET_ROUNDS = 20
_RESEND_S = 1.0
_TEXT = "The quick brown fox jumps over the lazy dog while the five boxing wizards look on."


def make_message(identity: int) -> dict[str, object]:
    """Return a chat-like message, about 170 bytes once packed, with the moment of its making."""
    return {
        "type": "chat.message",
        "room": "lobby",
        "user": "ada",
        "text": _TEXT,
        "identity": identity,
        "sent_ns": time.perf_counter_ns(),
    }


def _count(messages: int, seconds: float) -> Iterator[int]:
    deadline = time.perf_counter() + seconds
    for number in range(messages):
        if time.perf_counter() >= deadline:
            return
        yield number


class Player:
    """One role of a scenario, played in one process: its layer, its place and its notice board."""

    def __init__(self, *, layer: Layer, board: Board, index: int, effort: Effort, store: Store) -> None:
        self.layer = layer
        self.index = index
        self.effort = effort
        self.store = store
        self.publish = board.publish
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._board = board

    async def wait_for(self, key: str, count: int = 1) -> list[Value]:
        """Return the ``count`` values published under ``key`` once they are there."""
        return await self._board.wait_for(key, count)

    async def settle(self, channel: str | None = None) -> None:
        """Return once everything this process has subscribed to so far is in force.

        A message to itself that comes back proves it: a layer that subscribes over a connection does so in order.
        Opens the layer's connections, too, so that this is not timed. It goes to ``channel``, or to a new one. Should
        the layer have lost it, it is sent again: the first messages that a role reads on ``channel`` may be of those
        (their identity is ``SETTLING``).
        """
        # Receivers just made into tasks make their first step before ours.
        await asyncio.sleep(0)
        if channel is None:
            channel = await self.layer.new_channel()
        receiving = asyncio.ensure_future(self.layer.receive(channel))
        try:
            await asyncio.sleep(0)
            while not receiving.done():
                await self.layer.send(channel, make_message(SETTLING))
                await asyncio.wait((receiving,), timeout=_RESEND_S)
            await receiving
        finally:
            receiving.cancel()

    async def warm_up(self, channel: str) -> None:
        """Send a few messages that nobody counts, so that what is made on first use is made."""
        for _ in self.warm_up_numbers():
            await self.layer.send(channel, make_message(SETTLING))

    def warm_up_numbers(self) -> Iterator[int]:
        """Count the messages of a warm-up from 0: a layer that polls gets fewer, since it takes long over each."""
        return _count(_WARM_UP, _WARM_UP_LIMIT_S)

    @asynccontextmanager
    async def background(self, *coroutines: Coroutine[object, object, None]) -> AsyncIterator[None]:
        """Run the coroutines beside the block and cancel them after it; a failure of one fails the player."""
        tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
        for task in tasks:
            task.add_done_callback(self._note_failure)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _note_failure(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.failure.done():
            self.failure.set_exception(error)

    def numbers(self) -> Iterator[int]:
        """Count from 0 until the effort is spent: its messages or its seconds. Several senders may share it."""
        return _count(self.effort.messages, self.effort.seconds)

    async def send(self, channel: str, message: dict[str, object], account: Account) -> None:
        """Send, again after a growing pause while the channel is full; the repetitions are counted."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self.layer.send(channel, message)
            except ChannelFull:
                account.retries += 1
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            else:
                return

    async def read(self, channel: str, account: Account) -> None:
        """Receive for ever, noting each message; cancel it to stop."""
        receive, received = self.layer.receive, account.received
        while True:
            message = await receive(channel)
            if message["identity"] != SETTLING:
                received.append(message["identity"])
                account.last_ns = time.perf_counter_ns()

    async def drain(self, account: Account, *, readers: int, senders: int, to_the_end: bool = True) -> None:
        """Return once all readers of a run have everything that its senders published under "sent", or none moves.

        One more look after the last message shows late duplicates. All readers of a run call this, and see the same
        totals, so they stop together: none leaves the rest of a queue to the others. Where there is more to read than
        was sent, ``to_the_end`` is false, and that many messages are enough.
        """
        expected = sum(int(value) for value in await self.wait_for("sent", senders))
        before, quiet_rounds = -1, 0
        for number in itertools.count():
            await asyncio.sleep(_ROUND_S)
            self.publish(f"received {number}", len(account.received))
            total = sum(int(value) for value in await self.wait_for(f"received {number}", readers))
            quiet_rounds = quiet_rounds + 1 if total == before else 0
            enough = total >= expected
            if (enough and not to_the_end) or (quiet_rounds and (enough or quiet_rounds >= _QUIET_ROUNDS)):
                return
            before = total
