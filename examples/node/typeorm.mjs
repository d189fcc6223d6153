// Events with TypeORM: an entity of the outbox table that synchronization leaves alone.

import 'reflect-metadata'
import { DataSource, EntitySchema } from 'typeorm'

const Order = new EntitySchema({
  name: 'Order',
  tableName: 'orders_typeorm',
  columns: { id: { type: 'integer', primary: true, generated: true }, customer: { type: 'text' } },
})

const OutboxEvent = new EntitySchema({
  name: 'OutboxEvent',
  tableName: 'outbox',
  schema: 'public',
  synchronize: false, // walrelay init makes the table
  columns: {
    id: { type: 'uuid', primary: true, generated: 'uuid' },
    event_type: { type: 'text' },
    source: { type: 'text' },
    subject: { type: 'text', nullable: true },
    data: { type: 'jsonb', nullable: true },
    partition_key: { type: 'text', nullable: true },
    scheduled_at: { type: 'timestamptz', nullable: true },
  },
})

const db = new DataSource({ type: 'postgres', url: process.env.DATABASE_URL, entities: [Order, OutboxEvent] })
await db.initialize()
await db.query('CREATE TABLE IF NOT EXISTS orders_typeorm (id serial PRIMARY KEY, customer text)')

const publish = (manager, event) => manager.save(OutboxEvent, { source: '/orders', subject: 'typeorm', ...event })

const placed = await db.transaction(async (manager) => {
  const order = await manager.save(Order, { customer: 'customer-8' })
  return publish(manager, { event_type: 'order.placed', data: { order: order.id }, partition_key: 'customer-8' })
})

await db
  .transaction(async (manager) => {
    await manager.save(Order, { customer: 'nobody' })
    await publish(manager, { event_type: 'order.never' })
    throw new Error('the order is not taken')
  })
  .catch(() => {})

await publish(db.manager, { event_type: 'order.reminder', scheduled_at: new Date(Date.now() + 1000) })

let state
for (let i = 0; i < 100 && state !== 'published'; i++) {
  await new Promise((resolve) => setTimeout(resolve, 100))
  state = (await db.query('SELECT state FROM walrelay.event_status($1::text)', [placed.id]))[0].state
}
console.log(placed.id, state)
await db.destroy()
