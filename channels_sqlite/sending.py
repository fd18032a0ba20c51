"""The further parameters of sending, checked and made plain: how long, to whom not, when, and how many at once.

All of it is refused before anything is written: a wrong type with TypeError, a wrong value with ValueError.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from channels_sqlite import names
from channels_sqlite.options import is_finite

__all__ = [
    "INLINE_BYTES",
    "NOBODY",
    "Batch",
    "require_due",
    "require_excluded",
    "require_expiry",
    "require_messages",
    "require_positive",
]

INLINE_BYTES = 256 * 1024  # what is larger is written by the thread: copying it would hold up the loop
NOBODY: frozenset[str] = frozenset()
ROW_BYTES = 1024  # what a row of a batch counts as, at least: 256 of them are written in 2 ms


def require_expiry(expiry: object) -> None:
    """Raise TypeError or ValueError unless `expiry` is None or a finite number of seconds greater than 0."""
    if expiry is not None:
        require_positive("expiry", expiry)


def require_positive(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless `value` is a finite number of seconds greater than 0."""
    if _seconds(name, value) <= 0:
        raise ValueError(f"{name} must be greater than 0 seconds, not {value!r}")


def require_excluded(exclude: object) -> frozenset[str]:
    """Return the channels that `exclude` names: None, one name, or a collection of names; TypeError otherwise."""
    if exclude is None:
        return NOBODY
    if isinstance(exclude, str):
        return frozenset((names.require_channel_name(exclude),))
    if not isinstance(exclude, Collection):
        raise TypeError(
            f"exclude must be None, a channel name or a collection of channel names, not {type(exclude).__name__}"
        )
    return frozenset(map(names.require_channel_name, exclude))


def require_messages(messages: object) -> None:
    """Raise TypeError unless `messages` is a sequence that may be one of messages."""
    if isinstance(messages, (str, bytes, bytearray, memoryview, Mapping)) or not isinstance(messages, Sequence):
        raise TypeError(f"messages must be a sequence of messages, such as a list, not {type(messages).__name__}")


def require_due(delay: object, at: object) -> float:
    """Return when a message is to be sent (seconds since 1970): a delay counts from now.

    Raises TypeError unless exactly one of `delay` and `at` is given, and is a number or a datetime; ValueError where
    `delay` is negative or not finite, or `at` has no time zone.
    """
    if (delay is None) == (at is None):
        raise TypeError(f"exactly one of delay and at is needed, {'neither was' if at is None else 'both were'} given")
    if at is None:
        seconds = _seconds("delay", delay)
        if seconds < 0:
            raise ValueError(f"delay must be at least 0 seconds, not {delay!r}")
        return time.time() + seconds
    if not isinstance(at, datetime):
        raise TypeError(f"at must be a datetime, not {type(at).__name__}")
    if at.utcoffset() is None:
        raise ValueError(f"at must have a time zone, and {at!r} is naive; django.utils.timezone.make_aware() adds one")
    return at.timestamp()


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r} ({type(value).__name__})")
    if not is_finite(value):
        raise ValueError(f"{name} must be a finite number of seconds, not {str(value)[:40]}")
    return float(value)


class Batch:
    """The messages of one call, to be checked and copied before the first of them is written.

    The first ones are at once, and a great many in the thread that writes them, before its transaction: there is no
    other way in which they would keep their place among the sends of an event loop and yet not hold it up. What
    depends on the context, such as the language of lazy translations, is as it was at the call.
    """

    def __init__(self, encode: Callable[[Mapping[str, object], str], bytes], messages: object) -> None:
        """`encode` is told of the path of each message. Raises TypeError where `messages` is no sequence."""
        require_messages(messages)
        self._encode = encode
        self._messages: list[Mapping[str, object]] = list(messages)  # type: ignore[call-overload]  # by the line above
        self._context = contextvars.copy_context()
        self.payloads: list[bytes] = []
        """Those that are encoded."""
        self.size_bytes = 0
        """Of these."""

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def is_whole(self) -> bool:
        """Whether all are encoded."""
        return len(self.payloads) == len(self._messages)

    def begin(self) -> None:
        """Encode those that do not hold up an event loop; errors as `Codec.encode`."""
        self._go_on(INLINE_BYTES)

    def finish(self) -> int:
        """Encode the rest, in any thread; return the size of all."""
        self._context.run(self._go_on, None)
        return self.size_bytes

    def _go_on(self, most_bytes: int | None) -> None:
        for index in range(len(self.payloads), len(self._messages)):
            if most_bytes is not None and self.size_bytes > most_bytes:
                return
            payload = self._encode(self._messages[index], f"messages[{index}]")
            self.payloads.append(payload)
            self.size_bytes += max(len(payload), ROW_BYTES)
