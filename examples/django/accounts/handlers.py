"""The app's handlers; outbox_worker finds the module by its name."""

from walrelay_django.registry import event_registry

from .models import Note


@event_registry.register("user.created")
def handle_user_created(event):
    if event.attempt == 1 and event.data["email"].startswith("later"):
        raise RuntimeError("the mail server is not there yet")  # it is tried again
    Note.objects.create(handler="user", event_id=event.id, text=f"user created: {event.data['email']}")


@event_registry.register("order.created")
@event_registry.register("order.updated")
def handle_order_events(event):
    Note.objects.create(handler="order", event_id=event.id, text=f"{event.event_type}: {event.data['order_id']}")


@event_registry.register()
def log_all_events(event):
    Note.objects.create(handler="all", event_id=event.id, text=f"{event.event_type} from {event.source}")
