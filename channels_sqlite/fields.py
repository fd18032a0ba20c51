"""The id of a message."""

from __future__ import annotations

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["RowIdField"]


class RowIdField(models.BigAutoField):  # type: ignore[type-arg]  # generic in its stubs alone
    """An id that SQLite gives a row, without AUTOINCREMENT, which writes a page more at each commit.

    The layer itself sees to it that ids never come back; see `storage.ids`.
    """

    def db_type_suffix(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return what follows the type in the table's definition."""
        return None if connection.vendor == "sqlite" else super().db_type_suffix(connection)
