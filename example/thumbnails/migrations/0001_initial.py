import django.utils.timezone
from django.db import migrations, models

import thumbnails.models

STATES = [("waiting", "Waiting"), ("working", "Working"), ("done", "Done"), ("failed", "Failed")]


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Job",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=100, help_text="the file's name where it came from")),
                ("picture", models.FileField(upload_to=thumbnails.models.new_path)),
                ("size_bytes", models.PositiveIntegerField()),
                ("width", models.PositiveIntegerField()),
                ("height", models.PositiveIntegerField()),
                ("state", models.CharField(max_length=10, choices=STATES, default="waiting")),
                ("thumbnails", models.JSONField(default=list)),
                ("error", models.CharField(max_length=200, blank=True)),
                ("worker_pid", models.PositiveIntegerField(null=True)),
                ("revision", models.PositiveIntegerField(default=1, help_text="counts changes")),
                ("changed_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
        ),
    ]
