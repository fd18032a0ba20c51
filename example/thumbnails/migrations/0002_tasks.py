import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    """What is under way is the task's to know. Jobs from before have none, and are handed over as forgotten ones."""

    dependencies = [("thumbnails", "0001_initial")]
    operations = [
        migrations.RemoveField("job", "state"),
        migrations.RemoveField("job", "worker_pid"),
        migrations.RemoveField("job", "revision"),
        migrations.RemoveField("job", "changed_at"),
        migrations.AddField(
            "job",
            "task",
            models.CharField(max_length=64, blank=True, help_text="the id of the latest task; see receivers.py"),
        ),
        migrations.AddField("job", "created_at", models.DateTimeField(default=django.utils.timezone.now)),
        migrations.AlterField(
            "job",
            "error",
            models.CharField(max_length=200, blank=True, help_text="why the latest start failed, for its sender"),
        ),
    ]
