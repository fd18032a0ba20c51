from django.db import migrations, models

KINDS = [
    (0, "normal channel"),
    (1, "process-specific channel"),
    (2, "group"),
    (3, "membership change"),
    (4, "flush"),
    (6, "group with history"),
]


class Migration(migrations.Migration):
    dependencies = [("channels_sqlite", "0005_tasks")]

    operations = [
        migrations.CreateModel(
            name="HistoryEpoch",
            fields=[
                ("prefix", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("epoch", models.CharField(help_text="16 hexadecimal digits", max_length=16)),
                ("place", models.CharField(help_text="boot, device and inode where it began", max_length=200)),
                ("first", models.BigIntegerField(help_text="the least id of a position that says what was missed")),
            ],
        ),
        migrations.CreateModel(
            name="HistoryFloor",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("prefix", models.CharField(max_length=100)),
                ("group_name", models.CharField(max_length=100)),
                (
                    "floor",
                    models.BigIntegerField(
                        help_text="the largest id of a message of the group that is not kept any more"
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["prefix", "floor"], name="channels_sqlite_floors")],
                "constraints": [
                    models.UniqueConstraint(fields=("prefix", "group_name"), name="channels_sqlite_floor_of")
                ],
            },
        ),
        migrations.AddField(
            model_name="scheduled",
            name="history",
            field=models.BooleanField(
                db_default=True, default=True, help_text="whether a group with history keeps it once it is sent"
            ),
        ),
        migrations.AddIndex(
            model_name="message",
            index=models.Index(
                condition=models.Q(("kind", 6), ("state", 2)),
                fields=["prefix", "queue", "id", "created_at"],
                name="channels_sqlite_kept",
            ),
        ),
        # Words alone: nothing changes in the database.
        migrations.AlterField(model_name="message", name="kind", field=models.SmallIntegerField(choices=KINDS)),
        migrations.AlterField(model_name="scheduled", name="kind", field=models.SmallIntegerField(choices=KINDS)),
        migrations.AlterField(
            model_name="message",
            name="state",
            field=models.SmallIntegerField(
                choices=[(0, "waiting"), (1, "taken, expired or no longer kept"), (2, "logged")]
            ),
        ),
        migrations.AlterField(
            model_name="message",
            name="local",
            field=models.CharField(
                help_text="what follows the ! of a process-specific channel; of a group, the members that do not get "
                "it; of a normal channel in a group with history, @ and the id of what is kept",
                max_length=100,
                null=True,
            ),
        ),
    ]
