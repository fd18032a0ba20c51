"""Messages to bytes and back: msgpack, checked so that what comes out equals what went in.

The types are those of the Channel Layer Specification, "Messages"
(https://channels.readthedocs.io/en/stable/channel_layer_spec.html).
"""

from __future__ import annotations

import hashlib
import threading
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgpack
from channels.exceptions import MessageTooLarge
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise

__all__ = ["Codec", "Message", "UndecodableError", "is_flat"]

# Any, as json.loads returns: only sender and receiver know what they agreed on. Typed handles narrow it.
Message = dict[str, Any]
"""A received message: a dict with str keys; the receiver's own copy."""

MAX_DEPTH = 200  # Python before 3.12 gives up at 1,000 calls, the caller's included; msgpack packs 511 levels
LARGE_BYTES = 1024 * 1024
_INT64 = range(-(2**63), 2**63)
_PLAIN_SCALARS = frozenset({str, bool, float, bytes, type(None)})


class UndecodableError(ValueError):
    """Stored bytes that are no message: written by something else, damaged, or encrypted with an unknown key."""


class Cipher(Protocol):
    """What the codec needs of an encryption: bytes to bytes, both ways. `decrypt` raises `UndecodableError`."""

    def encrypt(self, data: bytes) -> bytes: ...

    def decrypt(self, data: bytes) -> bytes: ...


class Codec:
    """Encodes and decodes the messages of one layer.

    `max_message_size` is in bytes of msgpack, before encryption. With `keys` the first one encrypts and all of them
    decrypt (Fernet, https://github.com/fernet/spec); plain bytes are then refused, so that nobody slips one in.
    """

    def __init__(self, *, max_message_size: int, keys: Sequence[bytes] = ()) -> None:
        self._max_message_size = max_message_size
        self._packers = Packers()
        self._cipher: Cipher | None = FernetCipher(keys) if keys else None

    def encode(self, message: Mapping[str, object], path: str = "message") -> bytes:
        """Return `message` as bytes. `path` is what errors call it.

        Raises:
            TypeError: the message is no mapping, or holds something that is not serialisable; names path and type.
            ValueError: it has the key `__asgi_channel__` or `__position__`, which belong to the layer.
            MessageTooLarge: it needs more than `max_message_size` bytes.
        """
        if type(message) is not dict and not isinstance(message, Mapping):
            raise TypeError(f"{path}: must be a dict or another Mapping, not {type(message).__name__}")
        if "__asgi_channel__" in message or "__position__" in message:
            key = "__asgi_channel__" if "__asgi_channel__" in message else "__position__"
            raise ValueError(f"{path} has the key {key!r}, which the channel layer itself sets; drop it")
        try:
            data = self._packers.packer.pack(message if _is_plain(message, 0) else _plain(message, path, ()))
        except UnicodeEncodeError:  # a lone surrogate: look where
            _plain(message, path, ())
            raise
        if len(data) > LARGE_BYTES:
            self._packers.packer = msgpack.Packer()  # it keeps its buffer
        if len(data) > self._max_message_size:
            raise MessageTooLarge(
                f"{path}: encoded it has {len(data)} bytes, {self._max_message_size} are allowed; send a reference to "
                f'the data instead, or raise "max_message_size"'
            )
        return data if self._cipher is None else self._cipher.encrypt(data)

    def decode(self, payload: bytes) -> Message:
        """Return a new message from stored bytes; raise UndecodableError when they are none."""
        data = payload if self._cipher is None else self._cipher.decrypt(payload)
        try:
            message = msgpack.unpackb(data)
        except Exception as error:  # msgpack raises ValueError, UnicodeDecodeError and others, by what is wrong
            raise UndecodableError(f"not a msgpack message ({type(error).__name__})") from error
        if type(message) is not dict:
            raise UndecodableError(f"holds a {type(message).__name__} instead of a map")
        return message


def is_flat(message: Message) -> bool:
    """Whether a decoded message holds nothing that could be changed in place, so that `message.copy()` is all new."""
    return all(type(value) is int or type(value) in _PLAIN_SCALARS for value in message.values())


class Packers(threading.local):
    """A msgpack packer for each thread: making one takes longer than packing a chat message."""

    def __init__(self) -> None:
        self.packer = msgpack.Packer()


class FernetCipher:
    """`cryptography`'s MultiFernet, with keys of any length."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        try:
            from cryptography.fernet import Fernet, InvalidToken, MultiFernet
        except ImportError as error:
            raise ImproperlyConfigured(
                "'symmetric_encryption_keys' needs the cryptography package: pip install channels_sqlite[cryptography]"
            ) from error
        self._fernet = MultiFernet([Fernet(urlsafe_b64encode(hashlib.sha256(key).digest())) for key in keys])
        self._invalid = InvalidToken

    def encrypt(self, data: bytes) -> bytes:
        """Return `data` encrypted with the first key."""
        return self._fernet.encrypt(data)

    def decrypt(self, data: bytes) -> bytes:
        """Return what was encrypted with any of the keys; raise UndecodableError otherwise."""
        try:
            return self._fernet.decrypt(data)
        except (self._invalid, TypeError) as error:
            raise UndecodableError("not encrypted with any of the configured keys") from error


def _is_plain(value: object, depth: int) -> bool:
    """Whether msgpack packs `value` exactly as it stands. The common case, kept short: 0.5 us for a chat message."""
    kind = type(value)
    if kind in _PLAIN_SCALARS:
        return True
    if kind is int:
        return value in _INT64
    if depth > MAX_DEPTH:
        return False
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]  # a dict, by the line above
            if type(key) is not str:
                return False
            if type(item) not in _PLAIN_SCALARS and not _is_plain(item, depth + 1):
                return False
        return True
    if kind is list:
        for item in value:  # type: ignore[attr-defined]  # a list, by the line above
            if type(item) not in _PLAIN_SCALARS and not _is_plain(item, depth + 1):
                return False
        return True
    return False


def _plain(value: object, path: str, above: tuple[int, ...]) -> object:
    """Return a copy of `value` in exactly the types that msgpack keeps; `above` are the ids of what contains it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Promise):
        value = str(value)
    if isinstance(value, str):
        return _plain_text(str.__str__(value), path)
    if isinstance(value, int):
        number = int.__index__(value)
        if number not in _INT64:
            raise TypeError(f"{path}: int of {number.bit_length()} bits is not serializable; 64 signed bits are")
        return number
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, memoryview):
        return value.tobytes()
    if not isinstance(value, (Mapping, list, tuple)):
        raise TypeError(
            f"{path}: {type(value).__name__} is not serializable; convert it to one of None, bool, int, float, str, "
            f"bytes, list, dict"
        )
    if id(value) in above:
        raise TypeError(f"{path}: {type(value).__name__} is not serializable; it contains itself")
    if len(above) >= MAX_DEPTH:
        raise TypeError(f"{path[:80]}...: {type(value).__name__} is not serializable; {MAX_DEPTH} levels deep are")
    above = (*above, id(value))
    if isinstance(value, Mapping):
        return {_plain_key(key, path): _plain(item, f"{path}[{key!r}]", above) for key, item in value.items()}
    return [_plain(item, f"{path}[{index}]", above) for index, item in enumerate(value)]


def _plain_key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{path}: key {key!r} of type {type(key).__name__} is not serializable; keys must be str")
    return _plain_text(str.__str__(key), f"{path} key {key!r}")


def _plain_text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TypeError(
            f"{path}: str with the lone surrogate {text[error.start]!r} is not serializable; it has no UTF-8 form"
        ) from None
    return text
