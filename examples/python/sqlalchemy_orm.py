"""Events with SQLAlchemy: a model of the outbox table, added to the session."""

import os
import time
import uuid
from datetime import datetime, timedelta, timezone

from sqlalchemy import Column, DateTime, Integer, Text, create_engine, text
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.orm import Session, declarative_base

Base = declarative_base()


class OutboxEvent(Base):
    """The columns that this application gives; walrelay made the table."""

    __tablename__ = "outbox"
    __table_args__ = {"schema": "public"}

    id = Column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    event_type = Column(Text, nullable=False)
    source = Column(Text, nullable=False, default="/orders")
    subject = Column(Text)
    # Without none_as_null, None would be the payload null.
    data = Column(JSONB(none_as_null=True))
    partition_key = Column(Text)
    scheduled_at = Column(DateTime(timezone=True))


class Order(Base):
    __tablename__ = "orders_sqlalchemy"

    id = Column(Integer, primary_key=True)
    customer = Column(Text)


url = os.environ["DATABASE_URL"].replace("postgres://", "postgresql+psycopg2://", 1)
engine = create_engine(url)
Base.metadata.create_all(engine, tables=[Order.__table__])

with Session(engine) as session, session.begin():
    order = Order(customer="customer-8")
    session.add(order)
    session.flush()
    event = OutboxEvent(event_type="order.placed", subject="sqlalchemy", data={"order": order.id}, partition_key="customer-8")
    session.add(event)
    session.flush()
    placed = event.id

with Session(engine) as session:
    session.add(Order(customer="nobody"))
    session.add(OutboxEvent(event_type="order.never", subject="sqlalchemy"))
    session.flush()
    session.rollback()

with Session(engine) as session, session.begin():
    later = datetime.now(timezone.utc) + timedelta(seconds=1)
    session.add(OutboxEvent(event_type="order.reminder", subject="sqlalchemy", scheduled_at=later))

with engine.connect() as conn:
    for _ in range(100):
        state = conn.execute(text("SELECT state FROM walrelay.event_status(CAST(:id AS text))"), {"id": str(placed)}).scalar()
        if state == "published":
            break
        time.sleep(0.1)
print(placed, state)
