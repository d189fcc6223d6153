"""manage.py use_events: what an application does with events, and what comes of it."""

import time
from datetime import timedelta

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from accounts.models import Account, Note
from walrelay_django.events import CloudEvent
from walrelay_django.publishers import publisher


@transaction.atomic
def create_account(username, email):
    """The account and its event are one transaction."""
    account = Account.objects.create(username=username, email=email)
    event = publisher.publish_event(event_type="user.created", source="/accounts", data={"user_id": account.id, "email": email}, key=username)
    return account, event


class Command(BaseCommand):
    def handle(self, **_):
        _, created = create_account("ada", "ada@example.org")
        _, retried = create_account("grace", "later@example.org")
        order = publisher.publish_cloud_event(CloudEvent(event_type="order.created", source="/orders", data={"order_id": 456, "total": 99.99}, subject="Order #456"))
        publisher.publish_event("order.updated", "/orders", {"order_id": 456})
        scheduled = publisher.publish_event(
            event_type="reminder.send", source="/reminders", data={"user_id": 123}, scheduled_at=timezone.now() + timedelta(hours=1), max_retries=5
        )
        try:
            with transaction.atomic():
                publisher.publish_event("user.created", "/accounts", {"email": "nobody@example.org"})
                raise RuntimeError("rolled back")
        except RuntimeError:
            pass
        self.until("the event is published", lambda: created.status == "published")
        self.until("the other one is scheduled", lambda: scheduled.status == "scheduled" and scheduled.last_error is None)
        want = sorted([
            ("user", created.id), ("user", retried.id), ("all", created.id), ("all", retried.id), ("order", order.id), ("all", order.id),
        ])
        self.until("the handlers are called", lambda: sorted(
            (n.handler, n.event_id) for n in Note.objects.filter(event_id__in=[created.id, retried.id, order.id])) == want)
        self.until("every event is there once", lambda: Note.objects.filter(handler="all").count() == 4 and Note.objects.filter(handler="order").count() == 2)
        for note in Note.objects.order_by("id"):
            self.stdout.write(f"{note.handler}: {note.text}")

    def until(self, what, holds):
        deadline = time.monotonic() + 30
        while not holds():
            if time.monotonic() > deadline:
                raise CommandError(f"not within 30 s: {what}; the notes are {list(Note.objects.values_list('handler', 'text'))}")
            time.sleep(0.1)
