"""Events as an application publishes and handles them."""

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Optional

from django.db import connections, router


@dataclass
class CloudEvent:
    """What is published: a CloudEvents 1.0 event."""

    event_type: str
    source: str
    data: Any = None
    subject: Optional[str] = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    extensions: dict = field(default_factory=dict)
    # Events of one key keep their order.
    key: Optional[str] = None


@dataclass
class Event(CloudEvent):
    """An event that was published, or that a handler gets."""

    time: Optional[datetime] = None
    # How often the handler was called for it, from 1.
    attempt: int = 0

    @property
    def status(self) -> str:
        """What has become of it: pending, scheduled, retrying, held, failed, published …"""
        return self._ask("state")

    @property
    def last_error(self) -> Optional[str]:
        return self._ask("last_error")

    def _ask(self, column):
        from .models import OutboxEvent

        with connections[router.db_for_read(OutboxEvent)].cursor() as cursor:
            cursor.execute(f"SELECT {column} FROM walrelay.event_status(%s::text)", [str(self.id)])
            return cursor.fetchone()[0]
