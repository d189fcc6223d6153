"""Events with psycopg 3: an INSERT in the transaction that you have."""

import os
import time
from datetime import datetime, timedelta, timezone

import psycopg
from psycopg.types.json import Jsonb

PUBLISH = """
    INSERT INTO public.outbox (event_type, source, subject, data, partition_key, scheduled_at)
    VALUES (%(type)s, '/orders', 'psycopg3', %(data)s, %(key)s, %(at)s)
    RETURNING id
"""


def publish(conn, event_type, data, key=None, at=None):
    """Writes an event into the transaction of the connection, and returns its id."""
    row = conn.execute(PUBLISH, {"type": event_type, "data": Jsonb(data), "key": key, "at": at}).fetchone()
    return row[0]


with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as conn:
    conn.execute("CREATE TABLE IF NOT EXISTS orders_psycopg3 (id serial PRIMARY KEY, customer text)")

    with conn.transaction():
        number = conn.execute("INSERT INTO orders_psycopg3 (customer) VALUES ('customer-8') RETURNING id").fetchone()[0]
        placed = publish(conn, "order.placed", {"order": number}, key="customer-8")

    try:
        with conn.transaction():
            conn.execute("INSERT INTO orders_psycopg3 (customer) VALUES ('nobody')")
            publish(conn, "order.never", {})
            raise RuntimeError("the order is not taken")
    except RuntimeError:
        pass

    publish(conn, "order.reminder", {"order": number}, at=datetime.now(timezone.utc) + timedelta(seconds=1))

    for _ in range(100):
        state = conn.execute("SELECT state FROM walrelay.event_status(%s::text)", [str(placed)]).fetchone()[0]
        if state == "published":
            break
        time.sleep(0.1)
    print(placed, state)
