import uuid

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="OutboxEvent",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("event_type", models.TextField()),
                ("source", models.TextField()),
                ("subject", models.TextField(null=True)),
                ("data", models.JSONField(null=True)),
                ("extensions", models.JSONField(null=True)),
                ("partition_key", models.TextField(null=True)),
                ("scheduled_at", models.DateTimeField(null=True)),
                ("max_retries", models.IntegerField(null=True)),
            ],
            options={"db_table": "outbox", "managed": False},
        ),
        migrations.CreateModel(
            name="HandledEvent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("handler", models.CharField(max_length=64)),
                ("key", models.TextField()),
                ("handled_at", models.DateTimeField(auto_now_add=True, db_index=True)),
            ],
        ),
        migrations.AddConstraint(
            model_name="handledevent",
            constraint=models.UniqueConstraint(fields=("handler", "key"), name="walrelay_handled_once"),
        ),
    ]
