"""Publishing: a row of the outbox table, in the transaction that is open."""

from .events import CloudEvent, Event
from .models import OutboxEvent


class Publisher:
    def publish_event(self, event_type, source, data=None, *, subject=None, scheduled_at=None, max_retries=None, key=None, extensions=None):
        """Publish an event when the transaction commits; not before scheduled_at."""
        event = CloudEvent(event_type, source, data, subject=subject, key=key, extensions=extensions or {})
        return self.publish_cloud_event(event, scheduled_at=scheduled_at, max_retries=max_retries)

    def publish_cloud_event(self, event, *, scheduled_at=None, max_retries=None):
        OutboxEvent.objects.create(
            id=event.id,
            event_type=event.event_type,
            source=event.source,
            subject=event.subject,
            data=event.data,
            extensions=event.extensions or None,
            partition_key=event.key,
            scheduled_at=scheduled_at,
            max_retries=max_retries,
        )
        return Event(event.event_type, event.source, event.data, event.subject, event.id, event.extensions, event.key)


publisher = Publisher()
