"""What a room may be called: one rule for pages and WebSockets."""

from django.urls import register_converter

__all__ = ["MAX_ROOM_LENGTH", "RoomConverter"]

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
