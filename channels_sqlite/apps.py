"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["ChannelsSqliteConfig"]


class ChannelsSqliteConfig(AppConfig):
    """Registers the models, their migrations and the system checks; the layer itself needs no app registry."""

    name = "channels_sqlite"
    verbose_name = "Channels (SQLite)"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from channels_sqlite.checks import register_checks

        register_checks()
