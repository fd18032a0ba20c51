"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate

__all__ = ["ChannelsSqliteConfig"]


class ChannelsSqliteConfig(AppConfig):
    """Registers the models, their migrations and the system checks; the layer itself needs no app registry."""

    name = "channels_sqlite"
    verbose_name = "Channels (SQLite)"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and what follows a migrate."""
        from channels_sqlite.checks import register_checks
        from channels_sqlite.storage.history import raise_floors_of_what_is_deleted
        from channels_sqlite.storage.ids import keep_ids_from_coming_back

        register_checks()
        post_migrate.connect(keep_ids_from_coming_back, sender=self)
        post_migrate.connect(raise_floors_of_what_is_deleted, sender=self)
