"""Events with Django: an unmanaged model of the outbox table, and transaction.atomic."""

import os
import time
import uuid
from datetime import timedelta
from urllib.parse import unquote, urlsplit

import django
from django.conf import settings

url = urlsplit(os.environ["DATABASE_URL"])
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(url.path[1:]),
            "USER": unquote(url.username or ""),
            "PASSWORD": unquote(url.password or ""),
            "HOST": url.hostname,
            "PORT": url.port,
        }
    },
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.db import connection, models, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402


class OutboxEvent(models.Model):
    """walrelay makes and migrates the table: managed is False."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    event_type = models.TextField()
    source = models.TextField(default="/orders")
    subject = models.TextField(null=True)
    data = models.JSONField(null=True)
    partition_key = models.TextField(null=True)
    scheduled_at = models.DateTimeField(null=True)
    max_retries = models.IntegerField(null=True)

    class Meta:
        app_label = "walrelay"
        db_table = "outbox"
        managed = False

    def _status(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT state, last_error FROM walrelay.event_status(%s::text)", [str(self.id)])
            return cursor.fetchone()

    @property
    def status(self):
        return self._status()[0]

    @property
    def last_error(self):
        return self._status()[1]


class Order(models.Model):
    customer = models.TextField()

    class Meta:
        app_label = "shop"
        db_table = "orders_django"


with connection.cursor() as cursor:  # a migration of the application
    cursor.execute("CREATE TABLE IF NOT EXISTS orders_django (id bigserial PRIMARY KEY, customer text NOT NULL)")

with transaction.atomic():
    order = Order.objects.create(customer="customer-8")
    event = OutboxEvent.objects.create(
        event_type="order.placed", subject="django", data={"order": order.id}, partition_key="customer-8", max_retries=5
    )

try:
    with transaction.atomic():
        Order.objects.create(customer="nobody")
        OutboxEvent.objects.create(event_type="order.never", subject="django")
        raise RuntimeError("the order is not taken")
except RuntimeError:
    pass

OutboxEvent.objects.create(event_type="order.reminder", subject="django", scheduled_at=timezone.now() + timedelta(seconds=1))

for _ in range(100):
    if event.status == "published":
        break
    time.sleep(0.1)
print(event.id, event.status)
