import uuid

from django.db import models


class OutboxEvent(models.Model):
    """A row of the outbox table, which walrelay makes and migrates: managed is False."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    event_type = models.TextField()
    source = models.TextField()
    subject = models.TextField(null=True)
    data = models.JSONField(null=True)
    extensions = models.JSONField(null=True)
    partition_key = models.TextField(null=True)
    scheduled_at = models.DateTimeField(null=True)
    max_retries = models.IntegerField(null=True)

    class Meta:
        db_table = "outbox"
        managed = False


class HandledEvent(models.Model):
    """What a handler has handled: an event that comes again takes no effect."""

    handler = models.CharField(max_length=64)
    key = models.TextField()
    handled_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["handler", "key"], name="walrelay_handled_once")]
