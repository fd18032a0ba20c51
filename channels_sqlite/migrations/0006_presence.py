from django.db import migrations, models

from channels_sqlite.fields import RowIdField


class Migration(migrations.Migration):
    dependencies = [
        ("channels_sqlite", "0005_tasks"),
    ]

    operations = [
        # Words alone: nothing changes in the database.
        migrations.AlterField(
            model_name="message",
            name="kind",
            field=models.SmallIntegerField(
                choices=[
                    (0, "normal channel"),
                    (1, "process-specific channel"),
                    (2, "group"),
                    (3, "membership change"),
                    (4, "flush"),
                    (5, "presence change"),
                ]
            ),
        ),
        migrations.AlterField(
            model_name="message",
            name="local",
            field=models.CharField(
                help_text="what follows the ! of a process-specific channel; of a group, the members that do not get it; of a normal channel, the group whose presence a message tells of",
                max_length=100,
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="scheduled",
            name="kind",
            field=models.SmallIntegerField(
                choices=[
                    (0, "normal channel"),
                    (1, "process-specific channel"),
                    (2, "group"),
                    (3, "membership change"),
                    (4, "flush"),
                    (5, "presence change"),
                ]
            ),
        ),
        migrations.CreateModel(
            name="Presence",
            fields=[
                ("id", RowIdField(primary_key=True, serialize=False)),
                ("prefix", models.CharField(max_length=100)),
                ("group_name", models.CharField(max_length=100)),
                ("client", models.CharField(blank=True, max_length=100)),
                ("channel", models.CharField(max_length=100)),
                (
                    "key",
                    models.CharField(
                        blank=True, help_text='who is there; "" for a channel that watches', max_length=200
                    ),
                ),
                ("turn", models.BigIntegerField(help_text="order in which the channels of the key have joined")),
                ("since", models.FloatField(help_text="when the key came, in seconds since 1970")),
                ("heard_id", models.BigIntegerField(help_text="id of the last message that its list took in already")),
                (
                    "expires_at",
                    models.FloatField(
                        help_text="seconds since 1970, or null: until it leaves; of a member, not before its membership",
                        null=True,
                    ),
                ),
                ("info", models.BinaryField()),
            ],
            options={
                "verbose_name_plural": "presences",
                "indexes": [
                    models.Index(fields=["prefix", "group_name", "key", "turn"], name="channels_sqlite_attendance"),
                    models.Index(fields=["prefix", "key", "group_name"], name="channels_sqlite_whereabouts"),
                    models.Index(
                        condition=models.Q(("expires_at__isnull", False)),
                        fields=["prefix", "expires_at"],
                        name="channels_sqlite_presence_ends",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("client", "prefix", "group_name", "channel"), name="channels_sqlite_attendee"
                    )
                ],
            },
        ),
    ]
