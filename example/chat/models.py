"""What the chat keeps: that a room exists. Messages pass through the channel layer and are not kept."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from typing_extensions import override

from chat.names import MAX_ROOM_LENGTH

__all__ = ["Room"]


ROOMS_SHOWN = 50


class Room(models.Model):
    """A room that somebody has entered."""

    name = models.CharField(max_length=MAX_ROOM_LENGTH, unique=True)
    entered_at = models.DateTimeField(db_index=True, help_text="when somebody last came in")

    @override
    def __str__(self) -> str:
        """Return the room's name."""
        return self.name

    @classmethod
    def latest(cls) -> models.QuerySet[Room]:
        """Return the rooms that the list shows, the latest first."""
        return cls.objects.order_by("-entered_at")[:ROOMS_SHOWN]

    @classmethod
    async def aentered(cls, name: str) -> None:
        """Note that somebody came into the room ``name``, which need not exist yet."""
        await cls.objects.aupdate_or_create(name=name, defaults={"entered_at": timezone.now()})
