"""What a room may be called: one rule for pages, WebSockets and groups."""

from django.urls import register_converter

__all__ = ["MAX_ROOM_LENGTH", "group_of"]

MAX_ROOM_LENGTH = 40


class RoomConverter:
    """The path part ``<room:...>``. All its characters are allowed in the name of a channel-layer group."""

    regex = f"[A-Za-z0-9_-]{{1,{MAX_ROOM_LENGTH}}}"

    def to_python(self, value: str) -> str:
        """Return the room's name as the URL has it."""
        return value

    def to_url(self, value: str) -> str:
        """Return the room's name as the URL shall have it."""
        return value


register_converter(RoomConverter, "room")


def group_of(room: str) -> str:
    """Return the name of the group that the pages of a room belong to."""
    return f"chat.{room}"
