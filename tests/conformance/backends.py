"""The layers that the tests compare, and the two faces that a layer has: coroutines, and the sync facade."""

import enum
import uuid
from dataclasses import dataclass
from typing import Any

import pytest

__all__ = [
    "AS_LAYER",
    "AT_ONCE",
    "BACKENDS",
    "BY_OUR_CLOCK",
    "IN_MEMORY",
    "OURS",
    "OURS_ALONE",
    "REDIS",
    "SUBJECTS",
    "Face",
    "Subject",
    "config_of",
    "only",
]

OURS = "sqlite"
IN_MEMORY = "in-memory"
REDIS = "redis"

BACKENDS = {
    OURS: "channels_sqlite.layers.SqliteChannelLayer",
    IN_MEMORY: "channels.layers.InMemoryChannelLayer",
    REDIS: "channels_redis.core.RedisChannelLayer",
}
"""Their names in the ids of tests, and BACKEND."""


class Face(enum.Enum):
    """How a layer is called."""

    LAYER = "layer"
    """Its own methods are awaited."""

    FACADE = "facade"
    """Threads call those of `SyncChannelLayer`."""


@dataclass(frozen=True)
class Subject:
    """A layer and how it is called."""

    backend: str
    face: Face

    def __str__(self) -> str:
        return f"{self.backend}-{self.face.value}"


AS_LAYER = [Subject(backend, Face.LAYER) for backend in (OURS, IN_MEMORY)]
"""Channels' in-memory layer is what ours is compared with. Redis is here for the facade over it, not by itself."""

SUBJECTS = [*AS_LAYER, *(Subject(backend, Face.FACADE) for backend in BACKENDS)]

AT_ONCE = [*AS_LAYER, Subject(OURS, Face.FACADE)]
"""Where several calls may wait at once. Two threads over another layer have two event loops, while the queues of the
in-memory layer and the locks of channels_redis belong to one: what fails there fails by chance."""

OURS_ALONE = [Subject(OURS, face) for face in Face]
"""What no other layer has, in detail; that they have nothing of it is one of the `differences`."""

BY_OUR_CLOCK = [subject for subject in SUBJECTS if subject.backend != REDIS]
"""Where messages expire by a clock that a test can set. That of the Redis server is out of reach."""


def only(subjects: list[Subject]) -> pytest.MarkDecorator:
    """Mark what cannot be asked of all SUBJECTS."""
    return pytest.mark.subjects(subjects)


def config_of(backend: str, config: dict[str, Any], *, database: str, redis_port: int | None) -> dict[str, Any]:
    """The whole CONFIG for what a test wants of it."""
    if backend == OURS:
        return {"database": database, **config}
    if backend == REDIS:
        # A prefix of its own keeps each test apart from what others have left in the server.
        return {"hosts": [("127.0.0.1", redis_port)], "prefix": uuid.uuid4().hex, **config}
    return config
