"""Who is present in a group: what a list of them consists of, and what a key and an info may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from channels_sqlite.codec import Codec

__all__ = ["MAX_INFO_BYTES", "MAX_KEY_LENGTH", "Present", "encoded_info", "require_key"]

MAX_KEY_LENGTH = 200  # characters
MAX_INFO_BYTES = 4096  # before encryption

I_co = TypeVar("I_co", bound=Mapping[str, object], covariant=True)


@dataclass(frozen=True, slots=True)
class Present(Generic[I_co]):
    """Somebody who is there, with one channel or several."""

    key: str
    info: I_co
    """What the channel that joined last has told of them."""
    channels: int
    """With how many channels they are there."""
    since: float
    """When the first of them came, while there was none (seconds since 1970)."""


def require_key(key: object) -> str:
    """Return a key as a plain str; TypeError unless it is one, ValueError unless it has 1 to 200 characters."""
    if not isinstance(key, str):
        raise TypeError(f"key must be a str, not {key!r} ({type(key).__name__})")
    plain = str.__str__(key)
    if not 1 <= len(plain) <= MAX_KEY_LENGTH:
        raise ValueError(f"key must have 1 to {MAX_KEY_LENGTH} characters; {plain[:40]!r} has {len(plain)}")
    try:
        plain.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"key holds the lone surrogate {plain[error.start]!r}, which has no UTF-8 form; drop it"
        ) from None
    return plain


def encoded_info(codec: Codec, info: Mapping[str, object] | None) -> bytes:
    """Return an info as it is stored; None counts as {}.

    Raises TypeError and ValueError as `Codec.encode`, and MessageTooLarge beyond 4096 bytes before encryption.
    """
    return codec.encode({} if info is None else info, "info", MAX_INFO_BYTES)
