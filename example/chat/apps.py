"""The chat app."""

from django.apps import AppConfig

__all__ = ["ChatConfig"]


class ChatConfig(AppConfig):
    """Rooms, their pages and their WebSocket."""

    name = "chat"
