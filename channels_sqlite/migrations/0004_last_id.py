from typing import Any

from django.db import migrations, models

from channels_sqlite.fields import RowIdField

# The largest id that AUTOINCREMENT has given: its row may be gone.
KEEP = """
    INSERT INTO channels_sqlite_lastid (id, last)
    SELECT 1, seq FROM sqlite_sequence WHERE name = 'channels_sqlite_message'
"""
# The way back: AUTOINCREMENT goes on from the largest id.
GIVE_BACK = (
    "DELETE FROM sqlite_sequence WHERE name = 'channels_sqlite_message'",
    """
    INSERT INTO sqlite_sequence (name, seq)
    SELECT 'channels_sqlite_message', ifnull(max(id), 0)
    FROM (SELECT id FROM channels_sqlite_message UNION ALL SELECT last FROM channels_sqlite_lastid)
    """,
)


def keep(_: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "sqlite":
        schema_editor.execute(KEEP)


def give_back(_: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "sqlite":
        for statement in GIVE_BACK:
            schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("channels_sqlite", "0003_scheduled")]

    operations = [
        migrations.CreateModel(
            name="LastId",
            fields=[
                ("id", models.IntegerField(primary_key=True, serialize=False)),
                ("last", models.BigIntegerField(help_text="the largest id that a message ever had")),
            ],
        ),
        migrations.RunPython(keep, give_back),
        migrations.AlterField(model_name="message", name="id", field=RowIdField(primary_key=True, serialize=False)),
    ]
