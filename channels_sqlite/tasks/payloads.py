"""What a task is given, returns and raises, as bytes: JSON, by Django's rules, in a message of the layer's codec.

So the layer's keys encrypt it, and its "max_message_size" bounds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.tasks.base import TaskError
from django.utils.json import normalize_json

from channels_sqlite.codec import Codec, UndecodableError

__all__ = ["decode", "decode_errors", "encode", "encode_errors", "error_of"]

TRACEBACK_CHARACTERS = 100_000  # of the end of a traceback, which says most


def encode(codec: Codec, value: object) -> bytes:
    """Return a value as bytes.

    Raises:
        TypeError, ValueError: it is no JSON, as Django normalises it.
        MessageTooLarge: it needs more than "max_message_size" bytes.
    """
    return codec.encode({"json": json.dumps(normalize_json(value))})


def decode(codec: Codec, data: bytes) -> Any:  # Any: as json.loads
    """Return what was encoded; raises UndecodableError where that cannot be done."""
    message = codec.decode(data)
    try:
        return json.loads(message["json"])
    except (KeyError, TypeError, ValueError) as error:
        raise UndecodableError(f"holds no JSON ({type(error).__name__})") from error


def error_of(error: BaseException, traceback: str) -> TaskError:
    """Return what is kept of an exception."""
    kind = type(error)
    return TaskError(
        exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback=traceback[-TRACEBACK_CHARACTERS:]
    )


def encode_errors(codec: Codec, errors: Sequence[TaskError]) -> bytes | None:
    """Return errors as bytes, or None where there are none."""
    if not errors:
        return None
    return encode(codec, [[error.exception_class_path, error.traceback] for error in errors])


def decode_errors(codec: Codec, data: bytes | None) -> list[TaskError]:
    """Return what was encoded."""
    if data is None:
        return []
    pairs: Sequence[Sequence[str]] = decode(codec, data)
    return [TaskError(exception_class_path=path, traceback=traceback) for path, traceback in pairs]


def arguments(args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, object]:
    """Return both in one value."""
    return {"args": list(args), "kwargs": dict(kwargs)}
