"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["ChannelsSqliteConfig"]


class ChannelsSqliteConfig(AppConfig):
    """Registers the models and their migrations; the layer itself needs no app registry."""

    name = "channels_sqlite"
    verbose_name = "Channels (SQLite)"
    default_auto_field = "django.db.models.BigAutoField"
