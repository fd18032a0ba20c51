from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("channels_sqlite", "0001_initial")]

    operations = [
        migrations.AlterField(
            model_name="process",
            name="held",
            field=models.TextField(
                default="{}",
                help_text="messages read from the log and not yet received: JSON object of queue to number",
            ),
        ),
        # What running processes have published is a number; they publish anew within a second.
        migrations.RunSQL(
            "UPDATE channels_sqlite_process SET held = '{}'", "UPDATE channels_sqlite_process SET held = '0'"
        ),
    ]
