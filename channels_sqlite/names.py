"""Channel and group names: what is valid, and what the parts of a process-specific name mean.

The rules are those of the Channel Layer Specification, "Channels" and "Groups"
(https://channels.readthedocs.io/en/stable/channel_layer_spec.html): fewer than 100 characters, ASCII letters, digits,
hyphens, underscores and periods; one `!` makes a name specific to a process.
"""

from __future__ import annotations

import re
import uuid
from functools import lru_cache

__all__ = [
    "MAX_NAME_LENGTH",
    "TASKS",
    "client_of",
    "new_specific",
    "queue_of",
    "require_channel_name",
    "require_group_name",
    "split",
    "task_channel",
]

MAX_NAME_LENGTH = 100

KNOWN_NAMES = 8192

TASKS = "tasks/"  # begins what workers listen to, which is the name of no channel: a slash is not allowed in one

_CHANNEL = re.compile(r"[a-zA-Z0-9\-_.]+(![a-zA-Z0-9\-_.]*)?")
_GROUP = re.compile(r"[a-zA-Z0-9\-_.]+")


def require_channel_name(name: object) -> str:
    """Return `name` when it is a valid channel name, normal or process-specific; raise TypeError otherwise."""
    if isinstance(name, str) and _is_channel_name(name):
        return name
    raise TypeError(_complaint("Channel", name))


def new_specific(prefix: str, client: str) -> str:
    """Return a new channel name that is specific to `client`; raise TypeError where `prefix` makes no valid one."""
    require_channel_name(prefix)
    return require_channel_name(f"{prefix}.{client}!{uuid.uuid4().hex}")


def require_group_name(name: object) -> str:
    """Return `name` when it is a valid group name; raise TypeError otherwise."""
    if isinstance(name, str) and len(name) < MAX_NAME_LENGTH and _GROUP.fullmatch(name):
        return name
    raise TypeError(_complaint("Group", name))


def _complaint(what: str, name: object) -> str:
    seen = f"{name[:120]!r} ({len(name)} characters)" if isinstance(name, str) else f"{name!r} ({type(name).__name__})"
    return (
        f"{what} name must be a string of 1 to {MAX_NAME_LENGTH - 1} ASCII letters, digits, hyphens, underscores or "
        f"periods{', with at most one !' if what == 'Channel' else ''}; got {seen}"
    )


# The same few thousand names come again and again, and a look-up takes a tenth of the time.
@lru_cache(KNOWN_NAMES)
def _is_channel_name(name: str) -> bool:
    return len(name) < MAX_NAME_LENGTH and _CHANNEL.fullmatch(name) is not None


@lru_cache(KNOWN_NAMES)
def split(name: str) -> tuple[str, str | None]:
    """Split a channel name into its queue and its local part.

    The queue is what capacity is counted on: the whole of a normal name (its local part is None), the part of a
    process-specific name up to and including the `!`.
    """
    queue, mark, local = name.partition("!")
    return (queue + mark, local) if mark else (name, None)


def queue_of(name: str) -> str:
    """Return the part of a channel name that capacity is counted on; see `split`."""
    return split(name)[0]


@lru_cache(KNOWN_NAMES)
def client_of(name: str) -> str:
    """Return the client part of a process-specific name, `client` of `prefix.client!local`; "" for a normal one."""
    queue, mark, _ = name.partition("!")
    return queue.rpartition(".")[2] if mark else ""


def task_channel(backend: str, queue: str) -> str:
    """Return what the workers of a queue of tasks listen to."""
    return f"{TASKS}{backend}/{queue}"
