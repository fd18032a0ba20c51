"""Keeps the layer's tables in the layer's databases, and everybody else's out of them."""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS
from django.db.models import Model

from channels_sqlite.channel_layers import layer_aliases

__all__ = ["ChannelsRouter"]

APP_LABEL = "channels_sqlite"


class ChannelsRouter:
    """Answers for this app's models and for the aliases that its layers use; has no opinion on anything else."""

    def db_for_read(self, model: type[Model], **hints: object) -> str | None:
        """Send this app's models to the first layer's database."""
        return _first_alias() if model._meta.app_label == APP_LABEL else None

    def db_for_write(self, model: type[Model], **hints: object) -> str | None:
        """Send this app's models to the first layer's database."""
        return _first_alias() if model._meta.app_label == APP_LABEL else None

    def allow_relation(self, obj1: Model, obj2: Model, **hints: object) -> bool | None:
        """Leave relations to others; this app's models have none."""
        return None

    def allow_migrate(self, db: str, app_label: str, **hints: object) -> bool | None:
        """Put this app's tables into its layers' databases alone, and nothing else into those.

        A layer may use "default" too; that database then keeps everything else it holds.
        """
        aliases = layer_aliases()
        if app_label == APP_LABEL:
            return db in aliases
        return False if db in aliases and db != DEFAULT_DB_ALIAS else None


def _first_alias() -> str | None:
    return next(iter(layer_aliases()), None)
