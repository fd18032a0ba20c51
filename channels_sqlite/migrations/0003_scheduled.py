from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("channels_sqlite", "0002_held_by_queue")]

    operations = [
        migrations.CreateModel(
            name="Scheduled",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("prefix", models.CharField(max_length=100)),
                (
                    "kind",
                    models.SmallIntegerField(
                        choices=[
                            (0, "normal channel"),
                            (1, "process-specific channel"),
                            (2, "group"),
                            (3, "membership change"),
                            (4, "flush"),
                        ]
                    ),
                ),
                ("name", models.CharField(help_text="channel or group", max_length=100)),
                ("excluded", models.TextField(blank=True, help_text="members of a group that do not get it")),
                ("token", models.CharField(help_text="what only the message's ticket knows", max_length=32)),
                ("created_at", models.FloatField(help_text="seconds since 1970")),
                ("due_at", models.FloatField(help_text="seconds since 1970")),
                ("expiry_s", models.FloatField(help_text="seconds from the moment when it is sent")),
                (
                    "tries",
                    models.IntegerField(help_text="how often its channel was full, or others waited before it there"),
                ),
                ("tried_at", models.FloatField(help_text="when that was so the last time that counts; 0: never")),
                ("payload", models.BinaryField()),
            ],
            options={
                "verbose_name_plural": "scheduled",
                "indexes": [
                    models.Index(
                        condition=models.Q(("tries", 0)), fields=["prefix", "due_at", "id"], name="channels_sqlite_due"
                    ),
                    models.Index(
                        condition=models.Q(("tries__gt", 0)),
                        fields=["prefix", "name", "due_at", "id"],
                        name="channels_sqlite_held_up",
                    ),
                ],
            },
        ),
        # Words alone: nothing changes in the database.
        migrations.AlterField(
            model_name="message",
            name="local",
            field=models.CharField(
                help_text="what follows the ! of a process-specific channel; of a group, the members that do not get it",
                max_length=100,
                null=True,
            ),
        ),
    ]
