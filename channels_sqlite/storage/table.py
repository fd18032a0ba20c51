"""What the classes with the statements have in common."""

from __future__ import annotations

import sqlite3

__all__ = ["INFINITY_SQL", "Table"]

INFINITY_SQL = "9e999"


class Table:
    """Statements on one connection, for the layer with this `prefix`."""

    def __init__(self, connection: sqlite3.Connection, prefix: str) -> None:
        self._execute = connection.execute
        self._connection = connection
        self._prefix = prefix
