"""Ids of messages never come back: a reader that has passed one would never see its second message.

Each message gets the id after the largest that was ever given. That is the id of the newest row, or what a trigger has
noted when the newest row was deleted, whoever did that: the layer, Django's ORM, or SQL by hand.
"""

from __future__ import annotations

from django.db import connections

__all__ = ["keep_ids_from_coming_back"]

TABLES = {"channels_sqlite_message", "channels_sqlite_lastid"}
TRIGGER = """
    CREATE TRIGGER IF NOT EXISTS channels_sqlite_newest_gone AFTER DELETE ON channels_sqlite_message
    WHEN OLD.id > ifnull((SELECT max(id) FROM channels_sqlite_message), 0)
    BEGIN
        INSERT OR REPLACE INTO channels_sqlite_lastid (id, last)
        SELECT 1, max(OLD.id, ifnull((SELECT last FROM channels_sqlite_lastid), 0));
    END
"""


def keep_ids_from_coming_back(using: str, **_: object) -> None:
    """Make the trigger in the database `using`, where the tables are; a receiver of Django's `post_migrate`.

    No migration makes it: one that changes the table of messages makes that anew, without triggers
    (https://www.sqlite.org/lang_altertable.html), and a test database may come about without migrations.
    """
    connection = connections[using]
    if connection.vendor != "sqlite" or not set(connection.introspection.table_names()) >= TABLES:
        return
    with connection.cursor() as cursor:
        cursor.execute(TRIGGER)
