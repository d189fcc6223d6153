// Events with node-postgres: an INSERT in the transaction that you have.

import pg from 'pg'

const client = new pg.Client({ connectionString: process.env.DATABASE_URL })
await client.connect()
await client.query('CREATE TABLE IF NOT EXISTS orders_pg (id serial PRIMARY KEY, customer text)')

// Writes an event into the transaction of the client, and returns its id.
async function publish(type, data, { key = null, at = null } = {}) {
  const { rows } = await client.query(
    `INSERT INTO public.outbox (event_type, source, subject, data, partition_key, scheduled_at)
     VALUES ($1, '/orders', 'pg', $2, $3, $4) RETURNING id`,
    [type, JSON.stringify(data), key, at],
  )
  return rows[0].id
}

await client.query('BEGIN')
const { rows } = await client.query("INSERT INTO orders_pg (customer) VALUES ('customer-8') RETURNING id")
const placed = await publish('order.placed', { order: rows[0].id }, { key: 'customer-8' })
await client.query('COMMIT')

await client.query('BEGIN')
await client.query("INSERT INTO orders_pg (customer) VALUES ('nobody')")
await publish('order.never', {})
await client.query('ROLLBACK')

await publish('order.reminder', { order: rows[0].id }, { at: new Date(Date.now() + 1000) })

let state
for (let i = 0; i < 100 && state !== 'published'; i++) {
  await new Promise((resolve) => setTimeout(resolve, 100))
  state = (await client.query('SELECT state FROM walrelay.event_status($1::text)', [placed])).rows[0].state
}
console.log(placed, state)
await client.end()
