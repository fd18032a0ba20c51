"""What the sync facade needs of a channel layer. Threads call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from channels_sqlite.codec import Message
from channels_sqlite.concurrency.gate import Stop
from channels_sqlite.histories import History

__all__ = ["BlockingLayer"]

E = TypeVar("E")


class BlockingLayer(Protocol[E]):
    """A channel layer as threads use it; E is what it makes of a message that was checked. Names are valid already."""

    def require(self, method: str, *, expiry: object = None, exclude: object = None) -> None:
        """Raise NotImplementedError where the layer has nothing for `method`, or for what of the rest is not None."""

    def encode(self, message: Mapping[str, object], path: str = "message") -> E:
        """Check a message and make a copy that can be sent later; errors as `SqliteChannelLayer.send`."""

    def send(self, channel: str, encoded: Sequence[E], expiry: float | None) -> None:
        """Send to one channel, or raise ChannelFull."""

    def group_send(
        self, group: str, encoded: Sequence[E], expiry: float | None, excluded: frozenset[str], *, history: bool
    ) -> None:
        """Send to all members but these."""

    def send_later(self, channel: str, encoded: E, due_at: float, expiry: float | None) -> str:
        """Schedule for one channel; return the ticket."""

    def group_send_later(
        self, group: str, encoded: E, due_at: float, expiry: float | None, excluded: frozenset[str], *, history: bool
    ) -> str:
        """Schedule for all members but these; return the ticket."""

    def cancel(self, ticket: str) -> bool:
        """Take out of the schedule; return whether it was there."""

    def group_add(self, group: str, channel: str) -> None:
        """Add or renew a member."""

    def group_discard(self, group: str, channel: str) -> None:
        """Remove a member, if it is one."""

    def group_channels(self, group: str) -> list[str]:
        """Return the members, sorted; raise NotImplementedError where the layer cannot tell."""

    def group_subscribe(self, group: str, channel: str, since: object, last: int | None) -> History[Message]:
        """Add or renew a member and return what the group was sent."""

    def group_history(self, group: str, since: object, last: int | None) -> History[Message]:
        """Return what the group was sent."""

    def new_channel(self, prefix: str) -> str:
        """Return a new name that only this process receives on."""

    def require_own(self, channel: str) -> None:
        """Raise ValueError where the layer knows that `receive` would refuse this name."""

    def receive(
        self, channels: Sequence[str], until: float | None, stop: Stop, *, patient: bool
    ) -> tuple[str, Message] | None:
        """Wait for a message on one of `channels`, in their order where several have one, and return both.

        None: there was none until the monotonic time `until`, or `stop` was requested. `patient`: a layer that does
        not work at the moment is waited for.
        """

    def end(self, stop: Stop) -> None:
        """Let go of what `receive` keeps for the `listen()` that `stop` ends; no call with that one follows."""

    def session(self) -> object:
        """Return what is another object after the layer was closed."""

    def flush(self) -> None:
        """Delete all messages and memberships."""

    def close(self) -> None:
        """Let go of everything; the next call opens the layer again."""
