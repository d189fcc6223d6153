// Events with Drizzle.

import { drizzle } from 'drizzle-orm/node-postgres'
import { jsonb, pgTable, serial, text, timestamp, uuid } from 'drizzle-orm/pg-core'
import { sql } from 'drizzle-orm'
import pg from 'pg'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL })
const db = drizzle(pool)

const orders = pgTable('orders_drizzle', { id: serial('id').primaryKey(), customer: text('customer') })
// drizzle-kit leaves the table alone with tablesFilter: ['!outbox'] and schemaFilter.
const outbox = pgTable('outbox', {
  id: uuid('id').primaryKey().defaultRandom(),
  eventType: text('event_type').notNull(),
  source: text('source').notNull(),
  subject: text('subject'),
  data: jsonb('data'),
  partitionKey: text('partition_key'),
  scheduledAt: timestamp('scheduled_at', { withTimezone: true }),
})

await db.execute(sql`CREATE TABLE IF NOT EXISTS orders_drizzle (id serial PRIMARY KEY, customer text)`)

// Writes an event into the transaction, and returns its id.
async function publish(tx, event) {
  const [row] = await tx.insert(outbox).values({ source: '/orders', subject: 'drizzle', ...event }).returning({ id: outbox.id })
  return row.id
}

const placed = await db.transaction(async (tx) => {
  const [order] = await tx.insert(orders).values({ customer: 'customer-8' }).returning()
  return publish(tx, { eventType: 'order.placed', data: { order: order.id }, partitionKey: 'customer-8' })
})

await db
  .transaction(async (tx) => {
    await tx.insert(orders).values({ customer: 'nobody' })
    await publish(tx, { eventType: 'order.never' })
    throw new Error('the order is not taken')
  })
  .catch(() => {})

await publish(db, { eventType: 'order.reminder', scheduledAt: new Date(Date.now() + 1000) })

let state
for (let i = 0; i < 100 && state !== 'published'; i++) {
  await new Promise((resolve) => setTimeout(resolve, 100))
  state = (await db.execute(sql`SELECT state FROM walrelay.event_status(${placed}::text)`)).rows[0].state
}
console.log(placed, state)
await pool.end()
